use serde_json::Value;

use super::*;
use crate::controllers::samples::{now, object_of};

// A region with one Job in which actions take effect at once and pods end as the test says.
struct World {
    job: Job,
    pods: Vec<Pod>,
    told: Vec<String>,
    now: Timestamp,
    made: u64,
}

impl World {
    fn new(extra: Value) -> Self {
        let mut job = json!({
            "metadata": {"name": "j", "namespace": "shop", "uid": "job"},
            "spec": {
                "completions": 1, "parallelism": 1, "backoffLimit": 6, "selector": {"matchLabels": {"job-name": "j"}},
                "template": {"metadata": {"labels": {"job-name": "j"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
            },
        });
        json_patch::merge(&mut job, &extra);
        Self {
            job: object_of(job),
            pods: Vec::new(),
            told: Vec::new(),
            now: now(),
            made: 0,
        }
    }

    fn plan(&self) -> Vec<Action> {
        plan(&self.job, &self.pods.iter().collect::<Vec<_>>(), self.now, self.made)
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            let actions = self.plan();
            if actions.iter().all(|action| matches!(action, Action::LookAgain(_))) {
                return;
            }
            actions.into_iter().for_each(|action| self.apply(action));
        }
        panic!("it never comes to rest: {:?}", self.plan());
    }

    fn apply(&mut self, action: Action) {
        self.made += 1;
        match action {
            Action::Create { mut object, .. } => {
                object["metadata"]["uid"] = json!(format!("pod-{}", self.made));
                object["metadata"]["creationTimestamp"] = json!(self.now.to_string());
                self.pods.push(object_of(object));
            }
            Action::Patch { target, patch, .. } if target.kind == Kind::Job => self.job = merged(&self.job, &patch),
            Action::Patch { target, patch, .. } => {
                let pod = self.pods.iter_mut().find(|pod| uid(pod) == target.uid).unwrap();
                *pod = merged(pod, &patch);
                pod.metadata.finalizers = pod.metadata.finalizers.take().filter(|left| !left.is_empty());
            }
            Action::Delete { target, .. } => {
                let pod = self.pods.iter_mut().find(|pod| uid(pod) == target.uid).unwrap();
                pod.metadata.deletion_timestamp = Some(object::time(self.now));
            }
            Action::Tell { news, .. } => self.told.push(format!("{}: {}", news.reason, news.message)),
            Action::LookAgain(_) => {}
            other => panic!("{other:?}"),
        }
        self.collect();
    }

    // The node ends what is told to end, and the API removes what nothing holds.
    fn collect(&mut self) {
        self.pods
            .retain(|pod| pod.metadata.deletion_timestamp.is_none() || has_finalizer(pod));
    }

    fn running(&self) -> Vec<usize> {
        let pods = self.pods.iter().enumerate();
        pods.filter(|(_, pod)| is_active(pod)).map(|(index, _)| index).collect()
    }

    fn end(&mut self, phase: &str) {
        let first = self.running()[0];
        let status = json!({"phase": phase, "containerStatuses": [{
            "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "finishedAt": self.now.to_string()}},
        }]});
        self.pods[first].status = Some(object_of(status));
        self.settle();
    }

    fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.settle();
    }

    fn status(&self) -> Value {
        action::value(&self.job.status)
    }

    fn conditions(&self) -> Vec<String> {
        let status = self.status();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        conditions
            .iter()
            .map(|one| {
                format!(
                    "{}={} {}",
                    text(&one["type"]),
                    text(&one["status"]),
                    text(&one["reason"])
                )
            })
            .collect()
    }
}

fn merged<K: serde::Serialize + serde::de::DeserializeOwned>(object: &K, patch: &Value) -> K {
    let mut all = action::value(object);
    json_patch::merge(&mut all, patch);
    object_of(all)
}

#[test]
fn a_job_runs_as_many_pods_at_once_as_it_may_until_enough_have_succeeded() {
    let mut world = World::new(json!({"spec": {"completions": 3, "parallelism": 2}}));
    world.settle();
    assert_eq!(world.running().len(), 2);
    assert_eq!(world.status()["active"], 2);
    assert_eq!(
        world.pods[0].metadata.finalizers.as_deref(),
        Some(&[FINALIZER.to_owned()][..])
    );
    world.end("Succeeded");
    assert_eq!(world.running().len(), 2);
    world.end("Succeeded");
    assert_eq!(world.running().len(), 1);
    world.end("Succeeded");
    let status = world.status();
    assert_eq!(
        [
            &status["succeeded"],
            &status["active"],
            &status["uncountedTerminatedPods"]
        ],
        [&json!(3), &Value::Null, &json!({})]
    );
    assert!(status["completionTime"].is_string());
    assert_eq!(
        world.conditions(),
        [
            "SuccessCriteriaMet=True CompletionsReached",
            "Complete=True CompletionsReached"
        ]
    );
    assert_eq!(world.told.last().unwrap(), "Completed: Job completed");
    assert!(world.pods.iter().all(|pod| !has_finalizer(pod)));
}

#[test]
fn an_end_is_counted_once_wherever_the_controller_was_interrupted() {
    let mut world = World::new(json!({"spec": {"completions": 2, "parallelism": 2}}));
    world.settle();
    world.pods[0].status = Some(object_of(json!({"phase": "Succeeded"})));
    for _ in 0..10 {
        // Only the first action of each plan is carried out.
        let first = world
            .plan()
            .into_iter()
            .find(|action| !matches!(action, Action::LookAgain(_)));
        if let Some(action) = first {
            world.apply(action);
        }
    }
    assert_eq!(world.status()["succeeded"], 1);
}

#[test]
fn a_pod_that_somebody_deletes_is_a_failure_and_replaced() {
    let mut world = World::new(json!({}));
    world.settle();
    world.pods[0].metadata.deletion_timestamp = Some(object::time(now()));
    world.settle();
    assert_eq!(world.status()["failed"], 1);
    assert_eq!((world.running().len(), world.pods.len()), (1, 1));
}

#[test]
fn each_failure_waits_twice_as_long_for_the_next_pod() {
    let mut world = World::new(json!({}));
    world.settle();
    for wait in [10, 20, 40] {
        world.end("Failed");
        assert_eq!(world.running().len(), 0);
        assert!(
            world
                .plan()
                .contains(&Action::LookAgain(world.now + SignedDuration::from_secs(wait)))
        );
        world.wait(wait - 1);
        assert_eq!(world.running().len(), 0);
        world.wait(1);
        assert_eq!(world.running().len(), 1);
    }
}

#[test]
fn more_failures_than_the_limit_fail_the_job_and_end_what_runs() {
    let mut world = World::new(json!({"spec": {"backoffLimit": 0, "parallelism": 2, "completions": 2}}));
    world.settle();
    world.end("Failed");
    assert_eq!(
        world.conditions(),
        [
            "FailureTarget=True BackoffLimitExceeded",
            "Failed=True BackoffLimitExceeded"
        ]
    );
    assert_eq!((world.status()["failed"].as_i64(), world.running().len()), (Some(2), 0));
    assert_eq!(
        world.told.last().unwrap(),
        "BackoffLimitExceeded: Job has reached the specified backoff limit"
    );
}

#[test]
fn restarts_within_a_pod_count_against_the_limit() {
    let restart = json!({"spec": {"backoffLimit": 2, "template": {"spec": {"restartPolicy": "OnFailure"}}}});
    let mut world = World::new(restart);
    world.settle();
    let mut restarts = |count: i32| {
        let container = json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": count});
        world.pods[0].status = Some(object_of(json!({"phase": "Running", "containerStatuses": [container]})));
        world.settle();
        world.conditions().len()
    };
    assert_eq!((restarts(1), restarts(2)), (0, 2));
}

#[test]
fn a_job_that_takes_too_long_fails() {
    let mut world = World::new(json!({"spec": {"activeDeadlineSeconds": 5}}));
    world.settle();
    assert!(
        world
            .plan()
            .contains(&Action::LookAgain(world.now + SignedDuration::from_secs(5)))
    );
    world.wait(5);
    assert_eq!(
        world.conditions(),
        ["FailureTarget=True DeadlineExceeded", "Failed=True DeadlineExceeded"]
    );
}

#[test]
fn a_suspended_job_ends_its_pods_without_counting_them() {
    let mut world = World::new(json!({}));
    world.settle();
    for (suspend, condition, running) in [
        (true, "Suspended=True JobSuspended", 0),
        (false, "Suspended=False JobResumed", 1),
    ] {
        world.job.spec.as_mut().unwrap().suspend = Some(suspend);
        world.settle();
        assert_eq!(world.conditions(), [condition]);
        assert_eq!(world.running().len(), running);
        assert_eq!(world.status()["startTime"].is_null(), suspend);
    }
    assert_eq!(world.status()["failed"], Value::Null);
    assert!(
        world.told.contains(&"Resumed: Job resumed".to_owned()),
        "{:?}",
        world.told
    );
}

#[test]
fn an_indexed_job_has_one_success_for_each_index() {
    let mut world = World::new(json!({"spec": {"completionMode": "Indexed", "completions": 3, "parallelism": 3}}));
    world.settle();
    let hostnames: Vec<_> = world
        .pods
        .iter()
        .map(|pod| pod.spec.as_ref().unwrap().hostname.clone().unwrap())
        .collect();
    assert_eq!(hostnames, ["j-0", "j-1", "j-2"]);
    let env = &world.pods[1].spec.as_ref().unwrap().containers[0].env.as_ref().unwrap()[0];
    assert_eq!(env.name, INDEX_ENV);
    world.end("Succeeded");
    world.end("Failed");
    assert_eq!(world.status()["completedIndexes"], "0");
    world.wait(10);
    let again = world
        .pods
        .iter()
        .filter(|pod| is_active(pod) && index_of(pod) == Some(1));
    assert_eq!(again.count(), 1);
    world.end("Succeeded");
    world.end("Succeeded");
    assert_eq!(world.status()["completedIndexes"], "0-2");
    assert_eq!(world.conditions()[1], "Complete=True CompletionsReached");
}

#[test]
fn a_job_without_completions_is_complete_after_any_success() {
    let mut world = World::new(json!({"spec": {"completions": null, "parallelism": 2}}));
    world.settle();
    world.end("Succeeded");
    assert_eq!((world.running().len(), world.conditions().len()), (1, 0));
    world.end("Failed");
    assert_eq!(world.conditions()[1], "Complete=True CompletionsReached");
}

#[test]
fn an_ended_job_goes_when_its_time_is_over() {
    let mut world = World::new(json!({"spec": {"ttlSecondsAfterFinished": 30}}));
    world.settle();
    world.end("Succeeded");
    let end = world.now + SignedDuration::from_secs(30);
    assert_eq!(world.plan(), [Action::LookAgain(end)]);
    world.now = end;
    assert!(matches!(&world.plan()[..], [Action::Delete { target, .. }] if target.name == "j"));
}

#[test]
fn pods_of_a_job_that_is_gone_are_let_go() {
    let mut world = World::new(json!({}));
    world.settle();
    assert_eq!(release(&[&world.job], world.pods.iter()), []);
    assert_eq!(release(&[], world.pods.iter()).len(), 1);
}
