//! EndpointSlice: where the pods behind each Service listen, and which of them are ready.
//!
//! A Service has one slice for each set of port numbers that its pods resolve the Service's ports to: mostly one.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{Pod, Service, ServicePort},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::core::ObjectMeta;
use serde_json::json;

use super::{
    action::{self, Action, Kind, Target, value},
    object::{self, is_ready, is_terminating},
};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// What to do for one Service. `pods` are those of its namespace, `slices` those of its namespace, too.
pub fn plan(service: &Service, pods: &[&Pod], slices: &[&EndpointSlice]) -> Vec<Action> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty());
    let Some(selector) = selector.filter(|_| !is_terminating(&service.metadata)) else {
        return Vec::new();
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let mut groups: BTreeMap<Vec<PortKey>, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_selected(pod, selector)) {
        if let Some(endpoint) = endpoint(service, pod) {
            groups
                .entry(ports_of(spec.ports.as_deref(), pod))
                .or_default()
                .push(endpoint);
        }
    }
    if groups.is_empty() {
        groups.insert(Vec::new(), Vec::new());
    }
    let mut wanted: BTreeMap<String, EndpointSlice> = BTreeMap::new();
    let single = groups.len() == 1;
    for (ports, mut endpoints) in groups {
        endpoints.sort_by(|one, other| one.addresses.cmp(&other.addresses));
        let slice = slice(service, &ports, single, endpoints);
        wanted.insert(slice.metadata.name.clone().unwrap_or_default(), slice);
    }
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let present = slices.iter().filter(|slice| is_managed(slice, name));
    let mut actions = Vec::new();
    for slice in present {
        let target = Target::new(Kind::EndpointSlice, &slice.metadata);
        match wanted.remove(&target.name) {
            Some(_) if !object::controls(&service.metadata, &slice.metadata) => actions.push(Action::delete(target)),
            Some(want) => actions.extend(update(slice, &want, target)),
            None => actions.push(Action::delete(target)),
        }
    }
    actions.extend(wanted.values().map(|slice| action::create(Kind::EndpointSlice, slice)));
    actions
}

fn is_managed(slice: &EndpointSlice, service: &str) -> bool {
    let label = |key| {
        slice
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(key))
            .map(String::as_str)
    };
    label(SERVICE_NAME) == Some(service) && label(MANAGED_BY) == Some(MANAGER)
}

fn update(present: &EndpointSlice, wanted: &EndpointSlice, target: Target) -> Option<Action> {
    let same = present.endpoints == wanted.endpoints
        && present.ports.as_deref().unwrap_or_default() == wanted.ports.as_deref().unwrap_or_default();
    (!same).then(|| {
        let patch = json!({"endpoints": value(&wanted.endpoints), "ports": value(&wanted.ports)});
        Action::patch(target, patch)
    })
}

fn is_selected(pod: &Pod, selector: &BTreeMap<String, String>) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector
        .iter()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

fn endpoint(service: &Service, pod: &Pod) -> Option<Endpoint> {
    let address = pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?;
    if object::has_ended(pod) {
        return None;
    }
    let spec = pod.spec.as_ref()?;
    let terminating = is_terminating(&pod.metadata);
    let serving = is_ready(pod);
    let always = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let in_service = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(always || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: spec.hostname.clone().filter(|_| in_service),
        node_name: spec.node_name.clone(),
        target_ref: Some(k8s_openapi::api::core::v1::ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        }),
        ..Endpoint::default()
    })
}

// Name, number, protocol, application protocol.
type PortKey = (Option<String>, i32, String, Option<String>);

// A port whose name the pod does not have is left out, as Kubernetes does.
fn ports_of(ports: Option<&[ServicePort]>, pod: &Pod) -> Vec<PortKey> {
    let resolved = ports.unwrap_or_default().iter().filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let number = match &port.target_port {
            None => port.port,
            Some(IntOrString::Int(number)) => *number,
            Some(IntOrString::String(name)) => match name.parse() {
                Ok(number) => number,
                Err(_) => named_port(pod, name, &protocol)?,
            },
        };
        Some((port.name.clone(), number, protocol, port.app_protocol.clone()))
    });
    resolved.collect()
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.as_deref().unwrap_or_default();
    let mut ports = spec
        .containers
        .iter()
        .chain(
            sidecars
                .iter()
                .filter(|container| container.restart_policy.as_deref() == Some("Always")),
        )
        .flat_map(|container| container.ports.as_deref().unwrap_or_default());
    ports
        .find(|port| port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol)
        .map(|port| port.container_port)
}

// The only slice of a Service keeps its name whatever its ports are, so that it is changed in place.
fn slice(service: &Service, ports: &[PortKey], single: bool, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let name = service.metadata.name.clone().unwrap_or_default();
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    let kind = if single { String::new() } else { format!("{ports:?}") };
    let suffix = object::short_hash(&[uid.as_bytes(), kind.as_bytes()], 5);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: Some(endpoints),
        metadata: ObjectMeta {
            name: Some(format!("{}-{suffix}", object::cut(&name, 57))),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![object::owner_reference(service)]),
            ..ObjectMeta::default()
        },
        ports: Some(
            ports
                .iter()
                .map(|(name, number, protocol, app_protocol)| EndpointPort {
                    // An unnamed port has the empty name in a slice.
                    name: Some(name.clone().unwrap_or_default()),
                    port: Some(*number),
                    protocol: Some(protocol.clone()),
                    app_protocol: app_protocol.clone(),
                })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::samples::{now, object_of, pod, ready};

    fn service(target_port: serde_json::Value) -> Service {
        object_of(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "svc"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": target_port}]},
        }))
    }

    fn created(actions: &[Action]) -> Vec<EndpointSlice> {
        actions
            .iter()
            .map(|action| match action {
                Action::Create { object, .. } => object_of(object.clone()),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn addressed(mut pod: Pod, ip: &str) -> Pod {
        pod.status.get_or_insert_default().pod_ip = Some(ip.to_owned());
        pod
    }

    #[test]
    fn ready_and_unready_pods_are_listed_with_their_conditions() {
        let mut ending = addressed(ready(pod("c", "set")), "127.9.17.4");
        ending.metadata.deletion_timestamp = Some(object::time(now()));
        let pods = [ready(pod("a", "set")), addressed(pod("b", "set"), "127.9.17.3"), ending];
        let slices = created(&plan(&service(json!(8080)), &pods.iter().collect::<Vec<_>>(), &[]));
        let [slice] = &slices[..] else { panic!("{slices:?}") };
        let found: Vec<_> = slice
            .endpoints
            .iter()
            .flatten()
            .map(|endpoint| {
                let conditions = endpoint.conditions.as_ref().unwrap();
                (
                    endpoint.addresses[0].as_str(),
                    conditions.ready,
                    conditions.serving,
                    conditions.terminating,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("127.9.17.2", Some(true), Some(true), Some(false)),
                ("127.9.17.3", Some(false), Some(false), Some(false)),
                ("127.9.17.4", Some(false), Some(true), Some(true)),
            ]
        );
        assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
        assert_eq!(slice.metadata.labels.as_ref().unwrap()[SERVICE_NAME], "web");
        assert_eq!(
            slice.endpoints.as_ref().unwrap()[0]
                .target_ref
                .as_ref()
                .unwrap()
                .name
                .as_deref(),
            Some("a")
        );
        assert_eq!(slice.endpoints.as_ref().unwrap()[0].node_name.as_deref(), Some("n0"));
    }

    #[test]
    fn a_named_port_is_the_one_that_each_pod_gives_that_name() {
        let named = |name: &str, ip: &str, port: i32| {
            let mut pod = addressed(ready(pod(name, "set")), ip);
            pod.spec.as_mut().unwrap().containers[0].ports =
                Some(object_of(json!([{"name": "serve", "containerPort": port}])));
            pod
        };
        let pods = [
            named("a", "127.9.17.2", 1),
            named("b", "127.9.17.3", 2),
            named("c", "127.9.17.4", 1),
        ];
        let slices = created(&plan(&service(json!("serve")), &pods.iter().collect::<Vec<_>>(), &[]));
        let mut found: Vec<_> = slices
            .iter()
            .map(|slice| {
                (
                    slice.ports.as_ref().unwrap()[0].port,
                    slice.endpoints.as_ref().unwrap().len(),
                )
            })
            .collect();
        found.sort();
        assert_eq!(found, [(Some(1), 2), (Some(2), 1)]);
    }

    #[test]
    fn a_slice_is_changed_in_place_and_left_alone_when_nothing_changed() {
        let pods = [ready(pod("a", "set"))];
        let pods: Vec<&Pod> = pods.iter().collect();
        let mut slice = created(&plan(&service(json!(8080)), &pods, &[])).remove(0);
        slice.metadata.uid = Some("slice".to_owned());
        assert_eq!(plan(&service(json!(8080)), &pods, &[&slice]), []);
        slice.endpoints = None;
        let actions = plan(&service(json!(8080)), &pods, &[&slice]);
        assert!(
            matches!(&actions[..], [Action::Patch { target, .. }] if target.uid == "slice"),
            "{actions:?}"
        );
    }

    #[test]
    fn a_service_without_pods_has_an_empty_slice_and_one_without_selector_none() {
        let mut service = service(json!(8080));
        assert_eq!(created(&plan(&service, &[], &[]))[0].endpoints, Some(vec![]));
        service.spec.as_mut().unwrap().selector = None;
        assert_eq!(plan(&service, &[], &[]), []);
    }

    #[test]
    fn a_pod_that_has_ended_or_has_no_address_is_left_out() {
        let mut ended = ready(pod("a", "set"));
        ended.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        let mut nowhere = ready(pod("b", "set"));
        nowhere.status.as_mut().unwrap().pod_ip = None;
        let slices = created(&plan(&service(json!(8080)), &[&ended, &nowhere], &[]));
        assert_eq!(slices[0].endpoints, Some(vec![]));
    }
}
