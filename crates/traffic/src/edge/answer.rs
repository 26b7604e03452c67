//! The answers that an edge makes itself. Each says in `leeward-outcome` whether the application may have seen the
//! request: whoever gets `not-delivered` may send it again elsewhere, whatever its method.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::body::Answer;
use crate::header::OUTCOME;

/// What became of a request that the edge answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No application saw it.
    NotDelivered,
    /// An application may have seen it, and it may have had effect.
    Unknown,
}

impl Outcome {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::NotDelivered => "not-delivered",
            Self::Unknown => "unknown",
        }
    }
}

/// An answer with a line of text for people.
pub(super) fn own(status: StatusCode, outcome: Outcome, text: impl Into<String>) -> Response<Answer> {
    let mut text = text.into();
    text.push('\n');
    let mut response = Response::new(Answer::Text(Some(Bytes::from(text))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(OUTCOME, HeaderValue::from_static(outcome.text()));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
