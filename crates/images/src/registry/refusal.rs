//! What the registry answers when it does not do what was asked: the error body of OCI distribution-spec 1.1.

use std::fmt::Display;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::manifest::ManifestError;
use crate::peers::PeerError;
use crate::reference::ReferenceError;
use crate::store::StoreError;

/// An error answer. Boxed inside, so that results stay small.
#[derive(Debug)]
pub(super) struct Refusal(Box<Content>);

#[derive(Debug)]
struct Content {
    status: StatusCode,
    errors: Vec<(&'static str, String)>,
    headers: HeaderMap,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Display) -> Self {
        Self(Box::new(Content {
            status,
            errors: vec![(code, message.to_string())],
            headers: HeaderMap::new(),
        }))
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: header::HeaderName, value: String) -> Self {
        if let Ok(value) = HeaderValue::try_from(value) {
            self.0.headers.insert(name, value);
        }
        self
    }

    pub(super) fn no_route() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "UNSUPPORTED",
            "this is a registry: its resources are below /v2/NAME/",
        )
    }

    pub(super) fn unreadable(error: &dyn Display) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "UNSUPPORTED",
            format!("the request cannot be read: {error}"),
        )
    }

    pub(super) fn unsupported(method: &Method) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            format!("{method} is not possible here"),
        )
    }

    pub(super) fn read_only() -> Self {
        let message = "this address only reads: push to a region's own registry address";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    pub(super) fn name(error: &ReferenceError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", error)
    }

    pub(super) fn selector(error: &ReferenceError) -> Self {
        match error {
            ReferenceError::Digest(error) => Self::digest(error),
            error => Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", error),
        }
    }

    pub(super) fn digest(error: &dyn Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", error)
    }

    pub(super) fn no_digest() -> Self {
        Self::digest(&"the upload's end needs `?digest=sha256:...`")
    }

    pub(super) fn no_blob(what: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", what)
    }

    pub(super) fn no_manifest(what: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", what)
    }

    pub(super) fn no_repository(what: impl Display) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            format!("nothing was pushed to {what}"),
        )
    }

    pub(super) fn no_upload() -> Self {
        let message = "there is no such upload: it ended, or the registry was started anew; begin it again";
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", message)
    }

    pub(super) fn upload(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
    }

    pub(super) fn upload_busy() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "BLOB_UPLOAD_INVALID",
            "another request is writing to this upload",
        )
    }

    pub(super) fn too_many_uploads() -> Self {
        let message = "too many uploads are under way; try again when some have ended";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message)
    }

    pub(super) fn upload_range(message: impl Display) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message)
    }

    pub(super) fn range(message: impl Display, len: u64) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message)
            .with(header::CONTENT_RANGE, format!("bytes */{len}"))
    }

    pub(super) fn size(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "SIZE_INVALID", message)
    }

    pub(super) fn manifest_too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "MANIFEST_INVALID",
            "the manifest is larger than 4 MiB",
        )
    }

    pub(super) fn internal(error: &dyn Display) -> Self {
        tracing::error!(%error, "the registry failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::DigestMismatch { .. } => Self::digest(&error),
            StoreError::LengthMismatch { .. } => Self::size(&error),
            StoreError::Manifest(ManifestError::TooLarge(_)) => Self::manifest_too_large(),
            StoreError::Manifest(_) => Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", &error),
            StoreError::MissingParts(digests) => {
                let message = |digest| format!("the manifest refers to {digest}, which is not here: push it first");
                let errors = digests
                    .iter()
                    .map(|digest| ("MANIFEST_BLOB_UNKNOWN", message(digest)))
                    .collect();
                Self(Box::new(Content {
                    status: StatusCode::BAD_REQUEST,
                    errors,
                    headers: HeaderMap::new(),
                }))
            }
            StoreError::NoManifest { .. } => Self::no_manifest(&error),
            StoreError::DiskFull(_) => {
                tracing::error!(%error, "an image could not be stored");
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", &error)
            }
            StoreError::InUse(_) | StoreError::Io { .. } | StoreError::Cancelled(_) => Self::internal(&error),
        }
    }
}

impl Refusal {
    /// What a pull says when the other regions could not give it either.
    pub(super) fn from_peers(error: PeerError, unknown: fn(String) -> Self) -> Self {
        match error {
            PeerError::Store(error) => error.into(),
            error => unknown(error.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Content {
            status,
            errors,
            headers,
        } = *self.0;
        let errors: Vec<_> = errors
            .into_iter()
            .map(|(code, message)| json!({"code": code, "message": message}))
            .collect();
        let body = json!({ "errors": errors }).to_string();
        (status, headers, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_to_the_client() {
        let response = Refusal::from(StoreError::DiskFull("/images".into())).into_response();
        assert_eq!(response.status(), StatusCode::INSUFFICIENT_STORAGE);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    }
}
