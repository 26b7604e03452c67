//! What is rendered, on a real API server: it is accepted whole, its pods are within what their namespace allows, and its account may do what
//! the reference page says and nothing more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot set its stage may panic"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::{Api, Client, ResourceExt as _, discovery};
use leeward_install::{Values, render};
use leeward_testing::Cluster;
use serde_json::{Value, json};

/// An API server, and the client of a person who may do everything.
async fn real() -> Option<(Arc<Cluster>, Client)> {
    let cluster = Cluster::real().await.unwrap()?;
    let client = cluster.client().await.unwrap();
    Some((cluster, client))
}

/// The manifests as somebody reads them who is given the text.
fn manifests(values: &Values) -> Vec<Value> {
    serde_saphyr::from_multiple(&render(values).unwrap()).unwrap()
}

async fn api_of(client: &Client, object: &Value) -> Api<DynamicObject> {
    let types: TypeMeta = serde_json::from_value(object.clone()).unwrap();
    let kind = GroupVersionKind::try_from(&types).unwrap();
    let (resource, capabilities) = discovery::pinned_kind(client, &kind).await.unwrap();
    match (capabilities.scope, object["metadata"]["namespace"].as_str()) {
        (discovery::Scope::Cluster, None) => Api::all_with(client.clone(), &resource),
        (discovery::Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client.clone(), namespace, &resource),
        (scope, namespace) => panic!("{scope:?} and {namespace:?}: {object}"),
    }
}

/// Applies an object as `kubectl apply --server-side` does, which does not pass over what the server does not know.
async fn apply(client: &Client, object: &Value, dry_run: bool) -> kube::Result<DynamicObject> {
    let mut how = PatchParams::apply("kubectl").validation_strict();
    how.dry_run = dry_run;
    let name = object["metadata"]["name"].as_str().unwrap();
    api_of(client, object)
        .await
        .patch(name, &how, &Patch::Apply(object))
        .await
}

async fn install(client: &Client, values: &Values) {
    for object in manifests(values) {
        apply(client, &object, false).await.unwrap();
    }
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_accepts_every_manifest() {
    let Some((_cluster, client)) = real().await else { return };
    for values in [
        Values::default(),
        Values {
            namespace: "elsewhere".into(),
            image_pull_secret: Some("pull".into()),
            replicas: 1,
            edge_type: "NodePort".into(),
            peer_type: "ClusterIP".into(),
            ..Values::default()
        },
    ] {
        let manifests = manifests(&values);
        // Nothing can be tried in a namespace that is not there.
        apply(&client, of_kind(&manifests, "Namespace"), false).await.unwrap();
        for dry_run in [true, false, false] {
            for object in &manifests {
                let applied = apply(&client, object, dry_run).await;
                let applied = applied.unwrap_or_else(|error| panic!("{error}\n{object:#}"));
                // Of a definition the server leaves out what is empty.
                let Some(spec) = object.get("spec").filter(|_| object["kind"] != DEFINITION) else {
                    continue;
                };
                assert!(
                    contains(&applied.data["spec"], spec),
                    "{spec:#}\n{:#}",
                    applied.data["spec"]
                );
            }
        }
    }
}

/// Whether a value has all that another one has; the server adds defaults.
fn contains(all: &Value, some: &Value) -> bool {
    match (all, some) {
        (Value::Object(all), Value::Object(some)) => some
            .iter()
            .all(|(key, value)| all.get(key).is_some_and(|found| contains(found, value))),
        (Value::Array(all), Value::Array(some)) => {
            all.len() == some.len() && all.iter().zip(some).all(|(all, some)| contains(all, some))
        }
        (all, some) => all == some,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_the_deployment_is_admitted_to_its_namespace_and_a_careless_one_is_not() {
    let Some((_cluster, client)) = real().await else { return };
    let values = Values::default();
    install(&client, &values).await;
    count_nothing(&client, &values.namespace).await;
    let manifests = manifests(&values);
    let template = &of_kind(&manifests, "Deployment")["spec"]["template"];
    let pod = |name: &str, spec: &Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": {"name": name, "namespace": values.namespace, "labels": template["metadata"]["labels"]},
        })
    };
    let admitted = apply(&client, &pod("agent", &template["spec"]), false).await.unwrap();
    assert_eq!(admitted.data["spec"]["priority"], json!(2_000_000_000));
    for (name, part) in [
        ("seccomp", "/securityContext"),
        ("capabilities", "/containers/0/securityContext"),
    ] {
        let mut careless = template["spec"].clone();
        *careless.pointer_mut(part).unwrap() = json!({});
        let refused = apply(&client, &pod(name, &careless), false)
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains("violates PodSecurity \"restricted"), "{refused}");
    }
}

/// Plays the controller of quotas, without which a pod that a quota speaks of waits.
async fn count_nothing(client: &Client, namespace: &str) {
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "leeward", "namespace": namespace},
        "status": {"hard": {"pods": "100"}, "used": {"pods": "0"}},
    });
    let api = api_of(client, &quota).await;
    let how = PatchParams::apply("leeward-testing").force();
    api.patch_status("leeward", &how, &Patch::Apply(&quota)).await.unwrap();
}

const DEFINITION: &str = "CustomResourceDefinition";

type Right = (String, String, String);

/// What an account may do in a namespace, as the server says it: group, resource and verb of each right.
async fn rights(client: &Client, account: &str, of: &str, namespace: &str) -> BTreeSet<Right> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace},
    });
    let request = http::Request::post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews")
        .header("Content-Type", "application/json")
        .header("Impersonate-User", format!("system:serviceaccount:{of}:{account}"))
        .header("Impersonate-Group", "system:serviceaccounts")
        .header("Impersonate-Group", format!("system:serviceaccounts:{of}"))
        .header("Impersonate-Group", "system:authenticated")
        .body(review.to_string().into_bytes());
    let review: SelfSubjectRulesReview = client.request(request.unwrap()).await.unwrap();
    let status = review.status.unwrap();
    assert!(!status.incomplete, "{:?}", status.evaluation_error);
    let mut rights = BTreeSet::new();
    for rule in status.resource_rules {
        assert_eq!(rule.resource_names.unwrap_or_default(), [""; 0]);
        for group in rule.api_groups.unwrap() {
            for resource in rule.resources.as_ref().unwrap() {
                rights.extend(
                    rule.verbs
                        .iter()
                        .map(|verb| (group.clone(), resource.clone(), verb.clone())),
                );
            }
        }
    }
    for rule in status.non_resource_rules {
        for path in rule.non_resource_urls.unwrap() {
            rights.extend(rule.verbs.iter().map(|verb| ("URL".into(), path.clone(), verb.clone())));
        }
    }
    rights
}

/// The rights that the reference page has a line for.
fn documented() -> BTreeSet<Right> {
    let page = include_str!("../../../docs/reference/rights.md");
    let mut rights = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let columns: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [group, resources, verbs, reason] = columns[..] else {
            panic!("{line}")
        };
        assert!(reason.ends_with('.'), "{line}");
        let words = |column: &'static str| column.split(", ").map(|word| word.trim_matches('`').to_owned());
        let group = if group == "core" { "" } else { group };
        for resource in words(resources) {
            rights.extend(words(verbs).map(|verb| (group.to_owned(), resource.clone(), verb)));
        }
    }
    rights
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_may_do_what_the_reference_page_says_and_nothing_more() {
    let Some((_cluster, client)) = real().await else { return };
    let values = Values::default();
    install(&client, &values).await;
    let documented = documented();
    assert!(documented.len() > 30, "{documented:?}");
    for namespace in [&values.namespace, "kube-system"] {
        // What everybody may do who has an account.
        let everybody = rights(&client, "nobody", "elsewhere", namespace).await;
        let own = rights(&client, "leeward", &values.namespace, namespace).await;
        let more: BTreeSet<Right> = own.difference(&everybody).cloned().collect();
        assert_eq!(more, documented, "in {namespace}");
    }
    // The account is the only one of its namespace that may.
    let other = rights(&client, "default", &values.namespace, "kube-system").await;
    assert_eq!(other, rights(&client, "nobody", "elsewhere", "kube-system").await);
}

/// What the guide has a person type. No controller runs here that would end a namespace, so nobody waits for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_applies_shows_no_difference_and_removes() {
    let Some((cluster, client)) = real().await else { return };
    let kubeconfig = cluster.kubeconfig(leeward_testing::ADMIN);
    let file = kubeconfig.with_file_name("leeward.yaml");
    std::fs::write(&file, render(&Values::default()).unwrap()).unwrap();
    let kubectl = |arguments: &str| {
        let mut command = std::process::Command::new("kubectl");
        command.arg("--kubeconfig").arg(&kubeconfig).args(arguments.split(' '));
        command.arg("-f").arg(&file).env("HOME", kubeconfig.parent().unwrap());
        command.output()
    };
    let Ok(applied) = kubectl("apply --server-side") else {
        return eprintln!("skipped: kubectl is not installed");
    };
    assert!(applied.status.success() && applied.stderr.is_empty(), "{applied:?}");
    for again in [
        "apply --server-side",
        "diff --server-side",
        "apply --server-side --dry-run=server",
    ] {
        let output = kubectl(again).unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{again}: {output:?}"
        );
    }
    let removed = kubectl("delete --wait=false").unwrap();
    assert!(removed.status.success(), "{removed:?}");
    let everybody = rights(&client, "nobody", "elsewhere", "kube-system").await;
    assert_eq!(
        rights(&client, "leeward", "leeward-system", "kube-system").await,
        everybody
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_said_of_a_service_stays_through_an_upgrade() {
    let Some((_cluster, client)) = real().await else { return };
    let values = Values::default();
    install(&client, &values).await;
    let manifests = manifests(&values);
    let edge = manifests
        .iter()
        .find(|object| object["metadata"]["name"] == "leeward-edge")
        .unwrap();
    let api = api_of(&client, edge).await;
    let annotation = json!({"metadata": {"annotations": {"cloud.example/internal": "true"}}});
    let how = PatchParams {
        field_manager: Some("kubectl-annotate".into()),
        ..PatchParams::default()
    };
    api.patch("leeward-edge", &how, &Patch::Merge(&annotation))
        .await
        .unwrap();
    install(&client, &Values { replicas: 3, ..values }).await;
    let now = api.get("leeward-edge").await.unwrap();
    assert_eq!(
        now.annotations().get("cloud.example/internal").map(String::as_str),
        Some("true")
    );
}
