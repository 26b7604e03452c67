use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::controllers::samples::{now, object_of, pod};

fn claim(extra: Value) -> PersistentVolumeClaim {
    let mut claim = json!({
        "metadata": {"name": "data", "namespace": "shop", "uid": "u1", "resourceVersion": "3", "finalizers": [CLAIM_PROTECTION]},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}},
        "status": {"phase": "Pending"},
    });
    json_patch::merge(&mut claim, &extra);
    object_of(claim)
}

fn volume(extra: Value) -> PersistentVolume {
    let mut volume = json!({
        "metadata": {
            "name": "pvc-u1", "uid": "v1", "resourceVersion": "4", "finalizers": [VOLUME_PROTECTION],
            "annotations": {PROVISIONED_BY: PROVISIONER},
        },
        "spec": {
            "hostPath": {"path": "/volumes/pvc-u1"}, "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "local",
            "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": "shop", "name": "data", "uid": "u1"},
        },
        "status": {"phase": "Bound"},
    });
    json_patch::merge(&mut volume, &extra);
    object_of(volume)
}

fn region(claims: &[PersistentVolumeClaim], volumes: &[PersistentVolume], pods: &[Pod]) -> Region {
    let mut region = Region::default();
    let Some(Action::Create { object, .. }) = plan_class(&region) else {
        panic!()
    };
    let mut class: StorageClass = object_of(object);
    class.metadata.resource_version = Some("1".to_owned());
    region.classes.wrote(class, Instant::now());
    for claim in claims {
        region.claims.wrote(claim.clone(), Instant::now());
    }
    for volume in volumes {
        region.volumes.wrote(volume.clone(), Instant::now());
    }
    for (pod, version) in pods.iter().zip(10..) {
        let mut pod = pod.clone();
        pod.metadata.resource_version = Some(version.to_string());
        region.pods.wrote(pod, Instant::now());
    }
    region
}

fn planned(claims: &[PersistentVolumeClaim], volumes: &[PersistentVolume], pods: &[Pod]) -> Vec<Action> {
    plan(&region(claims, volumes, pods), Path::new("/volumes"))
}

#[test]
fn a_claim_gets_a_directory_of_its_own() {
    let actions = planned(&[claim(json!({}))], &[], &[]);
    let [Action::Provision { path, volume }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(path, Path::new("/volumes/pvc-u1"));
    assert_eq!(volume["spec"]["hostPath"]["path"], "/volumes/pvc-u1");
    assert_eq!(volume["spec"]["claimRef"]["uid"], "u1");
    assert_eq!(volume["spec"]["capacity"]["storage"], "5Gi");
}

#[test]
fn a_claim_without_a_class_gets_the_default_one() {
    let actions = planned(&[claim(json!({"spec": {"storageClassName": null}}))], &[], &[]);
    let [Action::Patch { patch, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(patch["spec"]["storageClassName"], "local");
}

#[test]
fn a_claim_of_no_class_or_of_another_provisioner_is_left_alone() {
    for class in ["", "other"] {
        assert_eq!(
            planned(&[claim(json!({"spec": {"storageClassName": class}}))], &[], &[]),
            [],
            "{class:?}"
        );
    }
}

#[test]
fn claim_and_volume_are_bound_to_each_other() {
    let fresh = volume(json!({"status": null}));
    let actions = planned(&[claim(json!({}))], &[fresh], &[]);
    let [Action::Patch { patch: spec, .. }, Action::Patch { patch: status, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(spec["spec"]["volumeName"], "pvc-u1");
    assert_eq!(status["status"]["phase"], "Bound");
    let bound = claim(json!({"spec": {"volumeName": "pvc-u1"}, "status": {"phase": "Bound"}}));
    let actions = planned(std::slice::from_ref(&bound), &[volume(json!({"status": null}))], &[]);
    let [Action::Patch { patch, target, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(
        (target.kind, &patch["status"]["phase"]),
        (Kind::PersistentVolume, &json!("Bound"))
    );
    assert_eq!(planned(&[bound], &[volume(json!({}))], &[]), []);
}

#[test]
fn a_volume_made_beforehand_for_a_claim_of_this_name_is_taken() {
    let reserved = volume(json!({"metadata": {"name": "given"}, "spec": {"claimRef": {"uid": null}}}));
    let actions = planned(&[claim(json!({}))], &[reserved], &[]);
    assert!(
        !actions.iter().any(|action| matches!(action, Action::Provision { .. })),
        "{actions:?}"
    );
    let Action::Patch { patch, .. } = &actions[0] else {
        panic!("{actions:?}")
    };
    assert_eq!(patch["spec"]["claimRef"]["uid"], "u1");
}

#[test]
fn a_claim_in_use_is_protected_until_the_last_pod_is_gone() {
    let unprotected = claim(json!({"metadata": {"finalizers": null}}));
    let actions = planned(&[unprotected], &[], &[]);
    let [Action::Patch { patch, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(patch["metadata"]["finalizers"], json!([CLAIM_PROTECTION]));

    let deleted =
        claim(json!({"metadata": {"deletionTimestamp": now().to_string()}, "spec": {"volumeName": "pvc-u1"}}));
    let mut user = pod("a", "set");
    user.spec.as_mut().unwrap().volumes = Some(object_of(
        json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]),
    ));
    assert_eq!(
        planned(std::slice::from_ref(&deleted), &[volume(json!({}))], &[user]),
        []
    );
    let actions = planned(&[deleted], &[volume(json!({}))], &[]);
    let [Action::Patch { patch, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(patch["metadata"]["finalizers"], json!([]));
}

#[test]
fn the_directory_goes_with_its_claim_only_where_nobody_asked_to_keep_it() {
    let reclaimed = |extra| {
        let actions = planned(&[], &[volume(extra)], &[]);
        actions.iter().any(|action| matches!(action, Action::Reclaim { .. }))
    };
    assert!(reclaimed(json!({})));
    assert!(!reclaimed(json!({"metadata": {"annotations": {RETAIN: "true"}}})));
    assert!(!reclaimed(
        json!({"metadata": {"finalizers": [VOLUME_PROTECTION, "leeward.dev/mirror"]}})
    ));
    assert!(!reclaimed(json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}})));
    assert!(!reclaimed(json!({"metadata": {"annotations": {PROVISIONED_BY: null}}})));
    assert!(!reclaimed(json!({"spec": {"hostPath": {"path": "/home/person"}}})));
    assert!(!reclaimed(json!({"spec": {"claimRef": {"uid": null}}})));
}

#[test]
fn a_volume_of_an_earlier_claim_of_the_same_name_is_not_given_to_the_new_one() {
    let old = volume(json!({"metadata": {"annotations": {RETAIN: "true"}}, "spec": {"claimRef": {"uid": "earlier"}}}));
    let actions = planned(&[claim(json!({}))], &[old], &[]);
    assert!(matches!(actions[0], Action::Provision { .. }), "{actions:?}");
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Patch { patch, .. } if patch["status"]["phase"] == "Released"))
    );
}
