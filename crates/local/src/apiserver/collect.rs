//! What goes because of something else: dependents of deleted owners, content of namespaces and definitions, old events.
//!
//! A task follows every committed change, also for what namespaces are `given`. What it does is idempotent and decided from
//! the store's present state, so at the start it looks at everything once, and a failed step is tried again at the next
//! sweep.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::auth::User;
use super::call::Call;
use super::definition::{CLEANUP, TABLE as DEFINITIONS, waits_for_names};
use super::delete::{FOREGROUND, ORPHAN, Options};
use super::request::Query;
use super::store::{EventType, Id, Notice, Object};
use super::{App, ending, given, idle, object, time};

/// How often old events go, and steps that failed are tried again.
const SWEEP: Duration = Duration::from_secs(60);
/// Age at which an event goes, seconds.
const EVENT_TTL: i64 = 3600;

/// A call of the server on itself.
pub(crate) fn call(app: &Arc<App>, resource: &str, namespace: &str, name: &str) -> Option<Call> {
    let table = app.table();
    let resource = table.by_table(resource)?.clone();
    Some(Call {
        app: app.clone(),
        user: User::local(),
        resource,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: None,
        query: Query::default(),
        // What it writes is owned as in other clusters.
        user_agent: "kube-controller-manager".into(),
        accept: String::new(),
    })
}

pub(super) fn call_for(app: &Arc<App>, id: &Id) -> Option<Call> {
    call(app, &id.resource, &id.namespace, &id.name)
}

/// Follows the store until `stop`.
pub(crate) async fn run(app: Weak<App>, mut notices: mpsc::UnboundedReceiver<Notice>, stop: CancellationToken) {
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            notice = notices.recv() => {
                let Some(notice) = notice else { return };
                let Some(app) = app.upgrade() else { return };
                follow(&app, &notice).await;
            }
            _ = sweep.tick() => {
                let Some(app) = app.upgrade() else { return };
                look_at_everything(&app).await;
            }
            () = stop.cancelled() => return,
        }
    }
}

async fn look_at_everything(app: &Arc<App>) {
    let owned: BTreeSet<Id> = app.store.read().owned();
    for id in owned {
        check_owners(app, &id).await;
    }
    for resource in app.table().all().iter().filter(|r| r.kind.is_stored()) {
        let objects = app.store.read().list(&resource.table, None);
        for object in objects.iter().filter(|held| object::is_deleting(held.head())) {
            let object = &object.open();
            let id = Id {
                resource: resource.table.clone(),
                namespace: object::namespace(object).to_owned(),
                name: object::name(object).to_owned(),
            };
            deleting(app, &id, object).await;
        }
    }
    let namespaces = app.store.list("namespaces", None);
    for namespace in namespaces {
        given::give(app, object::name(&namespace)).await;
    }
    let events = app.store.list("events", None);
    for event in events.iter().filter(|e| is_old(e)) {
        if let Some(call) = call(app, "events", object::namespace(event), object::name(event)) {
            report(
                call.delete(&Options::background().of_uid(object::uid(event)))
                    .await
                    .map(|_| ()),
            );
        }
    }
}

fn is_old(event: &Value) -> bool {
    let times = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/deprecatedLastTimestamp",
        "/eventTime",
    ];
    let newest = times.iter().chain(["/metadata/creationTimestamp"].iter());
    newest
        .filter_map(|p| time::age_seconds(object::str_at(event, p)))
        .min()
        .is_some_and(|age| age > EVENT_TTL)
}

async fn follow(app: &Arc<App>, notice: &Notice) {
    given::follow(app, notice).await;
    let (id, object) = (&notice.id, &notice.event.object);
    if notice.event.event_type == EventType::Deleted {
        let dependents = app.store.read().dependents(object::uid(object));
        for dependent in dependents {
            check_owners(app, &dependent).await;
        }
        owners_wait(app, object).await;
        going_with(app, id).await;
        names_are_free(app, id).await;
        return;
    }
    if notice.event.event_type == EventType::Added {
        idle::follow(app, id, object).await;
        if object.pointer("/metadata/ownerReferences").is_some() {
            check_owners(app, id).await;
        }
        // It may have been admitted just before its namespace or definition began to go.
        going_with(app, id).await;
    }
    if object::is_deleting(object) {
        deleting(app, id, object).await;
    }
    let unblocked = |o: &Object| o.pointer("/metadata/ownerReferences").cloned();
    if notice
        .event
        .before
        .as_ref()
        .is_some_and(|before| unblocked(before) != unblocked(object))
    {
        if let Some(before) = &notice.event.before {
            owners_wait(app, before).await;
        }
        check_owners(app, id).await;
    }
}

fn owners(object: &Value) -> Vec<Value> {
    object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

/// Whether nothing can be known of an owner, because nobody serves its kind. It may be served again, so that its
/// dependents stay.
fn is_unknown(app: &App, owner: &Value) -> bool {
    let (version, kind) = (object::str_at(owner, "/apiVersion"), object::str_at(owner, "/kind"));
    let table = app.table();
    let mut served = table.all().iter().map(|resource| &resource.kind);
    !served.any(|served| served.kind == kind && served.api_version() == version)
}

/// Deletes an object none of whose owners is there; drops the owners that are gone when another remains.
async fn check_owners(app: &Arc<App>, id: &Id) {
    let Some(object) = app.store.get(id) else { return };
    let owners = owners(&object);
    if owners.is_empty() {
        return;
    }
    let living = {
        let state = app.store.read();
        owners
            .iter()
            .map(|o| (o, state.by_uid(object::str_at(o, "/uid")).is_some()))
            .collect::<Vec<_>>()
    };
    let living: Vec<Value> = living
        .into_iter()
        .filter(|(owner, lives)| *lives || is_unknown(app, owner))
        .map(|(owner, _)| owner.clone())
        .collect();
    if living.len() == owners.len() {
        return;
    }
    let Some(call) = call_for(app, id) else { return };
    if living.is_empty() {
        report(
            call.delete(&Options::background().of_uid(object::uid(&object)))
                .await
                .map(|_| ()),
        );
    } else {
        let mut new = (*object).clone();
        object::metadata(&mut new).insert("ownerReferences".into(), living.into());
        report(call.update(&object, new, false).await.map(|_| ()));
    }
}

/// An object with a deletion timestamp: does what its finalizers of ours stand for.
async fn deleting(app: &Arc<App>, id: &Id, object: &Object) {
    if object::has_finalizer(object, ORPHAN) {
        orphan_dependents(app, id, object).await;
    }
    if object::has_finalizer(object, FOREGROUND) {
        delete_dependents(app, id, object).await;
    }
    if &*id.resource == "namespaces" {
        ending::empty(app, &id.name).await;
    }
    if &*id.resource == DEFINITIONS && object::has_finalizer(object, CLEANUP) {
        empty_definition(app, id, object).await;
    }
}

async fn orphan_dependents(app: &Arc<App>, id: &Id, owner: &Object) {
    let uid = object::uid(owner);
    let dependents = app.store.read().dependents(uid);
    for dependent in dependents {
        let (Some(object), Some(call)) = (app.store.get(&dependent), call_for(app, &dependent)) else {
            continue;
        };
        let mut rest = owners(&object);
        rest.retain(|o| object::str_at(o, "/uid") != uid);
        let mut new = (*object).clone();
        if rest.is_empty() {
            object::metadata(&mut new).remove("ownerReferences");
        } else {
            object::metadata(&mut new).insert("ownerReferences".into(), rest.into());
        }
        if let Err(failure) = call.update(&object, new, false).await {
            report(Err(failure));
            return;
        }
    }
    drop_finalizer(app, id, ORPHAN).await;
}

async fn delete_dependents(app: &Arc<App>, id: &Id, owner: &Object) {
    let uid = object::uid(owner);
    let dependents = app.store.read().dependents(uid);
    let mut blocked = false;
    for dependent in dependents {
        let Some(object) = app.store.get(&dependent) else {
            continue;
        };
        let blocks = owners(&object)
            .iter()
            .any(|o| object::str_at(o, "/uid") == uid && o.get("blockOwnerDeletion") == Some(&Value::Bool(true)));
        blocked |= blocks;
        if object::is_deleting(&object) {
            continue;
        }
        let Some(call) = call_for(app, &dependent) else {
            continue;
        };
        report(
            call.delete(&Options::foreground().of_uid(object::uid(&object)))
                .await
                .map(|_| ()),
        );
    }
    let left = app.store.read().dependents(uid);
    if !blocked || left.iter().all(|dependent| app.store.get(dependent).is_none()) {
        drop_finalizer(app, id, FOREGROUND).await;
    }
}

/// After `object` went, or changed owners: those of its owners that wait for it are looked at again.
async fn owners_wait(app: &Arc<App>, object: &Object) {
    for owner in owners(object) {
        let id = app.store.read().by_uid(object::str_at(&owner, "/uid")).cloned();
        let Some(id) = id else { continue };
        if let Some(owner) = app.store.get(&id)
            && object::is_deleting(&owner)
            && object::has_finalizer(&owner, FOREGROUND)
        {
            delete_dependents(app, &id, &owner).await;
        }
    }
}

async fn drop_finalizer(app: &Arc<App>, id: &Id, finalizer: &str) {
    let (Some(object), Some(call)) = (app.store.get(id), call_for(app, id)) else {
        return;
    };
    if !object::has_finalizer(&object, finalizer) {
        return;
    }
    let mut new = (*object).clone();
    object::remove_finalizer(&mut new, finalizer);
    report(call.update(&object, new, false).await.map(|_| ()));
}

/// Something of a terminating namespace or definition came or went; perhaps what went was the last.
async fn going_with(app: &Arc<App>, id: &Id) {
    if !id.namespace.is_empty()
        && let Some(namespace) = app.namespace(&id.namespace)
        && object::is_deleting(&namespace)
    {
        ending::empty(app, &id.namespace).await;
    }
    let definition = Id {
        resource: DEFINITIONS.into(),
        namespace: String::new(),
        name: id.resource.to_string(),
    };
    let held = app.store.read().get(&definition);
    if let Some(held) = held
        && object::is_deleting(held.head())
    {
        empty_definition(app, &definition, held.head()).await;
    }
}

async fn empty_definition(app: &Arc<App>, id: &Id, definition: &Object) {
    let table = id.name.as_str();
    let content = app.store.read().list(table, None);
    for object in content
        .iter()
        .map(|held| held.head())
        .filter(|o| !object::is_deleting(o))
    {
        if let Some(call) = call(app, table, object::namespace(object), object::name(object)) {
            report(call.delete(&Options::background()).await.map(|_| ()));
        }
    }
    if app.store.read().list(table, None).is_empty() && object::is_deleting(definition) {
        drop_finalizer(app, id, CLEANUP).await;
    }
}

/// A definition went: perhaps another one waits for a name that it had.
async fn names_are_free(app: &Arc<App>, id: &Id) {
    if &*id.resource != DEFINITIONS {
        return;
    }
    let table = app.table();
    for waiting in table.definitions().filter(|other| waits_for_names(other)) {
        if let Some(call) = call(app, DEFINITIONS, "", object::name(waiting))
            && let Some(whole) = app.store.get(&call.id())
        {
            report(call.update(&whole, (*whole).clone(), false).await.map(|_| ()));
        }
    }
}

/// A step that failed is tried again at the next sweep, and is no step when another was faster.
pub(super) fn report(result: Result<(), super::status::Failure>) {
    if let Err(failure) = result
        && !matches!(failure.reason, "NotFound" | "Conflict" | "AlreadyExists")
    {
        tracing::warn!(
            message = failure.message,
            "something could not be collected; it is tried again"
        );
    }
}
