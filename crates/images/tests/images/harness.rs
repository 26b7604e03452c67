//! Regions in this process: a store in a temporary directory and its two faces on ports of their own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Once;

use axum::Router;
use leeward_images::digest::Digest;
use leeward_images::pack::{self, Config, Entry, OciImage};
use leeward_images::peers::{Peer, Peers};
use leeward_images::reference::Reference;
use leeward_images::registry::{self, Mode};
use leeward_images::store::Store;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;

/// A region's images.
pub(crate) struct Region {
    pub(crate) name: &'static str,
    pub(crate) store: Store,
    pub(crate) peers: Peers,
    /// What nodes and users speak to.
    pub(crate) url: String,
    /// What the other regions speak to.
    pub(crate) peer_url: String,
    pub(crate) dir: TempDir,
}

pub(crate) fn client() -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().unwrap();
    });
    Client::builder().no_proxy().build().unwrap()
}

pub(crate) async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

impl Region {
    pub(crate) async fn start(name: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let peers = Peers::default();
        let url = serve(registry::router(store.clone(), Mode::ReadWrite, peers.clone())).await;
        let peer_url = serve(registry::router(store.clone(), Mode::ReadOnly, peers.clone())).await;
        Self {
            name,
            store,
            peers,
            url,
            peer_url,
            dir,
        }
    }

    pub(crate) fn as_peer(&self) -> Peer {
        Peer {
            region: self.name.to_owned(),
            base_url: self.peer_url.clone(),
            client: client(),
        }
    }

    pub(crate) fn know(&self, others: &[&Region]) {
        self.peers.set(others.iter().map(|other| other.as_peer()).collect());
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.dir.path().join("blobs/sha256").join(&hex[..2]).join(hex)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        client().get(format!("{}{path}", self.url))
    }

    /// Files of the store that are neither blob nor record: there must be none when nothing is under way.
    pub(crate) fn leftovers(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("uploads")).unwrap().count()
    }

    pub(crate) async fn push_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let url = format!("{}/v2/sample/blobs/uploads/?digest={digest}", self.url);
        let response = client().post(url).body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(response.status(), 201);
        digest
    }
}

pub(crate) fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// A small image of two layers.
pub(crate) fn small_image(content: &str) -> OciImage {
    let layers = vec![
        vec![
            Entry::bytes("/etc/motd", 0o644, content.as_bytes().to_vec()),
            Entry::directory("/tmp", 0o1777),
        ],
        vec![Entry::bytes("/bin/run", 0o755, vec![7; 100_000])],
    ];
    let config = Config {
        entrypoint: vec!["/bin/run".into()],
        ..Config::default()
    };
    pack::image(layers, &config).unwrap()
}

/// The error codes of an OCI error body.
pub(crate) async fn codes(response: Response) -> (u16, Vec<String>) {
    let status = response.status().as_u16();
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let errors = body["errors"].as_array().unwrap();
    assert!(
        errors
            .iter()
            .all(|error| error["message"].as_str().is_some_and(|m| !m.is_empty()))
    );
    (
        status,
        errors
            .iter()
            .map(|error| error["code"].as_str().unwrap().to_owned())
            .collect(),
    )
}
