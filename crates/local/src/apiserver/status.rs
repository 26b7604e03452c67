//! Failures as Kubernetes `Status` objects: the codes, reasons and wordings that clients match on.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use crate::machinery::kinds::Kind;
use crate::machinery::{FieldError, Reason};

/// A request that failed, as the client will see it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) details: Option<Value>,
    /// A token with which a list that cannot go on as it began goes on with what is there now.
    pub(crate) resume: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            resume: None,
        }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = Some(details(name, &kind.plural, &kind.group));
        self
    }

    pub(crate) fn no_route() -> Self {
        let mut failure = Self::new(404, "NotFound", "the server could not find the requested resource");
        failure.details = Some(json!({}));
        failure
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{} \"{name}\" not found", kind.resource_name()),
        )
        .about(kind, name)
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", kind.resource_name()),
        )
        .about(kind, name)
    }

    pub(crate) fn modified(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            kind.resource_name()
        );
        Self::new(409, "Conflict", message).about(kind, name)
    }

    pub(crate) fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        Self::new(
            403,
            "Forbidden",
            format!("{} \"{name}\" is forbidden: {why}", kind.resource_name()),
        )
        .about(kind, name)
    }

    pub(crate) fn terminating(kind: &Kind, name: &str, namespace: &str) -> Self {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut failure = Self::forbidden(kind, name, &why);
        if let Some(details) = &mut failure.details {
            details["causes"] = json!([{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"),
                "field": "metadata.namespace",
            }]);
        }
        failure
    }

    pub(crate) fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid_thing((&kind.kind, &kind.group), name, errors)
    }

    /// Options of a request, such as `PatchOptions`, that mean nothing.
    pub(crate) fn invalid_options(options: &str, errors: &[FieldError]) -> Self {
        Self::invalid_thing((options, "meta.k8s.io"), "", errors)
    }

    /// A patch whose result is no object of the kind. `shown` is the result or the patch.
    pub(crate) fn invalid_patch(shown: &str, why: &str) -> Self {
        let message = format!("Invalid value: {}: {why}", json!(shown));
        Self::invalid_thing(("", ""), "", &[FieldError::new("patch", Reason::Invalid, message)])
    }

    /// A scale that is wrong, whatever kind it is of.
    pub(crate) fn invalid_scale(name: &str, error: &FieldError) -> Self {
        Self::invalid_thing(("Scale", "autoscaling"), name, std::slice::from_ref(error))
    }

    fn invalid_thing((kind, group): (&str, &str), name: &str, errors: &[FieldError]) -> Self {
        let full = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let mut listed: Vec<String> = Vec::new();
        for text in errors.iter().map(|e| format!("{}: {}", e.field, e.message)) {
            // What two checks find is said once.
            if !listed.contains(&text) {
                listed.push(text);
            }
        }
        let what = match listed.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut failure = Self::new(422, "Invalid", format!("{full} \"{name}\" is invalid: {what}"));
        let causes: Vec<Value> = errors
            .iter()
            .map(|e| json!({"reason": e.reason.name(), "message": e.message, "field": e.field}))
            .collect();
        let mut details = details(name, kind, group);
        details["causes"] = causes.into();
        failure.details = Some(details);
        failure
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        let mut failure = Self::new(405, "MethodNotAllowed", message);
        failure.details = Some(json!({}));
        failure
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// A failure that Kubernetes has no reason for.
    pub(crate) fn unexplained(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    pub(crate) fn unsupported_media(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(crate) fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json, application/json;stream=watch";
        Self::new(406, "NotAcceptable", message)
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {}", message.into()),
        )
    }

    /// The `Status` object.
    pub(crate) fn body(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        if let Some(token) = &self.resume {
            status["metadata"]["continue"] = token.clone().into();
        }
        status
    }
}

/// What a failure is about, as far as it is known.
fn details(name: &str, kind: &str, group: &str) -> Value {
    let known = [("name", name), ("kind", kind), ("group", group)];
    let known = known.into_iter().filter(|(_, text)| !text.is_empty());
    known.map(|(key, text)| (key.to_owned(), Value::from(text))).collect()
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = code;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        response
    }
}
