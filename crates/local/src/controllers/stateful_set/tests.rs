use serde_json::Value;

use super::*;
use crate::controllers::samples::{names, now, object_of, pod, ready};

fn set(replicas: i32, extra: Value) -> StatefulSet {
    let mut set = json!({
        "metadata": {"name": "db", "namespace": "shop", "uid": "set", "generation": 1},
        "spec": {
            "replicas": replicas, "serviceName": "db",
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
        },
    });
    json_patch::merge(&mut set, &extra);
    object_of(set)
}

fn member(set: &StatefulSet, ordinal: i32) -> Pod {
    let near = Near {
        pods: &[],
        claims: &[],
        revisions: &[],
    };
    let actions = View::of(set, set.spec.as_ref().unwrap(), near, now()).create(ordinal, &[]);
    let mut member: Pod = actions
        .into_iter()
        .find_map(|action| match action {
            Action::Create {
                kind: Kind::Pod,
                object,
            } => Some(object_of(object)),
            _ => None,
        })
        .unwrap();
    member.metadata.uid = Some(format!("uid-{ordinal}"));
    member
}

fn created(actions: &[Action], of: Kind) -> Vec<String> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Create { kind, object } if *kind == of => {
                Some(object["metadata"]["name"].as_str().unwrap().to_owned())
            }
            _ => None,
        })
        .collect()
}

fn deleted(actions: &[Action]) -> Vec<&str> {
    names(actions.iter().filter_map(|action| match action {
        Action::Delete { target, .. } => Some(target),
        _ => None,
    }))
}

fn planned(set: &StatefulSet, pods: &[Pod]) -> Vec<Action> {
    planned_with(set, pods, &[])
}

fn planned_with(set: &StatefulSet, pods: &[Pod], revisions: &[&ControllerRevision]) -> Vec<Action> {
    let pods: Vec<&Pod> = pods.iter().collect();
    let near = Near {
        pods: &pods,
        claims: &[],
        revisions,
    };
    plan(set, near, now())
}

// The revision of the set's template, as the API has it once it is created.
fn revision(set: &StatefulSet, number: i64) -> ControllerRevision {
    let created = revision::newest(set, &set.spec.as_ref().unwrap().template, (&[], &[]), revision::HASH, 0);
    let Some(Action::Create { object, .. }) = created.action else {
        panic!()
    };
    let mut revision: ControllerRevision = object_of(object);
    revision.revision = number;
    revision
}

#[test]
fn pods_start_one_after_another_with_claims_of_their_own() {
    let set = set(2, json!({}));
    let actions = planned(&set, &[]);
    assert_eq!(created(&actions, Kind::PersistentVolumeClaim), ["data-db-0"]);
    assert_eq!(created(&actions, Kind::Pod), ["db-0"]);
    let first = member(&set, 0);
    assert_eq!(first.spec.as_ref().unwrap().hostname.as_deref(), Some("db-0"));
    assert_eq!(first.spec.as_ref().unwrap().subdomain.as_deref(), Some("db"));
    assert_eq!(
        created(&planned(&set, std::slice::from_ref(&first)), Kind::Pod),
        [""; 0],
        "the first is not ready yet"
    );
    assert_eq!(created(&planned(&set, &[ready(first)]), Kind::Pod), ["db-1"]);
}

#[test]
fn a_parallel_set_starts_all_at_once() {
    let set = set(3, json!({"spec": {"podManagementPolicy": "Parallel"}}));
    assert_eq!(created(&planned(&set, &[]), Kind::Pod), ["db-0", "db-1", "db-2"]);
}

#[test]
fn pods_end_from_the_highest_one_at_a_time() {
    let three = set(3, json!({}));
    let mut pods: Vec<Pod> = (0..3).map(|ordinal| ready(member(&three, ordinal))).collect();
    let one = set(1, json!({}));
    assert_eq!(deleted(&planned(&one, &pods)), ["db-2"]);
    pods[2].metadata.deletion_timestamp = Some(object::time(now()));
    assert_eq!(deleted(&planned(&one, &pods)), [""; 0]);
    pods.pop();
    assert_eq!(deleted(&planned(&one, &pods)), ["db-1"]);
    pods.pop();
    assert_eq!(deleted(&planned(&one, &pods)), [""; 0]);
}

#[test]
fn a_name_is_used_again_only_when_it_is_free() {
    let set = set(1, json!({}));
    let mut ending = ready(member(&set, 0));
    ending.metadata.deletion_timestamp = Some(object::time(now()));
    assert_eq!(created(&planned(&set, &[ending]), Kind::Pod), [""; 0]);
    let mut failed = member(&set, 0);
    failed.status.get_or_insert_default().phase = Some("Failed".to_owned());
    let actions = planned(&set, &[failed]);
    assert_eq!(
        (deleted(&actions), created(&actions, Kind::Pod).len()),
        (vec!["db-0"], 0)
    );
}

#[test]
fn a_new_template_replaces_the_highest_first_down_to_the_partition() {
    let old = set(3, json!({}));
    let new = |partition| {
        let spec = json!({"template": {"spec": {"containers": [{"name": "c", "image": "new"}]}}, "updateStrategy": {"rollingUpdate": {"partition": partition}}});
        set(3, json!({ "spec": spec }))
    };
    let mut pods: Vec<Pod> = (0..3).map(|ordinal| ready(member(&old, ordinal))).collect();
    assert_eq!(deleted(&planned(&new(0), &pods)), ["db-2"]);
    assert_eq!(deleted(&planned(&new(3), &pods)), [""; 0]);
    pods[2] = member(&new(0), 2);
    assert_eq!(
        deleted(&planned(&new(0), &pods)),
        [""; 0],
        "the new one is not ready yet"
    );
    pods[2] = ready(member(&new(0), 2));
    assert_eq!(deleted(&planned(&new(0), &pods)), ["db-1"]);
    assert_eq!(deleted(&planned(&new(2), &pods)), [""; 0]);
}

#[test]
fn a_broken_pod_of_the_old_template_holds_up_the_new_one_unless_pods_are_managed_in_parallel() {
    let old = set(1, json!({}));
    let new = |policy: &str| {
        let template = json!({"spec": {"containers": [{"name": "c", "image": "new"}]}});
        set(
            1,
            json!({"spec": {"template": template, "podManagementPolicy": policy}}),
        )
    };
    assert_eq!(deleted(&planned(&new("OrderedReady"), &[member(&old, 0)])), [""; 0]);
    assert_eq!(deleted(&planned(&new("Parallel"), &[member(&old, 0)])), ["db-0"]);
}

#[test]
fn a_pod_below_the_partition_is_made_of_the_template_from_before() {
    let old = set(2, json!({}));
    let mut new = set(
        2,
        json!({"spec": {
            "template": {"spec": {"containers": [{"name": "c", "image": "new"}]}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}},
        }}),
    );
    let (before, after) = (revision(&old, 1), revision(&new, 2));
    new.status = Some(object_of(
        json!({"replicas": 2, "currentRevision": before.metadata.name}),
    ));
    let image = |pods: &[Pod]| {
        let actions = planned_with(&new, pods, &[&before, &after]);
        let created = actions.iter().find_map(|action| match action {
            Action::Create {
                kind: Kind::Pod,
                object,
            } => Some(object["spec"]["containers"][0]["image"].clone()),
            _ => None,
        });
        created.unwrap()
    };
    assert_eq!(image(&[]), "i");
    assert_eq!(image(&[ready(member(&old, 0))]), "new");
}

#[test]
fn status_counts_revisions() {
    let old = set(2, json!({}));
    let mut new = set(
        2,
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "new"}]}}}}),
    );
    let (before, after) = (revision(&old, 1), revision(&new, 2));
    new.status = Some(object_of(
        json!({"replicas": 2, "currentRevision": before.metadata.name}),
    ));
    let status = |pods: &[Pod]| {
        let actions = planned_with(&new, pods, &[&before, &after]);
        let Some(Action::Patch {
            patch, status: true, ..
        }) = actions.last()
        else {
            panic!("{actions:?}")
        };
        patch["status"].clone()
    };
    let halfway = status(&[ready(member(&old, 0)), ready(member(&new, 1))]);
    let count = |name: &str| halfway[name].as_i64();
    assert_eq!(
        ["currentReplicas", "updatedReplicas", "readyReplicas"].map(count),
        [Some(1), Some(1), Some(2)]
    );
    assert_eq!(halfway["currentRevision"], json!(before.metadata.name));
    assert_eq!(halfway["updateRevision"], json!(after.metadata.name));
    let done = status(&[ready(member(&new, 0)), ready(member(&new, 1))]);
    assert_eq!(done["currentRevision"], json!(after.metadata.name));
    assert_eq!(done["currentReplicas"], json!(2));
}

#[test]
fn revisions_beyond_the_limit_are_forgotten() {
    let images = ["1", "2", "3"];
    let sets = images.map(|image| {
        let template = json!({"spec": {"containers": [{"name": "c", "image": image}]}});
        set(0, json!({"spec": {"template": template, "revisionHistoryLimit": 1}}))
    });
    let revisions: Vec<ControllerRevision> = sets
        .iter()
        .zip(1..)
        .map(|(set, number)| revision(set, number))
        .collect();
    let actions = planned_with(&sets[2], &[], &revisions.iter().collect::<Vec<_>>());
    assert_eq!(deleted(&actions), [revisions[0].metadata.name.as_deref().unwrap()]);
}

#[test]
fn pods_of_others_do_not_count() {
    let set = set(1, json!({}));
    let mut other = ready(pod("db-0x", "set"));
    assert_eq!(created(&planned(&set, &[other.clone()]), Kind::Pod), ["db-0"]);
    other.metadata.name = Some("db-00".to_owned());
    assert_eq!(created(&planned(&set, &[other.clone()]), Kind::Pod), ["db-0"]);
    other.metadata.name = Some("db-0".to_owned());
    other.metadata.owner_references = None;
    let actions = planned(&set, &[other]);
    assert_eq!(created(&actions, Kind::Pod), [""; 0]);
    assert!(
        actions.iter().any(|action| matches!(action, Action::Patch { patch, .. } if patch["metadata"]["ownerReferences"][0]["uid"] == "set"))
    );
}
