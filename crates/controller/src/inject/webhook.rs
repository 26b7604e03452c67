//! The webhook: what the API server is told to ask, and what it is answered. Both pure; [`crate::webhook`] serves it.
//!
//! The API server asks only about pods that are being made, in namespaces with the label, and with an annotation of a gate; a webhook that is away
//! or slow holds up none of them (`failurePolicy: Ignore`), and a writer that came up without its gate meanwhile is reported. One that asks for a
//! gate in a way that cannot be kept is refused: who made it reads why in its ReplicaSet's or StatefulSet's events.

use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
        WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
};
use leeward_api::{
    FIELD_MANAGER,
    gate::{DISABLED, ENABLED, INJECT_LABEL, PREFIX},
    install::{NAME, WEBHOOK, WEBHOOK_PATH},
};
use serde_json::{Value, json};

use super::{Outcome, With, behind};

/// The name of the one webhook in the configuration.
pub const NAME_OF_HOOK: &str = "inject.leeward.dev";
/// How long the API server waits for it, in seconds.
const PATIENCE: i32 = 5;
/// What is asked and answered.
const REVIEW: (&str, &str) = ("admission.k8s.io/v1", "AdmissionReview");
/// The most bytes of a question: an object of the most that an API server keeps, twice, and what is around it.
pub const MAX_BYTES: usize = 8 << 20;

/// What the API server of a cluster is told, where Leeward is installed in this namespace. `authority` is what signed the agents' certificates, PEM
/// of one or several certificates.
pub fn configuration(namespace: &str, authority: &str) -> MutatingWebhookConfiguration {
    let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    let selects = |operator: &str, value| LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: INJECT_LABEL.into(),
            operator: operator.into(),
            values: texts(&[value]),
        }]),
        ..Default::default()
    };
    let hook = MutatingWebhook {
        name: NAME_OF_HOOK.into(),
        admission_review_versions: vec!["v1".into()],
        client_config: WebhookClientConfig {
            ca_bundle: Some(ByteString(authority.as_bytes().to_vec())),
            service: Some(ServiceReference {
                name: WEBHOOK.into(),
                namespace: namespace.into(),
                path: Some(WEBHOOK_PATH.into()),
                port: Some(443),
            }),
            url: None,
        },
        rules: Some(vec![RuleWithOperations {
            api_groups: texts(&[""]),
            api_versions: texts(&["v1"]),
            operations: texts(&["CREATE"]),
            resources: texts(&["pods"]),
            scope: Some("Namespaced".into()),
        }]),
        namespace_selector: Some(selects("In", ENABLED)),
        object_selector: Some(selects("NotIn", DISABLED)),
        match_conditions: Some(vec![MatchCondition {
            name: "asks-for-a-gate".into(),
            expression: format!(
                "has(object.metadata.annotations) && object.metadata.annotations.exists(key, key.startsWith('{PREFIX}'))"
            ),
        }]),
        match_policy: Some("Equivalent".into()),
        failure_policy: Some("Ignore".into()),
        // Another webhook may change the writer's container after this one.
        reinvocation_policy: Some("IfNeeded".into()),
        side_effects: "None".into(),
        timeout_seconds: Some(PATIENCE),
    };
    MutatingWebhookConfiguration {
        metadata: ObjectMeta {
            name: Some(WEBHOOK.into()),
            labels: Some([("app.kubernetes.io/name".to_owned(), NAME.to_owned())].into()),
            ..Default::default()
        },
        webhooks: Some(vec![hook]),
    }
}

/// A question that cannot be answered, since it is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// Something else, or of another version.
    #[error("expected an {} of {}, got {kind:?} of {version:?}", REVIEW.1, REVIEW.0)]
    Other {
        /// What it says it is.
        kind: String,
        /// And of which version.
        version: String,
    },
    /// It has no request.
    #[error("the review has no request with a uid")]
    NoRequest,
}

/// Answers a question of the API server's.
///
/// # Errors
/// When it is none.
pub fn review(body: &[u8], with: &With<'_>) -> Result<Value, Malformed> {
    let review: Value = serde_json::from_slice(body).map_err(|error| Malformed::Json(error.to_string()))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&review["apiVersion"]), text(&review["kind"]));
    if (version.as_str(), kind.as_str()) != REVIEW {
        return Err(Malformed::Other { kind, version });
    }
    let request = &review["request"];
    let uid = request["uid"]
        .as_str()
        .filter(|uid| !uid.is_empty())
        .ok_or(Malformed::NoRequest)?;
    let mut response = json!({ "uid": uid, "allowed": true });
    let is = |field: &Value, is: &str| field.as_str().unwrap_or_default() == is;
    let pods = json!({ "group": "", "version": "v1", "resource": "pods" });
    // Whoever else is asked about, by a configuration that somebody changed, has nothing to do with gates.
    if request["resource"] == pods && is(&request["subResource"], "") && is(&request["operation"], "CREATE") {
        answer(&mut response, &request["object"], with);
    }
    Ok(json!({ "apiVersion": REVIEW.0, "kind": REVIEW.1, "response": response }))
}

fn answer(response: &mut Value, pod: &Value, with: &With<'_>) {
    match behind(pod, with) {
        Ok(Outcome::NotWanted | Outcome::Already) => {}
        Ok(Outcome::Behind(placed)) => {
            let patch = json!(json_patch::diff(pod, &placed)).to_string();
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(ByteString(patch.into_bytes()));
        }
        Err(error) => {
            response["allowed"] = json!(false);
            let message = format!("{FIELD_MANAGER}: {error}");
            response["status"] = json!({ "code": 422, "reason": "Invalid", "message": message });
        }
    }
}
