//! What of an installation is reached, and by whom: its Services, and the policy for what comes in.
//!
//! There is no Service for DNS: nothing answers DNS queries yet.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use leeward_api::install::{
    AGENT, EDGE_OUTSIDE, EDGE_PORT, EDGE_SERVICE, GATE_PORT, GATE_SERVICE, METRICS_PORT, METRICS_SERVICE, NAME,
    PEER_PORT, PEER_SERVICE, REGISTRY_PORT, REGISTRY_SERVICE, WEBHOOK, WEBHOOK_PORT,
};
use serde_json::{Value, to_value};

use crate::{InstallError, Values, meta};

/// A port of an agent.
pub(crate) struct Port {
    /// Its name in the pod.
    pub(crate) name: &'static str,
    /// Its number in the pod.
    pub(crate) number: u16,
    /// The Service that leads to it.
    service: &'static str,
    /// Its number at the Service.
    outside: u16,
}

/// Every port of an agent; each has a Service, and nothing else of an agent is reached.
pub(crate) const PORTS: &[Port] = &[
    Port {
        name: "edge",
        number: EDGE_PORT,
        service: EDGE_SERVICE,
        outside: EDGE_OUTSIDE,
    },
    Port {
        name: "peer",
        number: PEER_PORT,
        service: PEER_SERVICE,
        outside: PEER_PORT,
    },
    Port {
        name: "gate",
        number: GATE_PORT,
        service: GATE_SERVICE,
        outside: GATE_PORT,
    },
    Port {
        name: "registry",
        number: REGISTRY_PORT,
        service: REGISTRY_SERVICE,
        outside: REGISTRY_PORT,
    },
    Port {
        name: METRICS,
        number: METRICS_PORT,
        service: METRICS_SERVICE,
        outside: METRICS_PORT,
    },
    Port {
        name: "webhook",
        number: WEBHOOK_PORT,
        service: WEBHOOK,
        outside: 443,
    },
];

/// The name of the port for metrics and probes.
pub(crate) const METRICS: &str = "metrics";

/// Services and policy.
pub(crate) fn objects(values: &Values) -> Result<Vec<Value>, InstallError> {
    let mut objects = Vec::new();
    for port in PORTS {
        objects.push(to_value(service(values, port))?);
    }
    objects.push(to_value(policy(values))?);
    Ok(objects)
}

fn service(values: &Values, port: &Port) -> Service {
    let kind = match port.service {
        EDGE_SERVICE => &values.edge_type,
        PEER_SERVICE => &values.peer_type,
        _ => "ClusterIP",
    };
    Service {
        metadata: meta::of_component(values, port.service, port.name),
        spec: Some(ServiceSpec {
            type_: Some(kind.to_owned()),
            selector: Some(meta::selected(AGENT)),
            ports: Some(vec![ServicePort {
                name: Some(port.name.into()),
                port: port.outside.into(),
                target_port: Some(IntOrString::String(port.name.into())),
                protocol: Some("TCP".into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Only the ports above are reached, by whoever reaches them: users and other regions come from anywhere, gates from every application's
/// namespace, images are asked for by nodes, probes come from the kubelet, and the webhook is for the API server. What goes out is left open:
/// the API server, the quorum and the other regions are addresses outside of this cluster's pods, which no selector names and which differ from
/// cluster to cluster, and an agent that a stale list of addresses cuts off from them loses its region's right to write.
fn policy(values: &Values) -> NetworkPolicy {
    let port = |port: &Port| NetworkPolicyPort {
        port: Some(IntOrString::Int(port.number.into())),
        protocol: Some("TCP".into()),
        ..NetworkPolicyPort::default()
    };
    NetworkPolicy {
        metadata: meta::of_namespace(values, NAME),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(meta::selector(AGENT)),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                ports: Some(PORTS.iter().map(port).collect()),
                ..NetworkPolicyIngressRule::default()
            }]),
            ..NetworkPolicySpec::default()
        }),
    }
}
