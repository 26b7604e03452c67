use super::plan::plan_at;
use super::*;

const NOW: u64 = 1_000_000;
const LATER: u64 = NOW + SETTLE.as_millis() as u64;

fn scaler(min: i64, max: i64) -> Value {
    object(
        "HorizontalPodAutoscaler",
        "web",
        json!({ "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
            "minReplicas": min, "maxReplicas": max,
        } }),
    )
}

/// An autoscaler and its target in a cluster.
#[derive(Debug, Clone, PartialEq)]
struct Here {
    scaler: Value,
    web: Value,
}

impl Here {
    fn new(scaler: Value, replicas: i64) -> Self {
        Self {
            scaler,
            web: deployment(replicas),
        }
    }

    /// What an agent does, up to so many writes.
    fn run(&mut self, running: Running, now: u64, writes: usize) -> usize {
        let mut done = 0;
        if let Some(patch) = autoscale(&self.scaler, &self.web, running, now).filter(|_| done < writes) {
            json_patch::merge(&mut self.scaler, &patch);
            done += 1;
        }
        if let Some(patch) = scale(&self.web, running).filter(|_| done < writes) {
            json_patch::merge(&mut self.web, &patch);
            done += 1;
        }
        done
    }

    /// Minimum, maximum, replicas.
    fn counts(&self) -> (i64, i64, i64) {
        let spec = &self.scaler["spec"];
        let number = |value: &Value| value.as_i64().unwrap();
        (
            number(&spec["minReplicas"]),
            number(&spec["maxReplicas"]),
            number(&self.web["spec"]["replicas"]),
        )
    }

    fn is_noted(&self) -> bool {
        object::annotation(&self.scaler, "leeward.dev/autoscaler").is_some()
    }
}

#[test]
fn where_its_target_stands_by_it_changes_nothing_and_after_it_started_not_below_what_ran_elsewhere_for_a_while() {
    for (name, scaler, ran, standby, stands_by, serves) in [
        // Kubernetes leaves alone what has no replicas.
        ("cold", scaler(2, 10), 7, 0, (2, 10, 0), (7, 10, 7)),
        ("warm", scaler(2, 10), 7, 1, (1, 1, 1), (7, 10, 7)),
        ("warmer than its minimum", scaler(2, 10), 7, 3, (3, 3, 3), (7, 10, 7)),
        ("it ran with its minimum", scaler(2, 10), 2, 0, (2, 10, 0), (2, 10, 2)),
        (
            "by hand it ran with more than its maximum",
            scaler(2, 5),
            7,
            0,
            (2, 5, 0),
            (5, 5, 7),
        ),
        // It may scale to 0, so that 0 does not stop it.
        ("down to nothing", scaler(0, 4), 3, 0, (1, 4, 0), (3, 4, 3)),
        ("it had nothing to do", scaler(0, 4), 0, 0, (1, 4, 0), (0, 4, 0)),
    ] {
        let min = scaler["spec"]["minReplicas"].as_i64().unwrap();
        let max = scaler["spec"]["maxReplicas"].as_i64().unwrap();
        let mut here = Here::new(scaler, ran);
        here.run(Running::Standby(standby), NOW, 2);
        assert_eq!(here.counts(), stands_by, "{name}");
        here.run(Running::Serve, NOW, 2);
        assert_eq!(here.counts(), serves, "{name}");
        assert_eq!(here.run(Running::Serve, LATER - 1, 2), 0, "{name}: it holds");
        here.run(Running::Serve, LATER, 2);
        assert_eq!(here.counts(), (min, max, ran), "{name}");
        assert!(!here.is_noted(), "{name}");
        assert_eq!(here.run(Running::Serve, LATER, 2), 0, "{name}: done");
    }
}

#[test]
fn killed_after_any_write_and_run_again_it_ends_as_if_it_had_not_been() {
    let times = [NOW, LATER];
    for standby in [0, 1, 3] {
        for first in 0..3 {
            for second in 0..3 {
                let (mut whole, mut killed) = (Here::new(scaler(2, 10), 7), Here::new(scaler(2, 10), 7));
                for (running, now) in [(Running::Standby(standby), NOW), (Running::Serve, NOW)] {
                    for writes in [first, second, 2] {
                        killed.run(running, now, writes);
                    }
                    whole.run(running, now, 2);
                    assert_eq!(killed, whole, "{standby} {first} {second} {running:?}");
                    assert_eq!(killed.run(running, now, 2), 0, "run twice");
                }
                // Whoever is there later puts back what another one has raised.
                for now in times {
                    killed.run(Running::Serve, now, first);
                    killed.run(Running::Serve, now, 2);
                }
                assert_eq!(killed.counts(), (2, 10, 7), "{standby} {first} {second}");
                assert!(!killed.is_noted());
            }
        }
    }
}

#[test]
fn how_long_it_is_raised_counts_from_the_first_time() {
    let mut here = Here::new(scaler(2, 10), 7);
    here.run(Running::Standby(0), NOW, 2);
    here.run(Running::Serve, NOW, 1);
    assert_eq!(here.counts(), (7, 10, 0), "killed before its target is started");
    here.run(Running::Serve, NOW + 5_000, 2);
    here.run(Running::Serve, LATER, 2);
    assert_eq!(here.counts(), (2, 10, 7));
}

#[test]
fn it_moves_back_before_it_settled_and_keeps_what_a_person_has_set_of_it_meanwhile() {
    let mut here = Here::new(scaler(2, 10), 7);
    for _ in 0..2 {
        here.run(Running::Standby(1), NOW, 2);
        here.run(Running::Serve, NOW, 2);
        assert_eq!(here.counts(), (7, 10, 7));
    }
    here.run(Running::Standby(0), NOW, 2);
    assert_eq!((here.counts(), here.is_noted()), ((2, 10, 0), false));
    here.run(Running::Serve, NOW, 2);
    let raised = here.clone();
    here.scaler["spec"]["minReplicas"] = json!(4);
    here.scaler["spec"]["maxReplicas"] = json!(20);
    here.run(Running::Serve, NOW, 2);
    assert_eq!((here.counts(), here.is_noted()), ((4, 20, 7), false));
    // A clock that was set back does not hold it for longer.
    let mut here = raised;
    here.run(Running::Serve, NOW - 1, 2);
    assert_eq!(here.counts(), (2, 10, 7));
}

#[test]
fn what_is_carried_and_compared_is_what_a_person_has_set() {
    for running in [
        Running::Standby(0),
        Running::Standby(1),
        Running::Standby(3),
        Running::Serve,
    ] {
        let mut here = Here::new(scaler(2, 10), 7);
        here.run(Running::Standby(1), NOW, 2);
        here.run(running, NOW, 2);
        assert_eq!(clean(&here.scaler), scaler(2, 10), "{running:?}");
        assert_eq!(clean(&here.web), deployment(7), "{running:?}");
    }
}

#[test]
fn an_autoscaler_belongs_to_the_application_of_what_it_scales() {
    let labelled = json!({ "metadata": { "labels": { "app": "other" } } });
    let named = |name: &str, more: Value| {
        let mut scaler = scaler(2, 10);
        scaler["metadata"]["name"] = name.into();
        json_patch::merge(&mut scaler, &labelled);
        json_patch::merge(&mut scaler, &more);
        scaler
    };
    let aims_at = |kind: &str, name: &str, version: &str| json!({ "spec": { "scaleTargetRef": { "kind": kind, "name": name, "apiVersion": version } } });
    let mut namespace = everything();
    namespace.extend([
        named("web", json!({})),
        named("other", aims_at("Deployment", "other", "apps/v1")),
        named("of-another-kind", aims_at("StatefulSet", "web", "apps/v1")),
        named("of-another-group", aims_at("Deployment", "web", "example.com/v1")),
        named(
            "made",
            json!({ "metadata": { "ownerReferences": [{ "kind": "ScaledObject", "name": "web", "controller": true }] } }),
        ),
    ]);
    let selector: LabelSelector = serde_json::from_value(json!({ "matchLabels": { "app": "web" } })).unwrap();
    let chosen = select(&app(), &selector, &[], &Secrets::None, &namespace).unwrap();
    let scalers = chosen
        .iter()
        .filter_map(Id::of)
        .filter(|id| id.kind == Kind::HorizontalPodAutoscaler);
    assert_eq!(scalers.map(|id| id.name).collect::<Vec<_>>(), ["web"]);
}

fn with_scaler(min: i64, max: i64, replicas: i64) -> Bundle {
    bundle("west", vec![deployment(replicas), scaler(min, max)])
}

fn plan_to(running: Running, bundle: &Bundle, here: &[Value]) -> Vec<Change> {
    let objects = desired(bundle, &[], running).unwrap();
    super::super::plan(bundle, &objects, here, &west_is_home("east"))
}

fn of_kind<'a>(here: &'a mut [Value], kind: &str) -> &'a mut Value {
    here.iter_mut().find(|object| object["kind"] == kind).unwrap()
}

#[test]
fn what_is_set_of_it_here_and_what_is_carried_do_not_undo_each_other() {
    let bundle = with_scaler(2, 10, 7);
    let here = after(&plan_at("east", &bundle, &[]), &[]);
    assert_eq!(plan_at("east", &bundle, &here), []);
    for running in [Running::Standby(1), Running::Serve] {
        let mut here = here.clone();
        let web = of_kind(&mut here, "Deployment").clone();
        let scaler = of_kind(&mut here, "HorizontalPodAutoscaler");
        let patch = autoscale(scaler, &web, running, NOW).unwrap();
        json_patch::merge(scaler, &patch);
        let set = scaler["spec"].clone();
        assert_eq!(plan_at("east", &bundle, &here), [], "{running:?}");
        // A new maximum is taken without that what is set here ends.
        let changed = with_scaler(3, 20, 7);
        let changes = plan_at("east", &changed, &here);
        assert_eq!(changes.len(), 1, "{changes:?}");
        let mut here = after(&changes, &here);
        assert_eq!(plan_at("east", &changed, &here), [], "{running:?}");
        let scaler = of_kind(&mut here, "HorizontalPodAutoscaler");
        assert_eq!(scaler["spec"]["minReplicas"], set["minReplicas"], "{running:?}");
        assert_eq!(clean(scaler)["spec"]["minReplicas"], 3, "{running:?}");
        assert_eq!(clean(scaler)["spec"]["maxReplicas"], 20, "{running:?}");
    }
    // A warm standby's begins as it is to stay.
    let warm = after(&plan_to(Running::Standby(1), &bundle, &[]), &[]);
    let mut begun = warm.clone();
    let begun = of_kind(&mut begun, "HorizontalPodAutoscaler");
    assert_eq!(
        (&begun["spec"]["minReplicas"], &begun["spec"]["maxReplicas"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(plan_to(Running::Standby(1), &bundle, &warm), []);
}

#[test]
fn where_it_serves_its_replicas_are_not_written() {
    let bundle = with_scaler(2, 10, 7);
    let changes = plan_to(Running::Serve, &bundle, &[]);
    let Some(Change::Apply(web)) = changes
        .iter()
        .find(|change| change.to_string().starts_with("Deployment"))
    else {
        panic!("{changes:?}")
    };
    assert_eq!(web["spec"]["replicas"], 7, "it begins with what runs elsewhere");
    let mut here = after(&changes, &[]);
    of_kind(&mut here, "Deployment")["spec"]["replicas"] = json!(4);
    assert_eq!(
        plan_to(Running::Serve, &bundle, &here),
        [],
        "its own autoscaler says how many"
    );
    assert_eq!(
        plan_to(Running::Serve, &with_scaler(2, 10, 9), &here),
        [],
        "and not the other one"
    );
    // Something else is written without them, unless that would take them away.
    let mut other = with_scaler(2, 10, 9);
    let template = json!({ "spec": { "template": { "spec": { "serviceAccountName": "other" } } } });
    json_patch::merge(of_kind(&mut other.objects, "Deployment"), &template);
    for (manager, written) in [("kube-controller-manager", None), ("leeward", Some(4))] {
        of_kind(&mut here, "Deployment")["metadata"]["managedFields"] =
            json!([{ "manager": manager, "operation": "Apply", "fieldsV1": { "f:spec": { "f:replicas": {} } } }]);
        let changes = plan_to(Running::Serve, &other, &here);
        let [Change::Apply(web)] = &changes[..] else {
            panic!("{changes:?}")
        };
        assert_eq!(web["spec"]["replicas"].as_i64(), written, "{manager}");
    }
    let by_hand = super::bundle("west", vec![deployment(9)]);
    assert!(
        !plan_to(Running::Serve, &by_hand, &here).is_empty(),
        "without one they are carried"
    );
}
