//! The target on the peer link. The agent mounts [`router`] behind mutual TLS.
//!
//! ```text
//! GET /v1/mirror/NAMESPACE/APP/ROLE/head?epoch=EPOCH       what is here: a Head, as JSON; refused where a point of the epoch would be
//! GET /v1/mirror/NAMESPACE/APP/ROLE/manifest               the hashes of all blocks, for a source that starts anew
//! PUT /v1/mirror/NAMESPACE/APP/ROLE/points/EPOCH/SEQUENCE  a point; 200 and its Point once it is durable
//! ```
//!
//! What is refused is answered with a [`Refusal`]. Whose points are taken says [`super::right`].

use std::{io, sync::Arc};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header::CONTENT_LENGTH},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use futures::StreamExt;
use leeward_core::name::{AppKey, Epoch, RoleKey};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use super::{
    Head, Target, TargetError,
    right::{Rule, Sender},
};
use crate::volumes::{Point, wire::WireError};

/// Why a request was refused, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The epoch is over: stop.
    StaleEpoch,
    /// The epoch is not the sender's, as far as is known there: ask again soon.
    NotKnown,
    /// The region has not been told to follow yet: try later.
    NotFollowing,
    /// The point does not continue what is here: look at the head, and start from there.
    OutOfOrder,
    /// The body arrived damaged or cut short: send it again.
    Damaged,
    /// The request has no meaning here.
    Malformed,
    /// There is no room.
    DiskFull,
    /// Something failed in the target.
    Failed,
}

/// A refused request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// What is here, where that helps to go on.
    pub head: Option<Head>,
}

#[derive(Clone)]
struct Mirrors {
    target: Arc<Target>,
    rule: Rule,
}

/// The routes of a region's mirrors. Every request needs a [`Sender`] among its extensions.
pub fn router(target: Arc<Target>, rule: Rule) -> Router {
    Router::new()
        .route("/v1/mirror/{namespace}/{app}/{role}/head", get(head))
        .route("/v1/mirror/{namespace}/{app}/{role}/manifest", get(manifest))
        .route(
            "/v1/mirror/{namespace}/{app}/{role}/points/{epoch}/{sequence}",
            put(point),
        )
        .with_state(Mirrors { target, rule })
}

struct Refused(StatusCode, Refusal);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<TargetError> for Refused {
    fn from(error: TargetError) -> Self {
        let (status, reason) = match &error {
            TargetError::StaleEpoch { .. } => (StatusCode::CONFLICT, Reason::StaleEpoch),
            TargetError::Denied(_) => (StatusCode::CONFLICT, Reason::NotKnown),
            TargetError::NotFollowing | TargetError::Mirroring => (StatusCode::CONFLICT, Reason::NotFollowing),
            TargetError::OutOfOrder { .. } | TargetError::NoPoint => (StatusCode::CONFLICT, Reason::OutOfOrder),
            TargetError::Unknown(_) => (StatusCode::NOT_FOUND, Reason::OutOfOrder),
            TargetError::Body(WireError::Damaged(_)) => (StatusCode::BAD_REQUEST, Reason::Damaged),
            TargetError::Body(WireError::Malformed(_))
            | TargetError::OtherPoint
            | TargetError::RoleName(_)
            | TargetError::ClaimName(_) => (StatusCode::BAD_REQUEST, Reason::Malformed),
            TargetError::DiskFull { .. } => (StatusCode::INSUFFICIENT_STORAGE, Reason::DiskFull),
            TargetError::Io { source, .. } | TargetError::Body(WireError::Io(source)) if is_full(source) => {
                (StatusCode::INSUFFICIENT_STORAGE, Reason::DiskFull)
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, Reason::Failed),
        };
        let message = error.to_string();
        let head = match error {
            TargetError::StaleEpoch { highest, .. } => Some(Head {
                epoch: highest,
                accepts: false,
                point: None,
            }),
            _ => None,
        };
        Self(status, Refusal { reason, message, head })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TargetError> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Refused::from),
        Err(e) => Err(TargetError::io("the mirror")(io::Error::other(e)).into()),
    }
}

type RoleParts = (String, String, String);

fn role_of((namespace, app, role): RoleParts) -> RoleKey {
    RoleKey::new(AppKey::new(namespace, app), role)
}

#[derive(Deserialize)]
struct Asked {
    epoch: Option<u64>,
}

async fn head(
    State(Mirrors { target, rule }): State<Mirrors>,
    Extension(sender): Extension<Sender>,
    Path(role): Path<RoleParts>,
    Query(asked): Query<Asked>,
) -> Result<Json<Head>, Refused> {
    let role = role_of(role);
    if let Some(epoch) = asked.epoch {
        rule(&sender, &role, Epoch(epoch))?;
    }
    blocking(move || target.head(&role)).await.map(Json)
}

async fn manifest(
    State(Mirrors { target, .. }): State<Mirrors>,
    Path(role): Path<RoleParts>,
) -> Result<Response, Refused> {
    let role = role_of(role);
    let file = blocking(move || {
        use std::io::Seek;
        let mut file = target.manifest(&role)?;
        file.rewind().map_err(TargetError::io("the manifest"))?;
        Ok(file)
    })
    .await?;
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 << 10);
    Ok(Body::from_stream(stream).into_response())
}

async fn point(
    State(Mirrors { target, rule }): State<Mirrors>,
    Extension(sender): Extension<Sender>,
    Path((namespace, app, role, epoch, sequence)): Path<(String, String, String, u64, u64)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Point>, Refused> {
    let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let role = role_of((namespace, app, role));
    // Before anything is made here, so that a role that nobody has leaves no trace.
    rule(&sender, &role, Epoch(epoch))?;
    let (opener, of) = (target.clone(), role.clone());
    let file = blocking(move || {
        // Refuse before the body has travelled where that is already clear.
        opener.may_accept(&of, Epoch(epoch))?;
        opener.incoming(&of, length.unwrap_or(0))
    })
    .await?;
    receive(&file, body).await?;
    let (accepting, of) = (target.clone(), role.clone());
    let accepted = blocking(move || {
        // The role may have gone on while the body travelled.
        rule(&sender, &of, Epoch(epoch))?;
        accepting.accept(&of, Epoch(epoch), sequence, &file)
    })
    .await;
    match accepted {
        Ok(point) => {
            // Durable is enough for the answer; the tree follows.
            tokio::task::spawn_blocking(move || {
                if let Err(e) = target.apply(&role) {
                    tracing::warn!(%role, "a point is complete but could not be applied yet: {e}");
                }
            });
            Ok(Json(point))
        }
        Err(Refused(status, mut refusal)) => {
            if status == StatusCode::CONFLICT && refusal.head.is_none() {
                refusal.head = blocking(move || target.head(&role)).await.ok();
            }
            Err(Refused(status, refusal))
        }
    }
}

async fn receive(file: &tempfile::NamedTempFile, body: Body) -> Result<(), Refused> {
    let failed = TargetError::io(file.path());
    let mut out = tokio::fs::File::from_std(file.reopen().map_err(&failed)?);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| TargetError::Body(WireError::Damaged("the connection ended within it")))?;
        out.write_all(&chunk).await.map_err(&failed)?;
    }
    out.flush().await.map_err(&failed)?;
    Ok(())
}
