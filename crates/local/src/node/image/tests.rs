use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::*;

#[test]
fn the_policy_defaults_as_in_kubernetes() {
    let reference = |text: &str| Reference::parse(text).unwrap();
    for (declared, name, wanted) in [
        (None, "a", Policy::Always),
        (None, "a:latest", Policy::Always),
        (None, "a:1", Policy::IfNotPresent),
        (Some("Never"), "a", Policy::Never),
        (Some("Always"), "a:1", Policy::Always),
        (Some("IfNotPresent"), "a", Policy::IfNotPresent),
    ] {
        assert_eq!(Policy::of(declared, &reference(name)), wanted, "{declared:?} {name}");
    }
}

#[test]
fn an_index_is_searched_for_this_machine() {
    let entry = |arch: &str, digit: &str| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1,
            "digest": format!("sha256:{}", digit.repeat(64)), "platform": {"os": "linux", "architecture": arch}})
    };
    let index: ImageIndex =
        serde_json::from_value(json!({"schemaVersion": 2, "manifests": [entry("arm64", "a"), entry("amd64", "b")]}))
            .unwrap();
    assert_eq!(choose(&index, "amd64"), Ok(format!("sha256:{}", "b".repeat(64))));
    assert_eq!(choose(&index, "s390x"), Err("linux/arm64, linux/amd64".to_owned()));
}

#[test]
fn an_artifact_is_told_from_an_image() {
    let with = |kind: &str| {
        let descriptor = json!({"mediaType": kind, "size": 2, "digest": format!("sha256:{}", "a".repeat(64))});
        manifest(&serde_json::to_vec(&json!({"schemaVersion": 2, "config": descriptor, "layers": []})).unwrap())
    };
    assert!(with("application/vnd.oci.image.config.v1+json").is_ok());
    assert!(
        with("application/vnd.cncf.helm.config.v1+json")
            .unwrap_err()
            .contains("helm")
    );
    assert!(manifest(b"{}").is_err());
}

/// A registry that answers from a table; what it was asked for is counted.
#[derive(Clone, Default)]
struct Fake {
    answers: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn put(&self, path: &str, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        let path = path.replace("DIGEST", &digest);
        self.answers
            .lock()
            .unwrap()
            .insert(format!("/v2/library/app/{path}"), bytes.to_vec());
        digest
    }

    /// An image of one layer with the file `hello`; returns the layer's digest.
    fn image(&self) -> String {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o644);
        tar.append_data(&mut header, "hello", &b"hi"[..]).unwrap();
        let layer = tar.into_inner().unwrap();
        let layer_digest = self.put("blobs/DIGEST", &layer);
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]}});
        let config = serde_json::to_vec(&config).unwrap();
        let config_digest = self.put("blobs/DIGEST", &config);
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest,
                "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest,
                "size": layer.len()}]});
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let digest = self.put("manifests/DIGEST", &manifest);
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len(),
                "platform": {"os": "linux", "architecture": ARCHITECTURE}}]});
        self.put("manifests/1", &serde_json::to_vec(&index).unwrap());
        layer_digest
    }

    async fn serve(&self) -> String {
        let fake = self.clone();
        let answer = move |uri: http::Uri| async move {
            fake.asked.lock().unwrap().push(uri.path().to_owned());
            assert_eq!(uri.query(), Some("ns=docker.io"));
            let found = fake.answers.lock().unwrap().get(uri.path()).cloned();
            found.ok_or(http::StatusCode::NOT_FOUND)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        format!("http://{address}")
    }
}

#[tokio::test]
async fn an_image_is_pulled_once_and_found_again() {
    let (fake, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    fake.image();
    let base = fake.serve().await;
    let images = Images::new(dir.path().to_owned(), &base).unwrap();
    let reference = Reference::parse("app:1").unwrap();
    assert!(images.present(&reference, Policy::IfNotPresent).is_none());
    let never = images.pull(&reference, Policy::Never).await;
    assert!(matches!(never, Err(Error::NeverPull(_))));
    let image = images.pull(&reference, Policy::IfNotPresent).await.unwrap();
    assert_eq!(std::fs::read_to_string(image.root.join("hello")).unwrap(), "hi");
    assert_eq!(image.config.cmd, ["/hello"]);
    assert!(image.id.starts_with("docker.io/library/app@sha256:"), "{}", image.id);
    let asked = fake.asked.lock().unwrap().len();
    // Another process of the same node.
    let images = Images::new(dir.path().to_owned(), &base).unwrap();
    assert_eq!(images.present(&reference, Policy::IfNotPresent).unwrap().id, image.id);
    assert_eq!(fake.asked.lock().unwrap().len(), asked);
    // Always asks for the manifest and has the rest.
    images.pull(&reference, Policy::Always).await.unwrap();
    let all = fake.asked.lock().unwrap();
    assert!(
        all[asked..].iter().all(|path| path.contains("/manifests/")),
        "{:?}",
        &all[asked..]
    );
}

#[tokio::test]
async fn a_tampered_blob_is_refused_and_nothing_is_kept() {
    let (fake, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    let layer = fake.image();
    fake.answers
        .lock()
        .unwrap()
        .insert(format!("/v2/library/app/blobs/{layer}"), b"other".to_vec());
    let images = Images::new(dir.path().to_owned(), &fake.serve().await).unwrap();
    let reference = Reference::parse("app:1").unwrap();
    let refused = images.pull(&reference, Policy::IfNotPresent).await.unwrap_err();
    assert!(matches!(refused, Error::Digest { .. }), "{refused}");
    assert!(images.present(&reference, Policy::IfNotPresent).is_none());
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_no_image_or_absent_is_named() {
    let (fake, dir) = (Fake::default(), tempfile::tempdir().unwrap());
    fake.put("manifests/text", b"hello");
    let images = Images::new(dir.path().to_owned(), &fake.serve().await).unwrap();
    let pull = |text: &str| {
        let reference = Reference::parse(text).unwrap();
        let images = &images;
        async move { images.pull(&reference, Policy::Always).await.unwrap_err() }
    };
    assert!(matches!(pull("app:text").await, Error::NotAnImage { .. }));
    assert!(matches!(pull("app:gone").await, Error::Missing { .. }));
    let nobody = Images::new(dir.path().to_owned(), "http://127.0.0.1:1").unwrap();
    let error = nobody
        .pull(&Reference::parse("app:1").unwrap(), Policy::Always)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Registry(_)) && error.to_string().contains("127.0.0.1:1"),
        "{error}"
    );
}
