//! Delete: at once, gracefully, or once finalizers and dependents allow.

use std::sync::Arc;

use axum::response::Response;
use serde_json::{Value, json};

use super::call::{Call, Outcome};
use super::options::ListOptions;
use super::status::Failure;
use super::store::{Expect, Object, WriteError, revision_of};
use super::{admit, definition, object, time};
use crate::machinery::kinds::Kind;
use crate::machinery::{FieldError, Reason};

/// Finalizer: the dependents that block go first.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer: the dependents lose this owner.
pub(crate) const ORPHAN: &str = "orphan";

const ATTEMPTS: usize = 16;

/// What a delete asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    grace: Option<u64>,
    propagation: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    dry_run: bool,
    /// An object that stays for now is answered with 202.
    later: bool,
}

impl Options {
    /// From the body (`DeleteOptions`), or from the query where there is none.
    pub(crate) fn parse(call: &Call, body: Option<&Value>) -> Result<Self, Failure> {
        let query = &call.query;
        let from_query = || -> Result<Value, Failure> {
            let dry_run: Vec<&str> = query.get("dryRun").into_iter().collect();
            Ok(json!({
                "gracePeriodSeconds": query.integer("gracePeriodSeconds")?,
                "propagationPolicy": query.get("propagationPolicy"),
                "orphanDependents": query.boolean("orphanDependents"),
                "dryRun": dry_run,
            }))
        };
        let given = body.map_or_else(from_query, |body| Ok(body.clone()))?;
        let text = |pointer: &str| given.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let dry_run = given.get("dryRun").and_then(Value::as_array).filter(|d| !d.is_empty());
        let propagation = text("/propagationPolicy");
        let orphan = given.get("orphanDependents").and_then(Value::as_bool);
        let errors = errors(propagation.as_deref(), orphan, dry_run);
        if !errors.is_empty() {
            return Err(Failure::invalid_options("DeleteOptions", &errors));
        }
        let grace = given.get("gracePeriodSeconds").and_then(Value::as_i64);
        Ok(Self {
            // Less than no time is the least that there is.
            grace: grace.map(|seconds| u64::try_from(seconds).unwrap_or(1)),
            propagation: if orphan == Some(true) {
                Some("Orphan".into())
            } else {
                propagation
            },
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            dry_run: dry_run.is_some(),
            later: orphan == Some(false),
        })
    }

    pub(crate) fn background() -> Self {
        Self {
            propagation: Some("Background".into()),
            ..Self::default()
        }
    }

    pub(crate) fn foreground() -> Self {
        Self {
            propagation: Some("Foreground".into()),
            ..Self::default()
        }
    }

    pub(crate) fn of_uid(mut self, uid: &str) -> Self {
        self.uid = Some(uid.to_owned());
        self
    }

    fn check(&self, call: &Call, object: &Value) -> Result<(), Failure> {
        let kind = &call.resource.kind;
        let missed = |why: String| {
            if kind.kind == "Namespace" {
                return Err(Failure::conflict(kind, object::name(object), &why));
            }
            // The kind stands where its plural does otherwise.
            let named = Kind {
                plural: kind.kind.clone(),
                ..kind.clone()
            };
            Err(Failure::conflict(&named, object::name(object), &why))
        };
        for (wanted, found, what, since) in [
            (&self.uid, object::uid(object), "UID", "deleted and then recreated"),
            (
                &self.resource_version,
                object::resource_version(object),
                "ResourceVersion",
                "modified",
            ),
        ] {
            let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) else {
                continue;
            };
            return missed(if kind.kind == "Namespace" {
                format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}")
            } else {
                format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object \
                     might have been {since}"
                )
            });
        }
        Ok(())
    }
}

fn errors(propagation: Option<&str>, orphan: Option<bool>, dry_run: Option<&Vec<Value>>) -> Vec<FieldError> {
    const POLICY: &str = "propagationPolicy";
    let mut errors = Vec::new();
    if let Some(policy) = propagation {
        if orphan.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(POLICY, &policy.into(), why));
        }
        if !matches!(policy, "Orphan" | "Background" | "Foreground") {
            let supported = ["\"Foreground\"", "\"Background\"", "\"Orphan\"", "\"nil\""].map(str::to_owned);
            errors.push(FieldError::unsupported(POLICY, &policy.into(), &supported));
        }
    }
    if let Some(given) = dry_run.filter(|d| d.iter().any(|v| v != "All")) {
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        let message = format!("Unsupported value: [{}]: supported values: \"All\"", given.join(","));
        errors.push(FieldError::new("dryRun", Reason::NotSupported, message));
    }
    errors
}

/// What happens to an object that is to be deleted.
enum Step {
    /// It goes; this is how it is shown.
    Gone(Value),
    /// It stays for now, changed.
    Marked(Value),
    /// It is on its way; nothing changes.
    Nothing,
}

/// Decides. `grace` is for pods only: seconds that the node has to stop the containers.
fn decide(call: &Call, old: &Value, options: &Options) -> Step {
    let kind = call.resource.kind.kind.as_str();
    let mut new = old.clone();
    match options.propagation.as_deref() {
        Some("Orphan") if !object::is_deleting(old) => object::add_finalizer(&mut new, ORPHAN),
        Some("Foreground") if !object::is_deleting(old) => object::add_finalizer(&mut new, FOREGROUND),
        _ => {}
    }
    let grace = if kind == "Pod" {
        pod_grace(old, options.grace)
    } else {
        0
    };
    if object::is_deleting(old) {
        let before = old
            .pointer("/metadata/deletionGracePeriodSeconds")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        if grace >= before {
            return if admit::nothing_holds(old) {
                Step::Gone(new)
            } else {
                Step::Nothing
            };
        }
    }
    let metadata = object::metadata(&mut new);
    if kind != "Namespace" {
        metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    }
    metadata.insert("deletionTimestamp".into(), time::in_seconds(grace).into());
    if kind == "CustomResourceDefinition" && !object::is_deleting(old) {
        object::metadata(&mut new).remove("deletionGracePeriodSeconds");
        definition::terminate(&mut new);
        return Step::Marked(new);
    }
    if admit::nothing_holds(&new) {
        // Only of a pod it shows that it had no time.
        return Step::Gone(if kind == "Pod" { new } else { old.clone() });
    }
    if kind == "Namespace" {
        object::child(&mut new, "status").insert("phase".into(), "Terminating".into());
    }
    if call.resource.counts_generations() && !object::is_deleting(old) {
        admit::next_generation(&mut new);
    }
    Step::Marked(new)
}

/// A pod that no node has, or that has ended, needs no time to stop.
fn pod_grace(pod: &Value, asked: Option<u64>) -> u64 {
    let idle = object::str_at(pod, "/spec/nodeName").is_empty()
        || matches!(object::str_at(pod, "/status/phase"), "Succeeded" | "Failed");
    if idle {
        return 0;
    }
    let own = pod
        .pointer("/spec/terminationGracePeriodSeconds")
        .and_then(Value::as_u64)
        .unwrap_or(30);
    asked.unwrap_or(own)
}

impl Call {
    /// `DELETE` of an object.
    pub(crate) async fn delete(&self, options: &Options) -> Result<Outcome, Failure> {
        let kind = &self.resource.kind;
        if kind.kind == "Namespace" && matches!(self.name.as_str(), "default" | "kube-system" | "kube-public") {
            return Err(Failure::forbidden(
                kind,
                &self.name,
                "this namespace may not be deleted",
            ));
        }
        for _ in 0..ATTEMPTS {
            let old = self.get()?;
            options.check(self, &old)?;
            let (shown, gone) = match decide(self, &old, options) {
                Step::Nothing => return Ok(Outcome::ok(old)),
                Step::Gone(shown) => (shown, true),
                Step::Marked(new) => (new, false),
            };
            if options.dry_run {
                return Ok(self.deleted(Arc::new(shown), gone, options));
            }
            let expect = Expect::Revision(revision_of(&old));
            let new = (!gone).then(|| shown.clone());
            match self.app.store.write(self.id(), expect, new).await {
                Ok(object) if gone => {
                    // The deletion has a revision of its own.
                    let mut shown = shown;
                    let revision = object::resource_version(&object);
                    object::metadata(&mut shown).insert("resourceVersion".into(), revision.into());
                    return Ok(self.deleted(Arc::new(shown), true, options));
                }
                Ok(object) => return Ok(self.deleted(object, false, options)),
                Err(WriteError::Changed) => {}
                Err(error) => return Err(self.write_failure(&self.name, error)),
            }
        }
        Err(Failure::modified(kind, &self.name))
    }

    /// The answer: the object for kinds that say what they deleted and for what stays for now, else a `Status`.
    fn deleted(&self, object: Object, gone: bool, options: &Options) -> Outcome {
        let kind = &self.resource.kind;
        let shows = matches!(
            kind.kind.as_str(),
            "Pod" | "Service" | "ServiceAccount" | "PersistentVolume" | "PersistentVolumeClaim" | "StorageClass"
        );
        if !gone || shows {
            let code = if !gone && options.later { 202 } else { 200 };
            return Outcome {
                code,
                ..Outcome::ok(object)
            };
        }
        let mut details = json!({"name": self.name, "kind": kind.plural, "uid": object::uid(&object)});
        if !kind.group.is_empty() {
            details["group"] = kind.group.clone().into();
        }
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        Outcome::ok(Arc::new(status))
    }

    /// `DELETE` of a collection: each object that matches. Answers what there was.
    pub(crate) async fn delete_collection(&self, options: &Options) -> Result<Response, Failure> {
        if self.resource.kind.namespaced && self.namespace.is_empty() {
            return Err(Failure::method_not_allowed());
        }
        let form = self.form()?;
        ListOptions::parse(&self.query)?;
        let (revision, objects) = self.matching(&self.selector()?);
        for object in &objects {
            let mut one = self.clone();
            one.namespace = object::namespace(object).to_owned();
            one.name = object::name(object).to_owned();
            match one.delete(options).await {
                Err(failure) if failure.reason != "NotFound" => return Err(failure),
                _ => {}
            }
        }
        Ok(self.show(form, &objects, json!({"resourceVersion": revision.to_string()})))
    }
}
