//! Kinds that answer a POST and keep nothing: reviews, and the binding of a pod to a node.
//!
//! Every user of a region may do everything, so a review of access always allows.

use std::sync::Arc;

use serde_json::{Value, json};

use super::auth::User;
use super::call::{Call, Outcome};
use super::object;
use super::status::Failure;

/// The answer to a POST of a kind that is not stored.
pub(crate) async fn answer(call: &Call, mut review: Value) -> Result<Outcome, Failure> {
    let kind = &call.resource.kind;
    if kind.kind == "Binding" {
        return bind(call, &review).await;
    }
    review["apiVersion"] = kind.api_version().into();
    review["kind"] = kind.kind.clone().into();
    object::metadata(&mut review);
    review["status"] = match kind.kind.as_str() {
        "SelfSubjectReview" => json!({"userInfo": shown(&call.user)}),
        "TokenReview" => match call.app.tokens.of_token(object::str_at(&review, "/spec/token")) {
            Some(user) => json!({"authenticated": true, "user": shown(user)}),
            None => json!({"user": {}}),
        },
        "SelfSubjectRulesReview" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        _ => json!({"allowed": true}),
    };
    Ok(Outcome {
        code: 201,
        object: Arc::new(review),
        warnings: Vec::new(),
    })
}

fn shown(user: &User) -> Value {
    json!({"username": user.name, "groups": user.groups})
}

/// A Binding by itself names the pod as its own name.
async fn bind(call: &Call, binding: &Value) -> Result<Outcome, Failure> {
    let pods = call.app.table().find("", "v1", "pods").cloned();
    let call = Call {
        resource: pods.ok_or_else(Failure::no_route)?,
        name: object::name(binding).to_owned(),
        ..call.clone()
    };
    call.bind(binding).await
}
