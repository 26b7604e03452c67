//! What was found of an installation in a cluster, judged: pure functions, with the limits that they use.

use std::{collections::BTreeSet, time::Duration};

use jiff::fmt::rfc2822;
use k8s_openapi::{
    api::{admissionregistration::v1::MutatingWebhookConfiguration, apps::v1::Deployment},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, CustomResourceDefinitionVersion,
    },
};
use kube::ResourceExt as _;
use leeward_api::{Cluster, condition};
use serde_json::Value;

use super::judge::Check;

/// The oldest minor version of Kubernetes that is supported: since it, every API server knows by which conditions a webhook is asked, without which each
/// pod of a protected namespace would wait for it.
pub(super) const OLDEST_MINOR: u32 = 30;
/// Clocks that are further apart are warned of: times and ages that are told are wrong by as much. No lease rests on them.
const APART_WARN: Duration = Duration::from_secs(2);
/// Clocks that are further apart fail: nothing that is told of times can be compared any more, and certificates come to their end at another time.
const APART_FAIL: Duration = Duration::from_secs(60);
/// The label with the version of what was installed.
pub(super) const VERSION: &str = "app.kubernetes.io/version";

/// Whether this Kubernetes is supported: `1` and `32`, or `32+` as some call theirs.
pub(super) fn kubernetes(cluster: &str, major: &str, minor: &str) -> Check {
    let name = format!("{cluster} Kubernetes");
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>();
    match (number(major), number(minor)) {
        (Ok(major), Ok(minor)) if (major, minor) >= (1, OLDEST_MINOR) => Check::ok(name, format!("{major}.{minor}")),
        (Ok(major), Ok(minor)) => Check::fail(
            name,
            format!("{major}.{minor} is older than 1.{OLDEST_MINOR}, the oldest that is supported"),
            "upgrade the cluster",
        ),
        _ => Check::warn(
            name,
            format!("its version {major:?}.{minor:?} cannot be read"),
            format!("see that it is at least 1.{OLDEST_MINOR}: kubectl version"),
        ),
    }
}

/// Whether the clocks of the API server and of this machine agree. `ahead` is how far the former is ahead, in milliseconds; `within` is how exactly
/// that is known.
pub(super) fn clock(cluster: &str, ahead: i64, within: Duration) -> Check {
    let name = format!("{cluster} clock");
    let apart = Duration::from_millis(ahead.unsigned_abs()).saturating_sub(within);
    if apart < APART_WARN {
        return Check::ok(name, "agrees with the clock here");
    }
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    let finding = format!("at least {} s {way} the clock here", apart.as_secs());
    let advice = "set both by NTP: chronyc tracking, or timedatectl, says which of them is wrong";
    match apart < APART_FAIL {
        true => Check::warn(name, finding, advice),
        false => Check::fail(name, finding, advice),
    }
}

/// The same, of the date that an API server's answer has: it was asked at `before`, in Unix milliseconds, and the answer took so long.
pub(super) fn dated(cluster: &str, date: Option<&str>, before: u64, took: Duration) -> Check {
    let Some(date) = date.and_then(|date| rfc2822::parse(date).ok()) else {
        return Check::warn(
            format!("{cluster} clock"),
            "the API server does not say what time it is",
            "compare by hand: date -u on both machines",
        );
    };
    // The date has no parts of a second.
    let part = Duration::from_millis(500);
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let here = i64::try_from(before)
        .unwrap_or(i64::MAX)
        .saturating_add(millis(took / 2));
    let there = date.timestamp().as_millisecond().saturating_add(millis(part));
    clock(cluster, there.saturating_sub(here), took / 2 + part)
}

/// Whether a definition is there, and is the one that this program knows.
pub(super) fn definition(
    cluster: &str,
    ours: &CustomResourceDefinition,
    found: Option<&CustomResourceDefinition>,
) -> Check {
    let name = format!("{cluster} {}", ours.spec.names.plural);
    let apply = "`leeward install` of the version that runs there applies its definitions";
    let Some(found) = found else {
        return Check::fail(name, "the definition is missing", apply);
    };
    let known: BTreeSet<&str> = ours.spec.versions.iter().map(|one| one.name.as_str()).collect();
    let stored = found
        .status
        .iter()
        .flat_map(|status| status.stored_versions.iter().flatten());
    let strange: Vec<&str> = stored.map(String::as_str).filter(|one| !known.contains(one)).collect();
    if !strange.is_empty() {
        return Check::fail(
            name,
            format!(
                "objects are stored in version {}, which this program does not know",
                strange.join(", ")
            ),
            "use the program of the version that runs there; do not install an older one over it",
        );
    }
    for version in &ours.spec.versions {
        let Some(there) = found.spec.versions.iter().find(|one| one.name == version.name) else {
            return Check::fail(name, format!("the definition has no version {}", version.name), apply);
        };
        if !there.served {
            return Check::fail(name, format!("version {} is not served", version.name), apply);
        }
        let json = |version: &CustomResourceDefinitionVersion| serde_json::to_value(version).unwrap_or_default();
        if !holds(&json(version), &json(there)) {
            return Check::warn(
                name,
                format!("the definition of {} is of another version of Leeward", version.name),
                apply,
            );
        }
    }
    Check::ok(name, "the definition is the one that this program knows")
}

/// Whether the cluster serves every kind that agents use.
pub(super) fn apis(cluster: &str, missing: &[String]) -> Check {
    let name = format!("{cluster} APIs");
    match missing {
        [] => Check::ok(name, "every kind that agents use is served"),
        missing => Check::fail(
            name,
            format!("not served: {}", missing.join(", ")),
            "see that --runtime-config of its API server has not turned them off, and that aggregated APIs answer: kubectl get apiservices",
        ),
    }
}

/// Whether the agents' account has the rights of the reference: what it was denied, and how many were asked for.
pub(super) fn rights(cluster: &str, asked: Result<(usize, Vec<String>), String>) -> Check {
    let name = format!("{cluster} rights");
    match asked {
        Ok((count, denied)) if denied.is_empty() => Check::ok(name, format!("the agents have all {count}")),
        Ok((_, denied)) => Check::fail(
            name,
            format!("the agents may not {}", denied.join(", ")),
            "`leeward install` again brings the ClusterRole and ClusterRoleBinding leeward back",
        ),
        Err(why) => Check::warn(
            name,
            format!("cannot be asked for: {why}"),
            "ask as somebody who may create subjectaccessreviews",
        ),
    }
}

/// Whether agents run: the Deployment, and what the pods wait for.
pub(super) fn agents(cluster: &str, deployment: Option<&Deployment>, waits: Option<&str>) -> Check {
    let name = format!("{cluster} agents");
    let Some(deployment) = deployment else {
        return Check::fail(
            name,
            "there is no Deployment leeward",
            "`leeward install` makes it; in another namespace, say --namespace",
        );
    };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let ready = deployment
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas)
        .unwrap_or(0);
    let finding = format!("{ready} of {wanted} are ready");
    match (ready >= wanted && wanted > 0, waits) {
        (true, None) => Check::ok(name, finding),
        (_, waits) => {
            let finding = waits.map_or(finding.clone(), |waits| format!("{finding}: {waits}"));
            let advice = advice(waits.unwrap_or_default());
            match ready {
                0 => Check::fail(name, finding, advice),
                _ => Check::warn(name, finding, advice),
            }
        }
    }
}

/// What to do about what a pod waits for.
fn advice(waits: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| waits.contains(word));
    if has(&["ImagePull", "ErrImage", "InvalidImageName"]) {
        return "push the image to a registry that the nodes reach and name it with `leeward install --image`; --image-pull-secret where it asks who pulls";
    }
    if has(&["ContainerCreating", "CreateContainerConfigError"]) {
        return "it waits for its region's part: `leeward join render NAME` prints it for kubectl apply";
    }
    if has(&["not scheduled"]) {
        return "give the cluster a node with room, or take away what keeps the pod from it";
    }
    "kubectl -n leeward-system describe pods, and kubectl logs, say more"
}

/// Whether what runs there and this program may work together: at most one minor version apart.
pub(super) fn version(cluster: &str, deployment: &Deployment, mine: &str) -> Check {
    let name = format!("{cluster} version");
    let there = deployment.labels().get(VERSION).map_or("none", String::as_str);
    apart(&name, there, "this program", mine)
}

/// The same of the installations in two clusters.
pub(super) fn versions(one: (&str, &str), other: (&str, &str)) -> Check {
    let name = format!("{} and {}", one.0, other.0);
    apart(&name, one.1, other.0, other.1)
}

fn apart(name: &str, there: &str, who: &str, version: &str) -> Check {
    let finding = format!("{there}, and {who} is {version}");
    match (minor(there), minor(version)) {
        (Some(there), Some(mine)) if there.0 == mine.0 && there.1.abs_diff(mine.1) <= 1 => Check::ok(name, finding),
        (Some(_), Some(_)) => Check::fail(
            name,
            format!("{finding}: more than one apart"),
            "upgrade one version at a time, one region after the other",
        ),
        _ => Check::warn(
            name,
            format!("{finding}, which cannot be compared"),
            "`leeward install` writes the version as a label of the Deployment",
        ),
    }
}

/// Major and minor of a version.
fn minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether something is reached from here.
pub(super) fn reached(what: &str, address: &str, tried: Result<(), String>) -> Check {
    match tried {
        Ok(()) => Check::ok(what, format!("{address} is reached from here")),
        Err(why) => Check::warn(
            what,
            format!("{address} is not reached from here: {why}"),
            "open it in firewalls and security groups, and see that the Service's load balancer has this address; where it need not be reached from \
             here, what the agents say of each other counts",
        ),
    }
}

/// Whether a Service leads to an agent: how many addresses are ready.
pub(super) fn service(cluster: &str, service: &str, ready: usize) -> Check {
    let name = format!("{cluster} {service}");
    match ready {
        0 => Check::fail(
            name,
            "leads to no agent that is ready",
            "see the agents above; `leeward install` brings back a Service that is gone",
        ),
        _ => Check::ok(name, format!("leads to {ready} addresses")),
    }
}

/// What the agents of a cluster say of a region: whether they hear of it, and whether its lease is held.
pub(super) fn heard(cluster: &str, other: &Cluster) -> Check {
    let name = format!("{cluster} on {}", other.name_any());
    let conditions = other.status.iter().flat_map(|status| &status.conditions);
    let Some(ready) = conditions.into_iter().find(|one| one.type_ == condition::READY) else {
        return Check::fail(
            name,
            "no agent has said anything of it",
            "see the agents of this cluster above",
        );
    };
    match ready.status.as_str() {
        "True" => Check::ok(name, ready.message.clone()),
        _ => Check::fail(
            name,
            ready.message.clone(),
            format!(
                "see that agents run there, and that {} and the quorum are reached from one cluster to the other: firewalls, load balancer, certificates",
                other.spec.peer
            ),
        ),
    }
}

/// Whether the API server asks the agents about pods and trusts them: the configuration, and the authority that signed the agents' certificates.
pub(super) fn webhook(cluster: &str, found: Option<&MutatingWebhookConfiguration>, authority: Option<&str>) -> Check {
    let name = format!("{cluster} webhook");
    let mend = "`leeward join render NAME` prints it for kubectl apply; until then no writer comes up behind its gate by itself";
    let hooks = found.and_then(|found| found.webhooks.as_ref());
    let Some(hook) = hooks.and_then(|hooks| hooks.first()) else {
        return Check::fail(
            name,
            "the MutatingWebhookConfiguration leeward-webhook is missing or empty",
            mend,
        );
    };
    let trusted = hook.client_config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice());
    match authority {
        None => Check::warn(
            name,
            "which authority it is to trust is not known: the Secret leeward-identity cannot be read",
            mend,
        ),
        Some(authority) if trusted != Some(authority.as_bytes()) => Check::fail(
            name,
            "it trusts another authority than the one of the agents' certificates",
            mend,
        ),
        Some(_) if hook.match_conditions.iter().flatten().next().is_none() => {
            Check::fail(name, "it is asked about every pod: the conditions are missing", mend)
        }
        Some(_) => Check::ok(name, "it trusts the authority of the agents' certificates"),
    }
}

/// What became of a pod that the webhook has to refuse, made in a namespace as a trial only.
pub(super) fn answers(cluster: &str, namespace: &str, refused: Result<(), String>) -> Check {
    let name = format!("{cluster} webhook's answer");
    match refused {
        Err(why) if why.contains("inject.leeward.dev") => {
            Check::ok(name, format!("the agents are asked about pods in {namespace}"))
        }
        Err(why) => Check::warn(
            name,
            format!("a trial in {namespace} was refused before: {why}"),
            "see the reason",
        ),
        Ok(()) => Check::fail(
            name,
            format!("the API server makes pods in {namespace} without an answer of the agents within 5 s"),
            "see that the API server reaches the pods at port 7445 (network policy, and a firewall between control plane and nodes), and the certificate above",
        ),
    }
}

/// Namespaces that are stuck while they are deleted: each with what its conditions say.
pub(super) fn namespaces(cluster: &str, stuck: &[(String, String)]) -> Vec<Check> {
    let check = |(namespace, why): &(String, String)| {
        Check::fail(
            format!("{cluster} {namespace}"),
            format!("the namespace is being deleted: {why}"),
            "nothing can be carried to it until it is gone: remove what still has a finalizer there, by whoever set it, or let that controller run again",
        )
    };
    stuck.iter().map(check).collect()
}

/// Why a namespace that is being deleted is still there; nothing where it is not being deleted.
pub(super) fn terminating(namespace: &Value) -> Option<String> {
    if namespace["status"]["phase"] != "Terminating" {
        return None;
    }
    let conditions = namespace["status"]["conditions"].as_array().into_iter().flatten();
    let told: Vec<&str> = conditions
        .filter(|one| one["status"] == "True")
        .filter_map(|one| one["message"].as_str())
        .collect();
    Some(match told.is_empty() {
        true => "what remains of it is not told".to_owned(),
        false => told.join("; "),
    })
}

/// Whether `there` has everything of `ours`. An API server adds defaults of its own; fields of the objects it does not add.
fn holds(ours: &Value, there: &Value) -> bool {
    match (ours, there) {
        (Value::Object(ours), Value::Object(there)) => ours.iter().all(|(key, value)| {
            let same_fields = |there: &Value| key != "properties" || keys(value) == keys(there);
            there
                .get(key)
                .is_some_and(|there| same_fields(there) && holds(value, there))
        }),
        (Value::Array(ours), Value::Array(there)) => {
            ours.len() == there.len() && ours.iter().zip(there).all(|(ours, there)| holds(ours, there))
        }
        (ours, there) => ours == there,
    }
}

fn keys(value: &Value) -> Vec<&String> {
    value.as_object().into_iter().flat_map(|map| map.keys()).collect()
}

#[cfg(test)]
mod tests;
