//! Create, update and patch: from the body of a request to a write in the store.
//!
//! A body is decoded, completed (`admit`), defaulted, validated, its owners of fields recorded, and written on condition
//! that what it was computed from is still there. A patch that lost such a race is computed again from what won.

use serde_json::Value;

use super::call::{Call, Outcome};
use super::status::Failure;
use super::store::{Expect, Object, revision_of};
use super::{admit, body, definition, events, object, time, view};
use crate::machinery::apply;
use crate::machinery::kinds::Subresource;
use crate::machinery::{FieldError, builtin, patch};

/// Attempts of a patch against concurrent writers.
pub(super) const ATTEMPTS: usize = 16;

/// What is done with fields that a kind does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FieldValidation {
    Strict,
    Warn,
    Ignore,
}

impl Call {
    fn field_validation(&self) -> Result<FieldValidation, Failure> {
        match self.query.get("fieldValidation") {
            Some("Strict") => Ok(FieldValidation::Strict),
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some(other) => Err(Failure::bad_request(format!(
                "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }

    /// Checks that the body is of the resource that the path names, and gives it the path's namespace and name.
    pub(super) fn identify(&self, object: &mut Value) -> Result<(), Failure> {
        let kind = &self.resource.kind;
        let api_version = object::str_at(object, "/apiVersion").to_owned();
        let expected = kind.api_version();
        if !api_version.is_empty() && api_version != expected {
            let message = format!(
                "the API version in the data ({api_version}) does not match the expected API version ({expected})"
            );
            return Err(Failure::bad_request(message));
        }
        let given = object::str_at(object, "/kind").to_owned();
        if !given.is_empty() && given != kind.kind {
            let message = format!(
                "the kind in the data ({given}) does not match the expected kind ({})",
                kind.kind
            );
            return Err(Failure::bad_request(message));
        }
        if object.get("metadata").is_some_and(|m| !m.is_object() && !m.is_null()) {
            return Err(Failure::bad_request("metadata is not an object"));
        }
        object["apiVersion"] = expected.into();
        object["kind"] = kind.kind.clone().into();
        let namespace = object::namespace(object).to_owned();
        if !namespace.is_empty() && namespace != self.namespace {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let metadata = object::metadata(object);
        if kind.namespaced {
            metadata.insert("namespace".into(), self.namespace.clone().into());
        } else {
            metadata.remove("namespace");
        }
        let name = object::name(object).to_owned();
        if !self.name.is_empty() {
            if name.is_empty() {
                object::metadata(object).insert("name".into(), self.name.clone().into());
            } else if name != self.name {
                let message = format!(
                    "the name of the object ({name}) does not match the name on the URL ({})",
                    self.name
                );
                return Err(Failure::bad_request(message));
            }
        }
        Ok(())
    }

    /// Refuses what does not decode, and drops what the kind does not have. Returns the warnings.
    pub(super) fn decode(&self, object: &mut Value) -> Result<Vec<String>, Failure> {
        let kind = &self.resource.kind;
        let cannot = |why: &str| {
            let text = format!(
                "{0} in version \"{1}\" cannot be handled as a {0}: {why}",
                kind.kind, kind.version
            );
            Failure::bad_request(text)
        };
        if self.is_new_event() {
            *object = events::convert(object, "v1");
        }
        let unknown = match &self.resource.custom {
            Some(custom) => custom.schema.as_ref().map(|s| s.prune(object)).unwrap_or_default(),
            None => {
                if let Some(error) = builtin::decode_error(&kind.kind, object) {
                    return Err(cannot(&error));
                }
                builtin::prune(&kind.kind, object)
            }
        };
        if unknown.is_empty() {
            return Ok(Vec::new());
        }
        let said: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
        match self.field_validation()? {
            FieldValidation::Strict => Err(cannot(&format!("strict decoding error: {}", said.join(", ")))),
            FieldValidation::Warn => Ok(said),
            FieldValidation::Ignore => Ok(Vec::new()),
        }
    }

    fn default(&self, object: &mut Value) {
        match &self.resource.custom {
            Some(custom) => {
                if let Some(schema) = &custom.schema {
                    schema.default(object);
                }
            }
            None => builtin::default(&self.resource.kind.kind, object),
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Result<(), Failure> {
        let kind = &self.resource.kind;
        let mut errors = admit::metadata_errors(new, kind);
        match &self.resource.custom {
            Some(custom) => {
                errors.extend(builtin::validate_metadata(new));
                if let Some(schema) = &custom.schema {
                    errors.extend(schema.validate(new, old));
                }
            }
            None => {
                errors.extend(builtin::validate(&kind.kind, new));
                if kind.kind == "CustomResourceDefinition" {
                    errors.extend(definition::errors(new, old));
                }
                if let Some(old) = old {
                    errors.extend(builtin::validate_update(&kind.kind, old, new));
                }
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Failure::invalid(kind, object::name(new), &errors))
        }
    }

    /// Whether the request is for an event of `events.k8s.io`, which is stored, defaulted and validated as one of `v1`.
    fn is_new_event(&self) -> bool {
        *self.resource.table == *"events" && self.resource.kind.group == "events.k8s.io"
    }

    /// A stored object in the form in which it is compared and validated: at the path's version, events at `v1`.
    fn decoded_form(&self, old: &Object) -> Value {
        let mut seen = (**old).clone();
        if !self.is_new_event() {
            seen["apiVersion"] = self.resource.kind.api_version().into();
        }
        seen
    }

    /// Objects are stored at one version; the versions of a CRD differ in nothing else.
    fn stored_form(&self, object: &mut Value) {
        if let Some(custom) = &self.resource.custom {
            object["apiVersion"] = custom.storage_version.clone().into();
        }
    }

    fn track(&self, before: Option<&Value>, after: Value) -> Value {
        let api_version = self.resource.kind.api_version();
        let sub = self.subresource.map(Subresource::path);
        let lists = self.resource.list_types();
        apply::track_update(before, after, &self.manager(), &api_version, sub, &time::now(), &lists)
    }

    /// `POST` of a new object.
    pub(crate) async fn create(&self, mut new: Value) -> Result<Outcome, Failure> {
        self.identify(&mut new)?;
        self.create_identified(new, false).await
    }

    /// Creates; `applied` when `managedFields` are complete already.
    pub(super) async fn create_identified(&self, mut new: Value, applied: bool) -> Result<Outcome, Failure> {
        let kind = &self.resource.kind;
        if !object::resource_version(&new).is_empty() {
            return Err(Failure::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let warnings = self.decode(&mut new)?;
        let generate = object::str_at(&new, "/metadata/generateName").to_owned();
        if object::name(&new).is_empty() {
            if generate.is_empty() {
                let missing = FieldError::required("metadata.name", "name or generateName is required");
                return Err(Failure::invalid(kind, "", &[missing]));
            }
            let name = admit::generated_name(&generate);
            object::metadata(&mut new).insert("name".into(), name.into());
        }
        let name = object::name(&new).to_owned();
        self.namespace_takes(&name)?;
        admit::new_metadata(&mut new, applied, self.resource.counts_generations());
        self.default(&mut new);
        if !applied {
            // A status belongs to who writes the status.
            let status = object::take(&mut new, "status");
            new = self.track(None, new);
            if let Some(status) = status {
                new["status"] = status;
            }
        }
        let reserved = admit::create(self, &mut new).await?;
        self.validate(&new, None)?;
        self.stored_form(&mut new);
        let stored: Object = if self.query.dry_run()? {
            if self.app.store.get(&self.id_of(&name)).is_some() {
                return Err(Failure::already_exists(kind, &name));
            }
            new.into()
        } else {
            let written = self.app.store.write(self.id_of(&name), Expect::Absent, Some(new)).await;
            written.map_err(|e| self.write_failure(&name, e))?
        };
        drop(reserved);
        Ok(Outcome {
            code: 201,
            object: stored,
            warnings,
        })
    }

    /// Refuses new content in a namespace that is missing or terminating.
    fn namespace_takes(&self, name: &str) -> Result<(), Failure> {
        if !self.resource.kind.namespaced {
            return Ok(());
        }
        let Some(namespace) = self.app.namespace(&self.namespace) else {
            return Err(Failure::not_found(&admit::namespace_kind(), &self.namespace));
        };
        if object::is_deleting(&namespace) {
            return Err(Failure::terminating(&self.resource.kind, name, &self.namespace));
        }
        Ok(())
    }

    /// `PUT` of an object or its status.
    pub(crate) async fn replace(&self, mut new: Value) -> Result<Outcome, Failure> {
        self.identify(&mut new)?;
        let warnings = self.decode(&mut new)?;
        let expected = object::resource_version(&new).to_owned();
        for _ in 0..ATTEMPTS {
            let old = self.get()?;
            if !expected.is_empty() && expected != object::resource_version(&old) {
                return Err(Failure::modified(&self.resource.kind, &self.name));
            }
            match self.update(&old, new.clone(), false).await {
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
        Err(Failure::modified(&self.resource.kind, &self.name))
    }

    /// Writes `new` in place of `old`; `applied` when `managedFields` are complete already.
    pub(crate) async fn update(&self, old: &Object, mut new: Value, applied: bool) -> Result<Object, Failure> {
        let kind = &self.resource.kind;
        let uid = object::uid(&new);
        if !uid.is_empty() && uid != object::uid(old) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                object::uid(old)
            );
            return Err(Failure::conflict(kind, &self.name, &why));
        }
        new = match self.subresource {
            Some(Subresource::Status) => admit::only_status(old, new, self.resource.custom.is_some(), applied),
            _ => {
                if kind.has(Subresource::Status) {
                    object::copy_key(old, &mut new, "status");
                }
                new
            }
        };
        admit::kept_metadata(old, &mut new);
        let seen = self.decoded_form(old);
        if self.subresource != Some(Subresource::Finalize) {
            self.default(&mut new);
        }
        if !applied {
            new = self.track(Some(&seen), new);
        }
        admit::update(self, old, &mut new)?;
        if self.resource.counts_generations() && !object::same_spec(old, &new) {
            admit::next_generation(&mut new);
        }
        self.validate(&new, Some(&seen))?;
        self.stored_form(&mut new);
        if self.query.dry_run()? {
            return Ok(new.into());
        }
        let expect = Expect::Revision(revision_of(old));
        let gone = object::is_deleting(&new) && admit::nothing_holds(&new);
        if !gone && object::same(old, &new) {
            return Ok(old.clone());
        }
        let kept = (!gone).then(|| new.clone());
        let written = self.app.store.write(self.id(), expect, kept).await;
        let object = written.map_err(|e| self.write_failure(&self.name, e))?;
        // What ends with a change is answered as changed.
        Ok(if gone { new.into() } else { object })
    }

    /// `PATCH` in one of four formats.
    pub(crate) async fn patch(&self, bytes: &[u8], content_type: &str) -> Result<Outcome, Failure> {
        match body::media_type(content_type) {
            "application/apply-patch+yaml" | "application/apply-patch+json" => self.apply(bytes).await,
            media @ ("application/json-patch+json"
            | "application/merge-patch+json"
            | "application/strategic-merge-patch+json") => self.patch_as(media, &body::json(bytes)?).await,
            _ => Err(Failure::unsupported_media(
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, \
                 application/strategic-merge-patch+json",
            )),
        }
    }

    async fn patch_as(&self, media: &str, patch: &Value) -> Result<Outcome, Failure> {
        let kind = &self.resource.kind;
        for _ in 0..ATTEMPTS {
            let old = self.get()?;
            let seen = view::at_version(&self.resource, &old);
            let patched = match media {
                "application/json-patch+json" => patch::json(&seen, patch),
                "application/merge-patch+json" => Ok(patch::merge(&seen, patch)),
                _ if self.resource.custom.is_some() => {
                    return Err(Failure::unsupported_media(
                        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                    ));
                }
                _ => patch::strategic(&seen, patch, &kind.kind),
            };
            let mut new = patched.map_err(|e| patch_failure(self, &e))?;
            if !new.is_object() {
                return Err(Failure::bad_request("the patch makes something that is not an object"));
            }
            self.identify(&mut new)?;
            let warnings = self.decode(&mut new)?;
            if object::resource_version(&new) != object::resource_version(&old) {
                return Err(Failure::modified(kind, &self.name));
            }
            let named = patch.pointer("/metadata/resourceVersion").is_some();
            match self.update(&old, new, false).await {
                Err(failure) if failure.reason == "Conflict" && !named => {}
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
}

fn patch_failure(call: &Call, error: &patch::PatchError) -> Failure {
    let (kind, name) = (&call.resource.kind, &call.name);
    match error {
        patch::PatchError::Malformed(_) => Failure::bad_request(error.to_string()),
        _ => {
            let mut failure = Failure::invalid(kind, name, &[]);
            failure.message = format!("the server rejected our request due to an error in our request: {error}");
            failure
        }
    }
}
