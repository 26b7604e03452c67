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
