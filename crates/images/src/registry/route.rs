//! Which resource a request is about: a pure function of its URI.

use axum::extract::Query;
use http::Uri;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use uuid::Uuid;

use super::refusal::Refusal;
use crate::digest::Digest;
use crate::reference::Selector;

/// What a path names. `name` is a repository as the client writes it, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resource {
    Base,
    Catalog,
    Inventory,
    Changed,
    Tags { name: String },
    Referrers { name: String, digest: Digest },
    Blob { name: String, digest: Digest },
    Manifest { name: String, selector: Selector },
    Uploads { name: String },
    Upload { name: String, id: Uuid },
}

/// The parameters that some resource reads.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Params {
    /// The registry's host that the client believes it speaks to (containerd's mirror convention).
    pub(super) ns: Option<String>,
    pub(super) digest: Option<String>,
    pub(super) mount: Option<String>,
    pub(super) n: Option<usize>,
    pub(super) last: Option<String>,
    #[serde(rename = "artifactType")]
    pub(super) artifact_type: Option<String>,
}

pub(super) fn route(uri: &Uri) -> Result<(Resource, Params), Refusal> {
    let params = Query::<Params>::try_from_uri(uri)
        .map_err(|error| Refusal::unreadable(&error))?
        .0;
    let path = percent_decode_str(uri.path())
        .decode_utf8()
        .map_err(|error| Refusal::unreadable(&error))?;
    let all: Vec<&str> = path.split('/').collect();
    let ["", "v2", parts @ ..] = all.as_slice() else {
        return Err(Refusal::no_route());
    };
    let resource = match parts {
        [] | [""] => Resource::Base,
        ["_catalog"] => Resource::Catalog,
        ["_leeward", "inventory"] => Resource::Inventory,
        ["_leeward", "changed"] => Resource::Changed,
        [name @ .., "tags", "list"] => Resource::Tags { name: name.join("/") },
        [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
            Resource::Uploads { name: name.join("/") }
        }
        [name @ .., "blobs", "uploads", id] => {
            let id = id.parse().map_err(|_| Refusal::no_upload())?;
            Resource::Upload {
                name: name.join("/"),
                id,
            }
        }
        [name @ .., "blobs", digest] => Resource::Blob {
            name: name.join("/"),
            digest: parse_digest(digest)?,
        },
        [name @ .., "referrers", digest] => Resource::Referrers {
            name: name.join("/"),
            digest: parse_digest(digest)?,
        },
        [name @ .., "manifests", selector] => {
            let selector = selector.parse().map_err(|error| Refusal::selector(&error))?;
            Resource::Manifest {
                name: name.join("/"),
                selector,
            }
        }
        _ => return Err(Refusal::no_route()),
    };
    Ok((resource, params))
}

pub(super) fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error| Refusal::digest(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_resources() {
        let digest = Digest::of(b"");
        let id = Uuid::new_v4();
        let name = || "a/b".to_owned();
        let table = [
            ("/v2".to_owned(), Resource::Base),
            ("/v2/".to_owned(), Resource::Base),
            ("/v2/_catalog?n=3".to_owned(), Resource::Catalog),
            ("/v2/_leeward/inventory".to_owned(), Resource::Inventory),
            ("/v2/a/b/tags/list".to_owned(), Resource::Tags { name: name() }),
            (
                format!("/v2/a/b/blobs/{digest}"),
                Resource::Blob { name: name(), digest },
            ),
            (
                format!("/v2/a/b/blobs/sha256%3A{}", digest.hex()),
                Resource::Blob { name: name(), digest },
            ),
            (
                format!("/v2/a/b/referrers/{digest}"),
                Resource::Referrers { name: name(), digest },
            ),
            ("/v2/a/b/blobs/uploads/".to_owned(), Resource::Uploads { name: name() }),
            ("/v2/a/b/blobs/uploads".to_owned(), Resource::Uploads { name: name() }),
            (
                format!("/v2/a/b/blobs/uploads/{id}"),
                Resource::Upload { name: name(), id },
            ),
            (
                "/v2/blobs/manifests/v1".to_owned(),
                Resource::Manifest {
                    name: "blobs".into(),
                    selector: "v1".parse().unwrap(),
                },
            ),
        ];
        for (path, expected) in table {
            assert_eq!(route(&path.parse().unwrap()).unwrap().0, expected, "{path}");
        }
    }

    #[test]
    fn other_paths_are_refused() {
        let paths = [
            "/",
            "/v1/",
            "/v2x/",
            "/v2/a",
            "/v2/a/b",
            "/v2/a/blobs/sha256:12",
            "/v2/a/manifests/",
            "/v2/a/manifests/..",
            "/v2/a/manifests/-x",
            "/v2/a/blobs/uploads/x",
            "/v2/a/blobs/%2e%2e%2f",
            "/v2/%ff/tags/list",
            "/v2/_catalog?n=x",
        ];
        for path in paths {
            assert!(route(&path.parse().unwrap()).is_err(), "{path}");
        }
    }

    #[test]
    fn the_mirror_conventions_host_is_read() {
        let (_, params) = route(&"/v2/a/b/tags/list?ns=127.0.16.2%3A5000&n=2".parse().unwrap()).unwrap();
        assert_eq!((params.ns.as_deref(), params.n), (Some("127.0.16.2:5000"), Some(2)));
    }
}
