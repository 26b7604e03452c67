//! The registry's HTTP face: OCI distribution-spec 1.1 over a [`Store`].
//!
//! ```text
//! request -> route (pure) -> read:  from the store, else (read-write face) from a peer, verified and stored first
//!                         -> write: upload sessions stream to a temporary file; a manifest needs all its parts
//! ```
//!
//! Invariants: no request holds more than a batch of bytes of a blob in memory; what is answered was hashed here; the
//! read-only face, which other regions use, answers from its own store only, so that two regions never ask each other in
//! a circle. Blobs are shared between repositories, so a cross-repository mount succeeds whenever the blob is here.

mod blobs;
mod manifests;
mod refusal;
mod route;
mod uploads;

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};

use crate::peers::Peers;
use crate::reference::Repository;
use crate::store::{Listing, Store};

use refusal::Refusal;
use route::{Params, Resource};
use uploads::Uploads;

/// Who a registry's face is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The region's nodes and users: they read and push, and what is absent is looked for in the other regions.
    ReadWrite,
    /// The other regions: they read what is here.
    ReadOnly,
}

struct App {
    store: Store,
    mode: Mode,
    peers: Peers,
    uploads: Uploads,
    inventory: Mutex<Option<Rendered>>,
}

/// The listing as it is sent, kept while it stays the same.
#[derive(Clone)]
struct Rendered {
    listing: Arc<Listing>,
    etag: HeaderValue,
    body: Bytes,
}

/// The registry's routes, all of them below `/v2/`, to serve alone or merged with others.
pub fn router(store: Store, mode: Mode, peers: Peers) -> Router {
    let app = App {
        store,
        mode,
        peers,
        uploads: Uploads::default(),
        inventory: Mutex::default(),
    };
    // One handler reads the paths: a repository's name has any number of components in front of the verb.
    let paths = ["/v2", "/v2/", "/v2/{*path}"];
    paths
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, any(handle)))
        .with_state(Arc::new(app))
}

async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    let head = request.method() == Method::HEAD;
    let mut response = match app.answer(request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    response.headers_mut().insert(
        "docker-distribution-api-version",
        HeaderValue::from_static("registry/2.0"),
    );
    if head {
        *response.body_mut() = Body::empty();
    }
    response
}

impl App {
    async fn answer(self: &Arc<Self>, request: Request) -> Result<Response, Refusal> {
        let (resource, params) = route::route(request.uri())?;
        let method = request.method().clone();
        let reads = matches!(method, Method::GET | Method::HEAD);
        let writes = !reads && resource != Resource::Changed;
        if writes && self.mode == Mode::ReadOnly {
            return Err(Refusal::read_only());
        }
        match resource {
            Resource::Base if reads => Ok(json_response(&serde_json::json!({}))),
            Resource::Catalog if reads => self.catalog(&params),
            Resource::Inventory if reads => self.inventory(&request),
            Resource::Changed if method == Method::POST => {
                self.peers.nudge();
                Ok(StatusCode::ACCEPTED.into_response())
            }
            Resource::Tags { name } if reads => self.tags(&repository(&name, &params)?, &params),
            Resource::Referrers { name, digest } if reads => {
                self.referrers(repository(&name, &params)?, digest, &params).await
            }
            Resource::Blob { name, digest } if reads => {
                let (head, _) = request.into_parts();
                self.blob(&repository(&name, &params)?, digest, &head.method, &head.headers)
                    .await
            }
            Resource::Manifest { name, selector } => {
                let repository = repository(&name, &params)?;
                match method {
                    Method::GET | Method::HEAD => self.manifest(repository, selector).await,
                    Method::PUT => self.put_manifest(repository, selector, &name, &params, request).await,
                    Method::DELETE => self.delete_manifest(repository, selector).await,
                    _ => Err(Refusal::unsupported(&method)),
                }
            }
            Resource::Uploads { name } if method == Method::POST => self.begin_upload(&name, params, request).await,
            Resource::Upload { name, id } => match method {
                Method::GET => self.upload_status(&name, &params, id),
                Method::PATCH => self.continue_upload(&name, params, id, request).await,
                Method::PUT => self.finish_upload(&name, params, id, request).await,
                Method::DELETE => self.cancel_upload(id),
                _ => Err(Refusal::unsupported(&method)),
            },
            _ => Err(Refusal::unsupported(&method)),
        }
    }

    /// The listing that regions compare. With an `ETag`, so that the comparison of equal regions costs next to nothing.
    fn inventory(&self, request: &Request) -> Result<Response, Refusal> {
        let rendered = self.rendered()?;
        let known = request.headers().get(header::IF_NONE_MATCH);
        if known == Some(&rendered.etag) {
            return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, rendered.etag)]).into_response());
        }
        let json = HeaderValue::from_static("application/json");
        Ok((
            [(header::ETAG, rendered.etag), (header::CONTENT_TYPE, json)],
            rendered.body,
        )
            .into_response())
    }

    fn rendered(&self) -> Result<Rendered, Refusal> {
        let listing = self.store.listing();
        let mut kept = self.inventory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rendered) = kept
            .as_ref()
            .filter(|rendered| Arc::ptr_eq(&rendered.listing, &listing))
        {
            return Ok(rendered.clone());
        }
        let body = Bytes::from(serde_json::to_vec(&*listing).map_err(|error| Refusal::internal(&error))?);
        let etag = format!("\"{}\"", crate::digest::Digest::of(&body).hex());
        let etag = HeaderValue::try_from(etag).map_err(|error| Refusal::internal(&error))?;
        Ok(kept.insert(Rendered { listing, etag, body }).clone())
    }
}

fn repository(name: &str, params: &Params) -> Result<Repository, Refusal> {
    Repository::from_request(name, params.ns.as_deref()).map_err(|error| Refusal::name(&error))
}

fn json_response(value: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
