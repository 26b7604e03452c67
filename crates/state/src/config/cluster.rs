//! Reads and writes an application's objects in a cluster. Makes no choices.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt};
use leeward_core::name::AppKey;
use serde_json::Value;

use super::clean::clean;
use super::object::{Id, Kind};
use super::plan::Change;

/// Why a cluster could not be read or written. All of these may pass: try again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A list or a get failed.
    #[error("cannot read {what} in namespace {namespace}: {}", crate::api_text(.source))]
    Read {
        /// What was read.
        what: &'static str,
        /// Where.
        namespace: String,
        /// What the API said.
        source: Box<kube::Error>,
    },
    /// An object was not taken.
    #[error("cannot {verb} {id} in namespace {namespace}: {}", crate::api_text(.source))]
    Write {
        /// `apply` or `delete`.
        verb: &'static str,
        /// The object.
        id: Id,
        /// Where.
        namespace: String,
        /// What the API said.
        source: Box<kube::Error>,
    },
}

fn resource(kind: Kind) -> ApiResource {
    let (group, version) = kind.api_version().split_once('/').unwrap_or(("", kind.api_version()));
    let plural = format!("{}s", kind.as_str().to_lowercase());
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind.as_str()), &plural)
}

fn api(client: &Client, namespace: &str, kind: Kind) -> Api<DynamicObject> {
    match kind {
        Kind::Namespace => Api::all_with(client.clone(), &resource(kind)),
        _ => Api::namespaced_with(client.clone(), namespace, &resource(kind)),
    }
}

/// Every object in the application's namespace that is of a kind that is carried, and the namespace itself. A namespace that does not
/// exist holds nothing.
///
/// # Errors
/// [`Error::Read`].
pub async fn fetch(client: &Client, namespace: &str) -> Result<Vec<Value>, Error> {
    let read = |what, source| Error::Read {
        what,
        namespace: namespace.to_owned(),
        source: Box::new(source),
    };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let Some(own) = namespaces
        .get_opt(namespace)
        .await
        .map_err(|source| read("Namespace", source))?
    else {
        return Ok(Vec::new());
    };
    let mut objects = vec![value(Kind::Namespace, &own)];
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Namespace) {
        let list = api(client, namespace, kind).list(&ListParams::default()).await;
        let list = list.map_err(|source| read(kind.as_str(), source))?;
        objects.extend(list.items.iter().map(|object| value(kind, object)));
    }
    Ok(objects)
}

/// As it stands in a manifest: the items of a list do not say what they are.
fn value(kind: Kind, object: &impl serde::Serialize) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".into(), kind.api_version().into());
        fields.insert("kind".into(), kind.as_str().into());
    }
    value
}

/// The names of the cluster's storage classes.
///
/// # Errors
/// [`Error::Read`].
pub async fn storage_classes(client: &Client) -> Result<BTreeSet<String>, Error> {
    let list = Api::<StorageClass>::all(client.clone())
        .list(&ListParams::default())
        .await;
    let read = |source| Error::Read {
        what: "StorageClass",
        namespace: "(all)".into(),
        source: Box::new(source),
    };
    Ok(list.map_err(read)?.items.iter().map(ResourceExt::name_any).collect())
}

/// Makes the changes of a plan, in their order, and goes on after one that fails.
///
/// Gives what failed, in the same order; drift and what is kept is left alone.
pub async fn apply(client: &Client, app: &AppKey, changes: &[Change]) -> Vec<Error> {
    let mut failed = Vec::new();
    for change in changes {
        let result = match change {
            Change::Apply(object) => apply_one(client, app, object).await,
            Change::Delete(id) => delete(client, app, id).await,
            Change::Drift { .. } | Change::Kept { .. } => Ok(()),
        };
        failed.extend(result.err());
    }
    failed
}

async fn apply_one(client: &Client, app: &AppKey, object: &Value) -> Result<(), Error> {
    let Some(id) = Id::of(object) else { return Ok(()) };
    let parameters = PatchParams::apply(leeward_api::FIELD_MANAGER).force();
    let patched = api(client, &app.namespace, id.kind)
        .patch(&id.name, &parameters, &Patch::Apply(object))
        .await;
    patched.map(drop).map_err(|source| write("apply", &id, app, source))
}

async fn delete(client: &Client, app: &AppKey, id: &Id) -> Result<(), Error> {
    match api(client, &app.namespace, id.kind)
        .delete(&id.name, &DeleteParams::default())
        .await
    {
        Err(source) if !is_not_found(&source) => Err(write("delete", id, app, source)),
        _ => Ok(()),
    }
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn write(verb: &'static str, id: &Id, app: &AppKey, source: kube::Error) -> Error {
    Error::Write {
        verb,
        id: id.clone(),
        namespace: app.namespace.clone(),
        source: Box::new(source),
    }
}

/// Tells when what would be carried from a namespace may have changed: once at the beginning, and at each change that is more than a new
/// status. Watches that end are begun again, with a growing delay. Gather bursts before acting.
pub fn changes(client: &Client, namespace: &str) -> impl Stream<Item = ()> + Send + use<> {
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Namespace);
    let watches = kinds.map(|kind| {
        let api = api(client, namespace, kind);
        let mut seen = BTreeMap::new();
        watcher(api, watcher::Config::default())
            .default_backoff()
            .filter_map(move |event| {
                let changed = event.is_ok_and(|event| is_news(&mut seen, kind, &event));
                async move { changed.then_some(()) }
            })
            .boxed()
    });
    let begin = stream::once(async {}).boxed();
    // What is told at the same time is one change: a burst, such as the first lists, costs one look at the namespace.
    stream::select_all(watches.chain([begin])).ready_chunks(4096).map(drop)
}

/// How long to gather changes before acting on them.
pub const GATHER: Duration = Duration::from_millis(200);

fn is_news(seen: &mut BTreeMap<String, u64>, kind: Kind, event: &watcher::Event<DynamicObject>) -> bool {
    match event {
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            let going = object.metadata.deletion_timestamp.is_some();
            let mut hasher = DefaultHasher::new();
            (clean(&value(kind, object)).to_string(), going).hash(&mut hasher);
            let content = hasher.finish();
            seen.insert(object.name_any(), content) != Some(content)
        }
        watcher::Event::Delete(object) => seen.remove(&object.name_any()).is_some(),
        // What went away while the watch was down is only seen by reading everything again.
        watcher::Event::InitDone => true,
        watcher::Event::Init => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use watcher::Event;

    fn claim(status: &str, more: Value) -> DynamicObject {
        let mut object = json!({
            "metadata": { "name": "data", "resourceVersion": status, "annotations": { "pv.kubernetes.io/bind-completed": status } },
            "status": { "phase": status },
        });
        json_patch::merge(&mut object, &more);
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn only_what_would_be_carried_is_news() {
        let mut seen = BTreeMap::new();
        for (name, event, news) in [
            ("the first list begins", Event::Init, false),
            (
                "an object that was there",
                Event::InitApply(claim("Pending", json!({}))),
                true,
            ),
            ("the first list ends", Event::InitDone, true),
            ("a new status", Event::Apply(claim("Bound", json!({}))), false),
            (
                "a new label",
                Event::Apply(claim("Bound", json!({ "metadata": { "labels": { "a": "b" } } }))),
                true,
            ),
            (
                "the same again",
                Event::Apply(claim("Bound", json!({ "metadata": { "labels": { "a": "b" } } }))),
                false,
            ),
            (
                "it is going",
                Event::Apply(claim(
                    "Bound",
                    json!({ "metadata": {
                    "labels": { "a": "b" }, "deletionTimestamp": "2026-11-22T15:00:00Z",
                } }),
                )),
                true,
            ),
            ("it is gone", Event::Delete(claim("Bound", json!({}))), true),
            (
                "one that was never seen is gone",
                Event::Delete(claim("Bound", json!({}))),
                false,
            ),
        ] {
            assert_eq!(is_news(&mut seen, Kind::PersistentVolumeClaim, &event), news, "{name}");
        }
    }
}
