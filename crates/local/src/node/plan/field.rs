//! The downward API: what a container may learn about its own pod.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use super::{Error, Place};

/// The value of a `fieldRef`.
pub(in crate::node) fn value(path: &str, pod: &Pod, place: &Place) -> Result<String, Error> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let or_empty = |value: Option<&String>| Ok(value.cloned().unwrap_or_default());
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        return match map {
            "metadata.labels" => or_empty(metadata.labels.as_ref().and_then(|labels| labels.get(key))),
            "metadata.annotations" => or_empty(metadata.annotations.as_ref().and_then(|notes| notes.get(key))),
            _ => Err(Error::Field(path.to_owned())),
        };
    }
    match path {
        "metadata.name" => or_empty(metadata.name.as_ref()),
        "metadata.namespace" => or_empty(metadata.namespace.as_ref()),
        "metadata.uid" => or_empty(metadata.uid.as_ref()),
        "metadata.labels" => Ok(lines(metadata.labels.as_ref())),
        "metadata.annotations" => Ok(lines(metadata.annotations.as_ref())),
        "spec.nodeName" => Ok(place.node.clone()),
        "spec.serviceAccountName" => Ok(spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_else(|| "default".to_owned())),
        "status.podIP" | "status.podIPs" => Ok(place.pod_ip.to_string()),
        "status.hostIP" | "status.hostIPs" => Ok(place.host_ip.to_string()),
        _ => Err(Error::Field(path.to_owned())),
    }
}

fn lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={value:?}");
    map.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

/// The value of a `resourceFieldRef`. Limits are not enforced here; what is not declared is what the machine has.
pub(super) fn resource(reference: &ResourceFieldSelector, pod: &Pod, container: &Container) -> String {
    let named = reference.container_name.as_deref().filter(|name| !name.is_empty());
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let container = containers
        .into_iter()
        .find(|other| Some(other.name.as_str()) == named)
        .unwrap_or(container);
    let (group, name) = reference
        .resource
        .split_once('.')
        .unwrap_or(("limits", &reference.resource));
    let resources = container.resources.as_ref();
    let declared = match group {
        "requests" => resources.and_then(|resources| resources.requests.as_ref()?.get(name)),
        _ => resources.and_then(|resources| resources.limits.as_ref()?.get(name)),
    };
    let amount = declared
        .and_then(|quantity| parse_quantity(&quantity.0))
        .unwrap_or_else(|| machine(name));
    let divisor = reference
        .divisor
        .as_ref()
        .and_then(|quantity| parse_quantity(&quantity.0))
        .filter(|unit| *unit > 0.0);
    format!("{}", (amount / divisor.unwrap_or(1.0)).ceil())
}

fn machine(name: &str) -> f64 {
    match name {
        "cpu" => std::thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64),
        "memory" => crate::node::registration::memory_bytes() as f64,
        _ => 0.0,
    }
}

/// A Kubernetes quantity as a number.
fn parse_quantity(text: &str) -> Option<f64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-' | '+'))
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = match &text[end..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        _ => return None,
    };
    Some(number * unit)
}
