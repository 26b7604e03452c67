//! Configuration and what limits its use: ConfigMaps, Secrets, quotas, limits, leases, nodes.

use base64::Engine as _;
use serde_json::Value;

use super::rule::{Errors, Node, Rule, check, form};
use super::words::{self, Form};
use crate::machinery::builtin::quantity::Amount;
use crate::machinery::{FieldError, Reason};

use Rule::{By, Count, Each, In, Need, OneOf, Positive, Text};

/// Bytes that a ConfigMap or Secret may hold.
const MOST_DATA: usize = 1024 * 1024;

fn data(object: &Node<'_>, names: &[&str], at: &str, errors: &mut Errors) {
    let mut size = 0;
    for name in names {
        for (key, value) in object.entries(name) {
            form(Form::DataKey, key, &format!("{name}[{key}]"), errors);
            let twin = object.get("binaryData").and_then(|data| data.get(key));
            if *name == "data" && twin.is_some() {
                let detail = "duplicate of key present in binaryData";
                errors.push(FieldError::invalid(
                    format!("data[{key}]"),
                    &key.as_str().into(),
                    detail,
                ));
            }
            let length = value.as_str().map_or(0, str::len);
            // What is written in base64 is smaller when it is kept.
            size += if at == "data" || *name == "binaryData" {
                length / 4 * 3
            } else {
                length
            };
        }
    }
    if size > MOST_DATA {
        let message = format!("Too long: may not be more than {MOST_DATA} bytes");
        errors.push(FieldError::new(at, Reason::TooLong, message));
    }
}

pub(super) const CONFIG_MAP: &[Rule] = &[By(|object, errors| data(object, &["data", "binaryData"], "[]", errors))];

pub(super) const SECRET: &[Rule] = &[
    By(|object, errors| data(object, &["data"], "data", errors)),
    By(of_type),
];

const JSON_KEYS: [(&str, &str); 2] = [
    ("kubernetes.io/dockercfg", ".dockercfg"),
    ("kubernetes.io/dockerconfigjson", ".dockerconfigjson"),
];

fn of_type(secret: &Node<'_>, errors: &mut Errors) {
    let has = |key: &str| secret.get("data").and_then(|data| data.get(key));
    let mut require = |keys: &[&str]| {
        for key in keys {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    };
    let kind = secret.text("type");
    match kind {
        "kubernetes.io/basic-auth" if has("username").is_none() && has("password").is_none() => {
            require(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if has("ssh-privatekey").is_none_or(|key| *key == "") => require(&["ssh-privatekey"]),
        "kubernetes.io/tls" => {
            let missing = ["tls.crt", "tls.key"].into_iter().filter(|key| has(key).is_none());
            require(&missing.collect::<Vec<_>>());
        }
        "kubernetes.io/service-account-token" => {
            let name = "kubernetes.io/service-account.name";
            let account = secret
                .value
                .pointer("/metadata/annotations")
                .and_then(|all| all.get(name));
            if account.is_none_or(|account| *account == "") {
                errors.push(FieldError::required(format!("metadata.annotations[{name}]"), ""));
            }
        }
        _ => {}
    }
    let Some((_, key)) = JSON_KEYS.iter().find(|(name, _)| *name == kind) else {
        return;
    };
    let at = format!("data[{key}]");
    let Some(text) = has(key).and_then(Value::as_str) else {
        return errors.push(FieldError::required(at, ""));
    };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        let detail = if bytes.is_empty() {
            "unexpected end of JSON input".to_owned()
        } else {
            error.to_string()
        };
        errors.push(FieldError::invalid(at, &"<secret contents redacted>".into(), &detail));
    }
}

pub(super) const QUOTA: &[Rule] = &[In(
    "spec",
    &[By(|spec, errors| {
        for (name, value) in spec.entries("hard") {
            let at = format!("{}[{name}]", spec.path("hard"));
            if !Form::LabelKey.fits(name) {
                form(Form::LabelKey, name, &at, errors);
            } else if !name.contains('/') && !QUOTA_NAMES.contains(&name.as_str()) && !name.starts_with("count/") {
                for detail in [
                    "must be a standard resource type or fully qualified",
                    "must be a standard resource for quota",
                ] {
                    errors.push(FieldError::invalid(at.clone(), &name.as_str().into(), detail));
                }
            }
            words::amount(value, &at, errors);
        }
    })],
)];

const QUOTA_NAMES: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
    "storage",
];

pub(super) const LIMITS: &[Rule] = &[In("spec", &[By(limits)])];

fn limits(spec: &Node<'_>, errors: &mut Errors) {
    let mut kinds = Vec::new();
    for limit in spec.items("limits") {
        let kind = limit.text("type");
        if !Form::LabelKey.fits(kind) {
            form(Form::LabelKey, kind, &limit.path("type"), errors);
        } else if !kind.contains('/') && !["Container", "Pod", "PersistentVolumeClaim"].contains(&kind) {
            let detail = "must be a standard limit type or fully qualified";
            errors.push(FieldError::invalid(limit.path("type"), &kind.into(), detail));
        }
        if kinds.contains(&kind) {
            errors.push(FieldError::duplicate(limit.path("type"), &kind.into()));
        }
        kinds.push(kind);
        if kind == "Pod" {
            for name in ["default", "defaultRequest"]
                .into_iter()
                .filter(|name| limit.count(name) > 0)
            {
                errors.push(FieldError::forbidden(
                    limit.path(name),
                    "may not be specified when `type` is 'Pod'",
                ));
            }
        }
        order(&limit, errors);
    }
}

/// Which amount may not be above which: the two, whose field is blamed, and how they are called.
const ORDERS: [(&str, &str, &str, &str, &str); 6] = [
    ("min", "max", "min", "min value", "max value"),
    (
        "min",
        "defaultRequest",
        "defaultRequest",
        "min value",
        "default request value",
    ),
    (
        "defaultRequest",
        "max",
        "defaultRequest",
        "default request value",
        "max value",
    ),
    (
        "defaultRequest",
        "default",
        "defaultRequest",
        "default request value",
        "default limit value",
    ),
    ("min", "default", "default", "min value", "default value"),
    ("default", "max", "default", "default value", "max value"),
];

fn order(limit: &Node<'_>, errors: &mut Errors) {
    let mut names: Vec<&String> = Vec::new();
    for part in ["max", "min", "default", "defaultRequest"] {
        names.extend(limit.entries(part).map(|(name, _)| name));
    }
    names.sort();
    names.dedup();
    for name in names {
        let amount = |part: &str| limit.get(part).and_then(|amounts| amounts.get(name));
        let nanos = |value: &Value| Amount::of(value).map(Amount::nanos);
        for (less, more, blamed, small, large) in ORDERS {
            let (Some(low), Some(high)) = (amount(less), amount(more)) else {
                continue;
            };
            if nanos(low) > nanos(high) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let detail = format!("{small} {} is greater than {large} {}", text(low), text(high));
                let shown = match (less, more) {
                    ("min", "defaultRequest") | ("default", "max") => high,
                    _ => low,
                };
                errors.push(FieldError::invalid(
                    format!("{}[{name}]", limit.path(blamed)),
                    shown,
                    &detail,
                ));
            }
        }
    }
}

pub(super) const LEASE: &[Rule] = &[In(
    "spec",
    &[Positive("leaseDurationSeconds"), Count("leaseTransitions")],
)];

pub(super) const NODE: &[Rule] = &[By(|node, errors| {
    // Kubernetes tells of taints as if they were metadata.
    let null = Value::Null;
    let spec = Node::at(node.get("spec").unwrap_or(&null), "metadata");
    check(TAINTS, &spec, errors);
})];

const TAINTS: &[Rule] = &[Each(
    "taints",
    &[
        By(|taint, errors| form(Form::LabelKey, taint.text("key"), &taint.path("key"), errors)),
        By(|taint, errors| {
            for problem in Form::LabelValue.problems(taint.text("value")) {
                errors.push(FieldError::invalid(
                    taint.path("value"),
                    &taint.text("value").into(),
                    &problem,
                ));
            }
        }),
        OneOf("effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"]),
    ],
)];

pub(super) const PRIORITY: &[Rule] = &[
    By(|class, errors| {
        let name = class
            .value
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let value = class.number("value").unwrap_or(0);
        let system = ["system-cluster-critical", "system-node-critical"].contains(&name);
        if name.starts_with("system-") && !system {
            let why = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a \
                 known system priority class"
            );
            errors.push(FieldError::forbidden("metadata.name", &why));
        } else if !system && value > 1_000_000_000 {
            let why = "maximum allowed value of a user defined priority is 1000000000";
            errors.push(FieldError::forbidden("value", why));
        }
    }),
    Rule::MayBe("preemptionPolicy", &["PreemptLowerPriority", "Never"]),
];

pub(super) const RUNTIME: &[Rule] = &[Need("handler"), Text("handler", Form::Label)];

pub(super) const API_SERVICE: &[Rule] = &[By(|object, errors| {
    let name = object
        .value
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let text = |field: &str| {
        object
            .value
            .pointer(&format!("/spec/{field}"))
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let wanted = format!("{}.{}", text("version"), text("group"));
    if name != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        errors.push(FieldError::invalid("metadata.name", &name.into(), &detail));
    }
    check(&[In("spec", &[By(priorities)])], object, errors);
})];

fn priorities(spec: &Node<'_>, errors: &mut Errors) {
    for (name, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let number = spec.number(name).unwrap_or(0);
        if !(1..=most).contains(&number) {
            let detail = format!("must be positive and less than {most}");
            errors.push(FieldError::invalid(spec.path(name), &number.into(), &detail));
        }
    }
}
