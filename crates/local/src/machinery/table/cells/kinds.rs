//! The cells that only one kind, or a few, have.

use serde_json::Value;

use super::{age, few, flag, items, joined, number, plain, since, text, text_or};

mod metrics;

/// A cell that depends on the object alone.
pub(super) fn of_object(word: &str, object: &Value) -> Option<String> {
    Some(match word {
        "api-service" => match text(object, "/spec/service/name") {
            Some(name) => format!("{}/{name}", text_or(object, "/spec/service/namespace", "")),
            None => "Local".into(),
        },
        "availability" => availability(object),
        "certificate" => certificate(object),
        "role" => format!(
            "{}/{}",
            text_or(object, "/roleRef/kind", ""),
            text_or(object, "/roleRef/name", "")
        ),
        "owner" => owner(object),
        "slice-ports" => slice_ports(object),
        "slice-addresses" => unset(three(
            items(object, "/endpoints")
                .flat_map(|e| items(e, "/addresses"))
                .map(plain),
        )),
        "endpoints" => endpoints(object),
        "event-object" => event_object(object),
        "event-source" => event_source(object),
        "message" => text(object, "/message").unwrap_or_default().trim().to_owned(),
        "scale-target" => {
            let part = |name: &str| text_or(object, &format!("/spec/scaleTargetRef/{name}"), "");
            format!("{}/{}", part("kind"), part("name"))
        }
        "metrics" => metrics::written(object),
        "parent" => parent(object),
        "hosts" => hosts(object),
        "ingress-addresses" => balancer_addresses(object),
        "ingress-ports" if items(object, "/spec/tls").next().is_some() => "80, 443".into(),
        "ingress-ports" => "80".into(),
        "class-parameters" => class_parameters(object),
        "job-status" => job_status(object),
        "completions" => completions(object),
        "param-kind" => match object.pointer("/spec/paramKind").filter(|kind| !kind.is_null()) {
            Some(kind) => format!("{}/{}", text_or(kind, "/apiVersion", ""), text_or(kind, "/kind", "")),
            None => "<unset>".into(),
        },
        "param-ref" => match text(object, "/spec/paramRef/name") {
            Some(name) => format!("{}/{name}", text_or(object, "/spec/paramRef/namespace", "*")),
            None => "<unset>".into(),
        },
        "node-status" => node_status(object),
        "node-roles" => node_roles(object),
        "kernel" => {
            let kernel = text_or(object, "/status/nodeInfo/kernelVersion", "<unknown>");
            match text(object, "/status/nodeInfo/architecture") {
                Some(architecture) => format!("{kernel} ({architecture})"),
                None => kernel,
            }
        }
        "phase" if text(object, "/metadata/deletionTimestamp").is_some() => "Terminating".into(),
        "phase" => text_or(object, "/status/phase", ""),
        "claim" => match object.pointer("/spec/claimRef").filter(|claim| !claim.is_null()) {
            Some(claim) => format!("{}/{}", text_or(claim, "/namespace", ""), text_or(claim, "/name", "")),
            None => String::new(),
        },
        "storage-class" => {
            let annotation = text(object, "/metadata/annotations/volume.beta.kubernetes.io~1storage-class");
            annotation.map_or_else(|| text_or(object, "/spec/storageClassName", ""), str::to_owned)
        }
        "bound-capacity" if text(object, "/spec/volumeName").is_some() => {
            text_or(object, "/status/capacity/storage", "0")
        }
        "bound-modes" if text(object, "/spec/volumeName").is_some() => access_modes(object, "/status/accessModes"),
        "bound-capacity" | "bound-modes" => String::new(),
        "resource-claim" => resource_claim(object),
        "service-addresses" => service_addresses(object),
        "service-ports" => service_ports(object),
        _ => return None,
    })
}

fn unset(text: String) -> String {
    if text.is_empty() { "<unset>".into() } else { text }
}

/// The first three, and how many more there are.
fn three(texts: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = texts.collect();
    few(&all, ",", 3, all.len())
}

fn availability(service: &Value) -> String {
    let Some(condition) = items(service, "/status/conditions").find(|c| text(c, "/type") == Some("Available")) else {
        return "Unknown".into();
    };
    let status = text_or(condition, "/status", "");
    match text(condition, "/reason") {
        Some(reason) if status != "True" => format!("{status} ({reason})"),
        _ => status,
    }
}

fn has_condition(object: &Value, kind: &str) -> bool {
    items(object, "/status/conditions").any(|c| text(c, "/type") == Some(kind) && text(c, "/status") == Some("True"))
}

/// The status of a condition.
pub(super) fn condition(object: &Value, kind: &str) -> String {
    let found = items(object, "/status/conditions").find(|c| text(c, "/type") == Some(kind));
    found.map_or_else(|| "?".into(), |condition| text_or(condition, "/status", ""))
}

fn certificate(request: &Value) -> String {
    let has = |kind: &str| items(request, "/status/conditions").any(|c| text(c, "/type") == Some(kind));
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied".to_owned(),
        (false, true) => "Approved".to_owned(),
        (false, false) => "Pending".to_owned(),
    };
    if has("Failed") {
        state.push_str(",Failed");
    }
    if text(request, "/status/certificate").is_some() {
        state.push_str(",Issued");
    }
    state
}

/// The names of the subjects of a kind, service accounts with their namespace.
pub(super) fn subjects(binding: &Value, kind: &str) -> String {
    let of_kind = items(binding, "/subjects").filter(|subject| text(subject, "/kind") == Some(kind));
    let names = of_kind.map(|subject| match text(subject, "/namespace") {
        Some(namespace) => format!("{namespace}/{}", text_or(subject, "/name", "")),
        None => text_or(subject, "/name", ""),
    });
    names.collect::<Vec<_>>().join(", ")
}

fn owner(object: &Value) -> String {
    let mut owners = items(object, "/metadata/ownerReferences");
    let Some(owner) = owners.find(|owner| flag(owner, "/controller") == Some(true)) else {
        return "<none>".into();
    };
    let kind = text_or(owner, "/kind", "").to_lowercase();
    let group = text(owner, "/apiVersion").and_then(|version| version.split_once('/'));
    let group = group.map(|(group, _)| format!(".{group}")).unwrap_or_default();
    format!("{kind}{group}/{}", text_or(owner, "/name", ""))
}

fn slice_ports(slice: &Value) -> String {
    let port = |port: &Value| {
        let number = port.get("port").filter(|number| !number.is_null()).map(plain);
        number.unwrap_or_else(|| text_or(port, "/name", "*"))
    };
    unset(three(items(slice, "/ports").map(port)))
}

fn endpoints(endpoints: &Value) -> String {
    if items(endpoints, "/subsets").next().is_none() {
        return "<none>".into();
    }
    let mut all = Vec::new();
    for subset in items(endpoints, "/subsets") {
        let addresses = || items(subset, "/addresses").map(|address| text_or(address, "/ip", ""));
        if items(subset, "/ports").next().is_none() {
            all.extend(addresses());
        }
        for port in items(subset, "/ports") {
            let number = number(port, "/port");
            all.extend(addresses().map(|address| match address.contains(':') {
                true => format!("[{address}]:{number}"),
                false => format!("{address}:{number}"),
            }));
        }
    }
    three(all.into_iter())
}

/// How long ago an event was seen last.
pub(super) fn last_seen(event: &Value, now: &str) -> String {
    let times = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/firstTimestamp",
        "/eventTime",
    ];
    since(event, &times, now, "<unknown>")
}

/// How often an event was seen.
pub(super) fn event_count(event: &Value) -> i64 {
    match event.pointer("/series/count") {
        Some(count) => count.as_i64().unwrap_or(0),
        None => number(event, "/count").max(1),
    }
}

fn event_object(event: &Value) -> String {
    let kind = text_or(event, "/involvedObject/kind", "").to_lowercase();
    match text(event, "/involvedObject/name") {
        Some(name) => format!("{kind}/{name}"),
        None => kind,
    }
}

fn event_source(event: &Value) -> String {
    let either = |first: &str, second: &str| text(event, first).or_else(|| text(event, second));
    let component = either("/source/component", "/reportingComponent").unwrap_or_default();
    match either("/source/host", "/reportingInstance") {
        Some(instance) => format!("{component}, {instance}"),
        None => component.to_owned(),
    }
}

fn parent(address: &Value) -> String {
    let Some(parent) = address.pointer("/spec/parentRef").filter(|parent| !parent.is_null()) else {
        return "<none>".into();
    };
    let part = |name: &str| text_or(parent, name, "");
    let group = text(parent, "/group")
        .map(|group| format!(".{group}"))
        .unwrap_or_default();
    let namespace = text(parent, "/namespace")
        .map(|name| format!("/{name}"))
        .unwrap_or_default();
    format!(
        "{}{namespace}/{}",
        format!("{}{group}", part("/resource")).to_lowercase(),
        part("/name")
    )
}

fn hosts(ingress: &Value) -> String {
    let total = items(ingress, "/spec/rules").count();
    let hosts = items(ingress, "/spec/rules")
        .take(3)
        .filter_map(|rule| text(rule, "/host"));
    let hosts: Vec<&str> = hosts.collect();
    match (hosts.is_empty(), total > 3) {
        (true, _) => "*".into(),
        (false, true) => format!("{} + {} more...", hosts.join(","), total - 3),
        (false, false) => hosts.join(","),
    }
}

fn balancer_addresses(object: &Value) -> String {
    let address = |ingress: &Value| {
        text(ingress, "/ip")
            .or_else(|| text(ingress, "/hostname"))
            .map(str::to_owned)
    };
    let all: std::collections::BTreeSet<String> = items(object, "/status/loadBalancer/ingress")
        .filter_map(address)
        .collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

fn class_parameters(class: &Value) -> String {
    let Some(parameters) = class
        .pointer("/spec/parameters")
        .filter(|parameters| !parameters.is_null())
    else {
        return "<none>".into();
    };
    let group = text(parameters, "/apiGroup")
        .map(|group| format!(".{group}"))
        .unwrap_or_default();
    format!(
        "{}{group}/{}",
        text_or(parameters, "/kind", ""),
        text_or(parameters, "/name", "")
    )
}

fn job_status(job: &Value) -> String {
    let leaving = text(job, "/metadata/deletionTimestamp").is_some();
    let state = match () {
        () if has_condition(job, "Complete") => "Complete",
        () if has_condition(job, "Failed") => "Failed",
        () if leaving => "Terminating",
        () if has_condition(job, "Suspended") => "Suspended",
        () if has_condition(job, "FailureTarget") => "FailureTarget",
        () if has_condition(job, "SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    };
    state.into()
}

fn completions(job: &Value) -> String {
    let done = number(job, "/status/succeeded");
    let wanted = job.pointer("/spec/completions").and_then(Value::as_i64);
    match (wanted, number(job, "/spec/parallelism")) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallel @ 2..) => format!("{done}/1 of {parallel}"),
        (None, _) => format!("{done}/1"),
    }
}

/// How long a job ran, or runs by now.
pub(super) fn job_duration(job: &Value, now: &str) -> String {
    let end = text(job, "/status/completionTime").unwrap_or(now);
    text(job, "/status/startTime").map_or_else(String::new, |start| age::between(start, end))
}

/// The name, with a word where the annotation says that the class is the default.
pub(super) fn default_name(class: &Value, annotation: &str) -> String {
    let name = text_or(class, "/metadata/name", "");
    let annotation = format!("/metadata/annotations/{}", annotation.replace('/', "~1"));
    match text(class, &annotation) {
        Some("true") => format!("{name} (default)"),
        _ => name,
    }
}

fn node_status(node: &Value) -> String {
    let ready = items(node, "/status/conditions").find(|condition| text(condition, "/type") == Some("Ready"));
    let mut status = match ready.and_then(|condition| text(condition, "/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if flag(node, "/spec/unschedulable") == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn node_roles(node: &Value) -> String {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let roles: std::collections::BTreeSet<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| match name.strip_prefix("node-role.kubernetes.io/") {
            None if name == "kubernetes.io/role" => value.as_str(),
            role => role,
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() {
        return "<none>".into();
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

/// A node's address of a type.
pub(super) fn node_address(node: &Value, kind: &str) -> String {
    let found = items(node, "/status/addresses").find(|address| text(address, "/type") == Some(kind));
    found.map_or_else(|| "<none>".into(), |address| text_or(address, "/address", ""))
}

/// Access modes in short.
pub(super) fn access_modes(object: &Value, pointer: &str) -> String {
    const MODES: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| items(object, pointer).any(|item| item == mode);
    let texts = MODES.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short);
    texts.collect::<Vec<_>>().join(",")
}

fn resource_claim(claim: &Value) -> String {
    let leaving = text(claim, "/metadata/deletionTimestamp").is_some();
    let allocated = claim.pointer("/status/allocation").is_some_and(|a| !a.is_null());
    let reserved = allocated && items(claim, "/status/reservedFor").next().is_some();
    let states = [
        ("deleted", leaving),
        ("pending", !allocated && !leaving),
        ("allocated", allocated),
        ("reserved", reserved),
    ];
    let states = states.iter().filter(|(_, holds)| *holds).map(|(state, _)| *state);
    states.collect::<Vec<_>>().join(",")
}

/// What of a quota is used, for the limits or for all else.
pub(super) fn quota(quota: &Value, limits: bool) -> String {
    let hard = quota.pointer("/status/hard").and_then(Value::as_object);
    let of_kind = hard
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits.") == limits);
    let used = |name: &str| {
        quota
            .pointer("/status/used")
            .and_then(|used| used.get(name))
            .map_or("0".into(), plain)
    };
    let texts = of_kind.map(|(name, hard)| format!("{name}: {}/{}", used(name), plain(hard)));
    texts.collect::<Vec<_>>().join(", ")
}

fn service_addresses(service: &Value) -> String {
    let extra = joined(service, "/spec/externalIPs", "");
    let balancer = balancer_addresses(service);
    match text(service, "/spec/type") {
        Some("ExternalName") => text_or(service, "/spec/externalName", ""),
        Some("LoadBalancer") if extra.is_empty() && balancer.is_empty() => "<pending>".into(),
        Some("LoadBalancer") if extra.is_empty() => balancer,
        Some("LoadBalancer") if !balancer.is_empty() => format!("{balancer},{extra}"),
        Some(_) if extra.is_empty() => "<none>".into(),
        Some(_) => extra,
        None => "<unknown>".into(),
    }
}

fn service_ports(service: &Value) -> String {
    let port = |port: &Value| {
        let node = match number(port, "/nodePort") {
            0 => String::new(),
            number => format!(":{number}"),
        };
        format!("{}{node}/{}", number(port, "/port"), text_or(port, "/protocol", ""))
    };
    let texts: Vec<String> = items(service, "/spec/ports").map(port).collect();
    if texts.is_empty() {
        "<none>".into()
    } else {
        texts.join(",")
    }
}
