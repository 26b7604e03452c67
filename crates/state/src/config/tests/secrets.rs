use std::collections::BTreeSet;

use super::plan::plan_at;
use super::*;

const VALUE: &str = "aHVudGVyMg==";

fn named(names: &[&str]) -> Secrets {
    Secrets::Named(names.iter().map(|name| (*name).to_owned()).collect())
}

fn chosen(secrets: &Secrets, namespace: &[Value]) -> Vec<Value> {
    let selector: LabelSelector = serde_json::from_value(json!({ "matchLabels": { "app": "web" } })).unwrap();
    select(&app(), &selector, &[], secrets, namespace).unwrap()
}

fn carried(secrets: &Secrets) -> Bundle {
    Bundle::new(
        app(),
        "west".into(),
        None,
        Generation(3),
        chosen(secrets, &everything()),
    )
    .with(secrets.clone())
}

fn of(objects: &[Value]) -> Vec<String> {
    let ids = objects.iter().filter_map(Id::of);
    ids.filter(|id| id.kind == Kind::Secret).map(|id| id.name).collect()
}

#[test]
fn only_secrets_that_are_asked_for_are_carried_and_everything_else_is() {
    let mut namespace = everything();
    let other = json!({ "metadata": { "labels": { "app": "other" } } });
    namespace.push(object("Secret", "read-by-its-name", other.clone()));
    namespace.push(object("Secret", "of-another", other));
    for (asked, names) in [
        (Secrets::None, vec![]),
        (Secrets::All, vec!["init", "keys", "pull"]),
        (named(&["keys"]), vec!["keys"]),
        (named(&["read-by-its-name", "none"]), vec!["read-by-its-name"]),
        // Asked for by name or not: each cluster makes its own.
        (named(&["leeward-web-gate"]), vec![]),
    ] {
        let mut namespace = namespace.clone();
        namespace.push(object("Secret", "leeward-web-gate", json!({})));
        let chosen = chosen(&asked, &namespace);
        assert_eq!(of(&chosen), names, "{asked:?}");
        assert_eq!(chosen.len() - names.len(), 5, "{asked:?}");
    }
}

#[test]
fn a_bundle_with_a_secret_that_it_does_not_say_is_refused() {
    let all = carried(&Secrets::All);
    assert_eq!(all.check(), Ok(()));
    for less in [Secrets::None, named(&["keys", "pull"])] {
        let error = all.clone().with(less).check().unwrap_err();
        assert!(
            error.to_string().contains("Secret init, which nobody asked for"),
            "{error}"
        );
    }
}

#[test]
fn what_an_agent_sends_that_always_carries_them_is_understood_and_what_it_kept_is_whole() {
    let mut before = serde_json::to_value(carried(&Secrets::All)).unwrap();
    assert_eq!(
        before.as_object_mut().unwrap().remove("secrets"),
        None,
        "its digest is of the same"
    );
    let read: Bundle = serde_json::from_value(before).unwrap();
    assert_eq!(read, carried(&Secrets::All));
    for asked in [Secrets::None, named(&["keys"])] {
        let sent = serde_json::to_value(carried(&asked)).unwrap();
        assert_eq!(serde_json::from_value::<Bundle>(sent).unwrap(), carried(&asked));
    }
}

#[test]
fn what_was_carried_and_is_not_asked_for_any_more_stays_and_that_is_said() {
    let here = after(&plan_at("east", &carried(&Secrets::All), &[]), &[]);
    let ask = |secrets: &Secrets| Receiver {
        secrets: secrets.clone(),
        ..west_is_home("east")
    };
    let plan = |bundle: &Bundle, asked: &Secrets| {
        let objects = desired(bundle, &[], Running::Standby(0)).unwrap();
        let said = super::super::plan(bundle, &objects, &here, &ask(asked));
        said.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let less = carried(&Secrets::None);
    // The bundle may come before the specification that it was made by, and after it.
    for asked in [Secrets::None, Secrets::All] {
        let said = plan(&less, &asked);
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(
            said.iter()
                .all(|line| line.contains("carried here before") && line.contains("spec.configuration.secrets")),
            "{said:?}"
        );
    }
    let said = plan(&carried(&named(&["keys"])), &named(&["keys"]));
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(
        missing(&less, &here, &BTreeSet::from(["local".into()])),
        [""; 0],
        "a start here finds them"
    );
    // One that is asked for, and gone where it came from, is deleted as ever.
    let gone: Vec<Value> = everything()
        .into_iter()
        .filter(|object| object["metadata"]["name"] != "keys")
        .collect();
    let gone = Bundle::new(app(), "west".into(), None, Generation(4), gone).with(Secrets::All);
    assert_eq!(
        plan(&gone, &Secrets::All),
        ["Secret keys is deleted: it is gone where it came from"]
    );
}

#[test]
fn a_secret_that_is_needed_and_neither_carried_nor_here_is_named_with_what_to_do() {
    let less = carried(&named(&["keys", "typo"]));
    let here = after(&plan_at("east", &less, &[]), &[]);
    let said = missing(&less, &here, &BTreeSet::from(["local".into()]));
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(
        said[0].starts_with(
            "Secret init, which Deployment web refers to, is not here, and it is not carried: make it here"
        ) && said[0].contains("spec.configuration.secrets"),
        "{said:?}"
    );
    assert!(
        said[1].starts_with("Secret pull, which ServiceAccount web refers to"),
        "{said:?}"
    );
    assert!(
        said[2].starts_with("Secret typo, which spec.configuration.secretNames asks for"),
        "{said:?}"
    );
    let mut here = here;
    for name in ["init", "pull", "typo"] {
        here.push(object("Secret", name, json!({})));
    }
    assert_eq!(missing(&less, &here, &BTreeSet::from(["local".into()])), [""; 0]);
}

#[test]
fn a_secret_that_somebody_else_makes_here_is_neither_written_nor_deleted_and_no_value_is_told() {
    let keys = |data: &str, more: Value| {
        let mut keys = object("Secret", "keys", json!({ "data": { "k": data } }));
        json_patch::merge(&mut keys, &more);
        keys
    };
    let bundle = Bundle::new(
        app(),
        "west".into(),
        None,
        Generation(3),
        vec![deployment(1), keys(VALUE, json!({}))],
    )
    .with(Secrets::All);
    let of_a_store =
        json!({ "metadata": { "ownerReferences": [{ "kind": "ExternalSecret", "name": "k", "controller": true }] } });
    let tracked =
        json!({ "metadata": { "annotations": { "argocd.argoproj.io/tracking-id": "shop:/Secret:shop/keys" } } });
    for (cluster, made, owner) in [
        ("east", json!({ "metadata": { "labels": null } }), "somebody here"),
        ("east", of_a_store.clone(), "ExternalSecret k"),
        ("west", of_a_store, "ExternalSecret k"),
        ("east", tracked, "Argo CD (Application shop)"),
    ] {
        let plan = |data: &str| {
            let mut changes = plan_at(cluster, &bundle, &[keys(data, made.clone())]);
            changes.retain(|change| !matches!(change, Change::Apply(object) if object["kind"] == "Deployment"));
            changes
        };
        assert_eq!(plan(VALUE), [], "{owner}");
        let other = plan("c2VjcmV0");
        let [Change::Drift { owner: said, .. }] = &other[..] else {
            panic!("{owner}: {other:?}")
        };
        assert_eq!(said, owner);
        let told = other[0].to_string();
        assert!(
            told.contains("data.k") && !told.contains(VALUE) && !told.contains("c2VjcmV0"),
            "{told}"
        );
    }
    // Where the specification has its home a person's own is the application's.
    let at_home = plan_at("west", &bundle, &[keys("c2VjcmV0", json!({}))]);
    assert!(
        matches!(&at_home[..], [Change::Apply(_), Change::Apply(_)]),
        "{at_home:?}"
    );
    let carried = json!({ "metadata": { "labels": { "leeward.dev/app": "shop.web" }, "annotations": { "leeward.dev/carried-from": "west" } } });
    let ours = plan_at("east", &bundle, &[keys("c2VjcmV0", carried)]);
    assert!(matches!(&ours[..], [Change::Apply(_), Change::Apply(_)]), "{ours:?}");
    // Not asked for, it is not looked at.
    let none = Bundle::new(app(), "west".into(), None, Generation(3), vec![deployment(1)]);
    let there = [keys("c2VjcmV0", json!({})), deployment(0)];
    let touched = plan_at("east", &none, &there);
    assert!(
        !touched.iter().any(|change| change.to_string().contains("Secret")),
        "{touched:?}"
    );
}
