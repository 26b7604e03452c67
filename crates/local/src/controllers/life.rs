//! How long each node has been silent, by this process's own clock, and whether its process is gone.
//!
//! A lease counts from when its renewal was seen here, so that no clocks are compared. If this process itself was held up, every node is
//! given its whole grace again: what it missed to see is no silence.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::MicroTime};

use super::{
    node_life::{EVICTION, GRACE, Sign},
    region::Region,
};

/// A longer time between two turns than this means that this process was held up.
const HELD_UP: Duration = Duration::from_millis(1500);
/// The longest time between two turns while there are nodes; also how often the process of a silent node is looked for.
const BEAT: Duration = Duration::from_secs(1);
/// How long a connection to a kubelet may take.
const CONNECT: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct Pulse {
    renewed: Option<MicroTime>,
    seen: Instant,
}

/// What is known of the nodes' lives.
#[derive(Debug)]
pub(super) struct Life {
    pulses: HashMap<String, Pulse>,
    signs: HashMap<String, Sign>,
    last_turn: Instant,
}

impl Life {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            pulses: HashMap::new(),
            signs: HashMap::new(),
            last_turn: now,
        }
    }

    /// Takes in what the leases say; to be called on every turn.
    pub(super) fn observe(&mut self, region: &Region, now: Instant) {
        let held_up = now.duration_since(self.last_turn) > HELD_UP;
        self.last_turn = now;
        self.pulses.retain(|name, _| region.nodes.get(None, name).is_some());
        for node in region.nodes.iter() {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let lease = region.leases.get(Some("kube-node-lease"), name);
            let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
            let pulse = self.pulses.entry(name.to_owned()).or_insert_with(|| Pulse {
                renewed: renewed.clone(),
                seen: now,
            });
            if pulse.renewed != renewed || held_up {
                *pulse = Pulse { renewed, seen: now };
            }
        }
        self.signs = self
            .pulses
            .iter()
            .map(|(name, pulse)| {
                let sign = Sign {
                    silent: now.duration_since(pulse.seen),
                    process_gone: self.signs.get(name).is_some_and(|sign| sign.process_gone),
                };
                (name.clone(), sign)
            })
            .collect();
    }

    /// When to look at the nodes again: when one has been silent for long enough, and from then on every [`BEAT`].
    pub(super) fn next_look(&self) -> Option<Instant> {
        let looks = self.pulses.values().map(|pulse| {
            let silent = self.last_turn.duration_since(pulse.seen);
            let next = [GRACE, GRACE + EVICTION].into_iter().find(|limit| silent < *limit);
            next.map_or(self.last_turn + BEAT, |limit| {
                (pulse.seen + limit).min(self.last_turn + BEAT)
            })
        });
        looks.min()
    }

    /// Whether a node has been silent for too long.
    pub(super) fn is_alarmed(&self) -> bool {
        self.signs.values().any(|sign| sign.silent >= GRACE)
    }

    /// Looks for the processes of silent nodes.
    pub(super) async fn look(&mut self, region: &Region) {
        for (name, sign) in &mut self.signs {
            sign.process_gone = sign.silent >= GRACE
                && match region.nodes.get(None, name).and_then(kubelet) {
                    Some(address) => refuses(address).await,
                    None => false,
                };
        }
    }

    pub(super) fn signs(&self) -> &HashMap<String, Sign> {
        &self.signs
    }
}

fn kubelet(node: &Node) -> Option<SocketAddr> {
    let status = node.status.as_ref()?;
    let address = status
        .addresses
        .as_ref()?
        .iter()
        .find(|address| address.type_ == "InternalIP")?;
    let port = status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()?.port;
    Some(SocketAddr::new(
        address.address.parse().ok()?,
        u16::try_from(port).ok()?,
    ))
}

// A process that hangs still has its listening socket, and the kernel takes the connection; only where none is, it refuses.
async fn refuses(address: SocketAddr) -> bool {
    match tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect(address)).await {
        Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controllers::samples::object_of;

    fn region(renewed: u32, version: u64) -> Region {
        let mut region = Region::default();
        region.nodes.wrote(
            object_of(json!({"metadata": {"name": "n0", "resourceVersion": "1"}})),
            Instant::now(),
        );
        let lease = object_of(json!({
            "metadata": {"name": "n0", "namespace": "kube-node-lease", "resourceVersion": version.to_string()},
            "spec": {"renewTime": format!("2026-01-01T00:00:{renewed:02}.000000Z")},
        }));
        region.leases.wrote(lease, Instant::now());
        region
    }

    fn silent(life: &Life) -> u64 {
        life.signs()["n0"].silent.as_secs()
    }

    #[test]
    fn silence_counts_from_when_a_renewal_was_seen() {
        let start = Instant::now();
        let mut life = Life::new(start);
        let second = |second| start + Duration::from_secs(second);
        life.observe(&region(1, 2), start);
        life.observe(&region(1, 2), second(1));
        assert_eq!(silent(&life), 1);
        assert_eq!(life.next_look(), Some(second(2)));
        life.observe(&region(1, 2), second(2));
        assert_eq!((silent(&life), life.next_look()), (2, Some(second(3))));
        life.observe(&region(2, 3), second(3));
        assert_eq!(silent(&life), 0);
    }

    #[test]
    fn a_controller_that_was_held_up_gives_every_node_its_grace_again() {
        let start = Instant::now();
        let mut life = Life::new(start);
        life.observe(&region(1, 2), start);
        life.observe(&region(1, 2), start + Duration::from_secs(60));
        assert_eq!(silent(&life), 0);
    }

    #[tokio::test]
    async fn only_an_address_where_nobody_listens_proves_that_a_process_is_gone() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!refuses(address).await);
        drop(listener);
        assert!(refuses(address).await);
    }
}
