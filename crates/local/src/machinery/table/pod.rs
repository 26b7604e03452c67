//! What `kubectl get pods` says about a pod: its readiness, its most telling state, its restarts.

use serde_json::Value;

use super::age;

fn list<'a>(pod: &'a Value, pointer: &str) -> impl DoubleEndedIterator<Item = &'a Value> + use<'a> {
    pod.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

fn is_ready(status: &Value) -> bool {
    status.get("ready") == Some(&Value::Bool(true))
}

/// An init container that keeps running beside the others.
fn is_sidecar(pod: &Value, name: Option<&str>) -> bool {
    list(pod, "/spec/initContainers").any(|container| {
        container.get("name").and_then(Value::as_str) == name && text(container, "/restartPolicy") == Some("Always")
    })
}

/// `READY`: running and ready containers of all that stay.
pub(super) fn ready(pod: &Value) -> String {
    let sidecars = list(pod, "/spec/initContainers")
        .filter(|c| text(c, "/restartPolicy") == Some("Always"))
        .count();
    let total = list(pod, "/spec/containers").count() + sidecars;
    let statuses = list(pod, "/status/containerStatuses");
    let helpers = list(pod, "/status/initContainerStatuses").filter(|status| is_sidecar(pod, text(status, "/name")));
    let ready = statuses.chain(helpers).filter(|status| is_ready(status)).count();
    format!("{ready}/{total}")
}

/// `STATUS`: the phase, or what keeps the pod from it.
pub(super) fn status(pod: &Value) -> String {
    let phase = text(pod, "/status/phase").unwrap_or("Unknown");
    let mut reason = text(pod, "/status/reason").unwrap_or(phase).to_owned();
    let initializing = initializing(pod);
    if let Some(state) = &initializing {
        reason.clone_from(state);
    } else {
        let mut running = false;
        for status in list(pod, "/status/containerStatuses").rev() {
            if let Some(state) = container_state(status) {
                reason = state;
            } else if is_ready(status) && status.pointer("/state/running").is_some() {
                running = true;
            }
        }
        if reason == "Completed" && running {
            let ready = list(pod, "/status/conditions")
                .any(|c| text(c, "/type") == Some("Ready") && text(c, "/status") == Some("True"));
            reason = if ready { "Running".into() } else { "NotReady".into() };
        }
    }
    if pod
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|time| !time.is_null())
    {
        let lost = text(pod, "/status/reason") == Some("NodeLost");
        let ended = phase == "Succeeded" || phase == "Failed";
        return match (lost, ended) {
            (true, _) => "Unknown".into(),
            (false, true) => reason,
            (false, false) => "Terminating".into(),
        };
    }
    reason
}

/// The state of the first init container that is not done, such as `Init:0/1`.
fn initializing(pod: &Value) -> Option<String> {
    let total = list(pod, "/spec/initContainers").count();
    for (i, status) in list(pod, "/status/initContainerStatuses").enumerate() {
        if status.pointer("/state/terminated/exitCode") == Some(&Value::from(0)) {
            continue;
        }
        if is_sidecar(pod, text(status, "/name")) && status.get("started") == Some(&Value::Bool(true)) {
            continue;
        }
        let state = container_state(status).filter(|state| state != "PodInitializing");
        return Some(state.map_or_else(|| format!("Init:{i}/{total}"), |state| format!("Init:{state}")));
    }
    None
}

/// Why a container does not run, if it does not.
fn container_state(status: &Value) -> Option<String> {
    if let Some(reason) = text(status, "/state/waiting/reason") {
        return Some(reason.to_owned());
    }
    let ended = status.pointer("/state/terminated")?;
    if let Some(reason) = text(ended, "/reason") {
        return Some(reason.to_owned());
    }
    match ended
        .get("signal")
        .and_then(Value::as_i64)
        .filter(|signal| *signal != 0)
    {
        Some(signal) => Some(format!("Signal:{signal}")),
        None => Some(format!(
            "ExitCode:{}",
            ended.get("exitCode").and_then(Value::as_i64).unwrap_or(0)
        )),
    }
}

/// `RESTARTS`: how often, and when the last time.
pub(super) fn restarts(pod: &Value, now: &str) -> String {
    let statuses = || list(pod, "/status/containerStatuses");
    let count: i64 = statuses()
        .filter_map(|status| status.get("restartCount").and_then(Value::as_i64))
        .sum();
    let last = statuses()
        .filter_map(|status| text(status, "/lastState/terminated/finishedAt"))
        .max();
    match last.filter(|_| count > 0) {
        Some(last) => format!("{count} ({} ago)", age::between(last, now)),
        None => count.to_string(),
    }
}

/// `READINESS GATES`: how many of them are true.
pub(super) fn gates(pod: &Value) -> String {
    let gates: Vec<_> = list(pod, "/spec/readinessGates")
        .filter_map(|gate| text(gate, "/conditionType"))
        .collect();
    if gates.is_empty() {
        return "<none>".into();
    }
    let holds = |gate: &&&str| {
        let mut conditions = list(pod, "/status/conditions");
        conditions.any(|c| text(c, "/type") == Some(**gate) && text(c, "/status") == Some("True"))
    };
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}
