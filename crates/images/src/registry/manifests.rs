//! Manifests, tags, the catalogue and referrers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::blobs::insert;
use super::refusal::Refusal;
use super::route::Params;
use super::{App, Mode, json_response};
use crate::digest::Digest;
use crate::manifest::{MAX_MANIFEST, OCI_INDEX};
use crate::reference::{Repository, Selector};

impl App {
    pub(super) async fn manifest(
        self: &Arc<Self>,
        repository: Repository,
        selector: Selector,
    ) -> Result<Response, Refusal> {
        let (wanted, which) = (repository.clone(), selector.clone());
        let manifest = match self.store.run(move |store| store.manifest(&wanted, &which)).await? {
            Some(manifest) => manifest,
            None if self.mode == Mode::ReadWrite => {
                let fetched = self.peers.fetch_manifest(&repository, &selector).await;
                let manifest = fetched.map_err(|error| Refusal::from_peers(error, Refusal::no_manifest))?;
                // It gets its name here once all of it is here; replication sees to that.
                self.peers.nudge();
                manifest
            }
            None => return Err(Refusal::no_manifest(format!("{repository} has no manifest {selector}"))),
        };
        let mut headers = HeaderMap::new();
        insert(&mut headers, "content-type", manifest.media_type)?;
        insert(&mut headers, "content-length", manifest.bytes.len().to_string())?;
        insert(&mut headers, "docker-content-digest", manifest.digest.to_string())?;
        insert(&mut headers, "etag", format!("\"{}\"", manifest.digest))?;
        Ok((headers, manifest.bytes).into_response())
    }

    pub(super) async fn put_manifest(
        self: &Arc<Self>,
        repository: Repository,
        selector: Selector,
        name: &str,
        params: &Params,
        request: Request,
    ) -> Result<Response, Refusal> {
        let (head, body) = request.into_parts();
        let bytes = read_manifest(body).await?;
        let sent_as = head
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let subject = subject(&bytes);
        let (into, which) = (repository, selector.clone());
        let now = SystemTime::now();
        let push =
            move |store: &_| crate::store::Store::push_manifest(store, &into, &which, sent_as.as_deref(), &bytes, now);
        let digest = self.store.run(push).await?;
        let mut headers = HeaderMap::new();
        let query = params.ns.as_deref().map(|ns| format!("?ns={ns}")).unwrap_or_default();
        insert(
            &mut headers,
            "location",
            format!("/v2/{name}/manifests/{digest}{query}"),
        )?;
        insert(&mut headers, "docker-content-digest", digest.to_string())?;
        if let Some(subject) = subject {
            insert(&mut headers, "oci-subject", subject.to_string())?;
        }
        Ok((StatusCode::CREATED, headers).into_response())
    }

    pub(super) async fn delete_manifest(
        self: &Arc<Self>,
        repository: Repository,
        selector: Selector,
    ) -> Result<Response, Refusal> {
        let now = SystemTime::now();
        self.store
            .run(move |store| store.delete_manifest(&repository, &selector, now))
            .await?;
        Ok(StatusCode::ACCEPTED.into_response())
    }

    pub(super) fn tags(&self, repository: &Repository, params: &Params) -> Result<Response, Refusal> {
        let listing = self.store.listing();
        let records = listing
            .repositories
            .get(repository)
            .ok_or_else(|| Refusal::no_repository(repository))?;
        let tags = records
            .tags
            .iter()
            .filter(|(_, record)| !record.deleted)
            .map(|(tag, _)| tag.to_string());
        let (tags, next) = page(tags.collect(), params);
        let body = json!({"name": repository.path(), "tags": tags});
        linked(
            body,
            next,
            &format!("/v2/{}/tags/list", repository.path()),
            Some(repository.host()),
        )
    }

    pub(super) fn catalog(&self, params: &Params) -> Result<Response, Refusal> {
        let listing = self.store.listing();
        let live = listing
            .repositories
            .iter()
            .filter(|(_, records)| records.manifests.values().any(|m| !m.deleted));
        let names: BTreeSet<String> = live.map(|(repository, _)| repository.to_string()).collect();
        let (names, next) = page(names.into_iter().collect(), params);
        linked(json!({ "repositories": names }), next, "/v2/_catalog", None)
    }

    /// The manifests of a repository whose `subject` is a digest, as an index.
    pub(super) async fn referrers(
        self: &Arc<Self>,
        repository: Repository,
        digest: Digest,
        params: &Params,
    ) -> Result<Response, Refusal> {
        let filter = params.artifact_type.clone();
        let filtered = filter.is_some();
        let find = move |store: &crate::store::Store| {
            let listing = store.listing();
            let manifests = listing.repositories.get(&repository).map(|records| &records.manifests);
            let mut found = Vec::new();
            for (candidate, record) in manifests.into_iter().flatten().filter(|(_, record)| !record.deleted) {
                if let Some(bytes) = store.read_small(candidate)?
                    && subject(&bytes) == Some(digest)
                {
                    found.push(descriptor(candidate, &record.media_type, &bytes));
                }
            }
            Ok(found)
        };
        let mut found = self.store.run(find).await?;
        if let Some(filter) = &filter {
            found.retain(|descriptor| descriptor["artifactType"] == json!(filter));
        }
        let body = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found});
        let mut headers = HeaderMap::new();
        insert(&mut headers, "content-type", OCI_INDEX.to_owned())?;
        if filtered {
            insert(&mut headers, "oci-filters-applied", "artifactType".to_owned())?;
        }
        Ok((headers, body.to_string()).into_response())
    }
}

async fn read_manifest(body: Body) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| Refusal::unreadable(&error))?;
        if bytes.len() + chunk.len() > MAX_MANIFEST {
            return Err(Refusal::manifest_too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn subject(manifest: &[u8]) -> Option<Digest> {
    let value: Value = serde_json::from_slice(manifest).ok()?;
    value.get("subject")?.get("digest")?.as_str()?.parse().ok()
}

fn descriptor(digest: &Digest, media_type: &str, bytes: &[u8]) -> Value {
    let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let stated = document
        .get("artifactType")
        .filter(|stated| stated.as_str().is_some_and(|text| !text.is_empty()));
    let artifact_type = stated.or_else(|| document.get("config").and_then(|config| config.get("mediaType")));
    let mut descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
    if let Some(artifact_type) = artifact_type {
        descriptor["artifactType"] = artifact_type.clone();
    }
    if let Some(annotations) = document.get("annotations") {
        descriptor["annotations"] = annotations.clone();
    }
    descriptor
}

/// One page of sorted names, and the last of them if there are more.
fn page(names: Vec<String>, params: &Params) -> (Vec<String>, Option<String>) {
    let after = |name: &String| params.last.as_ref().is_none_or(|last| name > last);
    let mut rest: Vec<String> = names.into_iter().filter(after).collect();
    let more = params.n.is_some_and(|n| rest.len() > n);
    rest.truncate(params.n.unwrap_or(usize::MAX));
    let last = if more { rest.last().cloned() } else { None };
    (rest, last)
}

fn linked(body: Value, next: Option<String>, path: &str, ns: Option<&str>) -> Result<Response, Refusal> {
    let mut response = json_response(&body);
    if let (Some(last), Some(n)) = (
        next,
        body.as_object().and_then(|o| o.values().find_map(Value::as_array)),
    ) {
        let ns = ns.map(|ns| format!("&ns={ns}")).unwrap_or_default();
        let link = format!("<{path}?n={}&last={last}{ns}>; rel=\"next\"", n.len());
        insert(response.headers_mut(), "link", link)?;
    }
    Ok(response)
}
