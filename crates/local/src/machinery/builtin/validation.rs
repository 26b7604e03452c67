//! What is wrong with an object of a built-in kind, after defaults.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::machinery::{FieldError, metadata};

mod pod;
pub(super) mod words;

use words::is_dns_label;

/// Everything that is wrong with a new or changed object.
pub(super) fn validate(kind: &str, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match kind {
        "Pod" => pod::spec(object.get("spec"), "spec", pod::Place::Pod, &mut errors),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => workload(kind, object, &mut errors),
        "Service" => service(object, &mut errors),
        "PersistentVolumeClaim" => claim(object.get("spec"), "spec", &mut errors),
        "PersistentVolume" => volume(object, &mut errors),
        "ConfigMap" => config_map(object, &mut errors),
        "Secret" => secret(object, &mut errors),
        "StorageClass" => storage_class(object, &mut errors),
        "EndpointSlice" => endpoint_slice(object, &mut errors),
        "Lease" => {
            let at = "/spec/leaseDurationSeconds";
            if object
                .pointer(at)
                .and_then(Value::as_i64)
                .is_some_and(|seconds| seconds <= 0)
            {
                let detail = "must be greater than 0";
                errors.push(FieldError::invalid(
                    "spec.leaseDurationSeconds",
                    &object["spec"]["leaseDurationSeconds"],
                    detail,
                ));
            }
        }
        _ => {}
    }
    errors
}

/// What is wrong with the labels and annotations at the path `at`.
fn labels_and_annotations(object: &Value, at: &str) -> Vec<FieldError> {
    let part = |name: &str| object.get("metadata").and_then(|metadata| metadata.get(name));
    let mut errors = metadata::labels(part("labels"), &format!("{at}.labels"));
    errors.extend(metadata::annotations(part("annotations"), &format!("{at}.annotations")));
    errors
}

fn fields(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

fn items<'a>(value: Option<&'a Value>, name: &str) -> impl Iterator<Item = (usize, &'a Value)> + use<'a> {
    value
        .and_then(|value| value.get(name))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Refuses a text that is none of `allowed`; an absent one passes.
fn one_of(value: Option<&Value>, allowed: &[&str], at: String, errors: &mut Vec<FieldError>) {
    if let Some(value) = value
        && !value.as_str().is_some_and(|text| allowed.contains(&text))
    {
        let names: Vec<String> = allowed.iter().map(|name| format!("{name:?}")).collect();
        errors.push(FieldError::unsupported(at, value, &names));
    }
}

fn not_negative(value: Option<&Value>, at: String, errors: &mut Vec<FieldError>) {
    if let Some(value) = value.filter(|value| value.as_f64().is_some_and(|number| number < 0.0)) {
        errors.push(FieldError::invalid(at, value, "must be greater than or equal to 0"));
    }
}

fn port_number(value: Option<&Value>, at: String, errors: &mut Vec<FieldError>) {
    match value {
        None => errors.push(FieldError::required(at, "")),
        Some(value) if value.as_i64().is_none_or(|number| !(1..=65_535).contains(&number)) => {
            errors.push(FieldError::invalid(at, value, "must be between 1 and 65535, inclusive"));
        }
        _ => {}
    }
}

fn workload(kind: &str, object: &Value, errors: &mut Vec<FieldError>) {
    let empty = Value::Object(Map::new());
    let spec = object.get("spec").unwrap_or(&empty);
    not_negative(spec.get("replicas"), "spec.replicas".into(), errors);
    let selector = spec
        .get("selector")
        .filter(|selector| selector.as_object().is_some_and(|map| !map.is_empty()));
    let template = spec.get("template");
    match selector {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(selector) => {
            selector_errors(selector, "spec.selector", errors);
            let labels = template.and_then(|template| template.pointer("/metadata/labels"));
            if !selects(selector, labels) {
                let detail = "`selector` does not match template `labels`";
                let shown = labels.unwrap_or(&empty).to_string();
                errors.push(FieldError::new(
                    "spec.template.metadata.labels",
                    crate::machinery::Reason::Invalid,
                    format!("Invalid value: {shown}: {detail}"),
                ));
            }
        }
    }
    match template {
        None => errors.push(FieldError::required("spec.template", "")),
        Some(template) => {
            errors.extend(labels_and_annotations(template, "spec.template.metadata"));
            let pod = with_claims(template.get("spec"), spec);
            pod::spec(pod.as_ref(), "spec.template.spec", pod::Place::Template, errors);
        }
    }
    if kind == "Deployment" {
        let strategy = spec.get("strategy");
        let name = strategy.and_then(|strategy| strategy.get("type"));
        one_of(
            name,
            &["Recreate", "RollingUpdate"],
            "spec.strategy.type".into(),
            errors,
        );
        if name == Some(&"Recreate".into()) && strategy.is_some_and(|strategy| strategy.get("rollingUpdate").is_some())
        {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", detail));
        }
    }
    if kind == "StatefulSet" {
        let policy = spec.get("podManagementPolicy");
        one_of(
            policy,
            &["OrderedReady", "Parallel"],
            "spec.podManagementPolicy".into(),
            errors,
        );
        let strategy = spec.pointer("/updateStrategy/type");
        one_of(
            strategy,
            &["OnDelete", "RollingUpdate"],
            "spec.updateStrategy.type".into(),
            errors,
        );
        for (i, template) in items(Some(spec), "volumeClaimTemplates") {
            let at = format!("spec.volumeClaimTemplates[{i}]");
            if text(template.get("metadata").unwrap_or(&empty), "name").is_empty() {
                errors.push(FieldError::required(format!("{at}.metadata.name"), ""));
            }
            claim(template.get("spec"), &format!("{at}.spec"), errors);
        }
    }
}

/// The pods' specification as its containers may refer to it: a StatefulSet's claim templates are volumes too.
fn with_claims(pod: Option<&Value>, workload: &Value) -> Option<Value> {
    let mut pod = pod?.clone();
    let claims = items(Some(workload), "volumeClaimTemplates").map(|(_, claim)| claim);
    let names: Vec<Value> = claims
        .filter_map(|claim| claim.pointer("/metadata/name").cloned())
        .filter(|name| !items(Some(&pod), "volumes").any(|(_, volume)| volume.get("name") == Some(name)))
        .collect();
    if let Some(spec) = pod.as_object_mut().filter(|_| !names.is_empty()) {
        let volumes = spec.entry("volumes").or_insert_with(|| Value::Array(Vec::new()));
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.extend(
                names
                    .into_iter()
                    .map(|name| serde_json::json!({"name": name, "emptyDir": {}})),
            );
        }
    }
    Some(pod)
}

fn selector_errors(selector: &Value, at: &str, errors: &mut Vec<FieldError>) {
    errors.extend(metadata::labels(
        selector.get("matchLabels"),
        &format!("{at}.matchLabels"),
    ));
    for (i, expression) in items(Some(selector), "matchExpressions") {
        let at = format!("{at}.matchExpressions[{i}]");
        let count = expression.get("values").and_then(Value::as_array).map_or(0, Vec::len);
        match text(expression, "operator") {
            "In" | "NotIn" if count == 0 => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{at}.values"), detail));
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{at}.values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let operator = expression.get("operator").unwrap_or(&Value::Null);
                errors.push(FieldError::invalid(
                    format!("{at}.operator"),
                    operator,
                    "not a valid selector operator",
                ));
            }
        }
    }
}

/// Whether a label selector selects something with these labels.
fn selects(selector: &Value, labels: Option<&Value>) -> bool {
    let label = |name: &str| labels.and_then(|labels| labels.get(name));
    let equal = fields(selector.get("matchLabels")).all(|(name, value)| label(name) == Some(value));
    let expressions = items(Some(selector), "matchExpressions").all(|(_, expression)| {
        let value = label(text(expression, "key"));
        let listed = || items(Some(expression), "values").any(|(_, wanted)| Some(wanted) == value);
        match text(expression, "operator") {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => true,
        }
    });
    equal && expressions
}

fn service(object: &Value, errors: &mut Vec<FieldError>) {
    let Some(spec) = object.get("spec") else {
        return errors.push(FieldError::required("spec", ""));
    };
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of(spec.get("type"), &kinds, "spec.type".into(), errors);
    one_of(
        spec.get("sessionAffinity"),
        &["ClientIP", "None"],
        "spec.sessionAffinity".into(),
        errors,
    );
    errors.extend(metadata::labels(spec.get("selector"), "spec.selector"));
    let count = spec.get("ports").and_then(Value::as_array).map_or(0, Vec::len);
    let external = text(spec, "type") == "ExternalName";
    if external && text(spec, "externalName").is_empty() {
        errors.push(FieldError::required("spec.externalName", ""));
    }
    if count == 0 && !external && text(spec, "clusterIP") != "None" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in items(Some(spec), "ports") {
        let at = format!("spec.ports[{i}]");
        port_number(port.get("port"), format!("{at}.port"), errors);
        one_of(
            port.get("protocol"),
            &["SCTP", "TCP", "UDP"],
            format!("{at}.protocol"),
            errors,
        );
        let name = text(port, "name");
        if name.is_empty() && count > 1 {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else if !name.is_empty() && !is_dns_label(name) {
            errors.push(FieldError::invalid(
                format!("{at}.name"),
                &name.into(),
                words::DNS_LABEL,
            ));
        } else if !name.is_empty() && !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{at}.name"), &name.into()));
        }
        if !numbers.insert((port.get("port").map(Value::to_string), text(port, "protocol"))) {
            errors.push(FieldError::duplicate(at, port));
        }
    }
}

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn access_modes(spec: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if items(Some(spec), "accessModes").next().is_none() {
        errors.push(FieldError::required(
            format!("{at}.accessModes"),
            "at least 1 access mode is required",
        ));
    }
    for (_, mode) in items(Some(spec), "accessModes") {
        one_of(Some(mode), ACCESS_MODES, format!("{at}.accessModes"), errors);
    }
}

fn claim(spec: Option<&Value>, at: &str, errors: &mut Vec<FieldError>) {
    let Some(spec) = spec else {
        return errors.push(FieldError::required(at, ""));
    };
    access_modes(spec, at, errors);
    let size = format!("{at}.resources[storage]");
    match spec.pointer("/resources/requests/storage") {
        None => errors.push(FieldError::required(size, "")),
        Some(value) => words::quantity(value, size, errors),
    }
    one_of(
        spec.get("volumeMode"),
        &["Block", "Filesystem"],
        format!("{at}.volumeMode"),
        errors,
    );
}

fn volume(object: &Value, errors: &mut Vec<FieldError>) {
    let Some(spec) = object.get("spec") else {
        return errors.push(FieldError::required("spec", ""));
    };
    access_modes(spec, "spec", errors);
    match spec.pointer("/capacity/storage") {
        None => errors.push(FieldError::required("spec.capacity", "")),
        Some(value) => words::quantity(value, "spec.capacity[storage]".into(), errors),
    }
    let policies = ["Delete", "Recycle", "Retain"];
    let at = "persistentVolumeReclaimPolicy";
    one_of(spec.get(at), &policies, format!("spec.{at}"), errors);
    let sources = [
        "hostPath",
        "local",
        "nfs",
        "csi",
        "iscsi",
        "fc",
        "rbd",
        "cephfs",
        "azureDisk",
        "awsElasticBlockStore",
        "gcePersistentDisk",
        "azureFile",
        "vsphereVolume",
        "flexVolume",
        "cinder",
        "glusterfs",
        "portworxVolume",
        "scaleIO",
        "storageos",
        "quobyte",
        "photonPersistentDisk",
        "flocker",
    ];
    match sources.iter().filter(|source| spec.get(**source).is_some()).count() {
        0 => errors.push(FieldError::required("spec", "must specify a volume type")),
        1 => {}
        _ => errors.push(FieldError::forbidden("spec", "may not specify more than 1 volume type")),
    }
}

fn data_keys(object: &Value, name: &str, errors: &mut Vec<FieldError>) {
    for (key, _) in fields(object.get(name)).filter(|(key, _)| !words::is_file_name(key)) {
        errors.push(FieldError::invalid(
            format!("{name}[{key}]"),
            &key.as_str().into(),
            words::FILE_NAME,
        ));
    }
}

/// Bytes that a ConfigMap or Secret may hold.
const MOST_DATA: usize = 1024 * 1024;

fn data_size(object: &Value, names: &[&str], at: &str, errors: &mut Vec<FieldError>) {
    let sizes = names
        .iter()
        .flat_map(|name| fields(object.get(*name)))
        .map(|(_, value)| value.as_str().map_or(0, str::len));
    if sizes.sum::<usize>() > MOST_DATA {
        let message = format!("Too long: may not be more than {MOST_DATA} bytes");
        errors.push(FieldError::new(at, crate::machinery::Reason::TooLong, message));
    }
}

fn config_map(object: &Value, errors: &mut Vec<FieldError>) {
    data_keys(object, "data", errors);
    data_keys(object, "binaryData", errors);
    data_size(object, &["data", "binaryData"], "[]", errors);
}

fn secret(object: &Value, errors: &mut Vec<FieldError>) {
    use base64::Engine as _;
    data_keys(object, "data", errors);
    for (key, value) in fields(object.get("data")) {
        let decoded = value
            .as_str()
            .map(|text| base64::engine::general_purpose::STANDARD.decode(text));
        if !matches!(decoded, Some(Ok(_))) {
            let field = format!("data[{key}]");
            let message = "Invalid value: \"<secret>\": must be base64";
            errors.push(FieldError::new(field, crate::machinery::Reason::Invalid, message));
        }
    }
    data_size(object, &["data"], "data", errors);
}

fn storage_class(object: &Value, errors: &mut Vec<FieldError>) {
    if text(object, "provisioner").is_empty() {
        errors.push(FieldError::required("provisioner", ""));
    }
    one_of(
        object.get("reclaimPolicy"),
        &["Delete", "Retain"],
        "reclaimPolicy".into(),
        errors,
    );
    let modes = ["Immediate", "WaitForFirstConsumer"];
    one_of(
        object.get("volumeBindingMode"),
        &modes,
        "volumeBindingMode".into(),
        errors,
    );
}

fn endpoint_slice(object: &Value, errors: &mut Vec<FieldError>) {
    match object.get("addressType").filter(|kind| **kind != "") {
        None => errors.push(FieldError::required("addressType", "")),
        kind => one_of(kind, &["FQDN", "IPv4", "IPv6"], "addressType".into(), errors),
    }
    for (i, endpoint) in items(Some(object), "endpoints") {
        if items(Some(endpoint), "addresses").next().is_none() {
            let detail = "must contain at least 1 address";
            errors.push(FieldError::required(format!("endpoints[{i}].addresses"), detail));
        }
    }
}

#[cfg(test)]
mod tests;
