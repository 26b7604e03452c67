use proptest::prelude::*;
use serde_json::Value;

use serde_json::json;

use super::*;
use crate::controllers::{
    object::is_ready,
    replica_set,
    samples::{now, object_of, ready},
};

fn deployment(replicas: i32, image: &str, extra: Value) -> Deployment {
    let mut deployment = json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "dep", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    });
    json_patch::merge(&mut deployment, &extra);
    object_of(deployment)
}

// A region with one Deployment in which actions take effect at once and pods become ready when the test says so.
#[derive(Debug)]
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    pods: Vec<Pod>,
    made: u64,
    told: Vec<String>,
}

impl World {
    fn new(deployment: Deployment) -> Self {
        Self {
            deployment,
            sets: Vec::new(),
            pods: Vec::new(),
            made: 0,
            told: Vec::new(),
        }
    }

    fn plan(&self) -> Vec<Action> {
        let sets: Vec<Set<'_>> = self
            .sets
            .iter()
            .map(|set| Set {
                set,
                pods: self
                    .pods
                    .iter()
                    .filter(|pod| object::controls(&set.metadata, &pod.metadata))
                    .collect(),
            })
            .collect();
        plan(&self.deployment, &sets, &[], now())
    }

    // One look: the Deployment's actions, then the ReplicaSets' on what those left.
    fn step(&mut self) -> bool {
        let first = self.plan();
        let does = |actions: &[Action]| actions.iter().any(|action| !matches!(action, Action::LookAgain(_)));
        let mut acted = does(&first);
        first.into_iter().for_each(|action| self.apply(action));
        for set in self.sets.clone() {
            let pods: Vec<&Pod> = self.pods.iter().collect();
            let actions = replica_set::plan(&set, &pods, now(), self.made);
            acted |= does(&actions);
            actions.into_iter().for_each(|action| self.apply(action));
        }
        acted
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            if !self.step() {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.plan());
    }

    fn apply(&mut self, action: Action) {
        self.made += 1;
        match action {
            Action::Create { kind, mut object } => {
                object["metadata"]["uid"] = json!(format!("uid-{}", self.made));
                object["metadata"]["creationTimestamp"] =
                    json!(Timestamp::from_second(self.made as i64).unwrap().to_string());
                match kind {
                    Kind::ReplicaSet => self.sets.push(object_of(object)),
                    Kind::Pod => self.pods.push(object_of(object)),
                    other => panic!("{other:?}"),
                }
            }
            Action::Patch { target, patch, .. } => match target.kind {
                Kind::Deployment => self.deployment = merged(&self.deployment, &patch),
                Kind::ReplicaSet => {
                    let set = self
                        .sets
                        .iter_mut()
                        .find(|set| set.metadata.uid.as_ref() == Some(&target.uid))
                        .unwrap();
                    *set = merged(set, &patch);
                }
                other => panic!("{other:?}"),
            },
            Action::Delete { target, .. } => {
                self.pods.retain(|pod| pod.metadata.uid.as_ref() != Some(&target.uid));
                self.sets.retain(|set| set.metadata.uid.as_ref() != Some(&target.uid));
            }
            Action::Tell { news, .. } => self.told.push(news.message),
            Action::LookAgain(_) => {}
            other => panic!("{other:?}"),
        }
    }

    fn ready_all(&mut self) {
        self.pods = self.pods.drain(..).map(ready).collect();
    }

    fn make_ready(&mut self, index: usize) {
        if !self.pods.is_empty() {
            let index = index % self.pods.len();
            self.pods[index] = ready(self.pods[index].clone());
        }
    }

    fn roll_out(&mut self) {
        for _ in 0..100 {
            self.settle();
            if self.pods.iter().all(is_ready) {
                return;
            }
            self.ready_all();
        }
        panic!("the rollout does not end: {self:?}");
    }

    fn images(&self) -> Vec<&str> {
        let mut images: Vec<&str> = self
            .pods
            .iter()
            .map(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap())
            .collect();
        images.sort_unstable();
        images
    }
}

fn merged<K: serde::Serialize + serde::de::DeserializeOwned>(object: &K, patch: &Value) -> K {
    let mut all = value(object);
    json_patch::merge(&mut all, patch);
    object_of(all)
}

fn condition<'a>(deployment: &'a Deployment, kind: &str) -> (&'a str, &'a str) {
    let conditions = deployment.status.as_ref().unwrap().conditions.as_ref().unwrap();
    let condition = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (&condition.status, condition.reason.as_deref().unwrap())
}

#[test]
fn a_new_deployment_has_a_replica_set_named_by_its_template() {
    let mut world = World::new(deployment(3, "a", json!({})));
    world.settle();
    let [set] = &world.sets[..] else {
        panic!("{:?}", world.sets)
    };
    let hash = template_hash(&world.deployment.spec.as_ref().unwrap().template);
    assert_eq!(set.metadata.name, Some(format!("web-{hash}")));
    assert_eq!(world.pods.len(), 3);
    assert_eq!(world.pods[0].metadata.labels.as_ref().unwrap()[HASH_LABEL], hash);
    assert_eq!(
        condition(&world.deployment, "Available"),
        ("False", "MinimumReplicasUnavailable")
    );
    assert_eq!(
        condition(&world.deployment, "Progressing"),
        ("True", "ReplicaSetUpdated")
    );
    world.roll_out();
    assert_eq!(
        condition(&world.deployment, "Available"),
        ("True", "MinimumReplicasAvailable")
    );
    assert_eq!(
        condition(&world.deployment, "Progressing"),
        ("True", "NewReplicaSetAvailable")
    );
    assert_eq!(
        world.deployment.metadata.annotations.as_ref().unwrap()[annotations::REVISION],
        "1"
    );
    let status = world.deployment.status.as_ref().unwrap();
    assert_eq!(
        (
            status.available_replicas,
            status.unavailable_replicas,
            status.observed_generation
        ),
        (Some(3), None, Some(1))
    );
}

#[test]
fn scaling_to_zero_and_back_needs_one_look_each() {
    let mut world = World::new(deployment(3, "a", json!({})));
    world.roll_out();
    for (replicas, pods) in [(0, 0), (2, 2)] {
        world.deployment.spec.as_mut().unwrap().replicas = Some(replicas);
        world.step();
        assert_eq!(world.pods.len(), pods);
    }
}

#[test]
fn going_back_to_an_earlier_template_uses_its_replica_set_again() {
    let mut world = World::new(deployment(1, "a", json!({})));
    world.roll_out();
    for (image, sets, revision) in [("b", 2, "2"), ("a", 2, "3")] {
        world.deployment.spec = deployment(1, image, json!({})).spec;
        world.roll_out();
        assert_eq!(world.sets.len(), sets);
        assert_eq!(world.images(), [image]);
        assert_eq!(
            world.deployment.metadata.annotations.as_ref().unwrap()[annotations::REVISION],
            revision
        );
    }
}

#[test]
fn old_replica_sets_are_kept_up_to_the_limit() {
    let limit = json!({"spec": {"revisionHistoryLimit": 1}});
    let mut world = World::new(deployment(1, "0", limit.clone()));
    for image in ["0", "1", "2", "3"] {
        world.deployment.spec = deployment(1, image, limit.clone()).spec;
        world.roll_out();
    }
    let mut left: Vec<&str> = world
        .sets
        .iter()
        .map(|set| {
            set.spec
                .as_ref()
                .unwrap()
                .template
                .as_ref()
                .unwrap()
                .spec
                .as_ref()
                .unwrap()
                .containers[0]
                .image
                .as_deref()
                .unwrap()
        })
        .collect();
    left.sort_unstable();
    assert_eq!(left, ["2", "3"]);
}

#[test]
fn recreate_starts_nothing_before_the_last_old_pod_is_gone() {
    let recreate = json!({"spec": {"strategy": {"type": "Recreate"}}});
    let mut world = World::new(deployment(2, "a", recreate.clone()));
    world.roll_out();
    world.deployment.spec = deployment(2, "b", recreate).spec;
    let before = world.pods.clone();
    world.plan().into_iter().for_each(|action| world.apply(action));
    // The old pods are told to end, and take their time.
    world.pods = before
        .into_iter()
        .map(|mut pod| {
            pod.metadata.deletion_timestamp = Some(object::time(now()));
            pod
        })
        .collect();
    world.settle();
    assert_eq!(world.images(), ["a", "a"]);
    world.pods.clear();
    world.roll_out();
    assert_eq!(world.images(), ["b", "b"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(deployment(1, "a", json!({})));
    world.roll_out();
    world.deployment.spec = deployment(2, "b", json!({"spec": {"paused": true}})).spec;
    world.roll_out();
    assert_eq!(world.images(), ["a", "a"]);
    world.deployment.spec.as_mut().unwrap().paused = None;
    world.roll_out();
    assert_eq!(world.images(), ["b", "b"]);
}

#[test]
fn limits_are_numbers_or_shares() {
    let limits = |surge: Value, unavailable: Value, wanted| {
        let rolling =
            json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}});
        let limits = Limits::of(deployment(wanted, "a", rolling).spec.as_ref().unwrap(), wanted);
        (limits.surge, limits.unavailable)
    };
    assert_eq!(limits(json!("25%"), json!("25%"), 10), (3, 2));
    assert_eq!(limits(json!(1), json!(0), 10), (1, 0));
    assert_eq!(limits(json!(0), json!(0), 10), (0, 1));
    assert_eq!(limits(json!("0%"), json!("1%"), 10), (0, 1));
    assert_eq!(limits(json!(null), json!(null), 1), (1, 0));
}

#[test]
fn an_unlabelled_replica_set_of_the_selector_is_adopted() {
    let mut world = World::new(deployment(1, "a", json!({})));
    world.settle();
    let mut orphan = world.sets.remove(0);
    orphan.metadata.owner_references = None;
    let actions = plan(&world.deployment, &[], &[&orphan], now());
    let [Action::Patch { patch, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], "dep");
}

#[test]
fn a_rollout_that_gets_nowhere_is_said_to_have_failed() {
    let mut world = World::new(deployment(1, "a", json!({"spec": {"progressDeadlineSeconds": 5}})));
    world.settle();
    assert!(
        world
            .plan()
            .contains(&Action::LookAgain(now() + jiff::SignedDuration::from_secs(5)))
    );
    let sets: Vec<Set<'_>> = world
        .sets
        .iter()
        .map(|set| Set {
            set,
            pods: world.pods.iter().collect(),
        })
        .collect();
    let later = now() + jiff::SignedDuration::from_secs(6);
    let actions = plan(&world.deployment, &sets, &[], later);
    let Some(Action::Patch { patch, .. }) = actions.last() else {
        panic!("{actions:?}")
    };
    assert_eq!(patch["status"]["conditions"][1]["reason"], "ProgressDeadlineExceeded");
}

proptest! {
    // Whatever the order in which pods become ready or break, a rollout stays within its limits and ends where it should.
    #[test]
    fn a_rollout_stays_within_its_limits_and_ends(
        wanted in 0..7i32,
        surge in 0..3i32,
        unavailable in 0..3i32,
        events in proptest::collection::vec((0..4usize, any::<usize>()), 0..60),
    ) {
        let rolling = json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}});
        let mut world = World::new(deployment(wanted, "a", rolling.clone()));
        world.roll_out();
        world.deployment.spec = deployment(wanted, "b", rolling).spec;
        let limits = Limits::of(world.deployment.spec.as_ref().unwrap(), wanted);
        let mut broken = 0;
        for (event, index) in events {
            match event {
                0 => { world.step(); }
                1 => world.make_ready(index),
                2 => { world.plan().into_iter().for_each(|action| world.apply(action)); }
                // At most one pod breaks, and heals no sooner than the others become ready.
                _ if broken == 0 && !world.pods.is_empty() => {
                    broken = 1;
                    let index = index % world.pods.len();
                    world.pods[index].status.get_or_insert_default().conditions = None;
                }
                _ => {}
            }
            let available = world.pods.iter().filter(|pod| is_ready(pod)).count() as i32;
            prop_assert!(available >= wanted - limits.unavailable - broken, "{available} of {wanted}");
            prop_assert!(world.pods.len() as i32 <= wanted + limits.surge, "{} of {wanted}", world.pods.len());
        }
        world.roll_out();
        prop_assert_eq!(world.images(), vec!["b"; wanted as usize]);
        prop_assert!(world.deployment.status.as_ref().unwrap().updated_replicas.unwrap_or(0) == wanted);
    }
}
