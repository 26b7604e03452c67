//! What keeps pods running, or runs them to their end.

use serde_json::{Value, json};

use super::rule::{Errors, Node, Rule, check, form, invalid_whole, one_of};
use super::words::Form;
use super::{pod, schedule, selector, storage};
use crate::machinery::FieldError;

use Rule::{By, Count, In, MayBe, Need, Text};

pub(super) const DEPLOYMENT: &[Rule] = &[In(
    "spec",
    &[
        Count("replicas"),
        By(|spec, errors| pod::selected(spec, "deployment", replicated, errors)),
        By(strategy),
        Count("minReadySeconds"),
        Count("revisionHistoryLimit"),
        Count("progressDeadlineSeconds"),
        By(|spec, errors| {
            let deadline = spec.number("progressDeadlineSeconds").unwrap_or(i64::MAX);
            if deadline <= spec.number("minReadySeconds").unwrap_or(0) {
                let detail = "must be greater than minReadySeconds";
                errors.push(FieldError::invalid(
                    spec.path("progressDeadlineSeconds"),
                    &deadline.into(),
                    detail,
                ));
            }
        }),
    ],
)];

pub(super) const REPLICA_SET: &[Rule] = &[In(
    "spec",
    &[
        Count("replicas"),
        Count("minReadySeconds"),
        By(|spec, errors| pod::selected(spec, "deployment", replicated, errors)),
    ],
)];

fn replicated(template: &Node<'_>, errors: &mut Errors) {
    pod::template(template, errors);
    pod::runs_for_ever(template, "ReplicaSet", errors);
}

/// Messages show a strategy whole.
fn unsupported(strategy: &Node<'_>, words: [&str; 2], errors: &mut Errors) {
    let text = format!(
        "{{\"Type\":{},\"RollingUpdate\":null}}",
        Value::from(strategy.text("type"))
    );
    let message = format!(
        "Unsupported value: {text}: supported values: \"{}\", \"{}\"",
        words[0], words[1]
    );
    errors.push(FieldError::new(
        strategy.at.clone(),
        crate::machinery::Reason::NotSupported,
        message,
    ));
}

fn strategy(spec: &Node<'_>, errors: &mut Errors) {
    let Some(strategy) = spec.child("strategy") else { return };
    match (strategy.text("type"), strategy.child("rollingUpdate")) {
        ("Recreate", Some(update)) => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden(update.at, why));
        }
        ("RollingUpdate", Some(update)) => {
            for name in ["maxUnavailable", "maxSurge"] {
                portion(&update, name, errors);
            }
            if amount(&update, "maxUnavailable") == 0 && amount(&update, "maxSurge") == 0 {
                let detail = "may not be 0 when `maxSurge` is 0";
                let shown = &update.value["maxUnavailable"];
                errors.push(FieldError::invalid(update.path("maxUnavailable"), shown, detail));
            }
            not_all(&update, "maxUnavailable", errors);
        }
        ("Recreate" | "RollingUpdate", None) => {}
        _ => unsupported(&strategy, ["Recreate", "RollingUpdate"], errors),
    }
}

/// A number, or a part of the whole as percents.
pub(super) fn portion(node: &Node<'_>, name: &str, errors: &mut Errors) {
    if let Some(Value::String(text)) = node.get(name) {
        form(Form::Percent, text, &node.path(name), errors);
    }
    if let Some(number) = node.number(name).filter(|number| *number < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(node.path(name), &number.into(), detail));
    }
}

fn percents(node: &Node<'_>, name: &str) -> Option<i64> {
    node.text(name).strip_suffix('%')?.parse().ok()
}

fn amount(node: &Node<'_>, name: &str) -> i64 {
    percents(node, name).or_else(|| node.number(name)).unwrap_or(0)
}

pub(super) fn not_all(node: &Node<'_>, name: &str, errors: &mut Errors) {
    if percents(node, name).is_some_and(|percents| percents > 100) {
        let detail = "must not be greater than 100%";
        errors.push(FieldError::invalid(node.path(name), &node.text(name).into(), detail));
    }
}

pub(super) const DAEMON_SET: &[Rule] = &[In("spec", &[By(daemon_set)])];

fn daemon_set(spec: &Node<'_>, errors: &mut Errors) {
    let null = Value::Null;
    let chosen = spec.get("selector").unwrap_or(&null);
    let labels = spec.value.pointer("/template/metadata/labels");
    check(&[Rule::Selector("selector")], spec, errors);
    if !chosen.is_object() || !selector::selects(chosen, labels) {
        let detail = "`selector` does not match template `labels`";
        errors.push(invalid_whole(
            spec.path("template.metadata.labels"),
            labels.unwrap_or(&null),
            detail,
        ));
    }
    if chosen.is_object() && selector::is_empty(chosen) {
        errors.push(invalid_whole(
            spec.path("selector"),
            chosen,
            "empty selector is invalid for daemonset",
        ));
    }
    if let Some(template) = spec.child("template") {
        pod::template(&template, errors);
        pod::runs_for_ever(&template, "DaemonSet", errors);
    }
    check(&[Count("minReadySeconds")], spec, errors);
    daemon_strategy(spec, errors);
    check(&[Count("revisionHistoryLimit")], spec, errors);
}

fn daemon_strategy(spec: &Node<'_>, errors: &mut Errors) {
    let Some(strategy) = spec.child("updateStrategy") else {
        return;
    };
    let update = match (strategy.text("type"), strategy.child("rollingUpdate")) {
        ("OnDelete", _) => return,
        ("RollingUpdate", Some(update)) => update,
        _ => return unsupported(&strategy, ["RollingUpdate", "OnDelete"], errors),
    };
    for name in ["maxUnavailable", "maxSurge"] {
        portion(&update, name, errors);
    }
    for name in ["maxUnavailable", "maxSurge"] {
        not_all(&update, name, errors);
    }
    match (amount(&update, "maxUnavailable"), amount(&update, "maxSurge")) {
        (0, 0) => {
            let detail = "cannot be 0 when maxSurge is 0";
            errors.push(FieldError::required(update.path("maxUnavailable"), detail));
        }
        (0, _) | (_, 0) => {}
        _ => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(
                update.path("maxSurge"),
                &update.value["maxSurge"],
                detail,
            ));
        }
    }
}

pub(super) const STATEFUL_SET: &[Rule] = &[In("spec", &[By(stateful_set)])];

fn stateful_set(spec: &Node<'_>, errors: &mut Errors) {
    if !matches!(spec.text("podManagementPolicy"), "OrderedReady" | "Parallel") {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        let shown = spec.text("podManagementPolicy").into();
        errors.push(FieldError::invalid(spec.path("podManagementPolicy"), &shown, detail));
    }
    if let Some(strategy) = spec.child("updateStrategy") {
        stateful_strategy(&strategy, errors);
    }
    if let Some(policy) = spec.child("persistentVolumeClaimRetentionPolicy") {
        for name in ["whenDeleted", "whenScaled"] {
            one_of(policy.get(name), &["Retain", "Delete"], policy.path(name), errors);
        }
    }
    for claim in spec.items("volumeClaimTemplates") {
        if claim.value.pointer("/metadata/name").is_none() {
            errors.push(FieldError::required(claim.path("metadata.name"), ""));
        }
        storage::claim(&claim, errors);
    }
    check(
        &[
            Count("replicas"),
            Count("minReadySeconds"),
            Text("serviceName", Form::Label),
        ],
        spec,
        errors,
    );
    let mut with = spec.value.clone();
    if let Some(template) = with.get_mut("template").and_then(Value::as_object_mut) {
        template.insert("spec".into(), with_claims(spec));
    }
    pod::selected(&Node::at(&with, &spec.at), "statefulset", of_stateful_set, errors);
}

fn of_stateful_set(template: &Node<'_>, errors: &mut Errors) {
    pod::template(template, errors);
    pod::runs_for_ever(template, "StatefulSet", errors);
}

fn stateful_strategy(strategy: &Node<'_>, errors: &mut Errors) {
    match strategy.text("type") {
        "OnDelete" if strategy.has("rollingUpdate") => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(invalid_whole(
                strategy.path("rollingUpdate"),
                &strategy.value["rollingUpdate"],
                detail,
            ));
        }
        "OnDelete" => {}
        "RollingUpdate" => check(&[In("rollingUpdate", &[Count("partition")])], strategy, errors),
        other => {
            let shown = format!("{{\"Type\":{},\"RollingUpdate\":null}}", Value::from(other));
            let message = format!("Invalid value: {shown}: must be 'RollingUpdate' or 'OnDelete'");
            errors.push(FieldError::new(
                strategy.at.clone(),
                crate::machinery::Reason::Invalid,
                message,
            ));
        }
    }
}

/// The pods' specification as its containers may refer to it: a StatefulSet's claim templates are volumes too.
fn with_claims(spec: &Node<'_>) -> Value {
    let mut pod = spec
        .value
        .pointer("/template/spec")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let names: Vec<Value> = spec
        .items("volumeClaimTemplates")
        .filter_map(|claim| claim.value.pointer("/metadata/name").cloned())
        .collect();
    if names.is_empty() {
        return pod;
    }
    let own = pod
        .get("volumes")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let own = own
        .into_iter()
        .filter(|volume| !volume.get("name").is_some_and(|name| names.contains(name)));
    let claims = names.iter().map(|name| json!({"name": name, "emptyDir": {}}));
    let volumes: Vec<Value> = claims.chain(own).collect();
    if let Some(pod) = pod.as_object_mut() {
        pod.insert("volumes".into(), volumes.into());
    }
    pod
}

const JOB_SPEC: &[Rule] = &[
    Count("parallelism"),
    Count("completions"),
    Count("activeDeadlineSeconds"),
    Count("backoffLimit"),
    Count("ttlSecondsAfterFinished"),
    Count("backoffLimitPerIndex"),
    Count("maxFailedIndexes"),
    MayBe("completionMode", &["NonIndexed", "Indexed"]),
    By(indexed),
    MayBe("podReplacementPolicy", &["Failed", "TerminatingOrFailed"]),
    By(|spec, errors| {
        if let Some(template) = spec.child("template") {
            pod::template(&template, errors);
            ends(&template, errors);
        }
    }),
];

fn indexed(spec: &Node<'_>, errors: &mut Errors) {
    if spec.text("completionMode") == "Indexed" {
        if !spec.has("completions") {
            errors.push(FieldError::required(
                spec.path("completions"),
                "when completion mode is Indexed",
            ));
        }
        return;
    }
    let names: &[&str] = match spec.text("completionMode") {
        "" | "NonIndexed" => &["backoffLimitPerIndex", "maxFailedIndexes"],
        _ => &[],
    };
    for name in names {
        if let Some(value) = spec.get(name) {
            errors.push(FieldError::invalid(
                spec.path(name),
                value,
                "requires indexed completion mode",
            ));
        }
    }
}

/// The pods of a Job end.
fn ends(template: &Node<'_>, errors: &mut Errors) {
    let Some(spec) = template.child("spec") else { return };
    let at = spec.path("restartPolicy");
    match spec.text("restartPolicy") {
        "" | "Always" => {
            let detail = "valid values: \"OnFailure\", \"Never\"";
            errors.push(FieldError::required(at, detail));
        }
        _ => one_of(spec.get("restartPolicy"), &["OnFailure", "Never"], at, errors),
    }
}

pub(super) const JOB: &[Rule] = &[By(generated), In("spec", JOB_SPEC), In("spec", &[By(job_selector)])];

/// A selector that the server made is that of this very Job.
fn generated(job: &Node<'_>, errors: &mut Errors) {
    let text = |pointer: &str| job.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if job.value.pointer("/spec/manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    let (name, uid) = (text("/metadata/name"), text("/metadata/uid"));
    let labels = job.value.pointer("/spec/template/metadata/labels");
    for (label, wanted) in [
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ] {
        let found = labels.and_then(|labels| labels.get(label)).and_then(Value::as_str);
        let at = format!("spec.template.metadata.labels[{label}]");
        match found {
            Some(found) if found == wanted => {}
            Some(found) => errors.push(FieldError::invalid(at, &found.into(), &format!("must be '{wanted}'"))),
            None => errors.push(FieldError::required(at, &format!("must be '{wanted}'"))),
        }
    }
}

fn job_selector(spec: &Node<'_>, errors: &mut Errors) {
    if !spec.has("selector") {
        errors.push(FieldError::required(spec.path("selector"), ""));
    }
    check(&[Rule::Selector("selector")], spec, errors);
    let null = Value::Null;
    let labels = spec.value.pointer("/template/metadata/labels");
    if !spec
        .get("selector")
        .is_some_and(|chosen| selector::selects(chosen, labels))
    {
        let detail = "`selector` does not match template `labels`";
        errors.push(invalid_whole(
            spec.path("template.metadata.labels"),
            labels.unwrap_or(&null),
            detail,
        ));
    }
}

pub(super) const CRON_JOB: &[Rule] = &[
    In(
        "spec",
        &[
            Need("schedule"),
            By(schedule::check),
            Count("startingDeadlineSeconds"),
            Rule::OneOf("concurrencyPolicy", &["Allow", "Forbid", "Replace"]),
            In("jobTemplate", &[In("spec", JOB_SPEC), In("spec", &[By(no_selector)])]),
            Count("successfulJobsHistoryLimit"),
            Count("failedJobsHistoryLimit"),
        ],
    ),
    By(|node, errors| {
        let name = node
            .value
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if name.len() > 52 {
            let detail = "must be no more than 52 characters";
            errors.push(FieldError::invalid("metadata.name", &name.into(), detail));
        }
    }),
];

fn no_selector(spec: &Node<'_>, errors: &mut Errors) {
    if let Some(chosen) = spec.get("selector") {
        let message = format!(
            "Invalid value: {}: `selector` will be auto-generated",
            selector::shown(chosen)
        );
        errors.push(FieldError::new(
            spec.path("selector"),
            crate::machinery::Reason::Invalid,
            message,
        ));
    }
}
