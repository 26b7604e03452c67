//! Delete: at once, gracefully, or once finalizers and dependents allow.

use std::sync::Arc;

use serde_json::{Value, json};

use super::call::{Call, Outcome};
use super::status::Failure;
use super::store::{Expect, Object, WriteError, revision_of};
use super::{admit, object, time};

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
}

impl Options {
    /// From the body (`DeleteOptions`) and the query, which the body overrules.
    pub(crate) fn parse(call: &Call, body: Option<&Value>) -> Result<Self, Failure> {
        let null = Value::Null;
        let body = body.unwrap_or(&null);
        let text = |pointer: &str| {
            Some(object::str_at(body, pointer))
                .filter(|t| !t.is_empty())
                .map(str::to_owned)
        };
        let grace = match body.get("gracePeriodSeconds") {
            None | Some(Value::Null) => call
                .query
                .integer("gracePeriodSeconds")?
                .map(|s| u64::try_from(s).unwrap_or(0)),
            Some(value) => Some(value.as_i64().map_or(0, |v| u64::try_from(v).unwrap_or(0))),
        };
        let propagation = text("/propagationPolicy").or_else(|| call.query.get("propagationPolicy").map(Into::into));
        if let Some(other) = propagation
            .as_deref()
            .filter(|p| !matches!(*p, "Orphan" | "Background" | "Foreground"))
        {
            return Err(Failure::bad_request(format!(
                "propagationPolicy: Invalid value: \"{other}\": must be \"Foreground\", \"Background\" or \"Orphan\""
            )));
        }
        let orphan = body.get("orphanDependents").and_then(Value::as_bool) == Some(true);
        let dry_run = call.query.dry_run()
            || body
                .get("dryRun")
                .and_then(Value::as_array)
                .is_some_and(|d| d.iter().any(|v| v == "All"));
        Ok(Self {
            grace,
            propagation: if orphan { Some("Orphan".into()) } else { propagation },
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            dry_run,
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
        for (wanted, found, what) in [
            (&self.uid, object::uid(object), "UID"),
            (
                &self.resource_version,
                object::resource_version(object),
                "ResourceVersion",
            ),
        ] {
            if let Some(wanted) = wanted
                && wanted != found
            {
                let why =
                    format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
                return Err(Failure::conflict(&call.resource.kind, object::name(object), &why));
            }
        }
        Ok(())
    }
}

/// What happens to an object that is to be deleted.
enum Step {
    /// It goes.
    Gone,
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
                Step::Gone
            } else {
                Step::Nothing
            };
        }
    }
    let metadata = object::metadata(&mut new);
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    metadata.insert("deletionTimestamp".into(), time::in_seconds(grace).into());
    if admit::nothing_holds(&new) {
        return Step::Gone;
    }
    if kind == "Namespace" {
        object::child(&mut new, "status").insert("phase".into(), "Terminating".into());
    }
    if call.resource.counts_generations() {
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
            let (new, gone) = match decide(self, &old, options) {
                Step::Nothing => return Ok(Outcome::ok(old)),
                Step::Gone => (None, true),
                Step::Marked(new) => (Some(new), false),
            };
            if options.dry_run {
                let shown: Object = new.map_or(old, Arc::new);
                return Ok(self.deleted(shown, gone));
            }
            match self
                .app
                .store
                .write(self.id(), Expect::Revision(revision_of(&old)), new)
                .await
            {
                Ok(object) => return Ok(self.deleted(object, gone)),
                Err(WriteError::Changed) => {}
                Err(error) => return Err(self.write_failure(&self.name, error)),
            }
        }
        Err(Failure::modified(kind, &self.name))
    }

    /// The answer: the object for kinds that say what they deleted and for what stays for now, else a `Status`.
    fn deleted(&self, object: Object, gone: bool) -> Outcome {
        let kind = &self.resource.kind;
        let shows = matches!(
            kind.kind.as_str(),
            "Pod" | "Service" | "ServiceAccount" | "PersistentVolume" | "PersistentVolumeClaim" | "StorageClass"
        );
        if !gone || shows {
            return Outcome::ok(object);
        }
        let mut details = json!({"name": self.name, "kind": kind.plural, "uid": object::uid(&object)});
        if !kind.group.is_empty() {
            details["group"] = kind.group.clone().into();
        }
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        Outcome::ok(Arc::new(status))
    }

    /// `DELETE` of a collection: each object that matches.
    pub(crate) async fn delete_collection(&self, options: &Options) -> Result<Value, Failure> {
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
        Ok(json!({
            "kind": self.resource.kind.list_kind,
            "apiVersion": self.resource.kind.api_version(),
            "metadata": {"resourceVersion": revision.to_string()},
            "items": objects.iter().map(|o| (**o).clone()).collect::<Vec<_>>(),
        }))
    }
}
