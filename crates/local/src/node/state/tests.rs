use serde_json::json;

use super::*;

const IP: Ipv4Addr = Ipv4Addr::new(127, 1, 17, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(127, 1, 16, 10);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn pod(spec: serde_json::Value, status: serde_json::Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec, "status": status})).unwrap()
}

fn end(code: i32) -> Current {
    Current::Terminated(Terminated {
        code,
        signal: None,
        reason: end_reason(code).into(),
        message: String::new(),
        started: Some(at(0)),
        finished: at(1),
    })
}

fn condition(status: &PodStatus, kind: &str) -> PodCondition {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
        .unwrap()
        .clone()
}

#[test]
fn phases_follow_from_the_containers() {
    let running = || Current::Running { since: at(0) };
    let waiting = || Current::Waiting {
        reason: "ContainerCreating".into(),
        message: String::new(),
    };
    let two = pod(
        json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]}),
        json!({}),
    );
    use RestartPolicy::{Always, Never, OnFailure};
    for (policy, init, a, b, wanted) in [
        (Always, waiting(), waiting(), waiting(), "Pending"),
        (Always, running(), waiting(), waiting(), "Pending"),
        (Always, end(1), waiting(), waiting(), "Pending"),
        (Never, end(1), waiting(), waiting(), "Failed"),
        (Always, end(0), waiting(), running(), "Pending"),
        (Always, end(0), running(), running(), "Running"),
        (Always, end(0), end(0), end(0), "Running"),
        (OnFailure, end(0), end(0), end(0), "Succeeded"),
        (OnFailure, end(0), end(0), end(1), "Running"),
        (Never, end(0), end(0), end(1), "Failed"),
        (Never, end(0), end(0), running(), "Running"),
    ] {
        let mut state = PodState::adopt(&two, IP, at(0));
        state.init[0].current = init;
        state.main[0].current = a;
        state.main[1].current = b;
        assert_eq!(state.phase(policy), wanted, "{policy:?} {state:?}");
    }
}

#[test]
fn readiness_changes_keep_the_time_of_what_did_not_change() {
    let one = pod(json!({"containers": [{"name": "a"}]}), json!({}));
    let mut state = PodState::adopt(&one, IP, at(0));
    let first = state.status(&one, HOST, &PodStatus::default(), at(0));
    assert_eq!(condition(&first, "Ready").status, "False");
    assert!(condition(&first, "Ready").message.unwrap().contains("[a]"));
    state.main[0] = ContainerState {
        current: Current::Running { since: at(3) },
        started: true,
        ready: true,
        ..state.main[0].clone()
    };
    let second = state.status(&one, HOST, &first, at(5));
    assert_eq!(condition(&second, "Ready").status, "True");
    assert_eq!(condition(&second, "Ready").last_transition_time, Some(Time(at(5))));
    assert_eq!(
        condition(&second, "Initialized").last_transition_time,
        Some(Time(at(0)))
    );
    assert_eq!(second.pod_ip.as_deref(), Some("127.1.17.1"));
    assert_eq!(state.status(&one, HOST, &second, at(9)), second);
}

#[test]
fn a_pod_that_ran_under_an_earlier_process_is_counted_as_restarted() {
    let ran = pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}], "restartPolicy": "Never"}),
        json!({"startTime": at(0).to_string(), "containerStatuses": [
            {"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 2,
                "state": {"running": {"startedAt": at(1).to_string()}}},
            {"name": "b", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 0}}}]}),
    );
    let state = PodState::adopt(&ran, IP, at(9));
    assert_eq!(state.start, at(0));
    assert_eq!(state.main[0].restarts, 3);
    assert_eq!(state.main[0].last.as_ref().unwrap().reason, "NodeRestarted");
    assert!(matches!(&state.main[1].current, Current::Terminated(end) if end.code == 0));
}

#[test]
fn an_address_in_use_is_explained() {
    let hint = address_hint("Error: Os { code: 98, message: \"Address already in use\" }", IP).unwrap();
    assert!(hint.contains("POD_IP") && hint.contains("127.1.17.1"));
    assert_eq!(address_hint("panic", IP), None);
}

#[test]
fn readiness_gates_of_others_count() {
    let gated = pod(
        json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "x/y"}]}),
        json!({}),
    );
    let mut state = PodState::adopt(&gated, IP, at(0));
    state.main[0].current = Current::Running { since: at(0) };
    (state.main[0].started, state.main[0].ready) = (true, true);
    let closed = state.status(&gated, HOST, &PodStatus::default(), at(0));
    assert_eq!(condition(&closed, "Ready").status, "False");
    let given: PodStatus = serde_json::from_value(json!({"conditions": [{"type": "x/y", "status": "True"}]})).unwrap();
    let open = state.status(&gated, HOST, &given, at(0));
    assert_eq!(condition(&open, "Ready").status, "True");
    assert_eq!(condition(&open, "x/y").status, "True");
}

#[test]
fn a_sidecar_counts_as_initialized_when_it_has_started() {
    let pod = pod(
        json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]}),
        json!({}),
    );
    let mut state = PodState::adopt(&pod, IP, at(0));
    state.main[0].current = Current::Running { since: at(0) };
    assert_eq!(state.phase(RestartPolicy::Always), "Pending");
    state.init[0].current = Current::Running { since: at(0) };
    assert_eq!(state.phase(RestartPolicy::Always), "Pending");
    state.init[0].started = true;
    assert_eq!(state.phase(RestartPolicy::Always), "Running");
    state.init[0].current = end(1);
    state.main[0].current = end(0);
    assert_eq!(state.phase(RestartPolicy::Never), "Succeeded");
}

#[test]
fn logs_are_those_of_the_start_that_is_meant() {
    let container = |current: Current, last: Option<Current>| {
        let spec = json!({"containers": [{"name": "a"}]});
        let mut state = PodState::adopt(&pod(spec, json!({})), IP, at(0)).main.remove(0);
        state.current = current;
        state.last = last.and_then(|end| match end {
            Current::Terminated(end) => Some(end),
            _ => None,
        });
        state
    };
    let waiting = |reason: &str| Current::Waiting {
        reason: reason.into(),
        message: String::new(),
    };
    let running = || Current::Running { since: at(0) };
    assert_eq!(container(running(), None).log_of("p", 0, false), Ok(0));
    assert_eq!(container(running(), Some(end(1))).log_of("p", 2, true), Ok(1));
    assert_eq!(
        container(waiting("CrashLoopBackOff"), Some(end(1))).log_of("p", 2, true),
        Ok(2)
    );
    assert_eq!(
        container(waiting("CrashLoopBackOff"), Some(end(1))).log_of("p", 2, false),
        Ok(2)
    );
    let why = |current, previous| container(current, None).log_of("p", 0, previous).unwrap_err();
    assert_eq!(
        why(running(), true),
        "previous terminated container \"a\" in pod \"p\" not found"
    );
    for (reason, end) in [
        ("ImagePullBackOff", "trying and failing to pull image"),
        ("ErrImagePull", "image can't be pulled"),
        ("PodInitializing", "PodInitializing"),
    ] {
        let wanted = format!("container \"a\" in pod \"p\" is waiting to start: {end}");
        assert_eq!(why(waiting(reason), false), wanted);
    }
}
