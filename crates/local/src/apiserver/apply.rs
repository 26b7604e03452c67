//! Server-side apply: `PATCH` with what one manager wants of an object; it is created when it is not there.

use serde_json::{Value, json};

use super::call::{Call, Outcome};
use super::decode::Origin;
use super::status::Failure;
use super::write::{ATTEMPTS, expected_version};
use super::{admit, body, object, view};
use crate::machinery::apply::ApplyError;
use crate::machinery::json::Read;

impl Call {
    /// `PATCH` with an apply configuration, JSON or YAML.
    pub(crate) async fn apply(&self, bytes: &[u8]) -> Result<Outcome, Failure> {
        let kind = &self.resource.kind;
        let Read {
            value: mut wanted,
            repeated,
        } = body::configuration(bytes)?;
        self.check_applied_kind(&wanted)?;
        if wanted.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        let distinct = self.as_writer(|writer| writer.check(&wanted));
        distinct.map_err(|error| self.untyped(&wanted, &error.to_string()))?;
        let mut warnings = self.decode(&mut wanted, repeated, Origin::Applied)?;
        warnings.extend(admit::distinct_owners(&mut wanted));
        let expected = expected_version(&wanted)?;
        for _ in 0..ATTEMPTS {
            let live = self.app.store.get(&self.id());
            let seen = live.as_ref().map(|old| view::at_version(&self.resource, old));
            let mut new = self.applied(seen.as_deref(), &wanted)?;
            let Some(old) = live else {
                if self.subresource.is_some() {
                    return Err(Failure::not_found(kind, &self.name));
                }
                let uid = object::uid(&wanted);
                if !uid.is_empty() {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                    );
                    return Err(Failure::conflict(kind, &self.name, &why));
                }
                self.check_namespace(&mut new)?;
                self.check_name(&new)?;
                match self.create_decoded(new, warnings.clone(), true).await {
                    Err(failure) if failure.reason == "AlreadyExists" && !self.query.dry_run() => continue,
                    outcome => return outcome,
                }
            };
            self.check_namespace(&mut new)?;
            self.check_name(&new)?;
            if !expected.is_empty() && expected != object::resource_version(&old) {
                return Err(Failure::modified(kind, &self.name));
            }
            match self.update(&old, new, true).await {
                Err(failure) if failure.reason == "Conflict" && expected.is_empty() => {}
                Ok(object) => {
                    return Ok(self.updated(&old, object, warnings));
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::modified(kind, &self.name))
    }

    /// A configuration must say what it is.
    fn check_applied_kind(&self, wanted: &Value) -> Result<(), Failure> {
        let kind = &self.resource.kind;
        let (version, given) = (object::str_at(wanted, "/apiVersion"), object::str_at(wanted, "/kind"));
        if version == kind.api_version() && given == kind.kind {
            return Ok(());
        }
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        Err(Failure::bad_request(format!(
            "invalid object type: {group}/{version}, Kind={given}"
        )))
    }

    fn applied(&self, live: Option<&Value>, wanted: &Value) -> Result<Value, Failure> {
        let force = self.query.flag("force");
        let result = self.as_writer(|writer| writer.apply(live, wanted, force));
        result.map_err(|error| match &error {
            ApplyError::Conflicts(conflicts) => {
                let causes: Vec<Value> = conflicts
                    .iter()
                    .map(|c| json!({"reason": "FieldManagerConflict", "message": c.cause(), "field": c.field}))
                    .collect();
                let mut failure = Failure::new(409, "Conflict", error.to_string());
                failure.details = Some(json!({"causes": causes}));
                failure
            }
            ApplyError::Invalid(why) => self.untyped(wanted, why),
        })
    }
}
