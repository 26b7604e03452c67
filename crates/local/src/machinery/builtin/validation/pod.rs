//! The specification of a pod, or of a workload's template.

use serde_json::Value;

use super::rule::{Errors, Node, Rule, check, form, invalid_whole, one_of};
use super::words::Form;
use super::{container, selector, volume};
use crate::machinery::{FieldError, metadata};

use Rule::{By, Each, In, Labels, MayBe, NeedFor, Never, OneOf, Positive, Selector, Text, Texts, Within};

const RESTART: &[&str] = &["Always", "OnFailure", "Never"];
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// A pod of its own.
pub(super) const POD: &[Rule] = &[By(|node, errors| spec(node, "spec", errors)), In("spec", IMAGES)];

const IMAGES: &[Rule] = &[Each("containers", IMAGE), Each("initContainers", IMAGE)];

const IMAGE: &[Rule] = &[By(|container, errors| {
    let image = container.text("image");
    if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(container.path("image"), &image.into(), detail));
    }
})];

/// Checks the specification under `name`.
pub(super) fn spec(holder: &Node<'_>, name: &str, errors: &mut Errors) {
    let empty = Value::Object(serde_json::Map::new());
    let spec = holder.get(name).unwrap_or(&empty);
    let node = Node {
        value: spec,
        at: holder.path(name),
        parent: holder.value,
        pod: spec,
    };
    check(SPEC, &node, errors);
}

/// The template of a workload, whose pods restart always.
pub(super) fn template(node: &Node<'_>, errors: &mut Errors) {
    let part = |name: &str| node.value.get("metadata").and_then(|metadata| metadata.get(name));
    errors.extend(metadata::labels(part("labels"), &node.path("labels")));
    errors.extend(metadata::annotations(part("annotations"), &node.path("annotations")));
    spec(node, "spec", errors);
    if let Some(spec) = node.child("spec") {
        let why = "ephemeral containers not allowed in pod template";
        check(&[Never(&["ephemeralContainers"], why)], &spec, errors);
    }
}

/// Demands on the template of a workload of this name that runs for ever.
pub(super) fn runs_for_ever(node: &Node<'_>, of: &str, errors: &mut Errors) {
    let Some(spec) = node.child("spec") else { return };
    one_of(
        spec.get("restartPolicy"),
        &["Always"],
        spec.path("restartPolicy"),
        errors,
    );
    if spec.has("activeDeadlineSeconds") {
        let why = format!("activeDeadlineSeconds in {of} is not Supported");
        errors.push(FieldError::forbidden(spec.path("activeDeadlineSeconds"), &why));
    }
}

const SPEC: &[Rule] = &[
    By(volume::all),
    By(containers),
    By(init_containers),
    By(host_ports),
    OneOf("restartPolicy", RESTART),
    OneOf(
        "dnsPolicy",
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    ),
    Labels("nodeSelector"),
    In("securityContext", SECURITY),
    In("affinity", AFFINITY),
    By(dns),
    Each("readinessGates", &[Text("conditionType", Form::LabelKey)]),
    Each(
        "schedulingGates",
        &[By(|node, errors| {
            form(Form::LabelKey, node.text("name"), &node.at, errors)
        })],
    ),
    Each("topologySpreadConstraints", SPREAD),
    Text("serviceAccountName", Form::Subdomain),
    Text("nodeName", Form::Subdomain),
    Within("activeDeadlineSeconds", 1, 2_147_483_647),
    Text("hostname", Form::Label),
    Text("subdomain", Form::Label),
    Each("tolerations", TOLERATION),
    Each(
        "hostAliases",
        &[Text("ip", Form::Address), Texts("hostnames", Form::Subdomain)],
    ),
    Text("priorityClassName", Form::Subdomain),
    Text("runtimeClassName", Form::Subdomain),
    MayBe("preemptionPolicy", &["PreemptLowerPriority", "Never"]),
];

const SECURITY: &[Rule] = &[
    By(|node, errors| check(container::IDS, node, errors)),
    By(|node, errors| {
        for group in node.items("supplementalGroups") {
            if group.value.as_i64().is_none_or(|id| !(0..=2_147_483_647).contains(&id)) {
                let detail = "must be between 0 and 2147483647, inclusive";
                errors.push(FieldError::invalid(group.at, group.value, detail));
            }
        }
    }),
    MayBe("fsGroupChangePolicy", &["Always", "OnRootMismatch"]),
    In("seccompProfile", container::SECCOMP),
];

fn containers(spec: &Node<'_>, errors: &mut Errors) {
    if spec.count("containers") == 0 {
        return errors.push(FieldError::required(spec.path("containers"), ""));
    }
    let mut names = Vec::new();
    for item in spec.items("containers") {
        check(container::COMMON, &item, errors);
        unique_name(&item, &mut names, errors);
        check(container::LIFE, &item, errors);
    }
}

fn unique_name<'a>(item: &Node<'a>, names: &mut Vec<&'a str>, errors: &mut Errors) {
    let name = item.text("name");
    if names.contains(&name) {
        errors.push(FieldError::duplicate(item.path("name"), &name.into()));
    }
    names.push(name);
}

fn init_containers(spec: &Node<'_>, errors: &mut Errors) {
    let regular = Node::at(spec.value, "");
    let mut names: Vec<&str> = regular.items("containers").map(|item| item.text("name")).collect();
    for item in spec.items("initContainers") {
        check(container::COMMON, &item, errors);
        unique_name(&item, &mut names, errors);
        if item.text("restartPolicy") == "Always" {
            check(container::LIFE, &item, errors);
        } else {
            let why = "may not be set for init containers without restartPolicy=Always";
            let names = &["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"];
            for name in names.iter().filter(|name| item.has(name)) {
                errors.push(FieldError::forbidden(item.path(name), why));
            }
        }
    }
}

/// Containers of a host's network listen on the host's ports.
fn host_ports(spec: &Node<'_>, errors: &mut Errors) {
    if !spec.is("hostNetwork") {
        return;
    }
    for port in spec.items("containers").flat_map(|item| item.items("ports")) {
        let host = port.number("hostPort").unwrap_or(0);
        if host != port.number("containerPort").unwrap_or(0) {
            let detail = "must match `containerPort` when `hostNetwork` is true";
            errors.push(FieldError::invalid(
                port.path("containerPort"),
                &port.value["containerPort"],
                detail,
            ));
        }
    }
}

fn dns(spec: &Node<'_>, errors: &mut Errors) {
    if spec.text("dnsPolicy") == "None" {
        let at = spec.path("dnsConfig");
        match spec.child("dnsConfig") {
            None => errors.push(FieldError::required(
                at,
                "must provide `dnsConfig` when `dnsPolicy` is None",
            )),
            Some(config) if config.count("nameservers") == 0 => {
                let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                errors.push(FieldError::required(config.path("nameservers"), detail));
            }
            Some(_) => {}
        }
    }
    check(&[In("dnsConfig", &[Texts("nameservers", Form::Address)])], spec, errors);
}

const TOLERATION: &[Rule] = &[Text("key", Form::LabelKey), By(toleration)];

fn toleration(node: &Node<'_>, errors: &mut Errors) {
    let (operator, value, effect) = (node.text("operator"), node.text("value"), node.text("effect"));
    let at = node.path("operator");
    if node.text("key").is_empty() && operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(at.clone(), &operator.into(), detail));
    }
    if node.has("tolerationSeconds") && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(node.path("effect"), &effect.into(), detail));
    }
    match operator {
        "" | "Equal" => form(Form::LabelValue, value, &at, errors),
        "Exists" if !value.is_empty() => {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(at, &value.into(), detail));
        }
        "Exists" => {}
        _ => one_of(node.get("operator"), &["Equal", "Exists"], at, errors),
    }
    if !effect.is_empty() {
        one_of(node.get("effect"), EFFECTS, node.path("effect"), errors);
    }
}

const SPREAD: &[Rule] = &[
    By(|node, errors| {
        if node.number("maxSkew").unwrap_or(0) < 1 {
            let shown = node.number("maxSkew").unwrap_or(0).into();
            errors.push(FieldError::invalid(
                node.path("maxSkew"),
                &shown,
                "must be greater than zero",
            ));
        }
    }),
    NeedFor("topologyKey", "can not be empty"),
    Text("topologyKey", Form::LabelKey),
    By(|node, errors| {
        let words = &["DoNotSchedule", "ScheduleAnyway"];
        one_of(
            node.get("whenUnsatisfiable"),
            words,
            node.path("whenUnsatisfiable"),
            errors,
        );
    }),
    Positive("minDomains"),
    MayBe("nodeAffinityPolicy", &["Honor", "Ignore"]),
    MayBe("nodeTaintsPolicy", &["Honor", "Ignore"]),
    Selector("labelSelector"),
];

const AFFINITY: &[Rule] = &[
    In(
        "nodeAffinity",
        &[
            In(REQUIRED, NODE_SELECTOR),
            Each(PREFERRED, &[Within("weight", 1, 100), In("preference", NODE_TERM)]),
        ],
    ),
    In("podAffinity", POD_AFFINITY),
    In("podAntiAffinity", POD_AFFINITY),
];

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) const NODE_SELECTOR: &[Rule] = &[
    NeedFor("nodeSelectorTerms", "must have at least one node selector term"),
    Each("nodeSelectorTerms", NODE_TERM),
];

const NODE_TERM: &[Rule] = &[Each("matchExpressions", &[By(node_expression)])];

fn node_expression(node: &Node<'_>, errors: &mut Errors) {
    let count = node.count("values");
    let at = node.path("values");
    match node.text("operator") {
        "In" | "NotIn" if count == 0 => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(at, detail));
        }
        "Exists" | "DoesNotExist" if count > 0 => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(at, detail));
        }
        "Gt" | "Lt" if count != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(at, detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => {
            let detail = "not a valid selector operator";
            errors.push(FieldError::invalid(node.path("operator"), &other.into(), detail));
        }
    }
    form(Form::LabelKey, node.text("key"), &node.path("key"), errors);
}

const POD_AFFINITY: &[Rule] = &[
    Each(REQUIRED, POD_TERM),
    Each(PREFERRED, &[Within("weight", 1, 100), In("podAffinityTerm", POD_TERM)]),
];

const POD_TERM: &[Rule] = &[
    Selector("labelSelector"),
    NeedFor("topologyKey", "can not be empty"),
    By(|node, errors| {
        form(
            Form::LabelKey,
            node.text("topologyKey"),
            &node.path("topologyKey"),
            errors,
        )
    }),
];

/// Checks the selector of a workload and that it selects the workload's pods; `kind` is how messages call it.
pub(super) fn selected(spec: &Node<'_>, kind: &str, template: fn(&Node<'_>, &mut Errors), errors: &mut Errors) {
    let at = spec.path("selector");
    let null = Value::Null;
    let chosen = spec.get("selector").unwrap_or(&null);
    let whole = |detail: &str| {
        let shown = selector::shown(chosen);
        FieldError::new(
            at.clone(),
            crate::machinery::Reason::Invalid,
            format!("Invalid value: {shown}: {detail}"),
        )
    };
    if chosen.is_null() {
        errors.push(FieldError::required(at.clone(), ""));
    } else {
        selector::check(&Node::at(chosen, &at), errors);
        if selector::is_empty(chosen) {
            errors.push(whole(&format!("empty selector is invalid for {kind}")));
        }
    }
    if !selector::is_usable(chosen) {
        return errors.push(whole("invalid label selector"));
    }
    let empty = serde_json::json!({});
    let pods = spec.get("template").unwrap_or(&empty);
    let labels = pods.pointer("/metadata/labels");
    if chosen.is_null() || (!selector::is_empty(chosen) && !selector::selects(chosen, labels)) {
        let detail = "`selector` does not match template `labels`";
        errors.push(invalid_whole(
            spec.path("template.metadata.labels"),
            labels.unwrap_or(&null),
            detail,
        ));
    }
    template(&Node::at(pods, &spec.path("template")), errors);
}
