//! Which loopback address each part of an instance listens at.
//!
//! An instance owns 127.N.0.0/16 for one second octet N. Region `r` (1 to 15) owns the sixteen third octets from `16 r` on,
//! the witness owns `127.N.0.1`. Nothing here touches the network but [`free_octet`], which only binds and lets go.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};

use serde::{Deserialize, Serialize};

/// Where a process is looked at.
const METRICS_PORT: u16 = 9464;
/// The most regions that one instance can hold.
pub const MAX_REGIONS: u8 = 15;
/// The most nodes that one region can hold: each has a /24 for its pods.
pub const MAX_NODES: u8 = 6;

/// The second octet of an instance's addresses: 1 to 254.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Octet(pub u8);

impl Octet {
    /// Where the witness listens for its peers and serves the quorum.
    pub fn witness(self) -> SocketAddr {
        self.at(0, 1, 7443).into()
    }

    /// Where the witness is looked at: metrics, whether it lives and has started.
    pub fn witness_metrics(self) -> SocketAddr {
        self.at(0, 1, METRICS_PORT).into()
    }

    /// Where the witness's member of the quorum is reached: by clients, by the other members.
    pub fn etcd(self) -> (SocketAddr, SocketAddr) {
        (self.at(0, 5, 2379).into(), self.at(0, 5, 2380).into())
    }

    /// The addresses of the region with this index, 1 to [`MAX_REGIONS`].
    pub fn region(self, index: u8) -> Option<RegionAddresses> {
        (1..=MAX_REGIONS)
            .contains(&index)
            .then_some(RegionAddresses { octet: self, index })
    }

    fn at(self, third: u8, fourth: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(127, self.0, third, fourth), port)
    }
}

/// The addresses of one region of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionAddresses {
    octet: Octet,
    index: u8,
}

impl RegionAddresses {
    fn base(self) -> u8 {
        self.index * 16
    }

    /// The Kubernetes API, over TLS.
    pub fn api(self) -> SocketAddr {
        self.octet.at(self.base(), 1, 6443).into()
    }

    /// The image registry, plain HTTP.
    pub fn registry(self) -> SocketAddr {
        self.octet.at(self.base(), 2, 5000).into()
    }

    /// The HTTP edge that users reach.
    pub fn ingress(self) -> SocketAddr {
        self.octet.at(self.base(), 3, 8080).into()
    }

    /// The link between regions, mutual TLS.
    pub fn peer(self) -> SocketAddr {
        self.octet.at(self.base(), 4, 7443).into()
    }

    /// Where the agent is looked at: metrics, whether it lives and has started.
    pub fn metrics(self) -> SocketAddr {
        self.octet.at(self.base(), 4, METRICS_PORT).into()
    }

    /// Where the gates of the region's pods ask the agent.
    pub fn gate(self) -> SocketAddr {
        self.octet.at(self.base(), 4, 7444).into()
    }

    /// Where the region's member of the quorum is reached: by clients, by the other members.
    pub fn etcd(self) -> (SocketAddr, SocketAddr) {
        let at = |port| self.octet.at(self.base(), 5, port).into();
        (at(2379), at(2380))
    }

    /// The kubelet endpoint of node `node`, counted from 0 and below [`MAX_NODES`].
    pub fn kubelet(self, node: u8) -> SocketAddrV4 {
        self.octet.at(self.base(), 10 + node, 10250)
    }

    /// The range that the pods of node `node` take their addresses from.
    pub fn pod_cidr(self, node: u8) -> String {
        format!("127.{}.{}.0/24", self.octet.0, self.base() + 1 + node)
    }

    /// The range that Services take their addresses from.
    pub fn service_cidr(self) -> String {
        format!("127.{}.{}.0/22", self.octet.0, self.base() + 8)
    }

    /// Everything that the processes of a region with `nodes` nodes bind, with what each is for.
    pub fn listeners(self, nodes: u8) -> Vec<(&'static str, SocketAddr)> {
        let mut all = vec![
            ("Kubernetes API", self.api()),
            ("registry", self.registry()),
            ("ingress", self.ingress()),
            ("peer link", self.peer()),
            ("page of metrics", self.metrics()),
            ("quorum's clients", self.etcd().0),
            ("quorum's members", self.etcd().1),
        ];
        all.extend((0..nodes).map(|node| ("kubelet", self.kubelet(node).into())));
        all
    }
}

/// An address that something else listens at.
#[derive(Debug, thiserror::Error)]
#[error(
    "{address} (for the {purpose}) cannot be bound: {source}; another program holds it: `ss -ltnp 'sport = :{port}'` shows \
     which; stop that program, or `leeward down` the instance that it belongs to, and try again",
    port = address.port()
)]
pub struct Taken {
    /// What was going to listen there.
    pub purpose: &'static str,
    /// The address.
    pub address: SocketAddr,
    source: std::io::Error,
}

/// Binds every address once and lets go, so that a used one is named before anything is started.
pub fn check_free(listeners: &[(&'static str, SocketAddr)]) -> Result<(), Taken> {
    for &(purpose, address) in listeners {
        TcpListener::bind(address).map_err(|source| Taken {
            purpose,
            address,
            source,
        })?;
    }
    Ok(())
}

/// As [`check_free`], after a moment too: a process that was killed just now holds its addresses until it is gone.
pub fn wait_free(listeners: &[(&'static str, SocketAddr)]) -> Result<(), Taken> {
    const TRIES: u32 = 30;
    for _ in 0..TRIES {
        match check_free(listeners) {
            Err(taken) if taken.source.kind() == std::io::ErrorKind::AddrInUse => {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            other => return other,
        }
    }
    check_free(listeners)
}

/// The first octet, counted up from `start` and round, at which every listener of `regions` regions can be bound.
///
/// `start` spreads instances that are made at the same time. The error is that of the last octet tried.
pub fn free_octet(start: u8, regions: u8, nodes: u8) -> Result<Octet, Taken> {
    let mut last = None;
    for step in 0..254u16 {
        // 127.0.0.0/16 holds the machine's own localhost and resolver, 127.255.0.0/16 the broadcast address.
        let octet = Octet(((u16::from(start).max(1) - 1 + step) % 254 + 1) as u8);
        let mut listeners = vec![
            ("witness", octet.witness()),
            ("page of metrics", octet.witness_metrics()),
            ("quorum's clients", octet.etcd().0),
            ("quorum's members", octet.etcd().1),
        ];
        for region in (1..=regions).filter_map(|index| octet.region(index)) {
            listeners.extend(region.listeners(nodes));
        }
        match check_free(&listeners) {
            Ok(()) => return Ok(octet),
            Err(taken) => last = Some(taken),
        }
    }
    Err(last.unwrap_or_else(|| Taken {
        purpose: "witness",
        address: Octet(start).witness(),
        source: std::io::ErrorKind::AddrInUse.into(),
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_process_is_looked_at_at_the_same_port_as_in_a_cluster() {
        assert_eq!(METRICS_PORT, leeward_api::install::METRICS_PORT);
    }

    #[test]
    fn a_region_owns_the_addresses_that_its_index_names() {
        let region = Octet(7).region(2).unwrap();
        assert_eq!(region.api().to_string(), "127.7.32.1:6443");
        assert_eq!(region.registry().to_string(), "127.7.32.2:5000");
        assert_eq!(region.ingress().to_string(), "127.7.32.3:8080");
        assert_eq!(region.peer().to_string(), "127.7.32.4:7443");
        assert_eq!(region.kubelet(1).to_string(), "127.7.32.11:10250");
        assert_eq!(region.pod_cidr(0), "127.7.33.0/24");
        assert_eq!(region.service_cidr(), "127.7.40.0/22");
        assert_eq!(Octet(7).witness().to_string(), "127.7.0.1:7443");
    }

    #[test]
    fn no_two_parts_of_an_instance_share_an_address() {
        let mut seen = HashSet::from([Octet(1).witness(), Octet(1).witness_metrics()]);
        for region in (1..=MAX_REGIONS).map(|index| Octet(1).region(index).unwrap()) {
            for (purpose, address) in region.listeners(MAX_NODES) {
                assert!(seen.insert(address), "{purpose} at {address}");
            }
        }
        assert_eq!(Octet(1).region(0), None);
        assert_eq!(Octet(1).region(16), None);
    }

    #[test]
    fn pods_and_services_of_all_regions_are_apart() {
        let mut thirds = HashSet::new();
        for region in (1..=MAX_REGIONS).map(|index| Octet(1).region(index).unwrap()) {
            for node in 0..MAX_NODES {
                assert!(thirds.insert(region.base() + 1 + node));
            }
            for service in 8..12 {
                assert!(thirds.insert(region.base() + service));
            }
        }
    }

    #[test]
    fn a_used_address_is_named_together_with_what_to_do() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let error = check_free(&[("registry", address)]).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(error.contains("leeward down"), "{error}");
    }

    #[test]
    fn an_octet_in_use_is_passed_over() {
        let first = free_octet(90, 1, 1).unwrap();
        let _held = TcpListener::bind(first.region(1).unwrap().api()).unwrap();
        assert_ne!(free_octet(first.0, 1, 1).unwrap(), first);
    }
}
