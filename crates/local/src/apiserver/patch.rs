//! `PATCH` with a JSON, merge or strategic merge patch. One that lost a race is computed again from what won.

use serde_json::{Value, json};

use super::call::{Call, Outcome};
use super::decode::Origin;
use super::status::Failure;
use super::store::Object;
use super::write::{ATTEMPTS, expected_version};
use super::{admit, body, object, view, write_options};
use crate::machinery::json::Read;
use crate::machinery::patch::{self, PatchError};

/// The formats of patches of built-in kinds, and of custom resources.
const FORMATS: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// How a patch is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Merge,
    Strategic,
}

impl Call {
    /// `PATCH` in one of four formats.
    pub(crate) async fn patch(&self, bytes: &[u8], content_type: &str) -> Result<Outcome, Failure> {
        let custom = self.resource.custom.is_some();
        let format = match body::media_type(content_type) {
            "application/apply-patch+yaml" => {
                write_options::check(&self.query, write_options::Kind::Apply)?;
                return self.apply(bytes).await;
            }
            "application/json-patch+json" => Format::Json,
            "application/merge-patch+json" => Format::Merge,
            "application/strategic-merge-patch+json" if !custom => Format::Strategic,
            _ if custom => return Err(Failure::unsupported_media(FORMATS)),
            _ => {
                let mut failure = Failure::new(415, "UnsupportedMediaType", "415: Unsupported Media Type");
                failure.details = Some(json!({}));
                return Err(failure);
            }
        };
        write_options::check(&self.query, write_options::Kind::Patch)?;
        self.patch_as(format, bytes).await
    }

    async fn patch_as(&self, format: Format, bytes: &[u8]) -> Result<Outcome, Failure> {
        let kind = &self.resource.kind;
        for _ in 0..ATTEMPTS {
            let old = self.get()?;
            let Read { value: patch, repeated } = read(format, bytes)?;
            let mut new = self.patched(format, &old, &patch)?;
            let origin = match format {
                Format::Strategic => Origin::Merged(&patch),
                _ => Origin::Patched,
            };
            self.check_kind(&mut new)?;
            let mut warnings = self.decode(&mut new, repeated, origin)?;
            self.check_namespace(&mut new)?;
            self.check_name(&new)?;
            warnings.extend(admit::distinct_owners(&mut new));
            let expected = expected_version(&new)?;
            if !expected.is_empty() && expected != object::resource_version(&old) {
                return Err(Failure::modified(kind, &self.name));
            }
            let named = patch.pointer("/metadata/resourceVersion").is_some();
            match self.update(&old, new, false).await {
                Err(failure) if failure.reason == "Conflict" && !named => {}
                Ok(object) => return Ok(self.updated(&old, object, warnings)),
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::modified(kind, &self.name))
    }

    fn patched(&self, format: Format, old: &Object, patch: &Value) -> Result<Value, Failure> {
        let seen = view::at_version(&self.resource, old);
        let patched = match format {
            Format::Json => patch::json(&seen, patch),
            Format::Merge => patch::merge(&seen, patch),
            Format::Strategic => patch::strategic(&seen, patch, &self.resource.kind.kind),
        };
        let new = patched.map_err(|e| failure(&e))?;
        if !new.is_object() {
            let why = "json: cannot unmarshal array into Go value of type map[string]interface {}";
            return Err(Failure::invalid_patch(&new.to_string(), why));
        }
        Ok(new)
    }
}

fn read(format: Format, bytes: &[u8]) -> Result<Read, Failure> {
    let mut read = body::patch(bytes).map_err(|e| {
        Failure::bad_request(match format {
            Format::Strategic => e,
            Format::Json | Format::Merge => format!("error decoding patch: {e}"),
        })
    })?;
    if format == Format::Json {
        for text in &mut read.repeated {
            *text = format!("json patch {text}");
        }
        let operations = read.value.as_array().into_iter().flatten().enumerate();
        for (i, name) in operations.flat_map(|(i, o)| {
            o.as_object()
                .into_iter()
                .flat_map(move |o| o.keys().map(move |k| (i, k)))
        }) {
            if !["op", "path", "from", "value"].contains(&name.as_str()) {
                read.repeated.push(format!("json patch unknown field \"[{i}].{name}\""));
            }
        }
    }
    Ok(read)
}

pub(super) fn failure(error: &PatchError) -> Failure {
    let text = error.to_string();
    match error {
        PatchError::Malformed(_) => Failure::bad_request(text),
        PatchError::TooMany(_) => Failure::new(413, "RequestEntityTooLarge", text),
        PatchError::CannotMerge(_) => Failure::unexplained(text),
        PatchError::DoesNotApply => {
            let mut failure = Failure::new(422, "Invalid", text);
            failure.details = Some(json!({}));
            failure
        }
    }
}
