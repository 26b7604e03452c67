//! Upload sessions: blobs that come in one request or in several.
//!
//! A session's bytes are in a temporary file and nowhere else; a restart forgets the session, and the client begins anew.
//! One request at a time writes to a session. A session that nobody touched for [`STALE`] is dropped when the next one
//! begins, so that an idle registry has nothing to do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::{HeaderMap, StatusCode, header};
use uuid::Uuid;

use super::App;
use super::blobs::insert;
use super::refusal::Refusal;
use super::route::{Params, parse_digest};
use crate::digest::Digest;
use crate::reference::Repository;
use crate::store::{BlobWriter, StoreError};

/// How long a session may lie untouched.
const STALE: Duration = Duration::from_secs(30 * 60);
/// How many sessions there may be.
const MOST: usize = 512;
/// How many bytes are gathered before they are handed to the disk.
const BATCH: usize = 1 << 20;

/// The sessions under way.
#[derive(Default)]
pub(super) struct Uploads {
    sessions: Mutex<HashMap<Uuid, Session>>,
}

#[derive(Clone)]
struct Session {
    repository: Repository,
    writer: Arc<Mutex<Option<BlobWriter>>>,
    /// Held by the request that writes.
    busy: Arc<tokio::sync::Mutex<()>>,
    touched: Instant,
}

impl Uploads {
    fn begin(&self, repository: Repository, writer: BlobWriter, now: Instant) -> Result<Uuid, Refusal> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |session: &Session| now.duration_since(session.touched) < STALE || session.busy.try_lock().is_err();
        sessions.retain(|_, session| fresh(session));
        if sessions.len() >= MOST {
            return Err(Refusal::too_many_uploads());
        }
        let id = Uuid::new_v4();
        let writer = Arc::new(Mutex::new(Some(writer)));
        sessions.insert(
            id,
            Session {
                repository,
                writer,
                busy: Arc::default(),
                touched: now,
            },
        );
        Ok(id)
    }

    fn find(&self, id: Uuid, repository: &Repository) -> Result<Session, Refusal> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions
            .get_mut(&id)
            .filter(|s| s.repository == *repository)
            .ok_or_else(Refusal::no_upload)?;
        session.touched = Instant::now();
        Ok(session.clone())
    }

    fn end(&self, id: Uuid) -> Option<Session> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}

impl Session {
    fn new(repository: Repository, writer: BlobWriter) -> Self {
        let writer = Arc::new(Mutex::new(Some(writer)));
        Self {
            repository,
            writer,
            busy: Arc::default(),
            touched: Instant::now(),
        }
    }

    fn len(&self) -> Result<u64, Refusal> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.as_ref().map(BlobWriter::len).ok_or_else(Refusal::no_upload)
    }

    /// Takes a request's body, a batch at a time. What came before a break stays, so that the client can go on.
    async fn receive(&self, app: &App, body: Body) -> Result<(), Refusal> {
        let mut stream = body.into_data_stream();
        let mut batch = Vec::new();
        loop {
            let next = stream.next().await;
            let more = matches!(next, Some(Ok(_)));
            if let Some(Ok(chunk)) = &next {
                batch.extend_from_slice(chunk);
            }
            if batch.len() >= BATCH || (!more && !batch.is_empty()) {
                let (writer, full) = (Arc::clone(&self.writer), std::mem::take(&mut batch));
                let append = move |_: &_| {
                    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                    let appended = writer.as_mut().map(|writer| writer.append(&full));
                    if matches!(appended, Some(Err(_))) {
                        *writer = None;
                    }
                    appended.transpose()
                };
                app.store.run(append).await?.ok_or_else(Refusal::no_upload)?;
            }
            match next {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Refusal::upload(format!("the upload broke off: {error}"))),
                None => return Ok(()),
            }
        }
    }

    async fn commit(&self, app: &App, digest: Digest) -> Result<(), Refusal> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writer = writer.ok_or_else(Refusal::no_upload)?;
        Ok(app.store.run(move |_| writer.commit(&digest)).await?)
    }
}

impl App {
    /// `POST .../blobs/uploads/`: a mount, a whole blob (`?digest=`), or a new session.
    pub(super) async fn begin_upload(&self, name: &str, params: Params, request: Request) -> Result<Response, Refusal> {
        let repository = super::repository(name, &params)?;
        if let Some(mount) = &params.mount {
            let digest = parse_digest(mount)?;
            if self.store.blob_len(&digest).is_some() {
                return created(name, &params, &digest);
            }
        }
        let writer = self.store.run(|store| store.writer()).await?;
        if let Some(digest) = &params.digest {
            let digest = parse_digest(digest)?;
            let session = Session::new(repository, writer);
            session.receive(self, request.into_body()).await?;
            session.commit(self, digest).await?;
            return created(name, &params, &digest);
        }
        let id = self.uploads.begin(repository, writer, Instant::now())?;
        progress(StatusCode::ACCEPTED, name, &params, id, 0)
    }

    /// `GET` of a session: how far it is.
    pub(super) fn upload_status(&self, name: &str, params: &Params, id: Uuid) -> Result<Response, Refusal> {
        let session = self.uploads.find(id, &super::repository(name, params)?)?;
        progress(StatusCode::NO_CONTENT, name, params, id, session.len()?)
    }

    /// `PATCH`: the next bytes.
    pub(super) async fn continue_upload(
        &self,
        name: &str,
        params: Params,
        id: Uuid,
        request: Request,
    ) -> Result<Response, Refusal> {
        let session = self.uploads.find(id, &super::repository(name, &params)?)?;
        let _busy = session.busy.try_lock().map_err(|_| Refusal::upload_busy())?;
        check_order(request.headers(), session.len()?)?;
        session.receive(self, request.into_body()).await?;
        progress(StatusCode::ACCEPTED, name, &params, id, session.len()?)
    }

    /// `PUT`: the last bytes, if any, and the digest of them all. The session ends, whatever the outcome.
    pub(super) async fn finish_upload(
        &self,
        name: &str,
        params: Params,
        id: Uuid,
        request: Request,
    ) -> Result<Response, Refusal> {
        let session = self.uploads.find(id, &super::repository(name, &params)?)?;
        let digest = parse_digest(params.digest.as_deref().ok_or_else(Refusal::no_digest)?)?;
        let _busy = session.busy.try_lock().map_err(|_| Refusal::upload_busy())?;
        check_order(request.headers(), session.len()?)?;
        session.receive(self, request.into_body()).await?;
        self.uploads.end(id);
        session.commit(self, digest).await?;
        created(name, &params, &digest)
    }

    /// `DELETE`: forgets the session.
    pub(super) fn cancel_upload(&self, id: Uuid) -> Result<Response, Refusal> {
        self.uploads.end(id).ok_or_else(Refusal::no_upload)?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }
}

/// A `Content-Range: FIRST-LAST` must go on where the session is, and agree with `Content-Length`.
fn check_order(headers: &HeaderMap, at: u64) -> Result<(), Refusal> {
    let Some(range) = headers.get(header::CONTENT_RANGE) else {
        return Ok(());
    };
    let text = range.to_str().unwrap_or_default();
    let numbers = text
        .trim()
        .strip_prefix("bytes ")
        .unwrap_or(text.trim())
        .split('/')
        .next()
        .unwrap_or_default();
    let parsed = numbers
        .split_once('-')
        .and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
    let Some((first, last)) = parsed.filter(|(first, last)| first <= last) else {
        return Err(Refusal::upload_range(format!(
            "`{text}` is not a range: write FIRST-LAST"
        )));
    };
    if first != at {
        let message = format!("the upload has {at} bytes, so that the next range begins at {at}, not at {first}");
        return Err(Refusal::upload_range(message).with(header::RANGE, so_far(at)));
    }
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    match length {
        Some(length) if length != (last - first).saturating_add(1) => {
            let error = StoreError::LengthMismatch {
                expected: (last - first).saturating_add(1),
                actual: length,
            };
            Err(error.into())
        }
        _ => Ok(()),
    }
}

fn so_far(len: u64) -> String {
    format!("0-{}", len.saturating_sub(1))
}

fn location(name: &str, params: &Params, rest: &str) -> String {
    let query = params.ns.as_deref().filter(|ns| !ns.is_empty());
    let query = query
        .map(|ns| format!("?ns={}", percent_encoding::utf8_percent_encode(ns, HOST)))
        .unwrap_or_default();
    format!("/v2/{name}/{rest}{query}")
}

/// What is escaped in a host within a query.
const HOST: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC.remove(b'.').remove(b'-');

fn progress(status: StatusCode, name: &str, params: &Params, id: Uuid, len: u64) -> Result<Response, Refusal> {
    let mut headers = HeaderMap::new();
    insert(
        &mut headers,
        "location",
        location(name, params, &format!("blobs/uploads/{id}")),
    )?;
    insert(&mut headers, "range", so_far(len))?;
    insert(&mut headers, "docker-upload-uuid", id.to_string())?;
    Ok((status, headers).into_response())
}

fn created(name: &str, params: &Params, digest: &Digest) -> Result<Response, Refusal> {
    let mut headers = HeaderMap::new();
    insert(
        &mut headers,
        "location",
        location(name, params, &format!("blobs/{digest}")),
    )?;
    insert(&mut headers, "docker-content-digest", digest.to_string())?;
    Ok((StatusCode::CREATED, headers).into_response())
}
