//! Parts of objects that are not their status: scale, eviction, binding, tokens.

use std::sync::Arc;

use serde_json::{Value, json};

use super::call::{Call, Outcome};
use super::delete::Options;
use super::patch::failure;
use super::status::Failure;
use super::store::Object;
use super::{body, object};
use crate::machinery::kinds::Kind;
use crate::machinery::{FieldError, patch};

const ATTEMPTS: usize = 16;

/// `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

impl Call {
    fn replicas_pointer(&self) -> String {
        let custom = self.resource.custom.as_ref();
        pointer(
            custom
                .and_then(|c| c.scale_path("specReplicasPath"))
                .unwrap_or(".spec.replicas"),
        )
    }

    fn scale_of(&self, object: &Value) -> Value {
        let custom = self.resource.custom.as_ref();
        let status = pointer(
            custom
                .and_then(|c| c.scale_path("statusReplicasPath"))
                .unwrap_or(".status.replicas"),
        );
        let selector = match custom {
            Some(custom) => {
                let path = custom.scale_path("labelSelectorPath").map(pointer);
                path.and_then(|p| object.pointer(&p))
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            }
            None => selector_text(object.pointer("/spec/selector")),
        };
        let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let metadata = object.get("metadata").cloned().unwrap_or_default();
        let mut scale = json!({
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {
                "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
            },
            "spec": {},
            "status": {"replicas": number(&status)},
        });
        let wanted = number(&self.replicas_pointer());
        if wanted > 0 {
            scale["spec"]["replicas"] = wanted.into();
        }
        if !selector.is_empty() {
            scale["status"]["selector"] = selector.into();
        }
        scale
    }

    /// `GET` of the scale.
    pub(crate) fn read_scale(&self) -> Result<Object, Failure> {
        Ok(Arc::new(self.scale_of(&*self.get()?)))
    }

    /// `PUT` (`media` empty) or `PATCH` of the scale.
    pub(crate) async fn write_scale(&self, bytes: &[u8], media: &str, replace: bool) -> Result<Outcome, Failure> {
        let body = if replace {
            body::object(bytes, media, "Scale")?.value
        } else {
            body::patch(bytes).map_err(Failure::bad_request)?.value
        };
        for _ in 0..ATTEMPTS {
            let old = self.get()?;
            let before = self.scale_of(&old);
            let wanted = match body::media_type(media) {
                _ if replace => body.clone(),
                "application/json-patch+json" => patch::json(&before, &body).map_err(|e| failure(&e))?,
                "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
                    patch::merge(&before, &body).map_err(|e| failure(&e))?
                }
                _ => {
                    return Err(Failure::unsupported_media(
                        "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json",
                    ));
                }
            };
            let version = object::resource_version(&wanted);
            if !version.is_empty() && version != object::resource_version(&old) {
                return Err(Failure::modified(&self.resource.kind, &self.name));
            }
            let named = !object::resource_version(&body).is_empty();
            let named_as = object::name(&wanted);
            if !named_as.is_empty() && named_as != self.name {
                return Err(Failure::bad_request(format!(
                    "the name of the object ({named_as}) does not match the name on the URL ({})",
                    self.name
                )));
            }
            let wanted = wanted.pointer("/spec/replicas").filter(|v| !v.is_null());
            let replicas = wanted.map_or(Some(0), Value::as_u64).ok_or_else(|| {
                let value = wanted.cloned().unwrap_or_default();
                let why = "must be greater than or equal to 0";
                Failure::invalid_scale(&self.name, &FieldError::invalid("spec.replicas", &value, why))
            })?;
            let mut new = (*old).clone();
            new["apiVersion"] = self.resource.kind.api_version().into();
            set(&mut new, &self.replicas_pointer(), replicas.into());
            match self.update(&old, new, false).await {
                Err(failure) if failure.reason == "Conflict" && !named => {}
                Ok(object) => return Ok(Outcome::ok(Arc::new(self.scale_of(&object)))),
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::modified(&self.resource.kind, &self.name))
    }

    /// `POST` of a pod's eviction: a delete with the options that it carries.
    pub(crate) async fn evict(&self, eviction: &Value) -> Result<Outcome, Failure> {
        if object::name(eviction) != self.name {
            return Err(Failure::bad_request(
                "name in URL does not match name in Eviction object",
            ));
        }
        let options = Options::parse(self, eviction.get("deleteOptions"))?;
        self.spend_disruption(&*self.get()?).await?;
        self.delete(&options).await?;
        Ok(Outcome {
            code: 201,
            object: Arc::new(success()),
            warnings: Vec::new(),
        })
    }

    /// `POST` of a pod's binding to a node.
    pub(crate) async fn bind(&self, binding: &Value) -> Result<Outcome, Failure> {
        let node = object::str_at(binding, "/target/name");
        if node.is_empty() {
            return Err(Failure::new(500, "", "target.name: Required value"));
        }
        let part = Kind {
            plural: "pods/binding".into(),
            ..self.resource.kind.clone()
        };
        for _ in 0..ATTEMPTS {
            let old = self.get()?;
            let bound = object::str_at(&old, "/spec/nodeName");
            if !bound.is_empty() {
                let why = format!("pod {} is already assigned to node \"{bound}\"", self.name);
                return Err(Failure::conflict(&part, &self.name, &why));
            }
            if object::is_deleting(&old) {
                let why = format!("pod {} is being deleted, cannot be assigned to a host", self.name);
                return Err(Failure::conflict(&part, &self.name, &why));
            }
            let mut new = (*old).clone();
            object::child(&mut new, "spec").insert("nodeName".into(), node.into());
            match self.update(&old, new, false).await {
                Err(failure) if failure.reason == "Conflict" => {}
                Ok(_) => {
                    return Ok(Outcome {
                        code: 201,
                        object: Arc::new(success()),
                        warnings: Vec::new(),
                    });
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::modified(&self.resource.kind, &self.name))
    }
}

fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

/// Sets the value at a pointer, making the objects on the way.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    let mut keys = pointer.split('/').filter(|k| !k.is_empty()).peekable();
    while let Some(key) = keys.next() {
        if !at.is_object() {
            *at = json!({});
        }
        if keys.peek().is_none() {
            at[key] = value;
            return;
        }
        at = &mut at[key];
    }
}

/// A label selector as text.
fn selector_text(selector: Option<&Value>) -> String {
    let mut terms = Vec::new();
    if let Some(labels) = selector.and_then(|s| s.get("matchLabels")).and_then(Value::as_object) {
        terms.extend(
            labels
                .iter()
                .filter_map(|(k, v)| v.as_str().map(|v| format!("{k}={v}"))),
        );
    }
    let expressions = selector
        .and_then(|s| s.get("matchExpressions"))
        .and_then(Value::as_array);
    for expression in expressions.into_iter().flatten() {
        let key = object::str_at(expression, "/key");
        let values = expression.get("values").and_then(Value::as_array);
        let values: Vec<&str> = values.into_iter().flatten().filter_map(Value::as_str).collect();
        terms.push(match object::str_at(expression, "/operator") {
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            _ => format!("{key} in ({})", values.join(",")),
        });
    }
    terms.join(",")
}
