//! The spec of a pod, or of a workload's template.

use std::collections::BTreeSet;

use serde_json::Value;

use super::words::{self, is_dns_label};
use super::{items, not_negative, one_of, port_number, text};
use crate::machinery::{FieldError, Reason};

/// Whose spec it is.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Place {
    Pod,
    Template,
}

pub(super) fn spec(spec: Option<&Value>, at: &str, place: Place, errors: &mut Vec<FieldError>) {
    let Some(spec) = spec else {
        return errors.push(FieldError::required(format!("{at}.containers"), ""));
    };
    if items(Some(spec), "containers").next().is_none() {
        errors.push(FieldError::required(format!("{at}.containers"), ""));
    }
    let volumes = volumes(spec, at, errors);
    let mut names = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        for (i, one) in items(Some(spec), list) {
            let at = format!("{at}.{list}[{i}]");
            container_name(one, &at, &mut names, errors);
            container(one, &at, &volumes, errors);
        }
    }
    let policies: &[&str] = if place == Place::Pod {
        &["Always", "Never", "OnFailure"]
    } else {
        &["Always"]
    };
    one_of(
        spec.get("restartPolicy"),
        policies,
        format!("{at}.restartPolicy"),
        errors,
    );
    let dns = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    one_of(spec.get("dnsPolicy"), &dns, format!("{at}.dnsPolicy"), errors);
    let grace = "terminationGracePeriodSeconds";
    not_negative(spec.get(grace), format!("{at}.{grace}"), errors);
}

fn volumes<'a>(spec: &'a Value, at: &str, errors: &mut Vec<FieldError>) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (i, volume) in items(Some(spec), "volumes") {
        let at = format!("{at}.volumes[{i}]");
        let name = text(volume, "name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else if !is_dns_label(name) {
            errors.push(FieldError::invalid(
                format!("{at}.name"),
                &name.into(),
                words::DNS_LABEL,
            ));
        } else if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{at}.name"), &name.into()));
        }
        match volume.as_object().map_or(0, serde_json::Map::len) {
            0 | 1 => errors.push(FieldError::required(at, "must specify a volume type")),
            2 => {}
            _ => errors.push(FieldError::forbidden(at, "may not specify more than 1 volume type")),
        }
    }
    names
}

fn container_name<'a>(container: &'a Value, at: &str, names: &mut BTreeSet<&'a str>, errors: &mut Vec<FieldError>) {
    let name = text(container, "name");
    let at = format!("{at}.name");
    if name.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else if !is_dns_label(name) {
        errors.push(FieldError::invalid(at, &name.into(), words::DNS_LABEL));
    } else if !names.insert(name) {
        errors.push(FieldError::duplicate(at, &name.into()));
    }
}

fn container(container: &Value, at: &str, volumes: &BTreeSet<&str>, errors: &mut Vec<FieldError>) {
    let image = text(container, "image");
    if image.is_empty() {
        errors.push(FieldError::required(format!("{at}.image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(format!("{at}.image"), &image.into(), detail));
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    one_of(
        container.get("imagePullPolicy"),
        &policies,
        format!("{at}.imagePullPolicy"),
        errors,
    );
    let mut names = BTreeSet::new();
    for (i, port) in items(Some(container), "ports") {
        let at = format!("{at}.ports[{i}]");
        port_number(port.get("containerPort"), format!("{at}.containerPort"), errors);
        one_of(
            port.get("protocol"),
            &["SCTP", "TCP", "UDP"],
            format!("{at}.protocol"),
            errors,
        );
        let name = text(port, "name");
        if !name.is_empty() && !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{at}.name"), &name.into()));
        }
    }
    for (i, variable) in items(Some(container), "env") {
        environment(variable, &format!("{at}.env[{i}]"), errors);
    }
    mounts(container, at, volumes, errors);
    for kind in ["limits", "requests"] {
        let amounts = container.pointer(&format!("/resources/{kind}"));
        for (name, amount) in super::fields(amounts) {
            words::quantity(amount, format!("{at}.resources.{kind}[{name}]"), errors);
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probed) = container.get(kind) {
            probe(probed, &format!("{at}.{kind}"), errors);
        }
    }
}

fn environment(variable: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if text(variable, "name").is_empty() {
        errors.push(FieldError::required(format!("{at}.name"), ""));
    }
    let Some(from) = variable.get("valueFrom").and_then(Value::as_object) else {
        return;
    };
    if !text(variable, "value").is_empty() {
        let detail = "may not be specified when `value` is not empty";
        errors.push(FieldError::invalid(format!("{at}.valueFrom"), &"".into(), detail));
    }
    if from.len() != 1 {
        let detail = "must specify exactly one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
        errors.push(FieldError::invalid(format!("{at}.valueFrom"), &"".into(), detail));
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = from.get(source)
            && text(reference, "key").is_empty()
        {
            errors.push(FieldError::required(format!("{at}.valueFrom.{source}.key"), ""));
        }
    }
}

fn mounts(container: &Value, at: &str, volumes: &BTreeSet<&str>, errors: &mut Vec<FieldError>) {
    let mut paths = BTreeSet::new();
    for (i, mount) in items(Some(container), "volumeMounts") {
        let at = format!("{at}.volumeMounts[{i}]");
        let (name, path) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(format!("{at}.name"), ""));
        } else if !volumes.contains(name) {
            errors.push(FieldError::new(
                format!("{at}.name"),
                Reason::NotFound,
                format!("Not found: {name:?}"),
            ));
        }
        if path.is_empty() {
            errors.push(FieldError::required(format!("{at}.mountPath"), ""));
        } else if !paths.insert(path) {
            errors.push(FieldError::invalid(
                format!("{at}.mountPath"),
                &path.into(),
                "must be unique",
            ));
        }
        let part = text(mount, "subPath");
        if part.starts_with('/') {
            errors.push(FieldError::invalid(
                format!("{at}.subPath"),
                &part.into(),
                "must be a relative path",
            ));
        } else if part.split('/').any(|step| step == "..") {
            errors.push(FieldError::invalid(
                format!("{at}.subPath"),
                &part.into(),
                "must not contain '..'",
            ));
        }
    }
}

fn probe(probe: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let handlers = ["exec", "grpc", "httpGet", "tcpSocket"];
    match handlers.iter().filter(|handler| probe.get(**handler).is_some()).count() {
        0 => errors.push(FieldError::required(at, "must specify a handler type")),
        1 => {}
        _ => errors.push(FieldError::forbidden(at, "may not specify more than 1 handler type")),
    }
    for name in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        not_negative(probe.get(name), format!("{at}.{name}"), errors);
    }
}
