//! Create and update: from the object of a request to a write in the store. `patch` and `apply` come here with theirs.
//!
//! An object is decoded (`decode`), defaulted, its owners of fields recorded, completed (`admit`), validated, and written
//! on condition that what it was computed from is still there.

use serde_json::Value;

use super::call::{Call, Outcome};
use super::decode::Origin;
use super::registry::Custom;
use super::status::Failure;
use super::store::{Expect, Object, revision_of};
use super::{admit, body, object, time, write_options};
use crate::machinery::json::Read;
use crate::machinery::kinds::Subresource;
use crate::machinery::metadata::{self, Names};
use crate::machinery::schema::{definition_errors, definition_warnings};
use crate::machinery::{FieldError, apply, builtin};

/// Attempts of a write without a condition against concurrent writers.
pub(super) const ATTEMPTS: usize = 16;

impl Call {
    /// The object of a request's body, once the request's options are found to make sense.
    pub(crate) fn body(&self, bytes: &[u8], content_type: &str, options: write_options::Kind) -> Result<Read, Failure> {
        write_options::check(&self.query, options)?;
        body::object(bytes, content_type, &self.resource.kind.kind)
    }

    fn default(&self, object: &mut Value) {
        match &self.resource.custom {
            Some(custom) => {
                admit::drop_empty_metadata(object);
                custom.schema().default(object);
            }
            None => builtin::default(&self.resource.kind.kind, object),
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Result<(), Failure> {
        let kind = &self.resource.kind;
        let mut errors = metadata::errors(new, Names::of(&kind.kind));
        if let Some(old) = old {
            // Both the server and the kind look at it.
            let changed = metadata::update_errors(old, new);
            errors.extend(changed.clone());
            errors.extend(changed);
        }
        match &self.resource.custom {
            Some(custom) => errors.extend(custom.schema().validate(new, old)),
            None => {
                errors.extend(metadata::unqualified_finalizers(new));
                errors.extend(match old {
                    Some(old) => builtin::validate_update(&kind.kind, old, new),
                    None => builtin::validate(&kind.kind, new),
                });
                if kind.kind == "CustomResourceDefinition" {
                    errors.extend(definition_errors(new, old));
                }
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Failure::invalid(kind, object::name(new), &errors))
        }
    }

    /// A stored object in the form in which it is compared and validated: at the path's version, events at `v1`, autoscalers at `v2`.
    fn decoded_form(&self, old: &Object) -> Value {
        let mut seen = (**old).clone();
        if !self.is_new_event() && !self.is_old_autoscaler() {
            seen["apiVersion"] = self.resource.kind.api_version().into();
        }
        seen
    }

    /// Objects are stored at one version, which drops what only others have.
    fn stored_form(&self, object: &mut Value) {
        if let Some(custom) = &self.resource.custom {
            if object::str_at(object, "/apiVersion") != custom.storage_version {
                custom.stored().prune(object);
            }
            object["apiVersion"] = custom.storage_version.clone().into();
        }
    }

    /// Calls `record` with who writes this request's fields.
    pub(super) fn as_writer<T>(&self, record: impl FnOnce(&apply::Writer<'_>) -> T) -> T {
        let kind = &self.resource.kind;
        record(&apply::Writer {
            manager: &self.manager(),
            api_version: &kind.api_version(),
            subresource: self.subresource.map(Subresource::path),
            now: &time::now(),
            lists: &self.resource.list_types(),
            builtin: self.resource.custom.is_none().then_some(kind.kind.as_str()),
        })
    }

    fn track(&self, before: Option<&Value>, after: Value) -> Value {
        self.as_writer(|writer| writer.track(before, after))
    }

    /// `POST` of a new object.
    pub(crate) async fn create(&self, new: impl Into<Read>) -> Result<Outcome, Failure> {
        let Read {
            value: mut new,
            repeated,
        } = new.into();
        self.check_kind(&mut new)?;
        let warnings = self.decode(&mut new, repeated, Origin::Sent)?;
        self.create_decoded(new, warnings, false).await
    }

    /// Creates; `applied` when `managedFields` are complete already.
    pub(super) async fn create_decoded(
        &self,
        mut new: Value,
        mut warnings: Vec<String>,
        applied: bool,
    ) -> Result<Outcome, Failure> {
        let kind = &self.resource.kind;
        self.check_namespace(&mut new)?;
        warnings.extend(admit::distinct_owners(&mut new));
        let version = object::resource_version(&new).to_owned();
        let generate = object::str_at(&new, "/metadata/generateName").to_owned();
        let named = !object::name(&new).is_empty();
        if !named && !generate.is_empty() {
            let name = admit::generated_name(&generate);
            object::metadata(&mut new).insert("name".into(), name.into());
        }
        let name = object::name(&new).to_owned();
        self.namespace_takes(&name)?;
        if self.resource.custom.as_ref().is_some_and(Custom::is_terminating) {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Failure::forbidden(kind, &name, why));
        }
        if kind.kind == "CustomResourceDefinition" {
            warnings.extend(definition_warnings(&new));
        }
        if name.is_empty() {
            let missing = FieldError::required("metadata.name", "name or generateName is required");
            return Err(Failure::invalid(kind, "", &[missing]));
        }
        admit::new_metadata(&mut new, applied, self.resource.counts_generations());
        let labelled = new
            .pointer("/metadata/labels")
            .is_some_and(|labels| *labels != serde_json::json!({}));
        self.default(&mut new);
        if !applied {
            // A status belongs to who writes the status.
            let apart = self.resource.custom.is_none() || kind.has(Subresource::Status);
            let status = apart.then(|| object::take(&mut new, "status")).flatten();
            new = self.track(None, new);
            if let Some(status) = status {
                new["status"] = status;
            }
        }
        let reserved = admit::create(self, labelled, &mut new).await?;
        self.validate(&new, None)?;
        if !version.is_empty() {
            return Err(Failure::unexplained(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        if self.resource.custom.is_none() {
            warnings.extend(builtin::warnings(&kind.kind, &new));
        }
        self.stored_form(&mut new);
        let stored: Object = if self.query.dry_run() {
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
    pub(crate) async fn replace(&self, new: impl Into<Read>) -> Result<Outcome, Failure> {
        let kind = &self.resource.kind;
        let Read {
            value: mut new,
            repeated,
        } = new.into();
        self.check_kind(&mut new)?;
        let mut warnings = self.decode(&mut new, repeated, Origin::Sent)?;
        self.check_namespace(&mut new)?;
        self.check_name(&new)?;
        warnings.extend(admit::distinct_owners(&mut new));
        let expected = expected_version(&new)?;
        for _ in 0..ATTEMPTS {
            let live = self.app.store.get(&self.id());
            self.check_uid(&new, live.as_deref())?;
            let Some(old) = live else {
                if self.subresource.is_some() || !creates_on_update(&kind.kind) {
                    return Err(Failure::not_found(kind, &self.name));
                }
                object::metadata(&mut new).remove("resourceVersion");
                return self.create_decoded(new, warnings, false).await;
            };
            if expected.is_empty() && (self.resource.custom.is_some() || needs_version(&kind.kind)) {
                let at = "metadata.resourceVersion";
                let unversioned = FieldError::invalid(at, &0.into(), "must be specified for an update");
                let mut named = kind.clone();
                if self.resource.custom.is_some() {
                    named.kind = kind.plural.clone();
                }
                return Err(Failure::invalid(&named, &self.name, &[unversioned]));
            }
            if !expected.is_empty() && expected != object::resource_version(&old) {
                return Err(Failure::modified(kind, &self.name));
            }
            match self.update(&old, new.clone(), false).await {
                Err(failure) if failure.reason == "Conflict" && expected.is_empty() => {}
                Ok(object) => {
                    return Ok(self.updated(&old, object, warnings));
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::modified(kind, &self.name))
    }

    /// Whether a generation begins: of a custom kind also with a status that is not written apart.
    fn is_changed(&self, old: &Value, new: &Value) -> bool {
        let whole = self.resource.custom.is_some() && self.subresource.is_none();
        !object::same_spec(old, new) || (whole && old.get("status") != new.get("status"))
    }

    /// Refuses an update that is meant for another object of the same name.
    fn check_uid(&self, new: &Value, live: Option<&Value>) -> Result<(), Failure> {
        let (wanted, found) = (object::uid(new), live.map_or("", object::uid));
        if wanted.is_empty() || wanted == found {
            return Ok(());
        }
        let namespace = if self.namespace.is_empty() {
            String::new()
        } else {
            format!("/{}", self.namespace)
        };
        let key = format!("{}{namespace}/{}", self.stored_under(), self.name);
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{key}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        );
        Err(Failure::conflict(&self.resource.kind, &self.name, &why))
    }

    /// Where Kubernetes keeps the kind: messages show it.
    fn stored_under(&self) -> String {
        let kind = &self.resource.kind;
        match kind.kind.as_str() {
            _ if self.resource.custom.is_some() => format!("{}/{}", kind.group, kind.plural),
            "Service" => "services/specs".into(),
            "Endpoints" => "services/endpoints".into(),
            "Node" => "minions".into(),
            "Ingress" => "ingress".into(),
            _ => kind.plural.clone(),
        }
    }

    /// The outcome of an update, with what is to be warned of in what changed.
    pub(super) fn updated(&self, old: &Object, object: Object, mut warnings: Vec<String>) -> Outcome {
        let judged = self.resource.custom.is_none() && self.subresource.is_none();
        if judged && !object::same_spec(old, &object) {
            let found = builtin::warnings(&self.resource.kind.kind, &object);
            warnings.extend(found.into_iter().filter(|text| !text.starts_with("metadata.name:")));
        }
        Outcome {
            code: 200,
            object,
            warnings,
        }
    }

    /// Writes `new` in place of `old`; `applied` when `managedFields` are complete already.
    pub(crate) async fn update(&self, old: &Object, mut new: Value, applied: bool) -> Result<Object, Failure> {
        let seen = self.decoded_form(old);
        if self.subresource != Some(Subresource::Finalize) {
            self.default(&mut new);
        }
        admit::kept_metadata(old, &mut new);
        if !applied {
            new = self.track(Some(&seen), new);
        }
        let has_status = self.resource.kind.has(Subresource::Status);
        match self.subresource {
            Some(Subresource::Status) => new = admit::only_status(old, new, &self.resource),
            _ if has_status => object::copy_key(old, &mut new, "status"),
            _ => {}
        }
        admit::update(self, old, &mut new)?;
        // A Deployment's annotations go to its ReplicaSets, so that they are part of what is wanted; all but that of its
        // own controller.
        let annotated = self.resource.kind.kind == "Deployment"
            && self.subresource.is_none()
            && !object::same_annotations(old, &new, "deployment.kubernetes.io/revision");
        if self.resource.counts_generations() && (annotated || self.is_changed(old, &new)) {
            admit::next_generation(&mut new);
        }
        self.validate(&new, Some(&seen))?;
        self.stored_form(&mut new);
        if self.query.dry_run() {
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
}

/// The revision that an update is meant for; empty where it is meant for any.
pub(super) fn expected_version(object: &Value) -> Result<String, Failure> {
    let version = object::resource_version(object);
    match version.parse::<u64>() {
        _ if version.is_empty() => Ok(String::new()),
        Ok(0) => Ok(String::new()),
        Ok(_) => Ok(version.to_owned()),
        Err(_) => Err(Failure::unexplained(format!(
            "strconv.ParseUint: parsing {version:?}: invalid syntax"
        ))),
    }
}

/// Kinds whose objects a `PUT` makes where there is none.
fn creates_on_update(kind: &str) -> bool {
    matches!(
        kind,
        "ClusterRole"
            | "ClusterRoleBinding"
            | "Endpoints"
            | "Event"
            | "Lease"
            | "LimitRange"
            | "Role"
            | "RoleBinding"
            | "RuntimeClass"
            | "Service"
    )
}

/// Built-in kinds whose updates must name a revision.
fn needs_version(kind: &str) -> bool {
    matches!(
        kind,
        "CSIDriver"
            | "CSINode"
            | "CSIStorageCapacity"
            | "CustomResourceDefinition"
            | "Lease"
            | "MutatingAdmissionPolicy"
            | "MutatingAdmissionPolicyBinding"
            | "MutatingWebhookConfiguration"
            | "PodDisruptionBudget"
            | "RuntimeClass"
            | "ValidatingAdmissionPolicy"
            | "ValidatingAdmissionPolicyBinding"
            | "ValidatingWebhookConfiguration"
            | "VolumeAttachment"
    )
}
