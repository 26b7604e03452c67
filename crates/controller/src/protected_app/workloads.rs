//! The workloads of an application in this cluster: which they are, how many replicas they run, and what of them is ready.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::{ConfigMap, Pod, Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    core::{Selector, SelectorExt as _},
    runtime::reflector::Store,
};
use leeward_api::FIELD_MANAGER;
use leeward_core::{
    app::{App, Traffic, WriterRole},
    name::{ClusterName, Epoch},
};
use leeward_state::config::{Id, Running, scale};
use serde_json::{Value, json};

use super::autoscalers;
use crate::{cache::Cache, gates::Gates};

/// A Deployment or StatefulSet of an application.
#[derive(Debug, Clone)]
pub struct Workload {
    /// `Deployment` or `StatefulSet`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Which pods are its own.
    pub pods: LabelSelector,
    /// The whole object.
    pub object: Value,
    /// Replicas that are asked for.
    pub replicas: i32,
    /// Replicas that are ready.
    pub ready: i32,
    /// The autoscaler that says how many replicas it has, where there is one.
    pub autoscaler: Option<Value>,
}

/// The workloads that an application's selector selects.
pub fn find(cache: &Cache, app: &App) -> Vec<Workload> {
    let Some(selector) = selector(&app.selector) else {
        return vec![];
    };
    let belongs = |namespace: Option<String>, labels: &BTreeMap<String, String>| {
        namespace.as_deref() == Some(app.key.namespace.as_str()) && selector.matches(labels)
    };
    let deployments = cache
        .deployments
        .state()
        .into_iter()
        .filter(|d| belongs(d.namespace(), d.labels()));
    let sets = cache
        .stateful_sets
        .state()
        .into_iter()
        .filter(|s| belongs(s.namespace(), s.labels()));
    let mut found: Vec<_> = deployments
        .filter_map(|d| deployment(&d))
        .chain(sets.filter_map(|s| stateful_set(&s)))
        .collect();
    if !found.is_empty() {
        let mut scalers = autoscalers::find(cache, &app.key.namespace);
        for workload in &mut found {
            workload.autoscaler = Id::of(&workload.object).and_then(|id| scalers.remove(&id));
        }
    }
    found.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    found
}

/// A selector as decisions keep it, ready to match labels.
pub fn selector(value: &Value) -> Option<Selector> {
    serde_json::from_value::<LabelSelector>(value.clone())
        .ok()?
        .try_into()
        .ok()
}

fn deployment(object: &Deployment) -> Option<Workload> {
    let spec = object.spec.as_ref()?;
    Some(Workload {
        kind: "Deployment",
        name: object.name_any(),
        pods: spec.selector.clone(),
        object: serde_json::to_value(object).ok()?,
        replicas: spec.replicas.unwrap_or(1),
        ready: object
            .status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0),
        autoscaler: None,
    })
}

fn stateful_set(object: &StatefulSet) -> Option<Workload> {
    let spec = object.spec.as_ref()?;
    Some(Workload {
        kind: "StatefulSet",
        name: object.name_any(),
        pods: spec.selector.clone(),
        object: serde_json::to_value(object).ok()?,
        replicas: spec.replicas.unwrap_or(1),
        ready: object
            .status
            .as_ref()
            .and_then(|status| status.ready_replicas)
            .unwrap_or(0),
        autoscaler: None,
    })
}

/// The pods of these workloads.
pub fn pods(cache: &Cache, app: &App, workloads: &[Workload]) -> Vec<std::sync::Arc<Pod>> {
    let selectors: Vec<Selector> = workloads
        .iter()
        .filter_map(|w| w.pods.clone().try_into().ok())
        .collect();
    cache
        .pods
        .state()
        .into_iter()
        .filter(|pod| pod.namespace().as_deref() == Some(app.key.namespace.as_str()))
        .filter(|pod| selectors.iter().any(|selector| selector.matches(pod.labels())))
        .collect()
}

/// How many pods of workloads that were scaled down are ending and have not ended yet. One that nobody ends yet is no reason to wait: scaled up
/// again, its workload keeps it.
pub fn stopping(cache: &Cache, app: &App, workloads: &[Workload]) -> usize {
    if workloads.iter().any(|workload| workload.replicas > 0) {
        return 0;
    }
    let pods = pods(cache, app, workloads);
    pods.iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some())
        .count()
}

/// Whether the pod with this UID is one of the application's. Gates ask that several times a second: nothing is copied for it.
pub fn has_pod(cache: &Cache, app: &App, uid: &str) -> bool {
    let namespace = app.key.namespace.as_str();
    let is_it =
        |pod: &Pod| pod.metadata.uid.as_deref() == Some(uid) && pod.metadata.namespace.as_deref() == Some(namespace);
    let (Some(pod), Some(of_app)) = (cache.pods.find(is_it), selector(&app.selector)) else {
        return false;
    };
    let belongs = |meta: &ObjectMeta| {
        meta.namespace.as_deref() == Some(namespace)
            && meta.labels.as_ref().is_some_and(|labels| of_app.matches(labels))
    };
    let selects = |pods: &LabelSelector| Selector::try_from(pods.clone()).is_ok_and(|s| s.matches(pod.labels()));
    let deployment =
        |d: &Deployment| belongs(&d.metadata) && d.spec.as_ref().is_some_and(|spec| selects(&spec.selector));
    let stateful_set =
        |s: &StatefulSet| belongs(&s.metadata) && s.spec.as_ref().is_some_and(|spec| selects(&spec.selector));
    cache.deployments.find(deployment).is_some() || cache.stateful_sets.find(stateful_set).is_some()
}

/// The application's pods that write and have no gate, by name: those that were to have one, and the others.
pub fn without_gate(cache: &Cache, app: &App) -> (Vec<String>, Vec<String>) {
    let (mut asked, mut others) = (vec![], vec![]);
    if app.roles.is_empty() {
        return (asked, others);
    }
    for pod in cache.pods.state() {
        if pod.metadata.namespace.as_deref() != Some(app.key.namespace.as_str()) {
            continue;
        }
        let list = match bare(&pod, app) {
            Some(true) => &mut asked,
            Some(false) => &mut others,
            None => continue,
        };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if has_pod(cache, app, uid) {
            list.push(pod.name_any());
        }
    }
    asked.sort();
    others.sort();
    (asked, others)
}

/// Of a pod that is a writer of the application and has no gate: whether it was to have one.
fn bare(pod: &Pod, app: &App) -> Option<bool> {
    let spec = pod.spec.as_ref()?;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let volumes = || spec.volumes.iter().flatten();
    // Without its Secret no gate is granted anything, and with it nothing else can be told from one.
    let secret = leeward_api::gate_secret(&app.key.name);
    let mut secrets = volumes().filter_map(|volume| volume.secret.as_ref());
    if secrets.any(|source| source.secret_name.as_ref() == Some(&secret)) {
        return None;
    }
    let asked = pod.annotations().get(leeward_api::gate::APP).map(|name| name.trim());
    if asked == Some(app.key.name.as_str()) {
        return Some(true);
    }
    let mut claims = volumes().filter_map(|volume| volume.persistent_volume_claim.as_ref());
    let writes = claims.any(|claim| {
        let of_role = |role: &WriterRole| role.claims.contains(&claim.claim_name);
        claim.read_only != Some(true) && app.roles.iter().any(of_role)
    });
    writes.then_some(false)
}

/// Brings the workloads to what they should do. Returns whether anything was changed.
///
/// # Errors
/// When the API refuses or does not answer; worth trying again.
pub async fn run(client: &Client, app: &App, workloads: &[Workload], running: Running) -> Result<bool, kube::Error> {
    let mut changed = false;
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    for workload in workloads {
        // Before its target runs, or nobody would know any more that it has to be.
        changed |= autoscalers::bound(client, app, workload, running).await;
        let Some(patch) = scale(&workload.object, running) else {
            continue;
        };
        changed = true;
        let patch = Patch::Merge(&patch);
        let namespace = &app.key.namespace;
        match workload.kind {
            "Deployment" => {
                Api::<Deployment>::namespaced(client.clone(), namespace)
                    .patch(&workload.name, &params, &patch)
                    .await?;
            }
            _ => {
                Api::<StatefulSet>::namespaced(client.clone(), namespace)
                    .patch(&workload.name, &params, &patch)
                    .await?;
            }
        }
    }
    Ok(changed)
}

/// Tells the application's pods where they run and at which epoch, in the ConfigMap that their environment refers to, and their gates
/// where to ask.
///
/// # Errors
/// When the API refuses or does not answer; worth trying again.
pub async fn tell(
    client: &Client,
    app: &App,
    cluster: &ClusterName,
    epoch: Option<Epoch>,
    gates: Option<&Gates>,
) -> Result<(), kube::Error> {
    if let Some(gates) = gates.filter(|_| !app.roles.is_empty()) {
        let secret = gates.secret(&app.key);
        Api::<Secret>::namespaced(client.clone(), &app.key.namespace)
            .patch(
                &leeward_api::gate_secret(&app.key.name),
                &PatchParams::apply(FIELD_MANAGER).force(),
                &Patch::Apply(&secret),
            )
            .await?;
    }
    let name = leeward_api::writer_config_map(&app.key.name);
    let epoch = epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": app.key.namespace,
            "annotations": { "leeward.dev/about": "where this application's pods run and at which epoch they may write" },
        },
        "data": { "cluster": cluster.as_str(), "epoch": epoch },
    });
    Api::<ConfigMap>::namespaced(client.clone(), &app.key.namespace)
        .patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&map))
        .await?;
    Ok(())
}

/// The addresses of the application's ready pods behind its Service.
pub fn backends(
    services: &Store<Service>,
    slices: &Store<EndpointSlice>,
    namespace: &str,
    traffic: &Traffic,
) -> Vec<std::net::SocketAddr> {
    let service = services
        .state()
        .into_iter()
        .find(|s| s.name_any() == traffic.service && s.namespace().as_deref() == Some(namespace));
    let Some(service) = service else { return vec![] };
    let port_name = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten())
        .find(|port| port.port == i32::from(traffic.port))
        .map(|port| port.name.clone().unwrap_or_default());
    let Some(port_name) = port_name else { return vec![] };
    let mut found = vec![];
    for slice in slices.state() {
        let of_service = slice.labels().get("kubernetes.io/service-name") == Some(&traffic.service);
        if !of_service || slice.namespace().as_deref() != Some(namespace) {
            continue;
        }
        let port = slice
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.clone().unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|port| u16::try_from(port.port?).ok()) else {
            continue;
        };
        for endpoint in slice.endpoints.iter().flatten().filter(|e| is_ready(e)) {
            found.extend(
                endpoint
                    .addresses
                    .iter()
                    .filter_map(|ip| Some(std::net::SocketAddr::new(ip.parse().ok()?, port))),
            );
        }
    }
    found.sort();
    found.dedup();
    found
}

fn is_ready(endpoint: &k8s_openapi::api::discovery::v1::Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .is_none_or(|conditions| conditions.ready.unwrap_or(true) && !conditions.terminating.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_without_a_gate_is_one_that_asks_for_it_or_writes_what_is_the_roles() {
        let app: App = serde_json::from_value(json!({
            "key": "store/shop", "authority": "west", "observed": 1, "model": "ActivePassive", "placements": [],
            "rpo": { "secs": 5, "nanos": 0 }, "rto": { "secs": 5, "nanos": 0 }, "automatic": true, "paused": false,
            "roles": [{ "name": "data", "claims": ["data"], "interval": { "secs": 1, "nanos": 0 } }], "selector": null, "resource": null,
        }))
        .unwrap();
        let bare = |annotations: Value, volumes: Value, phase: &str| {
            let pod = json!({ "metadata": { "annotations": annotations }, "spec": { "containers": [], "volumes": volumes },
                "status": { "phase": phase } });
            bare(&serde_json::from_value(pod).unwrap(), &app)
        };
        let asks = json!({ "leeward.dev/gate-app": "shop" });
        let gate = json!({ "name": "gate", "secret": { "secretName": "leeward-shop-gate" } });
        let claim = |name: &str, read_only: bool| json!({ "name": "d", "persistentVolumeClaim": { "claimName": name, "readOnly": read_only } });
        assert_eq!(bare(asks.clone(), json!([]), "Running"), Some(true));
        assert_eq!(bare(asks.clone(), json!([claim("data", false)]), "Pending"), Some(true));
        assert_eq!(bare(json!({}), json!([claim("data", false)]), "Running"), Some(false));
        // Behind its gate, ended, of another application, or no writer.
        assert_eq!(bare(asks.clone(), json!([claim("data", false), gate]), "Running"), None);
        assert_eq!(bare(asks, json!([]), "Succeeded"), None);
        assert_eq!(
            bare(json!({ "leeward.dev/gate-app": "other" }), json!([]), "Running"),
            None
        );
        assert_eq!(bare(json!({}), json!([claim("data", true)]), "Running"), None);
        assert_eq!(bare(json!({}), json!([claim("cache", false)]), "Running"), None);
    }
}
