//! The name that an agent signs its leases with: which process it is, and where the other replicas of its region reach it.
//!
//! The core only looks whether two of them are the same. What is in one is read here and nowhere else: what a peer or a gate says to a replica
//! that does not act is passed on to the one that the region's lease names.
//!
//! Its form is `CLUSTER/PROCESS/BEGAN`, and `@IP/PEER/GATE/EDGE` after it where it may have other replicas beside it; `-` for no gates. The
//! process is the pod's name, or the number of the process where there is no pod: in pods that is nearly always 1.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use leeward_core::name::ClusterName;

/// Who signs a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Whose lease it is.
    pub cluster: ClusterName,
    /// The pod's name, or the number of the process.
    pub process: String,
    /// When it began, Unix ms: the same pod's next process is another holder.
    pub began_ms: u64,
    /// Where the other replicas of its region reach it; none where it has none.
    pub reached: Option<Reached>,
}

/// Where one replica is reached by the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Its own address, not that of all replicas.
    pub ip: IpAddr,
    /// The port of the peer link.
    pub peer: u16,
    /// The port at which gates ask, where there are any.
    pub gate: Option<u16>,
    /// The port of the edge.
    pub edge: u16,
}

impl Reached {
    /// Its peer link.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.peer)
    }

    /// Where gates ask it.
    pub fn gate(&self) -> Option<SocketAddr> {
        self.gate.map(|port| SocketAddr::new(self.ip, port))
    }

    /// Its edge.
    pub fn edge(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.edge)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.cluster, self.process, self.began_ms)?;
        let Some(Reached { ip, peer, gate, edge }) = &self.reached else {
            return Ok(());
        };
        let gate = gate.map_or_else(|| "-".to_owned(), |port| port.to_string());
        write!(f, "@{ip}/{peer}/{gate}/{edge}")
    }
}

/// What is not the name of a holder, as this version writes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not CLUSTER/PROCESS/BEGAN with @IP/PEER/GATE/EDGE or without: another version of Leeward has signed the lease"
)]
pub struct NotAHolder(String);

impl FromStr for Holder {
    type Err = NotAHolder;

    fn from_str(text: &str) -> Result<Self, NotAHolder> {
        read(text).ok_or_else(|| NotAHolder(text.to_owned()))
    }
}

fn read(text: &str) -> Option<Holder> {
    let (who, reached) = match text.split_once('@') {
        None => (text, None),
        Some((who, at)) => (who, Some(read_reached(at)?)),
    };
    let [cluster, process, began] = parts(who)?;
    let named = !cluster.is_empty() && !process.is_empty();
    named.then_some(())?;
    Some(Holder {
        cluster: ClusterName::new(cluster),
        process: process.to_owned(),
        began_ms: began.parse().ok()?,
        reached,
    })
}

fn read_reached(text: &str) -> Option<Reached> {
    let [ip, peer, gate, edge] = parts(text)?;
    Some(Reached {
        ip: ip.parse().ok()?,
        peer: peer.parse().ok()?,
        gate: match gate {
            "-" => None,
            port => Some(port.parse().ok()?),
        },
        edge: edge.parse().ok()?,
    })
}

fn parts<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.split('/').collect::<Vec<_>>().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_holder_signs_with_is_read_back() {
        let pod = Reached {
            ip: "10.244.0.7".parse().unwrap(),
            peer: 7443,
            gate: Some(7444),
            edge: 8080,
        };
        let six = Reached {
            ip: "fd00::7".parse().unwrap(),
            gate: None,
            ..pod
        };
        for (reached, text) in [
            (None, "eu-west/leeward-7d9f-x2k4z/1700"),
            (Some(pod), "eu-west/leeward-7d9f-x2k4z/1700@10.244.0.7/7443/7444/8080"),
            (Some(six), "eu-west/leeward-7d9f-x2k4z/1700@fd00::7/7443/-/8080"),
        ] {
            let holder = Holder {
                cluster: "eu-west".into(),
                process: "leeward-7d9f-x2k4z".into(),
                began_ms: 1700,
                reached,
            };
            assert_eq!(holder.to_string(), text);
            assert_eq!(text.parse(), Ok(holder));
        }
        assert_eq!(six.peer().to_string(), "[fd00::7]:7443");
    }

    #[test]
    fn what_another_version_signed_with_is_not_guessed_at() {
        for text in [
            "",
            "west-1-1700",
            "west/1",
            "west//1700",
            "west/1/x",
            "west/1/2/3",
            "west/1/2@",
            "west/1/2@10.0.0.1/7443/7444",
            "west/1/2@name/7443/7444/8080",
        ] {
            assert_eq!(text.parse::<Holder>(), Err(NotAHolder(text.to_owned())));
        }
    }
}
