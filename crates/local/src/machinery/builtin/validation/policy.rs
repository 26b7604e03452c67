//! Who may do what, who is asked first, and how many there are.

use serde_json::Value;

use super::rule::{Errors, Node, Rule, check, invalid_whole, one_of};
use super::words::Form;
use super::workload::{not_all, portion};
use crate::machinery::{FieldError, Reason};

use Rule::{By, Each, In, MayBe, Need, NeedFor, Selector, Text};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) const ROLE: &[Rule] = &[Each("rules", &[By(|rule, errors| policy_rule(rule, true, errors))])];

pub(super) const CLUSTER_ROLE: &[Rule] = &[
    Each("rules", &[By(|rule, errors| policy_rule(rule, false, errors))]),
    In(
        "aggregationRule",
        &[NeedFor(
            "clusterRoleSelectors",
            "at least one clusterRoleSelector required if aggregationRule is non-nil",
        )],
    ),
];

fn policy_rule(rule: &Node<'_>, namespaced: bool, errors: &mut Errors) {
    check(
        &[NeedFor("verbs", "verbs must contain at least one value")],
        rule,
        errors,
    );
    if rule.count("nonResourceURLs") == 0 {
        let rules = &[
            NeedFor("apiGroups", "resource rules must supply at least one api group"),
            NeedFor("resources", "resource rules must supply at least one resource"),
        ];
        return check(rules, rule, errors);
    }
    let (at, urls) = (rule.path("nonResourceURLs"), &rule.value["nonResourceURLs"]);
    if namespaced {
        let detail = "namespaced rules cannot apply to non-resource URLs";
        errors.push(invalid_whole(at.clone(), urls, detail));
    }
    if ["apiGroups", "resources", "resourceNames"]
        .iter()
        .any(|name| rule.count(name) > 0)
    {
        let detail = "rules cannot apply to both regular resources and non-resource URLs";
        errors.push(invalid_whole(at, urls, detail));
    }
}

pub(super) const ROLE_BINDING: &[Rule] = &[
    In(
        "roleRef",
        &[By(|role, errors| {
            role_reference(role, &["Role", "ClusterRole"], errors)
        })],
    ),
    Each(
        "subjects",
        &[By(|subject, errors| binding_subject(subject, true, errors))],
    ),
];

pub(super) const CLUSTER_ROLE_BINDING: &[Rule] = &[
    In(
        "roleRef",
        &[By(|role, errors| role_reference(role, &["ClusterRole"], errors))],
    ),
    Each(
        "subjects",
        &[By(|subject, errors| binding_subject(subject, false, errors))],
    ),
];

fn role_reference(role: &Node<'_>, kinds: &[&str], errors: &mut Errors) {
    one_of(role.get("apiGroup"), &[GROUP], role.path("apiGroup"), errors);
    one_of(role.get("kind"), kinds, role.path("kind"), errors);
    check(&[Need("name")], role, errors);
}

fn binding_subject(subject: &Node<'_>, namespaced: bool, errors: &mut Errors) {
    check(&[Need("name")], subject, errors);
    let empty = Value::from("");
    let group = subject.get("apiGroup").unwrap_or(&empty);
    match subject.text("kind") {
        "ServiceAccount" => {
            check(&[Text("name", Form::Subdomain)], subject, errors);
            one_of(Some(group), &[""], subject.path("apiGroup"), errors);
            if !namespaced {
                check(&[Need("namespace")], subject, errors);
            }
        }
        "User" | "Group" => one_of(Some(group), &[GROUP], subject.path("apiGroup"), errors),
        _ => {
            let kind = subject.get("kind").unwrap_or(&empty);
            one_of(
                Some(kind),
                &["ServiceAccount", "User", "Group"],
                subject.path("kind"),
                errors,
            );
        }
    }
}

pub(super) const BUDGET: &[Rule] = &[In(
    "spec",
    &[
        By(|spec, errors| {
            if spec.has("minAvailable") && spec.has("maxUnavailable") {
                let amount = |name: &str| match spec.get(name) {
                    Some(Value::String(text)) => format!("{:?}", text),
                    Some(number) => number.to_string(),
                    None => "null".into(),
                };
                let selector = spec
                    .get("selector")
                    .map_or_else(|| "null".into(), super::selector::shown);
                let shown = format!(
                    "{{\"MinAvailable\":{},\"Selector\":{selector},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":null}}",
                    amount("minAvailable"),
                    amount("maxUnavailable"),
                );
                let detail = "minAvailable and maxUnavailable cannot be both set";
                errors.push(FieldError::new(
                    spec.at.clone(),
                    Reason::Invalid,
                    format!("Invalid value: {shown}: {detail}"),
                ));
            }
            for name in ["minAvailable", "maxUnavailable"] {
                portion(spec, name, errors);
                not_all(spec, name, errors);
            }
        }),
        Selector("selector"),
        MayBe("unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]),
    ],
)];

pub(super) const AUTOSCALER: &[Rule] = &[In(
    "spec",
    &[
        By(replicas),
        In(
            "scaleTargetRef",
            &[
                Need("kind"),
                Text("kind", Form::PathPart),
                Need("name"),
                Text("name", Form::PathPart),
                By(|target, errors| {
                    if !target.text("apiVersion").contains('/') {
                        let shown = target.text("apiVersion").into();
                        let detail = "apiVersion must specify API group";
                        errors.push(FieldError::invalid(target.path("apiVersion"), &shown, detail));
                    }
                }),
            ],
        ),
        Each("metrics", &[By(metric)]),
        In("behavior", &[In("scaleUp", SCALING), In("scaleDown", SCALING)]),
    ],
)];

fn replicas(spec: &Node<'_>, errors: &mut Errors) {
    let (least, most) = (spec.number("minReplicas"), spec.number("maxReplicas").unwrap_or(0));
    if let Some(number) = least.filter(|number| *number < 1) {
        let detail = "must be greater than or equal to 1";
        errors.push(FieldError::invalid(spec.path("minReplicas"), &number.into(), detail));
    }
    let at = spec.path("maxReplicas");
    if most == 0 {
        errors.push(FieldError::required(at.clone(), "must be set and greater than 0"));
    } else if most < 0 {
        errors.push(FieldError::invalid(
            at.clone(),
            &most.into(),
            "must be greater than or equal to 1",
        ));
    }
    if least.is_some_and(|least| most < least) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(at, &most.into(), detail));
    }
}

/// Kinds of metrics and the fields that hold them.
const METRICS: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

fn metric(metric: &Node<'_>, errors: &mut Errors) {
    let kind = metric.text("type");
    if kind.is_empty() {
        errors.push(FieldError::required(
            metric.path("type"),
            "must specify a metric source type",
        ));
    }
    let known = METRICS.iter().find(|(name, _)| *name == kind);
    if known.is_none() {
        let kinds = METRICS.map(|(name, _)| name);
        let shown = Value::from(kind);
        one_of(Some(&shown), &kinds, metric.path("type"), errors);
    }
    if let Some(source) = metric.child("resource") {
        check(
            &[NeedFor("name", "must specify a resource name"), In("target", TARGET)],
            &source,
            errors,
        );
    }
    match known {
        Some((_, field)) if !metric.has(field) => {
            let detail = "must populate information for the given metric source";
            errors.push(FieldError::required(metric.path(field), detail));
        }
        Some(_) => {}
        None => {
            let kinds = METRICS.map(|(name, _)| name);
            let shown = Value::from(kind);
            one_of(Some(&shown), &kinds, metric.path("type"), errors);
        }
    }
    let present: Vec<&str> = METRICS
        .iter()
        .map(|(_, field)| *field)
        .filter(|field| metric.has(field))
        .collect();
    if present.len() > 1 {
        for field in present
            .into_iter()
            .filter(|field| known.is_none_or(|(_, expected)| expected != field))
        {
            errors.push(FieldError::forbidden(
                metric.path(field),
                "must populate the given metric source only",
            ));
        }
    }
}

const TARGET: &[Rule] = &[
    NeedFor("type", "must specify a metric target type"),
    MayBe("type", &["AverageValue", "Utilization", "Value"]),
    Rule::Positive("averageUtilization"),
    By(
        |target, errors| match (target.has("averageUtilization"), target.has("averageValue")) {
            (false, false) => {
                let detail = "must set either a target raw value or a target utilization";
                errors.push(FieldError::required(target.path("averageUtilization"), detail));
            }
            (true, true) => {
                let why = "may not set both a target raw value and a target utilization";
                errors.push(FieldError::forbidden(target.path("averageValue"), why));
            }
            _ => {}
        },
    ),
];

const SCALING: &[Rule] = &[
    Rule::Count("stabilizationWindowSeconds"),
    MayBe("selectPolicy", &["Disabled", "Max", "Min"]),
    Each(
        "policies",
        &[
            MayBe("type", &["Percent", "Pods"]),
            Rule::Positive("value"),
            Rule::Positive("periodSeconds"),
        ],
    ),
];

pub(super) const WEBHOOKS: &[Rule] = &[Each(
    "webhooks",
    &[
        By(qualified_name),
        Each("rules", &[By(operations)]),
        MayBe("failurePolicy", &["Fail", "Ignore"]),
        MayBe("matchPolicy", &["Equivalent", "Exact"]),
        By(|hook, errors| {
            if !hook.has("sideEffects") {
                let detail = "must specify one of None, NoneOnDryRun";
                errors.push(FieldError::required(hook.path("sideEffects"), detail));
            }
        }),
        MayBe("sideEffects", &["None", "NoneOnDryRun"]),
        By(|hook, errors| {
            if let Some(number) = hook
                .number("timeoutSeconds")
                .filter(|number| !(1..=30).contains(number))
            {
                let detail = "the timeout value must be between 1 and 30 seconds";
                errors.push(FieldError::invalid(hook.path("timeoutSeconds"), &number.into(), detail));
            }
        }),
        Selector("namespaceSelector"),
        Selector("objectSelector"),
        MayBe("reinvocationPolicy", &["IfNeeded", "Never"]),
        By(|hook, errors| {
            let config = hook.get("clientConfig");
            let has = |name: &str| config.is_some_and(|config| config.get(name).is_some());
            if has("url") == has("service") {
                let detail = "exactly one of url or service is required";
                errors.push(FieldError::required(hook.path("clientConfig"), detail));
            }
            check(
                &[In("clientConfig", &[In("service", &[Need("name"), Need("namespace")])])],
                hook,
                errors,
            );
        }),
        By(versions),
    ],
)];

fn versions(hook: &Node<'_>, errors: &mut Errors) {
    let at = hook.path("admissionReviewVersions");
    if hook.count("admissionReviewVersions") == 0 {
        return errors.push(FieldError::required(at, "must specify one of v1, v1beta1"));
    }
    let mut known = hook.items("admissionReviewVersions");
    if !known.any(|version| ["v1", "v1beta1"].iter().any(|name| version.value == name)) {
        let detail = "must include at least one of v1, v1beta1";
        errors.push(invalid_whole(at, &hook.value["admissionReviewVersions"], detail));
    }
}

fn qualified_name(hook: &Node<'_>, errors: &mut Errors) {
    let name = hook.text("name");
    let at = hook.path("name");
    if name.is_empty() {
        return errors.push(FieldError::required(at, ""));
    }
    let problems = Form::Subdomain.problems(name);
    if !problems.is_empty() {
        errors.push(FieldError::invalid(at, &name.into(), &problems.join(",")));
    } else if name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(at, &name.into(), detail));
    }
}

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

fn operations(rule: &Node<'_>, errors: &mut Errors) {
    check(&[Need("operations")], rule, errors);
    for operation in rule.items("operations") {
        one_of(Some(operation.value), OPERATIONS, operation.at, errors);
    }
    check(
        &[Need("apiGroups"), Need("apiVersions"), Need("resources")],
        rule,
        errors,
    );
    one_of(
        rule.get("scope"),
        &["*", "Cluster", "Namespaced"],
        rule.path("scope"),
        errors,
    );
}
