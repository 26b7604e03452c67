//! What a server takes, but warns of: deprecated fields, names that occur twice, values that mean something else.

use serde_json::Value;

use super::quantity::Amount;
use super::validation::rule::Node;
use super::validation::words::Form;

/// The warnings about a new or changed object.
pub(super) fn warnings(kind: &str, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let root = Node::root(object);
    if matches!(kind, "CronJob" | "Deployment" | "Job" | "ReplicaSet" | "Pod") {
        name(kind, object, &mut found);
    }
    let template = match kind {
        "Pod" => Some(root.clone()),
        "CronJob" => nested(&root, &["spec", "jobTemplate", "spec", "template"]),
        "DaemonSet" | "Deployment" | "Job" | "ReplicaSet" | "StatefulSet" => nested(&root, &["spec", "template"]),
        _ => None,
    };
    if let Some(template) = template {
        pod(&template, &mut found);
    }
    match kind {
        "Ingress" => ingress(&root, &mut found),
        "PersistentVolume" => volume(&root, &mut found),
        "PersistentVolumeClaim" => found.extend(fraction(&root, "spec.resources.requests", "storage")),
        "Service" => service(&root, &mut found),
        "StatefulSet" => history(&root, &mut found),
        _ => {}
    }
    found
}

fn history(set: &Node<'_>, found: &mut Vec<String>) {
    let limit = set.value.pointer("/spec/revisionHistoryLimit").and_then(Value::as_i64);
    if limit.is_some_and(|limit| limit < 0) {
        let text = "a negative value retains all historical revisions; a value >= 0 is recommended";
        found.push(format!("spec.revisionHistoryLimit: {text}"));
    }
}

fn nested<'a>(root: &Node<'a>, path: &[&str]) -> Option<Node<'a>> {
    path.iter().try_fold(root.clone(), |node, name| node.child(name))
}

fn name(kind: &str, object: &Value, found: &mut Vec<String>) {
    let name = object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if Form::Label.fits(name) {
        return;
    }
    let problem = if name.contains('.') {
        "must not contain dots".to_owned()
    } else {
        Form::Label.problems(name).join(" ")
    };
    let what = if kind == "Pod" {
        "the Pod's hostname"
    } else {
        "Pod names and hostnames"
    };
    found.push(format!(
        "metadata.name: this is used in {what}, which can result in surprising behavior; a DNS label is recommended: \
         [{problem}]"
    ));
}

/// Labels of nodes that have another name now.
const NODE_LABELS: [(&str, &str); 8] = [
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    (
        "node-role.kubernetes.io/master",
        "use \"node-role.kubernetes.io/control-plane\" instead",
    ),
];

/// Kinds of volumes that nothing serves any more.
const VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

fn volume_kinds(holder: &Node<'_>, found: &mut Vec<String>) {
    for (name, text) in VOLUMES.iter().filter(|(name, _)| holder.has(name)) {
        found.push(format!("{}: {text}", holder.path(name)));
    }
}

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn pod(template: &Node<'_>, found: &mut Vec<String>) {
    let Some(spec) = template.child("spec") else { return };
    let old = |label: &str| {
        NODE_LABELS
            .iter()
            .find(|(name, _)| *name == label)
            .map(|(_, text)| *text)
    };
    for (label, _) in spec.entries("nodeSelector") {
        found.extend(old(label).map(|text| format!("{}[{label}]: {text}", spec.path("nodeSelector"))));
    }
    for spread in spec.items("topologySpreadConstraints") {
        let key = spread.text("topologyKey");
        found.extend(old(key).map(|text| format!("{}: {key} is {text}", spread.path("topologyKey"))));
        if !spread.has("labelSelector") {
            let text = "a null labelSelector results in matching no pod";
            found.push(format!("{}: {text}", spread.path("labelSelector")));
        }
    }
    for volume in spec.items("volumes") {
        volume_kinds(&volume, found);
    }
    repeated(&spec, "hostAliases", "ip", found);
    repeated(&spec, "imagePullSecrets", "name", found);
    let seccomp = "seccomp.security.alpha.kubernetes.io/pod";
    let annotated = template
        .value
        .pointer("/metadata/annotations")
        .and_then(|all| all.get(seccomp));
    if annotated.is_some() && spec.value.pointer("/securityContext/seccompProfile").is_none() {
        let at = template.path("metadata.annotations");
        let text = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
        found.push(format!("{at}[{seccomp}]: {text}"));
    }
    let containers: Vec<Node<'_>> = LISTS.iter().flat_map(|list| spec.items(list)).collect();
    for container in &containers {
        for part in ["limits", "requests"] {
            for what in ["memory", "ephemeral-storage"] {
                found.extend(fraction(container, &format!("resources.{part}"), what));
            }
        }
        hidden_variables(container, found);
    }
    ports(&containers, found);
    if spec
        .number("terminationGracePeriodSeconds")
        .is_some_and(|seconds| seconds < 0)
    {
        let text = "must be >= 0; negative values are invalid and will be treated as 1";
        found.push(format!("{}: {text}", spec.path("terminationGracePeriodSeconds")));
    }
}

fn repeated(spec: &Node<'_>, list: &str, field: &str, found: &mut Vec<String>) {
    let mut seen = Vec::new();
    for item in spec.items(list) {
        let text = item.text(field);
        if seen.contains(&text) {
            found.push(format!("{}: duplicate {field} {text:?}", item.path(field)));
        }
        seen.push(text);
    }
}

/// A part of a byte.
fn fraction(node: &Node<'_>, path: &str, what: &str) -> Option<String> {
    let pointer = format!("/{}/{what}", path.replace('.', "/"));
    let value = node.value.pointer(&pointer)?;
    let whole = Amount::of(value)?.nanos() % 1_000_000_000 == 0;
    if whole {
        return None;
    }
    let text = value.as_str().unwrap_or_default();
    Some(format!(
        "{}[{what}]: fractional byte value {text:?} is invalid, must be an integer",
        node.path(path)
    ))
}

fn hidden_variables(container: &Node<'_>, found: &mut Vec<String>) {
    let mut seen = Vec::new();
    for variable in container.items("env") {
        let name = variable.text("name");
        let reference = format!("$({name})");
        let value = variable.text("value");
        // A value that builds on the one before hides nothing.
        let builds = !variable.has("valueFrom") && value != reference && value.contains(&reference);
        if seen.contains(&name) && !builds {
            let text = "which may be dropped when using apply";
            found.push(format!(
                "{}: hides previous definition of {name:?}, {text}",
                variable.at
            ));
        }
        seen.push(name);
    }
}

fn ports(containers: &[Node<'_>], found: &mut Vec<String>) {
    let all: Vec<Node<'_>> = containers
        .iter()
        .flat_map(|container| container.items("ports"))
        .collect();
    for (i, port) in all.iter().enumerate() {
        let key = |port: &Node<'_>| (port.number("containerPort"), port.text("protocol").to_owned());
        let host = |port: &Node<'_>| (port.number("hostPort").unwrap_or(0), port.text("hostIP").to_owned());
        for other in all[..i].iter().filter(|other| key(other) == key(port)) {
            let (mine, theirs) = (host(port), host(other));
            let what = if mine == theirs {
                "duplicate"
            } else if mine.0 == 0 || theirs.0 == 0 {
                "overlapping"
            } else if mine.0 == theirs.0 && mine.1.is_empty() != theirs.1.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            found.push(format!("{}: {what} port definition with {}", port.at, other.at));
        }
    }
    for (i, port) in all.iter().enumerate() {
        let name = port.text("name");
        let first = all[..i]
            .iter()
            .find(|other| !name.is_empty() && other.text("name") == name);
        if let Some(first) = first {
            found.push(format!(
                "{}: duplicate port name {name:?} with {1}, services and probes that select ports by name will use {1}",
                port.at, first.at
            ));
        }
    }
}

fn ingress(ingress: &Node<'_>, found: &mut Vec<String>) {
    let class = "kubernetes.io/ingress.class";
    let annotated = ingress
        .value
        .pointer("/metadata/annotations")
        .and_then(|all| all.get(class));
    if annotated.is_some() && ingress.value.pointer("/spec/ingressClassName").is_none() {
        let text = "is deprecated, please use 'spec.ingressClassName' instead";
        found.push(format!("annotation {class:?} {text}"));
    }
}

fn volume(volume: &Node<'_>, found: &mut Vec<String>) {
    let Some(spec) = volume.child("spec") else { return };
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let text = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
        found.push(format!("{}: {text}", spec.path("persistentVolumeReclaimPolicy")));
    }
    volume_kinds(&spec, found);
}

fn service(service: &Node<'_>, found: &mut Vec<String>) {
    let Some(spec) = service.child("spec") else { return };
    let external = spec.text("type") == "ExternalName";
    let headless = spec.text("clusterIP") == "None";
    let mut say = |when: bool, text: &str| {
        if when {
            found.push(text.to_owned());
        }
    };
    say(
        headless && spec.has("loadBalancerIP"),
        "spec.loadBalancerIP is ignored for headless services",
    );
    say(
        headless && spec.has("externalIPs"),
        "spec.externalIPs is ignored for headless services",
    );
    let affine = spec.text("sessionAffinity") != "None";
    say(
        headless && affine,
        "spec.SessionAffinity is ignored for headless services",
    );
    let deprecated = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
    say(spec.has("externalIPs") && !headless && !external, deprecated);
    let ignored = "spec.externalIPs is ignored when spec.type is \"ExternalName\"";
    say(external && spec.has("externalIPs"), ignored);
    let name = "spec.externalName is ignored when spec.type is not \"ExternalName\"";
    say(!external && !spec.text("externalName").is_empty(), name);
    let close = "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
    say(spec.text("trafficDistribution") == "PreferClose", close);
}
