//! One request for a resource: who asks for what, and what the answer carries.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::App;
use super::auth::User;
use super::registry::Resource;
use super::request::Query;
use super::status::Failure;
use super::store::{Id, Object, WriteError};
use crate::machinery::kinds::Subresource;

/// A request for a resource, an object or a part of one.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) user: User,
    pub(crate) resource: Arc<Resource>,
    /// Empty for all namespaces and for objects outside of them.
    pub(crate) namespace: String,
    /// Empty for a collection.
    pub(crate) name: String,
    pub(crate) subresource: Option<Subresource>,
    pub(crate) query: Query,
    pub(crate) user_agent: String,
    pub(crate) accept: String,
}

impl Call {
    pub(crate) fn id(&self) -> Id {
        self.id_of(&self.name)
    }

    pub(crate) fn id_of(&self, name: &str) -> Id {
        Id {
            resource: self.resource.table.clone(),
            namespace: self.namespace.clone(),
            name: name.to_owned(),
        }
    }

    pub(crate) fn get(&self) -> Result<Object, Failure> {
        let found = self.app.store.get(&self.id());
        found.ok_or_else(|| Failure::not_found(&self.resource.kind, &self.name))
    }

    /// Who the fields that this request sets belong to.
    pub(crate) fn manager(&self) -> String {
        let given = self.query.get("fieldManager").map(str::to_owned);
        given.unwrap_or_else(|| {
            let product = self.user_agent.split('/').next().unwrap_or_default().trim();
            if product.is_empty() {
                "unknown".into()
            } else {
                product.chars().take(128).collect()
            }
        })
    }

    pub(crate) fn write_failure(&self, name: &str, error: WriteError) -> Failure {
        let kind = &self.resource.kind;
        match error {
            WriteError::Exists => Failure::already_exists(kind, name),
            WriteError::Missing => Failure::not_found(kind, name),
            WriteError::Changed => Failure::modified(kind, name),
            WriteError::Full { .. } => Failure::new(507, "InsufficientStorage", error.to_string()),
            WriteError::Storage { .. } => Failure::internal(error.to_string()),
            WriteError::Closed => Failure::new(503, "ServiceUnavailable", error.to_string()),
        }
    }
}

/// What a write answers with.
pub(crate) struct Outcome {
    pub(crate) code: u16,
    pub(crate) object: Object,
    /// For the `Warning` header.
    pub(crate) warnings: Vec<String>,
}

impl Outcome {
    pub(crate) fn ok(object: Object) -> Self {
        Self {
            code: 200,
            object,
            warnings: Vec::new(),
        }
    }
}

/// JSON with a status code.
pub(crate) fn json_response(code: u16, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => Failure::internal(error.to_string()).into_response(),
    }
}

/// Adds warnings as kubectl prints them.
pub(crate) fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(HeaderName::from_static("warning"), value);
        }
    }
}
