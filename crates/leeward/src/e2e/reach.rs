//! Where a cluster's Services are reached from outside, and where this machine is reached from there. Pure but for the routing table.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Service};

/// `HOST:PORT`, of an IPv6 address `[HOST]:PORT`.
pub(crate) fn join(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Where the first port of a Service is reached: at its load balancer, else at a node's port. None while it has neither.
pub(crate) fn of_service(service: &Service, nodes: &[Node]) -> Option<String> {
    let port = service.spec.as_ref()?.ports.as_ref()?.first()?;
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let entries = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let entry = entries
        .into_iter()
        .flatten()
        .find_map(|entry| entry.ip.clone().or(entry.hostname.clone()));
    let number = |number: i32| u16::try_from(number).ok();
    match entry {
        Some(host) => Some(join(&host, number(port.port)?)),
        None => Some(join(&nodes.iter().find_map(address)?, number(port.node_port?)?)),
    }
}

/// Whether its load balancer has an address.
pub(crate) fn is_balanced(service: &Service) -> bool {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    balancer.is_some_and(|balancer| balancer.ingress.as_ref().is_some_and(|entries| !entries.is_empty()))
}

fn address(node: &Node) -> Option<String> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().find(|address| address.type_ == "InternalIP")?;
    Some(internal.address.clone())
}

/// The address that this machine has towards all of these; nothing is sent.
///
/// # Errors
/// There is no way to one of them, or they are reached from different addresses.
pub(crate) fn own(towards: &[SocketAddr]) -> anyhow::Result<IpAddr> {
    let mut own: Option<IpAddr> = None;
    for to in towards {
        let any: IpAddr = match to.is_ipv4() {
            true => std::net::Ipv4Addr::UNSPECIFIED.into(),
            false => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket
            .connect(to)
            .with_context(|| format!("{to} cannot be reached from here"))?;
        let here = socket.local_addr()?.ip();
        if own.is_some_and(|own| own != here) {
            bail!(
                "this machine has another address towards {to} than towards the other cluster: name the one that both reach with --witness-host"
            );
        }
        own = Some(here);
    }
    let own = own.context("there is no cluster to be reached from")?;
    ensure!(
        !own.is_loopback(),
        "the clusters' edges are on this machine's loopback, where no pod reaches the witness: name an address that they reach with --witness-host"
    );
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(status: Value, node_port: Option<i32>) -> Service {
        let port = json!({ "port": 80, "nodePort": node_port });
        serde_json::from_value(json!({ "spec": { "ports": [port] }, "status": status })).unwrap()
    }

    #[test]
    fn a_service_is_reached_at_its_load_balancer_and_without_one_at_a_node() {
        let node = json!({ "status": { "addresses": [
            { "type": "Hostname", "address": "n" }, { "type": "InternalIP", "address": "172.18.0.2" },
        ] } });
        let nodes: Vec<Node> = vec![Node::default(), serde_json::from_value(node).unwrap()];
        let balanced = |entry: Value| json!({ "loadBalancer": { "ingress": [entry] } });
        for (status, node_port, nodes, expected) in [
            (
                balanced(json!({ "ip": "10.0.0.9" })),
                Some(30_080),
                &nodes[..],
                Some("10.0.0.9:80"),
            ),
            (
                balanced(json!({ "hostname": "lb.example" })),
                None,
                &[],
                Some("lb.example:80"),
            ),
            (balanced(json!({ "ip": "fd00::9" })), None, &[], Some("[fd00::9]:80")),
            (json!({}), Some(30_080), &nodes[..], Some("172.18.0.2:30080")),
            (json!({}), Some(30_080), &nodes[..1], None),
            (json!({}), None, &nodes[..], None),
        ] {
            let service = service(status.clone(), node_port);
            assert_eq!(of_service(&service, nodes).as_deref(), expected, "{status}");
            assert_eq!(is_balanced(&service), status != json!({}));
        }
    }

    #[test]
    fn an_address_that_no_cluster_reaches_is_no_witness() {
        let refused = own(&["127.0.0.1:80".parse().unwrap()]).unwrap_err();
        assert!(refused.to_string().contains("--witness-host"), "{refused}");
        assert!(own(&[]).is_err());
    }
}
