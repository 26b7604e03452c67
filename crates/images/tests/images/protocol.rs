//! The endpoints of OCI distribution-spec 1.1, as clients use them.

use std::io::{Read, Write};

use leeward_images::digest::Digest;
use leeward_images::manifest::{MAX_MANIFEST, OCI_MANIFEST};
use leeward_images::pack;
use reqwest::Response;
use serde_json::{Value, json};

use super::harness::{Region, client, codes, reference, small_image};

fn location(region: &Region, response: &Response) -> String {
    format!("{}{}", region.url, response.headers()["location"].to_str().unwrap())
}

fn with_digest(location: &str, digest: &Digest) -> String {
    format!(
        "{location}{}digest={digest}",
        if location.contains('?') { '&' } else { '?' }
    )
}

async fn begin(region: &Region) -> String {
    let response = client()
        .post(format!("{}/v2/sample/blobs/uploads/?ns=docker.io", region.url))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
    location(region, &response)
}

#[tokio::test]
async fn a_pushed_image_is_pulled_by_tag_and_by_digest_under_every_name_of_it() {
    let region = Region::start("west").await;
    let image = small_image("a");
    let digest = pack::push(&client(), &region.url, &reference("sample:1"), &image)
        .await
        .unwrap();
    assert_eq!(digest, image.digest());
    let paths = [
        "/v2/sample/manifests/1".to_owned(),
        "/v2/library/sample/manifests/1".to_owned(),
        "/v2/library/sample/manifests/1?ns=docker.io".to_owned(),
        "/v2/docker.io/library/sample/manifests/1".to_owned(),
        format!("/v2/library/sample/manifests/{digest}"),
    ];
    for path in &paths {
        let response = region.get(path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["docker-content-digest"], digest.to_string());
        assert_eq!(response.headers()["content-type"], OCI_MANIFEST);
        let bytes = response.bytes().await.unwrap();
        assert_eq!(Digest::of(&bytes), digest);
        let head = client().head(format!("{}{path}", region.url)).send().await.unwrap();
        assert_eq!(
            (
                head.status().as_u16(),
                head.headers()["content-length"].to_str().unwrap()
            ),
            (200, &*bytes.len().to_string())
        );
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        for part in manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .chain([&manifest["config"]])
        {
            let blob = region
                .get(&format!(
                    "/v2/library/sample/blobs/{}",
                    part["digest"].as_str().unwrap()
                ))
                .send()
                .await
                .unwrap();
            assert_eq!(
                blob.headers()["content-length"].to_str().unwrap(),
                part["size"].to_string()
            );
            assert_eq!(
                Digest::of(&blob.bytes().await.unwrap()).to_string(),
                part["digest"].as_str().unwrap()
            );
        }
    }
    let other = region
        .get("/v2/library/sample/manifests/1?ns=ghcr.io")
        .send()
        .await
        .unwrap();
    assert_eq!(codes(other).await, (404, vec!["MANIFEST_UNKNOWN".into()]));
    let tags: Value = region
        .get("/v2/sample/tags/list")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(tags, json!({"name": "library/sample", "tags": ["1"]}));
    let catalog: Value = region.get("/v2/_catalog").send().await.unwrap().json().await.unwrap();
    assert_eq!(catalog, json!({"repositories": ["docker.io/library/sample"]}));
    let base = region.get("/v2/").send().await.unwrap();
    assert_eq!(
        (
            base.status().as_u16(),
            base.headers()["docker-distribution-api-version"].to_str().unwrap()
        ),
        (200, "registry/2.0")
    );
}

#[tokio::test]
async fn a_blob_may_come_in_pieces() {
    let region = Region::start("west").await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let digest = Digest::of(&bytes);
    let (first, second) = bytes.split_at(1_500_001);
    let mut session = begin(&region).await;
    for (piece, at) in [(first, 0), (second, first.len())] {
        let range = format!("{at}-{}", at + piece.len() - 1);
        let request = client()
            .patch(&session)
            .header("content-range", range)
            .body(piece.to_vec());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 202);
        assert_eq!(response.headers()["range"], format!("0-{}", at + piece.len() - 1));
        session = location(&region, &response);
    }
    let status = client().get(&session).send().await.unwrap();
    assert_eq!(
        (status.status().as_u16(), status.headers()["range"].to_str().unwrap()),
        (204, &*format!("0-{}", bytes.len() - 1))
    );
    let done = client().put(with_digest(&session, &digest)).send().await.unwrap();
    assert_eq!(done.status(), 201);
    assert_eq!(done.headers()["docker-content-digest"], digest.to_string());
    let path = format!("/v2/sample/blobs/{digest}");
    let part = region
        .get(&path)
        .header("range", "bytes=1000000-2000000")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(
        part.headers()["content-range"],
        format!("bytes 1000000-2000000/{}", bytes.len())
    );
    assert_eq!(part.bytes().await.unwrap(), &bytes[1_000_000..=2_000_000]);
    let outside = region
        .get(&path)
        .header("range", "bytes=3000000-")
        .send()
        .await
        .unwrap();
    assert_eq!(outside.headers()["content-range"], "bytes */3000000");
    assert_eq!(codes(outside).await.0, 416);
    assert_eq!(region.leftovers(), 0);
}

#[tokio::test]
async fn an_upload_that_lies_stores_nothing() {
    let region = Region::start("west").await;
    let digest = Digest::of(b"promised");
    // Another content than promised, whole and in a session.
    let url = format!("{}/v2/sample/blobs/uploads/?digest={digest}", region.url);
    let response = client().post(url).body("other").send().await.unwrap();
    assert_eq!(codes(response).await, (400, vec!["DIGEST_INVALID".into()]));
    let session = begin(&region).await;
    let response = client()
        .put(with_digest(&session, &digest))
        .body("other")
        .send()
        .await
        .unwrap();
    assert_eq!(codes(response).await, (400, vec!["DIGEST_INVALID".into()]));
    let response = client()
        .put(with_digest(&session, &digest))
        .body("promised")
        .send()
        .await
        .unwrap();
    assert_eq!(codes(response).await, (404, vec!["BLOB_UPLOAD_UNKNOWN".into()]));
    // Ranges that do not go on where the session is, or disagree with the length.
    let session = begin(&region).await;
    for (range, status) in [("5-9", 416), ("x", 416), ("9-5", 416), ("0-9", 400)] {
        let request = client().patch(&session).header("content-range", range).body("four");
        assert_eq!(codes(request.send().await.unwrap()).await.0, status, "{range}");
    }
    // No digest, a malformed one, one of another algorithm.
    for query in ["", "digest=sha256:12", "digest=sha512:12", "digest=../../x"] {
        let url = format!("{session}&{query}");
        assert_eq!(
            codes(client().put(url).send().await.unwrap()).await,
            (400, vec!["DIGEST_INVALID".into()]),
            "{query}"
        );
    }
    assert_eq!(client().delete(&session).send().await.unwrap().status(), 204);
    assert_eq!(codes(client().get(&session).send().await.unwrap()).await.0, 404);
    assert_eq!(region.leftovers(), 0);
    assert_eq!(region.store.blob_len(&digest), None);
}

#[tokio::test]
async fn an_upload_that_breaks_off_stores_nothing() {
    let region = Region::start("west").await;
    let digest = Digest::of(b"promised bytes");
    let address = region.url.strip_prefix("http://").unwrap().to_owned();
    let broken = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head =
            format!("POST /v2/sample/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(b"promised").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        // The server may answer or close: either way it has read the end.
        let _ = stream.read_to_string(&mut answer);
        answer
    });
    let answer = broken.await.unwrap();
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    assert_eq!(region.store.blob_len(&digest), None);
}

#[tokio::test]
async fn a_piece_that_breaks_off_is_gone_on_with() {
    let region = Region::start("west").await;
    let session = begin(&region).await;
    let address = region.url.strip_prefix("http://").unwrap().to_owned();
    let path = session.strip_prefix(&region.url).unwrap().to_owned();
    let broken = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head = format!("PATCH {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(b"first").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_string(&mut String::new());
    });
    broken.await.unwrap();
    loop {
        let status = client().get(&session).send().await.unwrap();
        assert_eq!(status.status(), 204);
        if status.headers()["range"] == "0-4" {
            break;
        }
    }
    let rest = client().patch(&session).header("content-range", "5-10").body("second");
    assert_eq!(rest.send().await.unwrap().status(), 202);
    let digest = Digest::of(b"firstsecond");
    assert_eq!(
        client()
            .put(with_digest(&session, &digest))
            .send()
            .await
            .unwrap()
            .status(),
        201
    );
}

#[tokio::test]
async fn a_manifest_needs_its_parts_first() {
    let region = Region::start("west").await;
    let config = region.push_blob(b"{}").await;
    let absent = Digest::of(b"absent");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": absent, "size": 6}],
    });
    let put = |reference: String, body: Vec<u8>| {
        client()
            .put(format!("{}/v2/sample/manifests/{reference}", region.url))
            .header("content-type", OCI_MANIFEST)
            .body(body)
            .send()
    };
    let response = put("1".into(), manifest.to_string().into()).await.unwrap();
    assert_eq!(codes(response).await, (400, vec!["MANIFEST_BLOB_UNKNOWN".into()]));
    region.push_blob(b"absent").await;
    let wrong = put(absent.to_string(), manifest.to_string().into()).await.unwrap();
    assert_eq!(codes(wrong).await, (400, vec!["DIGEST_INVALID".into()]));
    assert_eq!(
        put("1".into(), manifest.to_string().into()).await.unwrap().status(),
        201
    );
    // What is no manifest, is too large, or is of a type that is not kept.
    for body in ["", "{", "null", "[]", "{\"schemaVersion\":2}"] {
        assert_eq!(
            codes(put("2".into(), body.into()).await.unwrap()).await,
            (400, vec!["MANIFEST_INVALID".into()]),
            "{body}"
        );
    }
    let large = put("2".into(), vec![b' '; MAX_MANIFEST + 1]).await.unwrap();
    assert_eq!(codes(large).await, (413, vec!["MANIFEST_INVALID".into()]));
    for reference in ["-x", "a%2F..%2Fb", "sha256:12"] {
        let status = put(reference.into(), manifest.to_string().into())
            .await
            .unwrap()
            .status();
        assert!(status.is_client_error(), "{reference}: {status}");
    }
    assert_eq!(
        codes(region.get("/v2/sample/manifests/2").send().await.unwrap())
            .await
            .0,
        404
    );
    assert_eq!(region.leftovers(), 0);
}

#[tokio::test]
async fn deleted_tags_and_manifests_are_gone_and_may_be_pushed_again() {
    let region = Region::start("west").await;
    let image = small_image("a");
    for tag in ["sample:1", "sample:2"] {
        pack::push(&client(), &region.url, &reference(tag), &image)
            .await
            .unwrap();
    }
    let url = |selector: String| format!("{}/v2/sample/manifests/{selector}", region.url);
    assert_eq!(client().delete(url("1".into())).send().await.unwrap().status(), 202);
    assert_eq!(codes(client().get(url("1".into())).send().await.unwrap()).await.0, 404);
    assert_eq!(
        codes(client().delete(url("1".into())).send().await.unwrap()).await.0,
        404
    );
    assert_eq!(client().get(url("2".into())).send().await.unwrap().status(), 200);
    assert_eq!(
        client()
            .delete(url(image.digest().to_string()))
            .send()
            .await
            .unwrap()
            .status(),
        202
    );
    assert_eq!(codes(client().get(url("2".into())).send().await.unwrap()).await.0, 404);
    pack::push(&client(), &region.url, &reference("sample:2"), &image)
        .await
        .unwrap();
    assert_eq!(client().get(url("2".into())).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn names_that_climb_and_methods_that_do_not_fit_are_refused() {
    let region = Region::start("west").await;
    let digest = Digest::of(b"x");
    for path in [
        "/v2/a/%2e%2e/b/tags/list".to_owned(),
        "/v2/..%2f..%2fetc/manifests/1".to_owned(),
        "/v2/A/manifests/1".to_owned(),
        format!("/v2/_tags/blobs/{digest}"),
        "/v2//tags/list".to_owned(),
        "/v2/a/tags/list?ns=..%2Fx".to_owned(),
    ] {
        // The client would tidy dots away: the path goes as it is.
        let address = region.url.strip_prefix("http://").unwrap().to_owned();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let answer = answer.await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("NAME_INVALID"),
            "{path}: {answer}"
        );
    }
    let put = client()
        .put(format!("{}/v2/sample/blobs/{digest}", region.url))
        .send()
        .await
        .unwrap();
    assert_eq!(codes(put).await, (405, vec!["UNSUPPORTED".into()]));
    let put = client()
        .put(format!("{}/v2/sample/manifests/1", region.peer_url))
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(codes(put).await, (405, vec!["UNSUPPORTED".into()]));
    let begin = client()
        .post(format!("{}/v2/sample/blobs/uploads/", region.peer_url))
        .send()
        .await
        .unwrap();
    assert_eq!(codes(begin).await, (405, vec!["UNSUPPORTED".into()]));
}

#[tokio::test]
async fn blobs_are_mounted_where_they_are_here_and_uploaded_where_not() {
    let region = Region::start("west").await;
    let digest = region.push_blob(b"shared").await;
    let mount = |digest: Digest| {
        client()
            .post(format!(
                "{}/v2/other/blobs/uploads/?mount={digest}&from=library/sample",
                region.url
            ))
            .send()
    };
    let mounted = mount(digest).await.unwrap();
    assert_eq!(
        (
            mounted.status().as_u16(),
            mounted.headers()["docker-content-digest"].to_str().unwrap()
        ),
        (201, &*digest.to_string())
    );
    assert_eq!(mount(Digest::of(b"absent")).await.unwrap().status(), 202);
}

#[tokio::test]
async fn lists_come_in_pages_and_referrers_by_subject() {
    let region = Region::start("west").await;
    let image = small_image("a");
    for tag in ["a", "b", "c"] {
        pack::push(&client(), &region.url, &reference(&format!("sample:{tag}")), &image)
            .await
            .unwrap();
    }
    let page = region.get("/v2/sample/tags/list?n=2").send().await.unwrap();
    let link = page.headers()["link"].to_str().unwrap().to_owned();
    assert_eq!(page.json::<Value>().await.unwrap()["tags"], json!(["a", "b"]));
    let next = link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
    let page = region.get(&next).send().await.unwrap();
    assert!(page.headers().get("link").is_none());
    assert_eq!(page.json::<Value>().await.unwrap()["tags"], json!(["c"]));

    let empty = region.push_blob(b"{}").await;
    let signature = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/example",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2}],
        "subject": {"mediaType": OCI_MANIFEST, "digest": image.digest(), "size": 1},
    });
    let digest = Digest::of(signature.to_string().as_bytes());
    let url = format!("{}/v2/sample/manifests/{digest}", region.url);
    let put = client()
        .put(url)
        .header("content-type", OCI_MANIFEST)
        .body(signature.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(
        (put.status().as_u16(), put.headers()["oci-subject"].to_str().unwrap()),
        (201, &*image.digest().to_string())
    );
    for (query, count) in [
        ("", 1),
        ("?artifactType=application/example", 1),
        ("?artifactType=other", 0),
    ] {
        let path = format!("/v2/sample/referrers/{}{query}", image.digest());
        let index: Value = region.get(&path).send().await.unwrap().json().await.unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), count, "{query}");
    }
}
