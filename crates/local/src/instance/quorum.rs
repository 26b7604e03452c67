//! The quorum of an instance on etcd: one member in each region and one beside the witness, each a process like the others, so
//! that losing a region loses its member too.
//!
//! Pure: from addresses and paths to the configuration file of a member. Clients and members prove themselves by certificates of the
//! instance's own authority. Heartbeat and election are short, as everything is on one machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What every key begins with.
pub const PREFIX: &str = "leeward/";
/// Between a leader's signs of life, in milliseconds.
const HEARTBEAT_MS: u32 = 50;
/// Without one for this long a member stands for election, in milliseconds.
pub const ELECTION_MS: u32 = 300;
/// Revisions that are kept for whoever follows.
const KEPT: &str = "10000";

/// A member's name and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The region's name, or the witness's.
    pub name: String,
    /// Where clients reach it.
    pub clients: SocketAddr,
    /// Where the other members reach it.
    pub peers: SocketAddr,
}

/// How the quorum was begun anew, after a majority of its members was lost for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The incarnation that was begun.
    pub incarnation: u32,
    /// The identity of its etcd cluster.
    pub cluster: u64,
    /// The region whose member it was begun from: the only one that it has.
    pub region: String,
}

/// How an agent reaches the members: its own region's first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    endpoints: Vec<String>,
    prefix: &'static str,
    election_ms: u32,
}

impl Endpoints {
    /// The members as an agent of `region` asks them.
    pub fn new(members: &[Member], region: &str) -> Self {
        let (own, others): (Vec<_>, Vec<_>) = members.iter().partition(|member| member.name == region);
        let url = |member: &&Member| format!("https://{}", member.clients);
        Self {
            endpoints: own.iter().chain(&others).map(url).collect(),
            prefix: PREFIX,
            election_ms: ELECTION_MS,
        }
    }
}

/// The configuration file of one of the members, whose data is in `data` and whose certificates are in `pki`.
pub fn config(members: &[Member], member: &Member, data: PathBuf, pki: &Path) -> Value {
    let all: Vec<String> = members
        .iter()
        .map(|member| format!("{}=https://{}", member.name, member.peers))
        .collect();
    let (clients, peers) = (
        format!("https://{}", member.clients),
        format!("https://{}", member.peers),
    );
    let security = json!({
        "cert-file": pki.join("etcd.crt"),
        "key-file": pki.join("etcd.key"),
        "trusted-ca-file": pki.join("peer-ca.crt"),
        "client-cert-auth": true,
    });
    json!({
        "name": member.name,
        "data-dir": data,
        "listen-client-urls": clients,
        "advertise-client-urls": clients,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": all.join(","),
        "initial-cluster-state": "new",
        "heartbeat-interval": HEARTBEAT_MS,
        "election-timeout": ELECTION_MS,
        // A member that was cut off does not depose the leader when it comes back.
        "pre-vote": true,
        "auto-compaction-mode": "revision",
        "auto-compaction-retention": KEPT,
        "client-transport-security": security,
        "peer-transport-security": security,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, third: u8) -> Member {
        Member {
            name: name.into(),
            clients: SocketAddr::from(([127, 5, third, 5], 2379)),
            peers: SocketAddr::from(([127, 5, third, 5], 2380)),
        }
    }

    #[test]
    fn every_member_knows_all_and_an_agent_asks_its_own_first() {
        let members = [member("witness", 0), member("west", 16), member("east", 32)];
        let config = config(&members, &members[1], "/d/etcd".into(), Path::new("/d/pki"));
        let all = "witness=https://127.5.0.5:2380,west=https://127.5.16.5:2380,east=https://127.5.32.5:2380";
        assert_eq!(config["initial-cluster"], all);
        assert_eq!(config["listen-client-urls"], "https://127.5.16.5:2379");
        assert_eq!(config["peer-transport-security"]["client-cert-auth"], true);
        let east = serde_json::to_value(Endpoints::new(&members, "east")).unwrap();
        assert_eq!(east["endpoints"][0], "https://127.5.32.5:2379");
        assert_eq!(east["endpoints"].as_array().unwrap().len(), 3);
    }
}
