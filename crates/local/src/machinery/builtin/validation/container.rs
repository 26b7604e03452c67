//! Containers: what runs in a pod, with its ports, environment, mounts, probes and limits.

use serde_json::Value;

use super::rule::{Errors, Node, Rule, check, form, need, one_kind, one_of, port};
use super::words::{self, Form};
use crate::machinery::builtin::quantity::Amount;
use crate::machinery::{FieldError, Reason};

use Rule::{By, Count, Each, In, MayBe, Need, NeedFor, OneOf, Port, PortOrName, Positive, Text, Unique, Within};

pub(super) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// What every container is held to; the checks that follow for its name, probes and hooks depend on its list.
pub(super) const COMMON: &[Rule] = &[
    Need("name"),
    Text("name", Form::Label),
    Need("image"),
    OneOf("terminationMessagePolicy", &["File", "FallbackToLogsOnError"]),
    By(ports),
    Each("env", VARIABLE),
    By(environment_sources),
    By(mounts),
    OneOf("imagePullPolicy", &["Always", "IfNotPresent", "Never"]),
    In("resources", &[By(resources)]),
    In("securityContext", SECURITY),
];

/// Probes and hooks.
pub(super) const LIFE: &[Rule] = &[
    In("lifecycle", &[In("postStart", HANDLER), In("preStop", HANDLER)]),
    In("livenessProbe", ONCE),
    In("readinessProbe", PROBE),
    In("startupProbe", ONCE),
];

const PORT: &[Rule] = &[By(container_port)];

fn ports(container: &Node<'_>, errors: &mut Errors) {
    let mut names = Vec::new();
    for item in container.items("ports") {
        let name = item.text("name");
        if !name.is_empty() && !Form::PortName.fits(name) {
            form(Form::PortName, name, &item.path("name"), errors);
        } else if !name.is_empty() && names.contains(&name) {
            errors.push(FieldError::duplicate(item.path("name"), &name.into()));
        } else {
            names.push(name);
        }
        check(PORT, &item, errors);
    }
}

fn container_port(item: &Node<'_>, errors: &mut Errors) {
    for name in ["containerPort", "hostPort"] {
        match item.number(name).unwrap_or(0) {
            0 if name == "hostPort" => {}
            0 => errors.push(FieldError::required(item.path(name), "")),
            number => port(&number.into(), item.path(name), errors),
        }
    }
    check(&[OneOf("protocol", PROTOCOLS)], item, errors);
}

const VARIABLE: &[Rule] = &[Need("name"), Text("name", Form::Variable), By(value_from)];

const KEY: &[Rule] = &[Text("name", Form::Subdomain), Need("key"), Text("key", Form::DataKey)];

const SOURCES: &str =
    "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";

fn value_from(variable: &Node<'_>, errors: &mut Errors) {
    let Some(from) = variable.child("valueFrom") else {
        return;
    };
    let rules: &[Rule] = &[
        In(
            "fieldRef",
            &[By(|node, errors| field_reference(node, ENVIRONMENT_FIELDS, errors))],
        ),
        In("resourceFieldRef", RESOURCE_FIELD),
        In("configMapKeyRef", KEY),
        In("secretKeyRef", KEY),
    ];
    check(rules, &from, errors);
    let count = from.count("");
    let sources = from.value.as_object().map_or(count, serde_json::Map::len);
    let detail = match (sources, variable.text("value")) {
        (0, _) => SOURCES,
        (1, "") => return,
        (_, "") => "may not have more than one field specified at a time",
        _ => "may not be specified when `value` is not empty",
    };
    errors.push(FieldError::invalid(from.at.clone(), &"".into(), detail));
}

const ENVIRONMENT_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub(super) const VOLUME_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// A field of the pod that a container is told.
pub(super) fn field_reference(node: &Node<'_>, fields: &[&str], errors: &mut Errors) {
    let path = node.text("fieldPath");
    if path.is_empty() {
        return need(node, "fieldPath", "", errors);
    }
    let keyed = path.strip_suffix("']").and_then(|path| path.split_once("['"));
    if let Some((of, key)) = keyed.filter(|(of, _)| matches!(*of, "metadata.annotations" | "metadata.labels")) {
        let key = if of == "metadata.labels" {
            key.to_owned()
        } else {
            key.to_lowercase()
        };
        return form(Form::LabelKey, &key, &node.at, errors);
    }
    let known = ENVIRONMENT_FIELDS.contains(&path) || VOLUME_FIELDS.contains(&path);
    if !known && !matches!(path, "spec.restartPolicy" | "spec.schedulerName" | "status.phase") {
        let detail = format!("error converting fieldPath: field label not supported: {path}");
        errors.push(FieldError::invalid(node.path("fieldPath"), &path.into(), &detail));
    } else {
        one_of(node.get("fieldPath"), fields, node.path("fieldPath"), errors);
    }
}

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const RESOURCE_FIELD: &[Rule] = &[By(|node, errors| {
    let resource = node.text("resource");
    if resource.is_empty() {
        need(node, "resource", "", errors);
    } else if !["limits.hugepages-", "requests.hugepages-"]
        .iter()
        .any(|huge| resource.starts_with(huge))
    {
        one_of(node.get("resource"), RESOURCES, node.path("resource"), errors);
    }
})];

fn environment_sources(container: &Node<'_>, errors: &mut Errors) {
    for source in container.items("envFrom") {
        check(&[Text("prefix", Form::Variable)], &source, errors);
        let mut count = 0;
        for name in ["configMapRef", "secretRef"] {
            if let Some(reference) = source.child(name) {
                count += 1;
                check(&[Need("name"), Text("name", Form::Subdomain)], &reference, errors);
            }
        }
        let detail = match count {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(FieldError::invalid(container.path("envFrom"), &"".into(), detail));
    }
}

/// A path that stays below where it begins.
pub(super) fn descending(path: &str, at: &str, errors: &mut Errors) {
    if path.starts_with('/') {
        errors.push(FieldError::invalid(at, &path.into(), "must be a relative path"));
    }
    no_parent(path, at, errors);
}

pub(super) fn no_parent(path: &str, at: &str, errors: &mut Errors) {
    if path.split('/').any(|step| step == "..") {
        errors.push(FieldError::invalid(at, &path.into(), "must not contain '..'"));
    }
}

fn mounts(container: &Node<'_>, errors: &mut Errors) {
    let volumes = Node::at(container.pod, "");
    let known = |name: &str| {
        let mut all = volumes.items("volumes");
        all.any(|volume| volume.text("name") == name && super::volume::is_sound(&volume))
    };
    let mut paths = Vec::new();
    for mount in container.items("volumeMounts") {
        let (name, path) = (mount.text("name"), mount.text("mountPath"));
        need(&mount, "name", "", errors);
        if !known(name) {
            let message = format!("Not found: {name:?}");
            errors.push(FieldError::new(mount.path("name"), Reason::NotFound, message));
        }
        need(&mount, "mountPath", "", errors);
        if paths.contains(&path) {
            errors.push(FieldError::invalid(
                mount.path("mountPath"),
                &path.into(),
                "must be unique",
            ));
        }
        paths.push(path);
        for name in ["subPath", "subPathExpr"] {
            descending(
                mount.text(name),
                &container.path(&format!("volumeMounts.{name}")),
                errors,
            );
        }
        let words = &["Bidirectional", "HostToContainer", "None"];
        one_of(
            mount.get("mountPropagation"),
            words,
            container.path("volumeMounts.mountPropagation"),
            errors,
        );
    }
}

const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// Requests and limits of a container.
pub(super) fn resources(node: &Node<'_>, errors: &mut Errors) {
    for part in ["limits", "requests"] {
        for (name, value) in node.entries(part) {
            let at = format!("{}[{name}]", node.path(part));
            resource_name(name, &at, errors);
            words::amount(value, &at, errors);
            if !is_native(name) && Amount::of(value).is_some_and(|amount| amount.nanos() % 1_000_000_000 != 0) {
                errors.push(FieldError::invalid(&at, value, "must be an integer"));
            }
            let limit = node.get("limits").and_then(|limits| limits.get(name));
            if part == "requests" {
                request(node, name, value, limit, errors);
            }
        }
    }
}

/// Whether more of a resource may be promised than there is.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn resource_name(name: &str, at: &str, errors: &mut Errors) {
    let shown = Value::from(name);
    if !Form::LabelKey.fits(name) {
        return form(Form::LabelKey, name, at, errors);
    }
    if !name.contains('/') && !STANDARD.contains(&name) && !name.starts_with("hugepages-") {
        if !["storage", "pods", "services", "secrets", "configmaps"].contains(&name) {
            let detail = "must be a standard resource type or fully qualified";
            errors.push(FieldError::invalid(at, &shown, detail));
        }
        errors.push(FieldError::invalid(
            at,
            &shown,
            "must be a standard resource for containers",
        ));
    }
}

fn request(node: &Node<'_>, name: &str, value: &Value, limit: Option<&Value>, errors: &mut Errors) {
    let overcommit = is_native(name) && !name.starts_with("hugepages-");
    let amount = |value: &Value| Amount::of(value).map(Amount::nanos);
    let Some(limit) = limit else {
        if !overcommit {
            let detail = "Limit must be set for non overcommitable resources";
            errors.push(FieldError::required(node.path("limits"), detail));
        }
        return;
    };
    let text = limit.as_str().unwrap_or_default();
    let detail = if amount(value) != amount(limit) && !overcommit {
        format!("must be equal to {name} limit of {text}")
    } else if amount(value) > amount(limit) {
        format!("must be less than or equal to {name} limit of {text}")
    } else {
        return;
    };
    errors.push(FieldError::invalid(node.path("requests"), value, &detail));
}

const PROBE: &[Rule] = &[
    By(handler),
    Count("initialDelaySeconds"),
    Count("timeoutSeconds"),
    Count("periodSeconds"),
    Count("successThreshold"),
    Count("failureThreshold"),
    Positive("terminationGracePeriodSeconds"),
];

const ONCE: &[Rule] = &[
    By(|node, errors| check(PROBE, node, errors)),
    By(|node, errors| {
        if let Some(number) = node.number("successThreshold").filter(|number| *number != 1) {
            errors.push(FieldError::invalid(
                node.path("successThreshold"),
                &number.into(),
                "must be 1",
            ));
        }
    }),
];

const HANDLER: &[Rule] = &[By(handler)];

const HANDLERS: [(&str, &[Rule]); 5] = [
    ("exec", &[Need("command")]),
    ("httpGet", HTTP_GET),
    ("tcpSocket", &[PortOrName("port")]),
    ("grpc", &[Port("port")]),
    ("sleep", &[]),
];

const HTTP_GET: &[Rule] = &[Need("path"), PortOrName("port"), OneOf("scheme", &["HTTP", "HTTPS"])];

fn handler(node: &Node<'_>, errors: &mut Errors) {
    if !one_kind(node, "handler", &HANDLERS, errors) {
        errors.push(FieldError::required(node.at.clone(), "must specify a handler type"));
    }
}

const LARGEST: i64 = 2_147_483_647;

pub(super) const SECCOMP: &[Rule] = &[
    OneOf("type", &["Localhost", "RuntimeDefault", "Unconfined"]),
    By(|node, errors| {
        if node.text("type") == "Localhost" {
            check(
                &[NeedFor(
                    "localhostProfile",
                    "must be set when seccomp type is Localhost",
                )],
                node,
                errors,
            );
        }
    }),
];

pub(super) const IDS: &[Rule] = &[
    Within("fsGroup", 0, LARGEST),
    Within("runAsUser", 0, LARGEST),
    Within("runAsGroup", 0, LARGEST),
];

const SECURITY: &[Rule] = &[
    Within("runAsUser", 0, LARGEST),
    Within("runAsGroup", 0, LARGEST),
    MayBe("procMount", &["Default", "Unmasked"]),
    In("seccompProfile", SECCOMP),
    By(|node, errors| {
        if node.get("allowPrivilegeEscalation") == Some(&Value::Bool(false)) && node.is("privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(node.at.clone(), node.value, detail));
        }
    }),
    Unique("capabilities.add", ""),
];
