//! What has to change here so that a start would find everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use leeward_api::{APP_LABEL, CARRIED_FROM_ANNOTATION, FIELD_MANAGER, REPLICAS_ANNOTATION, carried_label};
use leeward_core::name::ClusterName;
use serde_json::{Value, json};

use super::Bundle;
use super::autoscaler::{self, target};
use super::compare::{CARRIED_HASH_ANNOTATION, added, difference, hash};
use super::keeper::{Keeper, says_replicas};
use super::object::{Id, Kind, annotation, controller, is_own, label};
use super::references::references;
use super::secrets::{self, Secrets};

/// The cluster that a bundle is applied in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// This cluster.
    pub cluster: ClusterName,
    /// The cluster where the application's specification has its home.
    pub authority: ClusterName,
    /// The Secrets that the application's specification asks for, as far as it is known here.
    pub secrets: Secrets,
}

/// One change, or the reason why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Server-side apply this object.
    Apply(Value),
    /// Delete this object: it was carried here, and is gone where it came from.
    Delete(Id),
    /// It is not as it should be, and is not ours to write.
    Drift {
        /// The object.
        id: Id,
        /// Who keeps it.
        owner: String,
        /// What is different.
        difference: String,
        /// What to change, and where.
        setting: String,
    },
    /// It is gone where it came from, and stays here.
    Kept {
        /// The object.
        id: Id,
        /// Why.
        why: &'static str,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apply(object) => match Id::of(object) {
                Some(id) => write!(f, "{id} is applied"),
                None => f.write_str("an object is applied"),
            },
            Self::Delete(id) => write!(f, "{id} is deleted: it is gone where it came from"),
            Self::Drift {
                id,
                owner,
                difference,
                setting,
            } => write!(
                f,
                "{id} is kept by {owner} and is not as it should be: {difference}; {setting}"
            ),
            Self::Kept { id, .. } if id.kind == Kind::Secret => f.write_str(&secrets::left_behind(id)),
            Self::Kept { id, why } => write!(f, "{id} is gone in the active cluster and stays here: {why}"),
        }
    }
}

/// What to do so that the `desired` objects of a bundle are here, given what is in the application's namespace.
///
/// Objects are applied in the order of their kinds and deleted, after that, in the reverse order. When everything was applied, the next
/// plan is empty but for drift and what is kept.
pub fn plan(bundle: &Bundle, desired: &[Value], existing: &[Value], receiver: &Receiver) -> Vec<Change> {
    let here: BTreeMap<Id, &Value> = existing
        .iter()
        .filter_map(|object| Some((Id::of(object)?, object)))
        .collect();
    let wanted: BTreeMap<Id, &Value> = desired
        .iter()
        .filter_map(|object| Some((Id::of(object)?, object)))
        .collect();
    let ours = carried_label(&bundle.app.namespace, &bundle.app.name);
    let scaled: BTreeSet<Id> = desired.iter().filter_map(target).collect();
    let mut changes: Vec<Change> = wanted
        .iter()
        .filter(|(id, _)| !is_own(id, &bundle.app))
        .filter_map(|(id, object)| {
            let here = here.get(id).copied();
            let wanted = Wanted::of(id, object, here, scaled.contains(id));
            keep(bundle, id, &wanted, here, receiver, &ours)
        })
        .collect();

    let deletes = bundle.source == receiver.authority && receiver.cluster != receiver.authority;
    let workloads = wanted.keys().any(|id| id.kind.is_workload());
    for (id, object) in here.iter().rev().filter(|(id, _)| !wanted.contains_key(*id)) {
        let carried = label(object, APP_LABEL) == Some(&ours) && annotation(object, CARRIED_FROM_ANNOTATION).is_some();
        let going = object["metadata"]["deletionTimestamp"].is_string();
        if !carried || going || is_own(id, &bundle.app) {
            continue;
        }
        let kept = |why| Change::Kept { id: id.clone(), why };
        if !(bundle.secrets.let_pass(id) && receiver.secrets.let_pass(id)) {
            changes.push(kept(secrets::STAYS));
            continue;
        }
        if !deletes {
            continue;
        }
        changes.push(match (id.kind, workloads) {
            (Kind::Namespace, _) => continue,
            (Kind::PersistentVolumeClaim, _) => kept("a claim may hold the last copy of data"),
            (_, false) => kept("the active cluster shows no workload at all, which may be a loss of its objects"),
            (_, true) => Change::Delete(id.clone()),
        });
    }
    changes
}

/// An object that should be here, less what is left to its cluster.
struct Wanted {
    /// What a person has to see to where a tool keeps it, and what the note of its content is of.
    content: Value,
    /// What is applied.
    object: Value,
    /// Whether an autoscaler here says how many replicas it has.
    scaled: bool,
}

impl Wanted {
    /// `scaled`: an autoscaler says how many replicas it has.
    fn of(id: &Id, desired: &Value, here: Option<&Value>, scaled: bool) -> Self {
        let (mut content, mut object) = (desired.clone(), desired.clone());
        if id.kind == Kind::HorizontalPodAutoscaler {
            content = autoscaler::original(desired);
            object = here.map_or(object, |here| autoscaler::as_here(desired, here));
        }
        // Where it stands by, the replicas are the placement's.
        let scaled = scaled && annotation(desired, REPLICAS_ANNOTATION).is_none();
        if scaled {
            let replicas = |object: &mut Value| {
                let spec = object.get_mut("spec").and_then(Value::as_object_mut);
                spec.and_then(|spec| spec.remove("replicas"));
            };
            replicas(&mut content);
            // It begins with as many as run elsewhere. A field that was applied, and is not any more, would be set back to 1.
            if let Some(here) = here {
                replicas(&mut object);
                let now = here["spec"]["replicas"].clone();
                if has_applied_replicas(here) && !now.is_null() {
                    object["spec"]["replicas"] = now;
                }
            }
        }
        Self {
            content,
            object,
            scaled,
        }
    }
}

/// Whether the replicas of an object are among what Leeward has applied of it.
fn has_applied_replicas(object: &Value) -> bool {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut ours = entries.filter(|entry| entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply");
    ours.any(|entry| entry["fieldsV1"]["f:spec"].get("f:replicas").is_some())
}

/// What to do for one object that should be here.
fn keep(
    bundle: &Bundle,
    id: &Id,
    wanted: &Wanted,
    existing: Option<&Value>,
    receiver: &Receiver,
    ours: &str,
) -> Option<Change> {
    let desired = &wanted.object;
    if id.kind == Kind::Namespace {
        return existing.is_none().then(|| Change::Apply(desired.clone()));
    }
    let content = hash(std::slice::from_ref(&wanted.content));
    let mark = |carried: bool| {
        let carried = carried && receiver.cluster != receiver.authority;
        marked(desired, &content, carried.then_some((ours, &bundle.source)))
    };
    let Some(existing) = existing else {
        return Some(Change::Apply(mark(true)));
    };
    if let Some(keeper) = Keeper::of(existing) {
        let here = match id.kind {
            Kind::HorizontalPodAutoscaler => &autoscaler::original(existing),
            _ => existing,
        };
        return kept_by(&keeper, id, &wanted.content, here);
    }
    if let Some(app) = label(existing, APP_LABEL).filter(|app| *app != ours) {
        let differs = difference(desired, existing)?;
        return Some(Change::Drift {
            id: id.clone(),
            owner: format!("the application {app}"),
            difference: secrets::told(id, &differs),
            setting: THERE.to_owned(),
        });
    }
    if let Some(owner) = maker(id, existing, receiver, ours) {
        let differs = secrets::content_differs(desired, existing)?;
        return Some(Change::Drift {
            id: id.clone(),
            owner,
            difference: secrets::told(id, &differs),
            setting: secrets::MADE_HERE.to_owned(),
        });
    }
    // What a person made here keeps its own name for whose it is, and so is never deleted by us.
    let object = mark(label(existing, APP_LABEL) == Some(ours));
    if difference(&object, existing).is_some() {
        return Some(Change::Apply(object));
    }
    // Elsewhere a cluster's own controllers write beside what was applied: a claim's volume, a Service's address.
    let whole = id.kind.is_workload() || matches!(id.kind, Kind::ConfigMap | Kind::Secret);
    let (path, owner) = added(desired, existing, FIELD_MANAGER).filter(|_| whole)?;
    if wanted.scaled && path == "spec.replicas" {
        return None;
    }
    let difference = format!("{path} was added here");
    Some(Change::Drift {
        id: id.clone(),
        owner,
        difference,
        setting: THERE.to_owned(),
    })
}

/// Who makes a Secret here that is not carried here. Where the specification has its home it is the application's own, unless something makes it from
/// another object.
fn maker(id: &Id, existing: &Value, receiver: &Receiver, ours: &str) -> Option<String> {
    if id.kind != Kind::Secret {
        return None;
    }
    let at_home = receiver.cluster == receiver.authority;
    let carried = at_home || label(existing, APP_LABEL) == Some(ours);
    controller(existing).or((!carried).then(|| "somebody here".to_owned()))
}

const THERE: &str = "change it there";

/// What to say of an object that a tool keeps: it is compared and never written, but for the replicas of a workload, which are scaled like any other's.
fn kept_by(keeper: &Keeper, id: &Id, desired: &Value, existing: &Value) -> Option<Change> {
    let (difference, path) = match difference(desired, existing) {
        Some(differs) => (secrets::told(id, &differs), differs.path),
        None if says_replicas(keeper, existing) => {
            let path = "spec.replicas".to_owned();
            (format!("{path} is said in git"), path)
        }
        None => return None,
    };
    Some(Change::Drift {
        id: id.clone(),
        owner: keeper.to_string(),
        difference,
        setting: keeper.setting(id, &path),
    })
}

/// The object with what says where its content is from.
fn marked(desired: &Value, content: &str, carried: Option<(&str, &ClusterName)>) -> Value {
    let mut object = desired.clone();
    json_patch::merge(
        &mut object,
        &json!({ "metadata": { "annotations": { CARRIED_HASH_ANNOTATION: content } } }),
    );
    if let Some((ours, source)) = carried {
        let marks = json!({ "metadata": {
            "labels": { APP_LABEL: ours },
            "annotations": { CARRIED_FROM_ANNOTATION: source.as_str() },
        } });
        json_patch::merge(&mut object, &marks);
    }
    object
}

/// What a start here would lack, images left out: objects of the bundle, and what its workloads refer to. Each line is for a person.
///
/// `classes` are the names of the storage classes here.
pub fn missing(bundle: &Bundle, existing: &[Value], classes: &BTreeSet<String>) -> Vec<String> {
    let here: BTreeSet<Id> = existing.iter().filter_map(Id::of).collect();
    let mut needed: BTreeMap<Id, Option<Id>> = BTreeMap::new();
    for object in &bundle.objects {
        let Some(id) = Id::of(object) else { continue };
        let references = references(object).into_iter().filter(|reference| !reference.optional);
        for reference in references.filter(|reference| !is_own(&reference.id, &bundle.app)) {
            needed.entry(reference.id).or_insert_with(|| Some(id.clone()));
        }
        needed.insert(id, None);
    }
    let mut lines: Vec<String> = needed
        .into_iter()
        .filter(|(id, _)| !here.contains(id) && id.kind != Kind::Namespace)
        .map(|(id, by)| match by {
            Some(by) if !bundle.secrets.let_pass(&id) => {
                format!("{id}, which {by} refers to, is not here, {}", secrets::NOT_ASKED_FOR)
            }
            None => format!("{id} is not here yet"),
            Some(by) => format!("{id}, which {by} refers to, is not here"),
        })
        .collect();
    lines.extend(secrets::not_found(bundle, &here));
    for claim in &bundle.objects {
        let Some(id) = Id::of(claim).filter(|id| id.kind == Kind::PersistentVolumeClaim) else {
            continue;
        };
        // An empty one asks for none: a volume that a person made.
        if let Some(class) = claim["spec"]["storageClassName"]
            .as_str()
            .filter(|class| !class.is_empty() && !classes.contains(*class))
        {
            lines.push(format!("StorageClass {class}, which {id} refers to, is not here"));
        }
    }
    lines
}

/// The priority classes that workloads name, as they are to be here, and that are not among the `classes` here: no pod of theirs is let in. Each line is
/// for a person.
pub fn missing_priorities(desired: &[Value], classes: &BTreeSet<String>) -> Vec<String> {
    let lacking = desired.iter().filter_map(|object| {
        let id = Id::of(object).filter(|id| id.kind.is_workload())?;
        let class = object["spec"]["template"]["spec"]["priorityClassName"].as_str()?;
        // Those of the system are everywhere.
        let is_here = class.is_empty() || class.starts_with("system-") || classes.contains(class);
        (!is_here).then(|| format!("PriorityClass {class}, which {id} refers to, is not here: make it here, with the value that it has elsewhere"))
    });
    lacking.collect()
}
