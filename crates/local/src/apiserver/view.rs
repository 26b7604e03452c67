//! How an object is shown: at the version of the path, as itself, as its metadata, or as rows of a table. Pure.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::registry::Resource;
use super::status::Failure;
use super::store::Object;
use super::{autoscaling, events, object, time};
use crate::machinery::table;

/// The form of an answer, from the `Accept` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Table,
    Metadata,
}

impl Form {
    /// The first form of the header that the server has. Protobuf it has not.
    pub(crate) fn negotiate(accept: &str) -> Result<Self, Failure> {
        if accept.trim().is_empty() {
            return Ok(Self::Whole);
        }
        for entry in accept.split(',') {
            let mut parts = entry.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            if !matches!(media, "application/json" | "application/*" | "*/*") {
                continue;
            }
            let parts: Vec<&str> = parts.collect();
            let group_fits = !parts.iter().any(|p| p.starts_with("g=") && *p != "g=meta.k8s.io");
            let version_fits = !parts.iter().any(|p| p.starts_with("v=") && *p != "v=v1");
            match parts.iter().find_map(|p| p.strip_prefix("as=")) {
                None => return Ok(Self::Whole),
                Some("Table") if group_fits && version_fits => return Ok(Self::Table),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") if group_fits && version_fits => {
                    return Ok(Self::Metadata);
                }
                Some(_) => {}
            }
        }
        Err(Failure::not_acceptable())
    }
}

/// The object as the resource's version has it, with the defaults that its definition got since it was written.
pub(crate) fn at_version(resource: &Resource, stored: &Object) -> Object {
    let expected = resource.kind.api_version();
    let same = object::str_at(stored, "/apiVersion") == expected;
    let defaults = resource.custom.as_ref().filter(|custom| custom.stored().has_defaults());
    if same && defaults.is_none() {
        return stored.clone();
    }
    if *resource.table == *"events" {
        return Arc::new(events::convert(stored, &expected));
    }
    if resource.kind.group == "autoscaling" {
        return Arc::new(autoscaling::convert(stored, &expected));
    }
    let mut shown = (**stored).clone();
    shown["apiVersion"] = expected.into();
    if let Some(custom) = defaults {
        custom.stored().default(&mut shown);
    }
    Arc::new(shown)
}

/// Serializes as the object less its kind and version.
pub(crate) struct WithoutKind<'a>(pub(crate) &'a Value);

impl Serialize for WithoutKind<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.as_object().into_iter().flatten();
        serializer.collect_map(fields.filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind")))
    }
}

/// The metadata alone.
pub(crate) fn metadata_only(stored: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": stored.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

/// A table of objects. `include` is the query's `includeObject`.
pub(crate) fn as_table(resource: &Resource, objects: &[Object], include: Option<&str>, metadata: Value) -> Value {
    let items: Vec<Value> = objects.iter().map(|o| (**o).clone()).collect();
    let now = time::now();
    let for_cells = |object: &Value| match resource.kind.group.as_str() {
        "events.k8s.io" => events::convert(object, "v1"),
        "autoscaling" => autoscaling::convert(object, "autoscaling/v2"),
        _ => object.clone(),
    };
    let mut result = match &resource.custom {
        Some(custom) => table::crd(custom.schema().columns(), &items, &now),
        None => table::builtin(&resource.kind.kind, items.iter().map(for_cells), &now),
    };
    result["kind"] = "Table".into();
    result["apiVersion"] = "meta.k8s.io/v1".into();
    result["metadata"] = metadata;
    if let Some(rows) = result.get_mut("rows").and_then(Value::as_array_mut) {
        for (row, object) in rows.iter_mut().zip(items) {
            match include {
                Some("None") => row["object"] = Value::Null,
                Some("Object") => row["object"] = object,
                _ => row["object"] = metadata_only(&object),
            }
        }
    }
    result
}

/// One object in the form asked for.
pub(crate) fn one(resource: &Resource, stored: &Object, form: Form, include: Option<&str>) -> Object {
    let shown = at_version(resource, stored);
    match form {
        Form::Whole => shown,
        Form::Metadata => Arc::new(metadata_only(&shown)),
        Form::Table => {
            let metadata = json!({"resourceVersion": object::resource_version(&shown)});
            Arc::new(as_table(resource, &[shown], include, metadata))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Form;

    #[test]
    fn the_first_form_that_the_server_has_is_taken() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(Form::negotiate(kubectl).unwrap(), Form::Table);
        assert_eq!(
            Form::negotiate("application/vnd.kubernetes.protobuf, application/json").unwrap(),
            Form::Whole
        );
        assert_eq!(Form::negotiate("*/*").unwrap(), Form::Whole);
        let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(Form::negotiate(partial).unwrap(), Form::Metadata);
        assert_eq!(
            Form::negotiate("application/vnd.kubernetes.protobuf").unwrap_err().code,
            406
        );
    }
}
