//! What every namespace is given and gets back: the service account that its pods run as, and the certificate of the
//! authority that signed the API's own.

use std::sync::Arc;

use serde_json::{Value, json};

use super::App;
use super::collect::{call, report};
use super::object;
use super::store::{Id, Notice};

const ROOT_CA: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";

/// Gives a namespace what it has not, and puts right what was changed.
pub(super) async fn give(app: &Arc<App>, namespace: &str) {
    if app.namespace(namespace).is_none_or(|n| object::is_deleting(&n)) {
        return;
    }
    put(app, "serviceaccounts", namespace, "default", &json!({})).await;
    if let Some(certificate) = &app.root_ca {
        let fields = json!({
            "metadata": {"annotations": {DESCRIPTION: "Contains a CA bundle that can be used to verify the kube-apiserver \
                when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                guaranteed across distributions of Kubernetes clusters."}},
            "data": {"ca.crt": certificate},
        });
        put(app, "configmaps", namespace, ROOT_CA, &fields).await;
    }
}

/// After a change: the namespace may be new, or what it was given no longer so.
pub(super) async fn follow(app: &Arc<App>, notice: &Notice) {
    let Id {
        resource,
        namespace,
        name,
    } = &notice.id;
    match (&**resource, name.as_str()) {
        ("namespaces", name) => give(app, name).await,
        ("serviceaccounts", "default") | ("configmaps", ROOT_CA) => give(app, namespace).await,
        _ => {}
    }
}

async fn put(app: &Arc<App>, resource: &str, namespace: &str, name: &str, fields: &Value) {
    let Some(call) = call(app, resource, namespace, name) else {
        return;
    };
    let Some(found) = app.store.get(&call.id()) else {
        let mut new = fields.clone();
        object::metadata(&mut new).insert("name".into(), name.into());
        report(call.create(new).await.map(|_| ()));
        return;
    };
    let mut new = (*found).clone();
    for (key, value) in fields
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "metadata")
    {
        new[key] = value.clone();
    }
    if new != *found {
        report(call.update(&found, new, false).await.map(|_| ()));
    }
}
