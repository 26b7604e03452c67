//! What is judged of what was found, case by case.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DeploymentSpec, DeploymentStatus};
use leeward_api::{ClusterSpec, ClusterStatus};
use leeward_controller::inject::webhook::configuration;
use serde_json::json;

use super::*;
use crate::doctor::Level;

/// Whatever is not well says what to do.
fn level(check: &Check) -> Level {
    assert_eq!(check.advice.is_some(), check.level != Level::Ok, "{check:?}");
    check.level
}

#[test]
fn a_kubernetes_that_is_too_old_fails() {
    for (major, minor, wanted) in [
        ("1", "30", Level::Ok),
        ("1", "36+", Level::Ok),
        ("2", "0", Level::Ok),
        ("1", "29", Level::Fail),
        ("1", "29+", Level::Fail),
        ("", "", Level::Warn),
    ] {
        assert_eq!(level(&kubernetes("west", major, minor)), wanted, "{major}.{minor}");
    }
}

#[test]
fn clocks_apart_are_told_with_the_way_and_what_is_not_known_exactly_is_not() {
    let asked = |ahead, within| clock("west", ahead, Duration::from_millis(within));
    for (ahead, within, wanted) in [
        (0, 0, Level::Ok),
        (1999, 0, Level::Ok),
        (2000, 0, Level::Warn),
        (-2000, 0, Level::Warn),
        (2900, 1000, Level::Ok),
        (60_000, 0, Level::Fail),
        (i64::MIN, 0, Level::Fail),
    ] {
        assert_eq!(level(&asked(ahead, within)), wanted, "{ahead} {within}");
    }
    assert!(asked(5000, 0).finding.contains("5 s ahead of"));
    assert!(asked(-5000, 0).finding.contains("5 s behind"));
}

#[test]
fn the_date_of_an_answer_is_compared_with_when_it_was_asked_for() {
    // 2026-11-27T02:00:00Z
    let (date, at) = ("Fri, 27 Nov 2026 02:00:00 GMT", 1_795_744_800_000);
    let asked = |before| dated("west", Some(date), before, Duration::from_millis(20));
    assert_eq!(level(&asked(at)), Level::Ok);
    assert_eq!(level(&asked(at + 990)), Level::Ok);
    assert!(
        asked(at + 100_000).finding.contains("99 s behind"),
        "{:?}",
        asked(at + 100_000)
    );
    for none in [None, Some("today")] {
        assert_eq!(level(&dated("west", none, at, Duration::ZERO)), Level::Warn);
    }
}

#[test]
fn a_definition_of_another_version_is_told_from_defaults_that_a_server_adds() {
    let ours = leeward_api::crds().remove(0);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = serde_json::to_value(&ours).unwrap();
        change(&mut value);
        let found: CustomResourceDefinition = serde_json::from_value(value).unwrap();
        definition("west", &ours, Some(&found))
    };
    let fields = "/spec/versions/0/schema/openAPIV3Schema/properties";
    assert_eq!(level(&definition("west", &ours, None)), Level::Fail);
    assert_eq!(level(&changed(&|_| {})), Level::Ok);
    let by_server = |value: &mut Value| {
        value["spec"]["conversion"] = json!({ "strategy": "None" });
        value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["minProperties"] = 0.into();
        value["status"] = json!({ "storedVersions": [value["spec"]["versions"][0]["name"]] });
    };
    assert_eq!(level(&changed(&by_server)), Level::Ok);
    let another = |value: &mut Value| value.pointer_mut(fields).unwrap()["more"] = json!({ "type": "string" });
    assert_eq!(level(&changed(&another)), Level::Warn);
    let less = |value: &mut Value| {
        drop(
            value
                .pointer_mut(fields)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove("spec"),
        )
    };
    assert_eq!(level(&changed(&less)), Level::Warn);
    let renamed = |value: &mut Value| value["spec"]["versions"][0]["name"] = "v0".into();
    assert!(changed(&renamed).finding.contains("has no version"));
    let unserved = |value: &mut Value| value["spec"]["versions"][0]["served"] = false.into();
    assert!(changed(&unserved).finding.contains("is not served"));
    let stored = |value: &mut Value| value["status"] = json!({ "storedVersions": ["v9"] });
    assert!(changed(&stored).finding.contains("stored in version v9"));
}

#[test]
fn what_is_denied_and_what_is_not_served_is_named() {
    assert_eq!(level(&apis("west", &[])), Level::Ok);
    assert!(apis("west", &["pods of v1".into()]).finding.contains("pods of v1"));
    assert_eq!(level(&rights("west", Ok((80, vec![])))), Level::Ok);
    let denied = rights("west", Ok((80, vec!["patch services".into()])));
    assert_eq!(
        (level(&denied), denied.finding.contains("patch services")),
        (Level::Fail, true)
    );
    assert_eq!(level(&rights("west", Err("forbidden".into()))), Level::Warn);
}

fn deployment(ready: i32, version: &str) -> Deployment {
    let mut found = Deployment {
        spec: Some(DeploymentSpec {
            replicas: Some(2),
            ..DeploymentSpec::default()
        }),
        status: Some(DeploymentStatus {
            ready_replicas: Some(ready),
            ..DeploymentStatus::default()
        }),
        ..Deployment::default()
    };
    found.metadata.labels = Some(BTreeMap::from([(VERSION.to_owned(), version.to_owned())]));
    found
}

#[test]
fn agents_that_do_not_run_say_what_keeps_them() {
    let asked = |ready, waits| agents("west", Some(&deployment(ready, "0.1.0")), waits);
    assert_eq!(level(&agents("west", None, None)), Level::Fail);
    assert_eq!(level(&asked(2, None)), Level::Ok);
    assert_eq!(level(&asked(1, None)), Level::Warn);
    for (waits, says) in [
        ("a pod waits: ImagePullBackOff, Back-off pulling image", "--image"),
        ("a pod waits: ErrImageNeverPull", "--image"),
        ("a pod waits: ContainerCreating", "leeward join render"),
        ("a pod is not scheduled: no node", "a node with room"),
        ("a pod waits: CrashLoopBackOff; its agent ended with 1", "kubectl logs"),
    ] {
        let check = asked(0, Some(waits));
        assert_eq!(level(&check), Level::Fail);
        assert!(
            check.finding.contains(waits) && check.advice.unwrap().contains(says),
            "{waits}"
        );
    }
}

#[test]
fn versions_are_at_most_one_minor_apart() {
    for (one, other, wanted) in [
        ("0.3.0", "0.3.9", Level::Ok),
        ("0.3.0", "0.4.0", Level::Ok),
        ("0.4.0", "0.3.0", Level::Ok),
        ("0.3.0", "0.5.0", Level::Fail),
        ("1.0.0", "0.9.0", Level::Fail),
        ("latest", "0.3.0", Level::Warn),
    ] {
        assert_eq!(
            level(&versions(("west", one), ("east", other))),
            wanted,
            "{one} {other}"
        );
        assert_eq!(
            level(&version("west", &deployment(2, one), other)),
            wanted,
            "{one} {other}"
        );
    }
}

#[test]
fn what_is_not_reached_and_who_is_not_heard_of_is_told() {
    assert_eq!(level(&reached("east edge", "e:80", Ok(()))), Level::Ok);
    assert_eq!(level(&reached("east edge", "e:80", Err("refused".into()))), Level::Warn);
    assert_eq!(level(&service("west", "leeward-peer", 2)), Level::Ok);
    assert_eq!(level(&service("west", "leeward-peer", 0)), Level::Fail);
    let spec = ClusterSpec {
        region: "east".into(),
        zones: vec![],
        ingress: "e:80".into(),
        registry: "e:5000".into(),
        peer: "e:7443".into(),
        maintenance: None,
    };
    let mut east = Cluster::new("east", spec);
    assert_eq!(level(&heard("west", &east)), Level::Fail);
    for (status, wanted) in [("True", Level::Ok), ("False", Level::Fail), ("Unknown", Level::Fail)] {
        let said = json!({ "conditions": [{
            "type": "Ready", "status": status, "reason": "Silent", "message": "its agent is not heard of",
            "lastTransitionTime": "2026-11-27T02:00:00Z",
        }] });
        east.status = Some(serde_json::from_value::<ClusterStatus>(said).unwrap());
        let check = heard("west", &east);
        assert_eq!(level(&check), wanted);
        assert!(check.finding.contains("not heard of"));
        assert_eq!(
            check.advice.is_some_and(|advice| advice.contains("e:7443")),
            wanted == Level::Fail
        );
    }
}

#[test]
fn a_webhook_that_is_missing_or_not_trusted_or_silent_fails() {
    let good = configuration("leeward-system", "CA");
    let asked = |found: &MutatingWebhookConfiguration, authority| level(&webhook("west", Some(found), authority));
    assert_eq!(level(&webhook("west", None, Some("CA"))), Level::Fail);
    assert_eq!(asked(&good, Some("CA")), Level::Ok);
    assert_eq!(asked(&good, Some("another CA")), Level::Fail);
    assert_eq!(asked(&good, None), Level::Warn);
    let mut dropped = good.clone();
    dropped.webhooks.as_mut().unwrap()[0].match_conditions = None;
    assert_eq!(asked(&dropped, Some("CA")), Level::Fail);
    let mut empty = good;
    empty.webhooks = Some(vec![]);
    assert_eq!(asked(&empty, Some("CA")), Level::Fail);

    let refused = "admission webhook \"inject.leeward.dev\" denied the request: there is no annotation";
    assert_eq!(level(&answers("west", "shop", Err(refused.into()))), Level::Ok);
    assert_eq!(
        level(&answers("west", "shop", Err("exceeded quota".into()))),
        Level::Warn
    );
    assert_eq!(level(&answers("west", "shop", Ok(()))), Level::Fail);
}

#[test]
fn a_namespace_that_is_stuck_says_what_remains() {
    let at = |phase: &str, conditions: Value| {
        terminating(&json!({ "status": { "phase": phase, "conditions": conditions } }))
    };
    assert_eq!(at("Active", json!([])), None);
    let remains = json!([
        { "type": "NamespaceFinalizersRemaining", "status": "True", "message": "a finalizer in 1 resource instances" },
        { "type": "NamespaceDeletionContentFailure", "status": "False", "message": "all is well" },
    ]);
    let why = at("Terminating", remains).unwrap();
    assert_eq!(why, "a finalizer in 1 resource instances");
    assert!(at("Terminating", Value::Null).unwrap().contains("not told"));
    let checks = namespaces("west", &[("shop".into(), why)]);
    assert_eq!((checks.len(), level(&checks[0])), (1, Level::Fail));
    assert!(checks[0].name.contains("shop") && checks[0].finding.contains("finalizer"));
}
