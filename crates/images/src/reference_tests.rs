use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn references_are_normalised_as_docker_does() {
    let table = [
        ("sample", "docker.io/library/sample:latest"),
        ("sample:1", "docker.io/library/sample:1"),
        ("team/sample:1", "docker.io/team/sample:1"),
        ("docker.io/sample", "docker.io/library/sample:latest"),
        ("index.docker.io/sample:2", "docker.io/library/sample:2"),
        ("localhost/sample", "localhost/sample:latest"),
        ("localhost:5000/sample:1", "localhost:5000/sample:1"),
        ("ghcr.io/a/b/c:v1.2_3-x", "ghcr.io/a/b/c:v1.2_3-x"),
        ("GHCR.io/a/b", "ghcr.io/a/b:latest"),
        ("[::1]:5000/a:1", "[::1]:5000/a:1"),
        ("x/a__b--c.d/e", "docker.io/x/a__b--c.d/e:latest"),
    ];
    for (text, normal) in table {
        assert_eq!(Reference::parse(text).unwrap().to_string(), normal, "{text}");
    }
    let pinned = Reference::parse(&format!("ghcr.io/a/b:1@sha256:{HEX}")).unwrap();
    assert_eq!(pinned.to_string(), format!("ghcr.io/a/b:1@sha256:{HEX}"));
    assert_eq!(pinned.selector(), Selector::Digest(Digest::of(b"")));
    assert_eq!(Reference::parse(&format!("a@sha256:{HEX}")).unwrap().tag, None);
}

#[test]
fn malformed_references_are_refused() {
    let long_tag = format!("a:{}", "x".repeat(129));
    let long_name = "a".repeat(256);
    let bare_digest = format!("sha256:{HEX}@");
    let table = [
        "",
        ":",
        "/",
        "a/",
        "/a",
        "a//b",
        "../a",
        "a/../b",
        "a/..",
        "./a",
        "A",
        "Team/a",
        "a:",
        "a:.b",
        "a:-b",
        "a:b/c:",
        "a b",
        "a@",
        "a@sha256:12",
        "-a",
        "a-",
        "a_",
        "a___b",
        "a..b",
        "a._b",
        "ghcr.io/",
        "ghcr.io:x/a",
        "ghcr.io:99999/a",
        "[::1/a",
        "[zz]/a",
        "exa_mple.com/a",
        ".com/a",
        "a__b.c/e",
        "a:b:c",
        "ü",
        "a\0b",
        "a?b",
        "a%2fb",
        HEX,
        &long_tag,
        &long_name,
        &bare_digest,
    ];
    for text in table {
        assert!(Reference::parse(text).is_err(), "{text:?} was taken");
    }
}

#[test]
fn requests_find_their_repository() {
    let table = [
        ("library/sample", Some("docker.io"), "docker.io/library/sample"),
        ("sample", None, "docker.io/library/sample"),
        ("sample", Some(""), "docker.io/library/sample"),
        ("team/sample", None, "docker.io/team/sample"),
        ("ghcr.io/a/b", None, "ghcr.io/a/b"),
        ("a/b", Some("ghcr.io"), "ghcr.io/a/b"),
        ("b", Some("ghcr.io"), "ghcr.io/b"),
        ("a/b", Some("registry-1.docker.io"), "docker.io/a/b"),
        ("a/b", Some("127.0.16.2:5000"), "127.0.16.2:5000/a/b"),
        ("localhost/b", None, "localhost/b"),
        ("ghcr.io/a", Some("mirror"), "mirror/ghcr.io/a"),
    ];
    for (name, ns, full) in table {
        assert_eq!(
            Repository::from_request(name, ns).unwrap().as_str(),
            full,
            "{name} {ns:?}"
        );
    }
    for (name, ns) in [
        ("a", Some("../x")),
        ("a/../../b", None),
        ("a", Some("h/x")),
        ("_tags", None),
        ("a/_tags", None),
    ] {
        assert!(Repository::from_request(name, ns).is_err(), "{name} {ns:?}");
    }
}

#[test]
fn selectors_are_tags_or_digests() {
    assert_eq!("v1".parse::<Selector>().unwrap(), Selector::Tag("v1".parse().unwrap()));
    assert_eq!(
        format!("sha256:{HEX}").parse::<Selector>().unwrap(),
        Selector::Digest(Digest::of(b""))
    );
    assert!("sha256:12".parse::<Selector>().is_err());
    assert!("..".parse::<Selector>().is_err());
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_and_never_leaves_the_store(text in "\\PC{0,80}") {
        if let Ok(reference) = Reference::parse(&text) {
            let name = reference.repository.as_str();
            prop_assert!(name.split('/').all(|c| !c.is_empty() && !c.starts_with(['.', '_'])));
            prop_assert!(!name.starts_with('/'));
        }
    }

    #[test]
    fn a_normal_reference_is_its_own_normal_form(text in "([a-z0-9]{1,9}(\\.[a-z]{2,3}(:[0-9]{1,4})?)?/)?[a-z0-9]{1,8}([._-][a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,8}){0,2}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,9})?") {
        let first = Reference::parse(&text);
        prop_assume!(first.is_ok());
        let first = first.unwrap();
        let again = Reference::parse(&first.to_string()).unwrap();
        prop_assert_eq!(&first, &again);
        let full: String = first.repository.clone().into();
        prop_assert_eq!(Repository::try_from(full).unwrap(), first.repository);
    }
}
