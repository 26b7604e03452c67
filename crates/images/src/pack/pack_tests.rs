use std::collections::BTreeMap;
use std::io::Read;

use super::*;

fn entries() -> Vec<Entry> {
    vec![
        Entry::bytes("/usr/bin/run", 0o755, *b"program"),
        Entry::directory("/tmp", 0o1777),
        Entry::symlink("/bin", "usr/bin"),
        Entry::bytes(format!("/deep/{}/file", "x".repeat(150)), 0o600, *b"long"),
    ]
}

fn full() -> Config {
    Config {
        entrypoint: vec!["/usr/bin/run".into(), "sample".into()],
        cmd: vec!["--fast".into()],
        env: BTreeMap::from([("A".into(), "1".into()), ("B".into(), "2".into())]),
        labels: (0..20).map(|n| (format!("l{n}"), "v".into())).collect(),
        user: "65532:65532".into(),
        working_dir: "/tmp".into(),
    }
}

#[test]
fn the_same_files_give_the_same_digest_in_whatever_order() {
    let mut reversed = entries();
    reversed.reverse();
    let digests: Vec<_> = [entries(), reversed, entries()]
        .into_iter()
        .map(|entries| image(vec![entries], &full()).unwrap().digest())
        .collect();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
    let other = image(vec![vec![Entry::bytes("/usr/bin/run", 0o755, *b"Program")]], &full()).unwrap();
    assert_ne!(other.digest(), digests[0]);
}

#[test]
fn a_file_and_its_bytes_in_memory_make_the_same_layer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    std::fs::write(&path, &bytes).unwrap();
    let from_file = image(vec![vec![Entry::file("/a/b", 0o644, &path)]], &Config::default()).unwrap();
    let from_bytes = image(vec![vec![Entry::bytes("/a/b", 0o644, bytes)]], &Config::default()).unwrap();
    assert_eq!(from_file.digest(), from_bytes.digest());
    // A file that changed since it was measured is noticed when it is stored.
    std::fs::write(&path, b"other").unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let reference = Reference::parse("a").unwrap();
    assert!(from_file.store(&store, &reference, SystemTime::now()).is_err());
    assert!(store.listing().repositories.is_empty());
}

#[test]
fn the_layer_is_a_tar_without_times_or_owners() {
    let packed = image(vec![entries()], &full()).unwrap();
    let bytes = packed.layers[0].write(Vec::new()).unwrap();
    assert_eq!(
        (Digest::of(&bytes), bytes.len() as u64),
        (packed.layers[0].digest, packed.layers[0].size)
    );
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        assert_eq!(
            (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()),
            (0, 0, 0)
        );
        let path = entry.path().unwrap().display().to_string();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        found.push((path, header.mode().unwrap(), content));
    }
    let path = |n: usize| found[n].0.trim_end_matches('/').to_owned();
    let paths: Vec<_> = (0..found.len()).map(path).collect();
    let long = format!("deep/{}", "x".repeat(150));
    assert_eq!(
        paths,
        [
            "bin",
            "deep",
            &long,
            &format!("{long}/file"),
            "tmp",
            "usr",
            "usr/bin",
            "usr/bin/run"
        ]
    );
    assert_eq!(found[7], ("usr/bin/run".into(), 0o755, "program".into()));
    assert_eq!(found[4].1, 0o1777);
}

#[test]
fn the_configuration_says_what_to_run() {
    let packed = image(vec![entries()], &full()).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&packed.config).unwrap();
    let process = &config["config"];
    assert_eq!(process["Entrypoint"], serde_json::json!(["/usr/bin/run", "sample"]));
    assert_eq!(process["Cmd"], serde_json::json!(["--fast"]));
    assert_eq!(process["Env"], serde_json::json!(["A=1", "B=2"]));
    assert_eq!(
        (&process["User"], &process["WorkingDir"]),
        (&"65532:65532".into(), &"/tmp".into())
    );
    assert_eq!(process["Labels"]["l7"], "v");
    assert_eq!(config["rootfs"]["diff_ids"][0], packed.layers[0].digest.to_string());
    let (_, document) = crate::manifest::parse(&packed.manifest, None).unwrap();
    assert_eq!(document.references()[1].digest, packed.layers[0].digest);
}

#[test]
fn paths_stay_within_the_image() {
    for path in [
        "", "/", "a", "../a", "/../a", "/a/../b", "/a/./b", "/a//b", "/a/", "/a\0b",
    ] {
        let refused = image(vec![vec![Entry::bytes(path, 0o644, *b"")]], &Config::default());
        assert!(matches!(refused, Err(PackError::Path(_))), "{path:?}");
    }
    let absent = image(
        vec![vec![Entry::file("/a", 0o644, "/no/such/file")]],
        &Config::default(),
    );
    assert!(absent.unwrap_err().to_string().contains("/no/such/file"));
    let directory = image(vec![vec![Entry::file("/a", 0o644, "/tmp")]], &Config::default());
    assert!(directory.unwrap_err().to_string().contains("regular file"));
}

#[test]
fn an_archive_holds_every_blob_that_its_index_leads_to_and_is_the_same_every_time() {
    let packed = image(
        vec![entries(), vec![Entry::bytes("/second", 0o644, *b"layer")]],
        &full(),
    )
    .unwrap();
    let bytes = packed.archive("example.com/leeward:1", Vec::new()).unwrap();
    assert_eq!(bytes, packed.archive("example.com/leeward:1", Vec::new()).unwrap());
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = vec![];
        entry.read_to_end(&mut content).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), content);
    }
    let json = |path: &str| serde_json::from_slice::<serde_json::Value>(&files[path]).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let blob = |descriptor: &serde_json::Value| {
        let digest = text(&descriptor["digest"]);
        let path = format!("blobs/{}", digest.replace(':', "/"));
        assert_eq!(Digest::of(&files[&path]).to_string(), digest);
        assert_eq!(files[&path].len() as u64, descriptor["size"].as_u64().unwrap());
        path
    };
    let of_index = &json("index.json")["manifests"][0];
    assert_eq!(
        of_index["annotations"]["io.containerd.image.name"],
        "example.com/leeward:1"
    );
    let manifest = json(&blob(of_index));
    let layers: Vec<_> = manifest["layers"].as_array().unwrap().iter().map(&blob).collect();
    let config = blob(&manifest["config"]);
    assert_eq!(layers.len(), 2);
    let docker = &json("manifest.json")[0];
    assert_eq!(
        *docker,
        serde_json::json!({ "Config": config, "RepoTags": ["example.com/leeward:1"], "Layers": layers })
    );
    assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
}

#[test]
fn a_file_that_changed_since_it_was_measured_is_in_no_archive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for other in ["longer than before", "OTHER"] {
        std::fs::write(&path, "other").unwrap();
        let packed = image(vec![vec![Entry::file("/a", 0o644, &path)]], &Config::default()).unwrap();
        std::fs::write(&path, other).unwrap();
        assert!(packed.archive("a:1", Vec::new()).is_err(), "{other}");
    }
}
