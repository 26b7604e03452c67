//! Reads and writes an application's objects in a cluster. Makes no choices.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher as _};

use futures::stream::{self, Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::scheduling::v1::PriorityClass;
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

/// The names of the cluster's priority classes.
///
/// # Errors
/// [`Error::Read`].
pub async fn priority_classes(client: &Client) -> Result<BTreeSet<String>, Error> {
    let list = Api::<PriorityClass>::all(client.clone())
        .list(&ListParams::default())
        .await;
    let read = |source| Error::Read {
        what: "PriorityClass",
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

/// What has changed in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Something that would be carried from it.
    Carried,
    /// Only what stays with an object where it is, such as whose it is and who wrote what.
    Kept,
}

/// Tells when the objects of a namespace that may be carried have changed: once at the beginning, and at each change that is more than a new
/// status. Watches that end are begun again, with a growing delay. Gather bursts before acting.
pub fn changes(client: &Client, namespace: &str) -> impl Stream<Item = News> + Send + use<> {
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Namespace);
    let watches = kinds.map(|kind| {
        let api = api(client, namespace, kind);
        let mut seen = BTreeMap::new();
        watcher(api, watcher::Config::default())
            .default_backoff()
            .filter_map(move |event| {
                let news = event.ok().and_then(|event| news(&mut seen, kind, &event));
                async move { news }
            })
            .boxed()
    });
    let begin = stream::once(async { News::Carried }).boxed();
    // What is told at the same time is one change: a burst, such as the first lists, costs one look at the namespace.
    let bursts = stream::select_all(watches.chain([begin])).ready_chunks(4096);
    bursts.map(|burst| match burst.contains(&News::Carried) {
        true => News::Carried,
        false => News::Kept,
    })
}

/// By name, of what would be carried of an object, and of all that is not its status.
type Seen = BTreeMap<String, (u64, u64)>;

fn news(seen: &mut Seen, kind: Kind, event: &watcher::Event<DynamicObject>) -> Option<News> {
    match event {
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
            let going = object.metadata.deletion_timestamp.is_some();
            let object = value(kind, object);
            let now = (
                hash(&(clean(&object).to_string(), going)),
                hash(&(without_status(&object), going)),
            );
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            match seen.insert(name, now) {
                Some(before) if before == now => None,
                Some((carried, _)) if carried == now.0 => Some(News::Kept),
                _ => Some(News::Carried),
            }
        }
        watcher::Event::Delete(object) => seen.remove(&object.name_any()).map(|_| News::Carried),
        // What went away while the watch was down is only seen by reading everything again.
        watcher::Event::InitDone => Some(News::Carried),
        watcher::Event::Init => None,
    }
}

fn hash(content: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// The object without its status and what changes with every status.
fn without_status(object: &Value) -> String {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata {
        metadata.remove("resourceVersion");
        metadata.remove("generation");
        let managers = metadata.get_mut("managedFields").and_then(Value::as_array_mut);
        if let Some(managers) = managers {
            managers.retain(|entry| entry["subresource"].as_str().is_none_or(str::is_empty));
            for entry in managers.iter_mut().filter_map(Value::as_object_mut) {
                entry.remove("time");
            }
        }
    }
    object.to_string()
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

    /// With who wrote its status.
    fn written(status: &str, by: &str) -> DynamicObject {
        let managers =
            json!([{ "manager": by, "operation": "Update", "subresource": "status", "time": "2026-11-22T15:00:00Z" }]);
        let more =
            json!({ "metadata": { "managedFields": managers, "annotations": null }, "status": { "phase": status } });
        claim("Bound", more)
    }

    #[test]
    fn a_new_status_is_no_news_and_what_would_not_be_carried_is_told_apart() {
        const CARRIED: Option<News> = Some(News::Carried);
        let mut seen = BTreeMap::new();
        for (name, event, told) in [
            ("the first list begins", Event::Init, None),
            (
                "an object that was there",
                Event::InitApply(claim("Pending", json!({}))),
                CARRIED,
            ),
            ("the first list ends", Event::InitDone, CARRIED),
            (
                "what the cluster notes on it",
                Event::Apply(claim("Bound", json!({}))),
                Some(News::Kept),
            ),
            (
                "it is noted no more",
                Event::Apply(written("Lost", "a")),
                Some(News::Kept),
            ),
            (
                "a new status, and who wrote it",
                Event::Apply(written("Bound", "b")),
                None,
            ),
            (
                "whose it is",
                Event::Apply(claim(
                    "Bound",
                    json!({ "metadata": { "labels": { "leeward.dev/app": "shop.web" } } }),
                )),
                Some(News::Kept),
            ),
            (
                "a new label",
                Event::Apply(claim("Bound", json!({ "metadata": { "labels": { "a": "b" } } }))),
                CARRIED,
            ),
            (
                "the same again",
                Event::Apply(claim("Bound", json!({ "metadata": { "labels": { "a": "b" } } }))),
                None,
            ),
            (
                "it is going",
                Event::Apply(claim(
                    "Bound",
                    json!({ "metadata": {
                    "labels": { "a": "b" }, "deletionTimestamp": "2026-11-22T15:00:00Z",
                } }),
                )),
                CARRIED,
            ),
            ("it is gone", Event::Delete(claim("Bound", json!({}))), CARRIED),
            (
                "one that was never seen is gone",
                Event::Delete(claim("Bound", json!({}))),
                None,
            ),
        ] {
            assert_eq!(news(&mut seen, Kind::PersistentVolumeClaim, &event), told, "{name}");
        }
    }
}
