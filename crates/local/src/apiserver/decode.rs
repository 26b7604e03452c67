//! From what a client sent to an object of the kind: is it of that kind, in its place, and made of the kind's fields?

use serde_json::{Value, json};

use super::call::Call;
use super::status::Failure;
use super::write_options::FieldValidation;
use super::{autoscaling, body, events, object};
use crate::machinery::kinds::Kind;
use crate::machinery::{FieldError, builtin, kinds, patch};

/// Where an object comes from, which decides how it is told that it does not decode.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    /// It was sent.
    Sent,
    /// It is what a JSON or merge patch made.
    Patched,
    /// It is what this strategic merge patch made.
    Merged(&'a Value),
    /// It is to be applied.
    Applied,
}

impl Call {
    /// Checks that an object is of the resource that the path names.
    pub(super) fn check_kind(&self, object: &mut Value) -> Result<(), Failure> {
        let kind = &self.resource.kind;
        let expected = kind.api_version();
        let version = object::str_at(object, "/apiVersion").to_owned();
        let given = object::str_at(object, "/kind").to_owned();
        let wrong_version = !version.is_empty() && version != expected;
        let wrong_kind = !given.is_empty() && given != kind.kind;
        if version.split('/').count() > 2 {
            let why = format!("unexpected GroupVersion string: {version}");
            return Err(body::unrecognized(&kind.kind, &why, object.to_string().as_bytes()));
        }
        if wrong_version && (self.resource.custom.is_some() || (!wrong_kind && version.contains("beta"))) {
            return Err(Failure::bad_request(format!(
                "the API version in the data ({version}) does not match the expected API version ({expected})"
            )));
        }
        if wrong_kind && self.resource.custom.is_some() {
            let error = FieldError::invalid("kind", &given.clone().into(), &format!("must be {}", kind.kind));
            let named = Kind {
                kind: given,
                ..kind.clone()
            };
            return Err(Failure::invalid(&named, object::name(object), &[error]));
        }
        if wrong_version || wrong_kind {
            return Err(self.other_kind(
                if version.is_empty() { &expected } else { &version },
                if given.is_empty() { &kind.kind } else { &given },
            ));
        }
        object["apiVersion"] = expected.into();
        object["kind"] = kind.kind.clone().into();
        Ok(())
    }

    /// A built-in kind got an object of another.
    fn other_kind(&self, api_version: &str, given: &str) -> Failure {
        let kind = &self.resource.kind;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let known = kinds::builtin()
            .iter()
            .any(|other| other.kind == given && other.api_version() == api_version);
        let why = if known {
            let package = |group: &str| {
                group
                    .split('.')
                    .next()
                    .filter(|g| !g.is_empty())
                    .unwrap_or("core")
                    .to_owned()
            };
            let (from, to) = (version, package(&kind.group));
            format!(
                "converting ({from}.{given}) to ({to}.{}): unknown conversion",
                kind.kind
            )
        } else {
            let full = if group.is_empty() { version } else { api_version };
            format!(
                "no kind {given:?} is registered for version {full:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
            )
        };
        Failure::bad_request(format!(
            "{given} in version {version:?} cannot be handled as a {}: {why}",
            kind.kind
        ))
    }

    /// Checks that an object is in the namespace that the path names, and puts it there.
    pub(super) fn check_namespace(&self, object: &mut Value) -> Result<(), Failure> {
        let namespace = object::namespace(object).to_owned();
        let metadata = object::metadata(object);
        if !self.resource.kind.namespaced {
            metadata.remove("namespace");
            return Ok(());
        }
        if !namespace.is_empty() && namespace != self.namespace {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        metadata.insert("namespace".into(), self.namespace.clone().into());
        Ok(())
    }

    /// Checks that an object has the name that the path has.
    pub(super) fn check_name(&self, object: &Value) -> Result<(), Failure> {
        let (name, wanted) = (object::name(object), &self.name);
        if name.is_empty() {
            return Err(Failure::bad_request(format!(
                "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
            )));
        }
        if name != wanted {
            return Err(Failure::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({wanted})"
            )));
        }
        Ok(())
    }

    /// Refuses what does not decode, and drops what the kind does not have. Returns the warnings, those of `repeated`
    /// among them: what was said of fields that were given twice.
    pub(super) fn decode(
        &self,
        object: &mut Value,
        repeated: Vec<String>,
        origin: Origin<'_>,
    ) -> Result<Vec<String>, Failure> {
        if self.is_new_event() {
            *object = events::convert(object, "v1");
        }
        if self.is_old_autoscaler() {
            *object = autoscaling::convert(object, "autoscaling/v2");
        }
        let kind = &self.resource.kind.kind;
        let mut said = repeated;
        let unknown = match &self.resource.custom {
            Some(_) if object.get("metadata").is_some_and(|m| !m.is_object() && !m.is_null()) => {
                return Err(Failure::bad_request("metadata is not an object"));
            }
            Some(custom) => custom.schema().prune(object),
            None => {
                let sent = object.clone();
                if let Some(wrong) = builtin::decode_error(kind, object) {
                    return Err(self.undecodable(&sent, origin, &wrong));
                }
                let unknown = builtin::prune(kind, object);
                if let (Origin::Applied, Some(first)) = (origin, unknown.first()) {
                    let what = format!(".{first}: field not declared in schema");
                    return Err(self.untyped(&sent, &what));
                }
                unknown
            }
        };
        keep_reset(object);
        said.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
        match FieldValidation::of(&self.query) {
            FieldValidation::Ignore => Ok(Vec::new()),
            FieldValidation::Strict if !said.is_empty() && matches!(origin, Origin::Applied) => {
                Err(Failure::bad_request(format!(
                    "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  {}",
                    said.join("\n  ")
                )))
            }
            FieldValidation::Strict if !said.is_empty() => {
                let lines = said.iter().map(|text| match text.strip_prefix("line ") {
                    Some(line) => format!("yaml: unmarshal errors:\n  line {line}"),
                    None => text.clone(),
                });
                let why = format!("strict decoding error: {}", lines.collect::<Vec<_>>().join(", "));
                Err(self.cannot_be_handled(object, origin, &why))
            }
            _ => Ok(said),
        }
    }

    /// A value of a wrong type.
    fn undecodable(&self, object: &Value, origin: Origin<'_>, wrong: &builtin::Wrong) -> Failure {
        let found = &wrong.found;
        match origin {
            Origin::Applied => self.untyped(object, &mistyped(wrong, found)),
            Origin::Merged(_) => self.cannot_be_handled(object, origin, &unrestorable(wrong, found)),
            _ => self.cannot_be_handled(object, origin, &wrong.to_string()),
        }
    }

    fn cannot_be_handled(&self, object: &Value, origin: Origin<'_>, why: &str) -> Failure {
        let kind = &self.resource.kind;
        match origin {
            Origin::Sent | Origin::Applied => Failure::bad_request(format!(
                "{0} in version \"{1}\" cannot be handled as a {0}: {why}",
                kind.kind, kind.version
            )),
            Origin::Patched => Failure::invalid_patch(&object.to_string(), why),
            Origin::Merged(patch) => Failure::invalid_patch(&patch::go_text(patch), why),
        }
    }

    /// A configuration that is none of the kind. Kubernetes takes the blame for it.
    pub(super) fn untyped(&self, config: &Value, why: &str) -> Failure {
        let kind = &self.resource.kind;
        Failure::unexplained(format!(
            "failed to create typed patch object ({}/{}; {}/{}, Kind={}): {why}",
            object::namespace(config),
            object::name(config),
            kind.group,
            kind.version,
            kind.kind
        ))
    }

    /// Whether the request is for an event of `events.k8s.io`, which is stored, defaulted and validated as one of `v1`.
    pub(super) fn is_new_event(&self) -> bool {
        *self.resource.table == *"events" && self.resource.kind.group == "events.k8s.io"
    }

    /// Whether the request is for an autoscaler of `autoscaling/v1`, which is stored as one of `v2`.
    pub(super) fn is_old_autoscaler(&self) -> bool {
        self.resource.kind.group == "autoscaling" && self.resource.kind.version == "v1"
    }
}

/// An empty record of owners asks to forget them, as one empty entry does. Empty lists do not outlast decoding.
fn keep_reset(object: &mut Value) {
    if let Some(list) = object.pointer_mut("/metadata/managedFields")
        && list.as_array().is_some_and(Vec::is_empty)
    {
        *list = json!([{}]);
    }
}

/// How an apply tells of a wrong type.
fn mistyped(wrong: &builtin::Wrong, found: &Value) -> String {
    let shown = patch::go_text(found);
    let what = match wrong.expected.as_str() {
        map if map.starts_with("map[") || map.starts_with("v1.") => format!("expected map, got &{{{shown}}}"),
        list if list.starts_with("[]") => format!("expected list, got &{{{shown}}}"),
        "string" => format!("expected string, got &value.valueUnstructured{{Value:{found}}}"),
        "bool" => format!("expected boolean, got &value.valueUnstructured{{Value:{found}}}"),
        "" => wrong.to_string(),
        _ => format!(
            "expected numeric (int or float), got {}",
            crate::machinery::json::type_name(found)
        ),
    };
    format!(".{}: {what}", wrong.path)
}

/// How a strategic merge tells of a wrong type.
fn unrestorable(wrong: &builtin::Wrong, found: &Value) -> String {
    let kind = match found {
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        _ => "int64",
    };
    match wrong.expected.as_str() {
        "" => wrong.to_string(),
        map if map.starts_with("map[") => format!("cannot restore map from {kind}"),
        list if list.starts_with("[]") => format!("cannot restore slice from {kind}"),
        object if object.starts_with("v1.") => format!("cannot restore struct from: {kind}"),
        scalar => format!("unrecognized type: {scalar}"),
    }
}
