//! Reading blobs.

use std::io::{Seek, SeekFrom};
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::refusal::Refusal;
use super::{App, Mode};
use crate::digest::Digest;
use crate::reference::Repository;

/// How much of a blob is read at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// Which part of a blob is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Span {
    Whole,
    /// First byte and number of bytes.
    Part(u64, u64),
    Unsatisfiable,
}

/// Reads a `Range` header (RFC 9110, section 14.2): one range of bytes. Several ranges, or another unit, mean the whole
/// blob, as the RFC allows; a range that is malformed or outside is refused, since a client that resumes needs to know.
fn span(header: Option<&str>, len: u64) -> Span {
    let Some(ranges) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
        return Span::Whole;
    };
    if ranges.contains(',') {
        return Span::Whole;
    }
    let Some((first, last)) = ranges.trim().split_once('-') else {
        return Span::Unsatisfiable;
    };
    let number = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse::<u64>().ok())
            .flatten()
    };
    let (first, last) = match (first, last) {
        ("", suffix) => match number(suffix) {
            Some(n) if n > 0 && len > 0 => (len.saturating_sub(n), len - 1),
            _ => return Span::Unsatisfiable,
        },
        (first, "") => match number(first) {
            Some(first) if first < len => (first, len - 1),
            _ => return Span::Unsatisfiable,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last && first < len => (first, last.min(len - 1)),
            _ => return Span::Unsatisfiable,
        },
    };
    Span::Part(first, last - first + 1)
}

impl App {
    pub(super) async fn blob(
        self: &Arc<Self>,
        repository: &Repository,
        digest: Digest,
        method: &Method,
        asked: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let open = || self.store.run(move |store| store.open_blob(&digest));
        let opened = match open().await? {
            Some(opened) => Some(opened),
            // Who pushes asks with HEAD whether a blob is here: that must not wait for other regions.
            None if self.mode == Mode::ReadWrite && method != Method::HEAD => {
                let fetched = self.peers.fetch_blob(&self.store, repository, &digest, None).await;
                fetched.map_err(|error| Refusal::from_peers(error, Refusal::no_blob))?;
                open().await?
            }
            None => None,
        };
        let Some((mut file, len)) = opened else {
            return Err(Refusal::no_blob(format!("{digest} is not in this registry")));
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        insert(&mut headers, "docker-content-digest", digest.to_string())?;
        insert(&mut headers, "etag", format!("\"{digest}\""))?;
        let range = asked
            .get(header::RANGE)
            .map(|value| value.to_str().unwrap_or("bytes=?"));
        let (status, first, count) = match span(range, len) {
            Span::Whole => (StatusCode::OK, 0, len),
            Span::Part(first, count) => {
                insert(
                    &mut headers,
                    "content-range",
                    format!("bytes {first}-{}/{len}", first + count - 1),
                )?;
                (StatusCode::PARTIAL_CONTENT, first, count)
            }
            Span::Unsatisfiable => {
                return Err(Refusal::range(
                    format!("the range asked for is not within the blob's {len} bytes"),
                    len,
                ));
            }
        };
        insert(&mut headers, "content-length", count.to_string())?;
        if method == Method::HEAD {
            return Ok((status, headers).into_response());
        }
        if first > 0 {
            file.seek(SeekFrom::Start(first))
                .map_err(|error| Refusal::internal(&error))?;
        }
        let reader = tokio::fs::File::from_std(file).take(count);
        Ok((
            status,
            headers,
            Body::from_stream(ReaderStream::with_capacity(reader, CHUNK)),
        )
            .into_response())
    }
}

/// Inserts a header whose value was made here.
pub(super) fn insert(headers: &mut HeaderMap, name: &'static str, value: String) -> Result<(), Refusal> {
    headers.insert(
        name,
        HeaderValue::try_from(value).map_err(|error| Refusal::internal(&error))?,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_select_bytes() {
        let table = [
            (None, 10, Span::Whole),
            (Some("bytes=0-"), 10, Span::Part(0, 10)),
            (Some("bytes=3-5"), 10, Span::Part(3, 3)),
            (Some("bytes=9-99"), 10, Span::Part(9, 1)),
            (Some("bytes=-4"), 10, Span::Part(6, 4)),
            (Some("bytes=-40"), 10, Span::Part(0, 10)),
            (Some("bytes=0-1,3-4"), 10, Span::Whole),
            (Some("lines=1-2"), 10, Span::Whole),
            (Some("bytes=10-"), 10, Span::Unsatisfiable),
            (Some("bytes=5-3"), 10, Span::Unsatisfiable),
            (Some("bytes=-0"), 10, Span::Unsatisfiable),
            (Some("bytes=0-"), 0, Span::Unsatisfiable),
            (Some("bytes=-1"), 0, Span::Unsatisfiable),
            (Some("bytes=x-"), 10, Span::Unsatisfiable),
            (Some("bytes=+1-"), 10, Span::Unsatisfiable),
            (Some("bytes="), 10, Span::Unsatisfiable),
            (Some("bytes=99999999999999999999-"), 10, Span::Unsatisfiable),
            (Some("bytes=1-18446744073709551615"), 10, Span::Part(1, 9)),
        ];
        for (header, len, expected) in table {
            assert_eq!(span(header, len), expected, "{header:?} of {len}");
        }
    }
}
