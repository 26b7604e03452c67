//! Server-side apply: `PATCH` with what one manager wants of an object; it is created when it is not there.

use serde_json::{Value, json};

use super::call::{Call, Outcome};
use super::status::Failure;
use super::write::ATTEMPTS;
use super::{body, object, time, view};
use crate::machinery::FieldError;
use crate::machinery::apply::{self, ApplyError};
use crate::machinery::kinds::Subresource;

impl Call {
    /// `PATCH` with an apply configuration, JSON or YAML.
    pub(crate) async fn apply(&self, bytes: &[u8]) -> Result<Outcome, Failure> {
        let kind = &self.resource.kind;
        let mut wanted = body::yaml(bytes)?;
        if !wanted.is_object() {
            return Err(Failure::bad_request("the body of the request is not an object"));
        }
        if self.query.get("fieldManager").is_none() {
            let missing = FieldError::required("fieldManager", "is required for apply patch");
            let mut failure = Failure::invalid(kind, "", &[missing]);
            failure.message =
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for \
                               apply patch"
                    .into();
            return Err(failure);
        }
        if wanted
            .pointer("/metadata/managedFields")
            .and_then(Value::as_array)
            .is_some_and(|m| !m.is_empty())
        {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        self.identify(&mut wanted)?;
        let warnings = self.decode(&mut wanted)?;
        let expected = object::resource_version(&wanted).to_owned();
        for _ in 0..ATTEMPTS {
            let live = self.app.store.get(&self.id());
            let Some(old) = live else {
                if self.subresource.is_some() {
                    return Err(Failure::not_found(kind, &self.name));
                }
                let new = self.applied(None, &wanted)?;
                match self.create_identified(new, true).await {
                    Err(failure) if failure.reason == "AlreadyExists" => continue,
                    Ok(outcome) => return Ok(Outcome { warnings, ..outcome }),
                    Err(failure) => return Err(failure),
                }
            };
            if !expected.is_empty() && expected != object::resource_version(&old) {
                return Err(Failure::modified(kind, &self.name));
            }
            let seen = view::at_version(&self.resource, &old);
            let new = self.applied(Some(&seen), &wanted)?;
            match self.update(&old, new, true).await {
                Err(failure) if failure.reason == "Conflict" && expected.is_empty() => {}
                Ok(object) => {
                    return Ok(Outcome {
                        code: 200,
                        object,
                        warnings,
                    });
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::modified(kind, &self.name))
    }

    fn applied(&self, live: Option<&Value>, wanted: &Value) -> Result<Value, Failure> {
        let api_version = self.resource.kind.api_version();
        let (manager, force) = (self.manager(), self.query.flag("force"));
        let sub = self.subresource.map(Subresource::path);
        let lists = self.resource.list_types();
        let result = apply::apply(live, wanted, &manager, force, &api_version, sub, &time::now(), &lists);
        result.map_err(|error| match &error {
            ApplyError::Conflicts(conflicts) => {
                let causes: Vec<Value> = conflicts
                    .iter()
                    .map(|c| {
                        let message = format!("conflict with \"{}\" using {}", c.manager, c.api_version);
                        json!({"reason": "FieldManagerConflict", "message": message, "field": c.field})
                    })
                    .collect();
                let mut failure = Failure::new(409, "Conflict", error.to_string());
                failure.details = Some(json!({"causes": causes}));
                failure
            }
            ApplyError::Invalid(_) => Failure::bad_request(error.to_string()),
        })
    }
}
