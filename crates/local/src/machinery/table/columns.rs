//! The columns of the built-in kinds.

use serde_json::{Value, json};

use super::{Column, age, plain, pod};

/// The columns of a kind; name and age where nothing more is known.
pub(super) fn of(kind: &str) -> &'static [Column] {
    match kind {
        "Pod" => POD,
        "Deployment" => DEPLOYMENT,
        "ReplicaSet" => REPLICA_SET,
        "StatefulSet" => STATEFUL_SET,
        "Service" => SERVICE,
        "Node" => NODE,
        "Namespace" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "PersistentVolume" => VOLUME,
        "PersistentVolumeClaim" => CLAIM,
        "StorageClass" => STORAGE_CLASS,
        "Event" => EVENT,
        "Lease" => LEASE,
        "EndpointSlice" => ENDPOINT_SLICE,
        "CustomResourceDefinition" => DEFINITION,
        "ControllerRevision" => REVISION,
        _ => OTHER,
    }
}

const fn shown(name: &'static str, cell: fn(&Value, &str) -> Value) -> Column {
    Column {
        name,
        kind: "string",
        priority: 0,
        cell,
    }
}

const fn wide(name: &'static str, cell: fn(&Value, &str) -> Value) -> Column {
    Column {
        name,
        kind: "string",
        priority: 1,
        cell,
    }
}

const fn number(name: &'static str, cell: fn(&Value, &str) -> Value) -> Column {
    Column {
        name,
        kind: "integer",
        priority: 0,
        cell,
    }
}

const NAME: Column = shown("Name", |o, _| get(o, "/metadata/name"));
const AGE: Column = shown("Age", |o, now| since(o, "/metadata/creationTimestamp", now));
const CONTAINERS: Column = wide("Containers", |o, _| {
    joined(o, "/spec/template/spec/containers", "/name")
});
const IMAGES: Column = wide("Images", |o, _| joined(o, "/spec/template/spec/containers", "/image"));
const SELECTOR: Column = wide("Selector", |o, _| pairs(o, "/spec/selector/matchLabels"));

const OTHER: &[Column] = &[NAME, AGE];

const POD: &[Column] = &[
    NAME,
    shown("Ready", |o, _| pod::ready(o).into()),
    shown("Status", |o, _| pod::status(o).into()),
    shown("Restarts", |o, now| pod::restarts(o, now).into()),
    AGE,
    wide("IP", |o, _| or_none(o, "/status/podIP")),
    wide("Node", |o, _| or_none(o, "/spec/nodeName")),
    wide("Nominated Node", |o, _| or_none(o, "/status/nominatedNodeName")),
    wide("Readiness Gates", |_, _| json!("<none>")),
];

const DEPLOYMENT: &[Column] = &[
    NAME,
    shown("Ready", |o, _| ratio(o, "/status/readyReplicas")),
    number("Up-to-date", |o, _| count(o, "/status/updatedReplicas")),
    number("Available", |o, _| count(o, "/status/availableReplicas")),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const REPLICA_SET: &[Column] = &[
    NAME,
    number("Desired", |o, _| count(o, "/spec/replicas")),
    number("Current", |o, _| count(o, "/status/replicas")),
    number("Ready", |o, _| count(o, "/status/readyReplicas")),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const STATEFUL_SET: &[Column] = &[
    NAME,
    shown("Ready", |o, _| ratio(o, "/status/readyReplicas")),
    AGE,
    CONTAINERS,
    IMAGES,
];

const SERVICE: &[Column] = &[
    NAME,
    shown("Type", |o, _| get(o, "/spec/type")),
    shown("Cluster-IP", |o, _| or_none(o, "/spec/clusterIP")),
    shown("External-IP", |o, _| external_ip(o)),
    shown("Port(s)", |o, _| service_ports(o)),
    AGE,
    wide("Selector", |o, _| pairs(o, "/spec/selector")),
];

const NODE: &[Column] = &[
    NAME,
    shown("Status", |o, _| node_status(o)),
    shown("Roles", |o, _| node_roles(o)),
    AGE,
    shown("Version", |o, _| get(o, "/status/nodeInfo/kubeletVersion")),
    wide("Internal-IP", |o, _| node_address(o, "InternalIP")),
    wide("External-IP", |o, _| node_address(o, "ExternalIP")),
    wide("OS-Image", |o, _| or_unknown(o, "/status/nodeInfo/osImage")),
    wide("Kernel-Version", |o, _| or_unknown(o, "/status/nodeInfo/kernelVersion")),
    wide("Container-Runtime", |o, _| {
        or_unknown(o, "/status/nodeInfo/containerRuntimeVersion")
    }),
];

const NAMESPACE: &[Column] = &[NAME, shown("Status", |o, _| get(o, "/status/phase")), AGE];

const CONFIG_MAP: &[Column] = &[
    NAME,
    number("Data", |o, _| json!(length(o, "/data") + length(o, "/binaryData"))),
    AGE,
];

const SECRET: &[Column] = &[
    NAME,
    shown("Type", |o, _| get(o, "/type")),
    number("Data", |o, _| json!(length(o, "/data"))),
    AGE,
];

const SERVICE_ACCOUNT: &[Column] = &[NAME, number("Secrets", |o, _| json!(length(o, "/secrets"))), AGE];

const VOLUME: &[Column] = &[
    NAME,
    shown("Capacity", |o, _| get(o, "/spec/capacity/storage")),
    shown("Access Modes", |o, _| access_modes(o, "/spec/accessModes")),
    shown("Reclaim Policy", |o, _| get(o, "/spec/persistentVolumeReclaimPolicy")),
    shown("Status", |o, _| phase(o)),
    shown("Claim", |o, _| claim_ref(o)),
    shown("StorageClass", |o, _| get(o, "/spec/storageClassName")),
    shown("VolumeAttributesClass", |o, _| {
        or_unset(o, "/spec/volumeAttributesClassName")
    }),
    shown("Reason", |o, _| get(o, "/status/reason")),
    AGE,
    wide("VolumeMode", |o, _| or_unset(o, "/spec/volumeMode")),
];

const CLAIM: &[Column] = &[
    NAME,
    shown("Status", |o, _| phase(o)),
    shown("Volume", |o, _| get(o, "/spec/volumeName")),
    shown("Capacity", |o, _| get(o, "/status/capacity/storage")),
    shown("Access Modes", |o, _| access_modes(o, "/status/accessModes")),
    shown("StorageClass", |o, _| get(o, "/spec/storageClassName")),
    shown("VolumeAttributesClass", |o, _| {
        or_unset(o, "/spec/volumeAttributesClassName")
    }),
    AGE,
    wide("VolumeMode", |o, _| or_unset(o, "/spec/volumeMode")),
];

const STORAGE_CLASS: &[Column] = &[
    shown("Name", |o, _| storage_class_name(o)),
    shown("Provisioner", |o, _| get(o, "/provisioner")),
    shown("ReclaimPolicy", |o, _| get(o, "/reclaimPolicy")),
    shown("VolumeBindingMode", |o, _| get(o, "/volumeBindingMode")),
    shown("AllowVolumeExpansion", |o, _| {
        json!(o.get("allowVolumeExpansion") == Some(&json!(true)))
    }),
    AGE,
];

const EVENT: &[Column] = &[
    shown("Last Seen", last_seen),
    shown("Type", |o, _| get(o, "/type")),
    shown("Reason", |o, _| get(o, "/reason")),
    shown("Object", |o, _| event_object(o)),
    wide("Subobject", |o, _| {
        either(o, "/involvedObject/fieldPath", "/regarding/fieldPath")
    }),
    wide("Source", |o, _| either(o, "/source/component", "/reportingController")),
    shown("Message", |o, _| either(o, "/message", "/note")),
    wide("First Seen", |o, now| {
        since_any(o, &["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"], now)
    }),
    wide("Count", |o, _| o.get("count").cloned().unwrap_or(json!(1))),
    Column {
        name: "Name",
        kind: "string",
        priority: 1,
        cell: |o, _| get(o, "/metadata/name"),
    },
];

const LEASE: &[Column] = &[NAME, shown("Holder", |o, _| get(o, "/spec/holderIdentity")), AGE];

const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    shown("AddressType", |o, _| get(o, "/addressType")),
    shown("Ports", |o, _| or_unset_text(joined(o, "/ports", "/port"))),
    shown("Endpoints", |o, _| or_unset_text(endpoint_addresses(o))),
    AGE,
];

const DEFINITION: &[Column] = &[NAME, shown("Created At", |o, _| get(o, "/metadata/creationTimestamp"))];

const REVISION: &[Column] = &[
    NAME,
    shown("Controller", |o, _| owner(o)),
    number("Revision", |o, _| count(o, "/revision")),
    AGE,
];

fn get(object: &Value, pointer: &str) -> Value {
    object
        .pointer(pointer)
        .filter(|value| !value.is_null())
        .map_or_else(|| json!(""), |value| plain(value).into())
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

fn or_none(object: &Value, pointer: &str) -> Value {
    text(object, pointer).unwrap_or("<none>").into()
}

fn or_unknown(object: &Value, pointer: &str) -> Value {
    text(object, pointer).unwrap_or("<unknown>").into()
}

fn or_unset(object: &Value, pointer: &str) -> Value {
    text(object, pointer).unwrap_or("<unset>").into()
}

fn or_unset_text(value: Value) -> Value {
    if value == json!("") { json!("<unset>") } else { value }
}

fn either(object: &Value, first: &str, second: &str) -> Value {
    text(object, first)
        .or_else(|| text(object, second))
        .unwrap_or_default()
        .into()
}

fn since(object: &Value, pointer: &str, now: &str) -> Value {
    text(object, pointer)
        .map_or_else(|| "<unknown>".into(), |then| age::between(then, now))
        .into()
}

fn since_any(object: &Value, pointers: &[&str], now: &str) -> Value {
    let first = pointers.iter().find(|pointer| text(object, pointer).is_some());
    first.map_or_else(|| json!("<unknown>"), |pointer| since(object, pointer, now))
}

fn count(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0).into()
}

fn ratio(object: &Value, pointer: &str) -> Value {
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    format!(
        "{}/{wanted}",
        object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
    )
    .into()
}

fn length(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(items)) => items.len(),
        _ => 0,
    }
}

fn items<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn joined(object: &Value, list: &str, pointer: &str) -> Value {
    let texts: Vec<String> = items(object, list)
        .filter_map(|item| item.pointer(pointer))
        .map(plain)
        .collect();
    texts.join(",").into()
}

fn pairs(object: &Value, pointer: &str) -> Value {
    let map = object.pointer(pointer).and_then(Value::as_object);
    let texts: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", plain(value)))
        .collect();
    if texts.is_empty() {
        json!("<none>")
    } else {
        texts.join(",").into()
    }
}

fn external_ip(service: &Value) -> Value {
    let ingress = joined(service, "/status/loadBalancer/ingress", "/ip");
    let extra: Vec<String> = items(service, "/spec/externalIPs").map(plain).collect();
    match text(service, "/spec/type") {
        Some("ExternalName") => get(service, "/spec/externalName"),
        Some("LoadBalancer") if ingress != json!("") => ingress,
        Some("LoadBalancer") if extra.is_empty() => json!("<pending>"),
        _ if extra.is_empty() => json!("<none>"),
        _ => extra.join(",").into(),
    }
}

fn service_ports(service: &Value) -> Value {
    let texts: Vec<String> = items(service, "/spec/ports")
        .map(|port| {
            let part = |name: &str| port.get(name).map(plain).unwrap_or_default();
            let node = port
                .get("nodePort")
                .and_then(Value::as_i64)
                .filter(|number| *number != 0);
            let node = node.map(|number| format!(":{number}")).unwrap_or_default();
            format!("{}{node}/{}", part("port"), part("protocol"))
        })
        .collect();
    if texts.is_empty() {
        json!("<none>")
    } else {
        texts.join(",").into()
    }
}

fn node_status(node: &Value) -> Value {
    let ready = items(node, "/status/conditions").find(|condition| text(condition, "/type") == Some("Ready"));
    let mut status = match ready.and_then(|condition| text(condition, "/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node.pointer("/spec/unschedulable") == Some(&json!(true)) {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

fn node_roles(node: &Value) -> Value {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(name, _)| name.strip_prefix("node-role.kubernetes.io/"))
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() {
        json!("<none>")
    } else {
        roles.join(",").into()
    }
}

fn node_address(node: &Value, kind: &str) -> Value {
    let found = items(node, "/status/addresses").find(|address| text(address, "/type") == Some(kind));
    found.map_or_else(|| json!("<none>"), |address| get(address, "/address"))
}

fn access_modes(object: &Value, pointer: &str) -> Value {
    let texts: Vec<&str> = items(object, pointer)
        .filter_map(Value::as_str)
        .map(|mode| match mode {
            "ReadWriteOnce" => "RWO",
            "ReadOnlyMany" => "ROX",
            "ReadWriteMany" => "RWX",
            "ReadWriteOncePod" => "RWOP",
            other => other,
        })
        .collect();
    texts.join(",").into()
}

fn phase(object: &Value) -> Value {
    if text(object, "/metadata/deletionTimestamp").is_some() {
        json!("Terminating")
    } else {
        get(object, "/status/phase")
    }
}

fn claim_ref(volume: &Value) -> Value {
    match text(volume, "/spec/claimRef/name") {
        Some(name) => format!(
            "{}/{name}",
            text(volume, "/spec/claimRef/namespace").unwrap_or_default()
        )
        .into(),
        None => json!(""),
    }
}

fn storage_class_name(class: &Value) -> Value {
    let name = text(class, "/metadata/name").unwrap_or_default();
    let default = "/metadata/annotations/storageclass.kubernetes.io~1is-default-class";
    if text(class, default) == Some("true") {
        format!("{name} (default)").into()
    } else {
        name.into()
    }
}

fn last_seen(event: &Value, now: &str) -> Value {
    let pointers = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/deprecatedLastTimestamp",
        "/eventTime",
    ];
    since_any(event, &pointers, now)
}

fn event_object(event: &Value) -> Value {
    let object = event
        .get("involvedObject")
        .or_else(|| event.get("regarding"))
        .unwrap_or(&Value::Null);
    let kind = text(object, "/kind").unwrap_or_default().to_lowercase();
    format!("{kind}/{}", text(object, "/name").unwrap_or_default()).into()
}

/// The first three addresses, and how many more there are.
fn endpoint_addresses(slice: &Value) -> Value {
    let all: Vec<String> = items(slice, "/endpoints")
        .flat_map(|endpoint| items(endpoint, "/addresses"))
        .map(plain)
        .collect();
    match all.get(..3) {
        Some(first) if all.len() > 3 => format!("{} + {} more...", first.join(","), all.len() - 3).into(),
        _ => all.join(",").into(),
    }
}

fn owner(object: &Value) -> Value {
    let controller =
        items(object, "/metadata/ownerReferences").find(|owner| owner.get("controller") == Some(&json!(true)));
    controller.map_or_else(
        || json!("<none>"),
        |owner| {
            let kind = text(owner, "/kind").unwrap_or_default().to_lowercase();
            format!("{kind}/{}", text(owner, "/name").unwrap_or_default()).into()
        },
    )
}
