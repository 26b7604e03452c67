//! Where the clusters' edges are, as addresses: a `Cluster` may give a name, and routing knows none.
//!
//! Flow: what `spec.ingress` says of each cluster -> looked up -> addresses, which [`crate::serve`] makes the routing table with.
//! Invariant: what was found once stays while nobody answers for the name, so that an edge that is cut off from name servers goes on.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;

/// How long what was found counts before it is looked up again.
const AGAIN: Duration = Duration::from_secs(15);
/// How often a name that was not found is tried, and how soon a new one.
const SOON: Duration = Duration::from_secs(1);
/// The longest that one is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

type Found = BTreeMap<String, SocketAddr>;

/// The addresses of names, `HOST:PORT` each.
#[derive(Debug, Default)]
pub struct Edges(watch::Sender<Found>);

impl Edges {
    /// The address that is meant by `HOST:PORT`; none while nobody knows the name.
    pub fn address(&self, said: &str) -> Option<SocketAddr> {
        said.parse().ok().or_else(|| self.0.borrow().get(said).copied())
    }

    /// Tells of every change.
    pub fn changes(&self) -> watch::Receiver<Found> {
        self.0.subscribe()
    }

    /// Looks up what the clusters say, until `stop`.
    pub async fn follow(self: Arc<Self>, cache: Cache, stop: CancellationToken) {
        let mut last: BTreeMap<String, Looked> = BTreeMap::new();
        let mut ticks = tokio::time::interval(SOON);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let said = cache.clusters.state().into_iter().map(|one| one.spec.ingress.clone());
            let names: Vec<String> = said.filter(|said| said.parse::<SocketAddr>().is_err()).collect();
            last.retain(|name, _| names.contains(name));
            let now = Instant::now();
            let due = |name: &&String| last.get(*name).is_none_or(|last| last.is_due(now));
            let looked = join_all(names.iter().filter(due).map(async |name| (name, look_up(name).await))).await;
            for (name, answer) in looked {
                let found = self.take(name, &answer);
                let was_found = last
                    .insert(name.clone(), Looked { at: now, found })
                    .is_none_or(|last| last.found);
                match answer {
                    Err(error) if was_found => {
                        tracing::warn!(name, %error, "a cluster's ingress cannot be looked up; users are sent to where it was last");
                    }
                    Ok(_) if !was_found => tracing::info!(name, "a cluster's ingress can be looked up again"),
                    _ => {}
                }
            }
        }
    }

    /// Takes an answer, and says whether there was any. A name may have several addresses: the one in use stays while it is among them.
    fn take(&self, name: &str, answer: &io::Result<Vec<SocketAddr>>) -> bool {
        let Some(first) = answer.as_ref().ok().and_then(|all| all.first()) else {
            return false;
        };
        let all = answer.as_deref().unwrap_or_default();
        self.0.send_if_modified(|found| {
            let stays = found.get(name).is_some_and(|address| all.contains(address));
            if !stays {
                found.insert(name.to_owned(), *first);
            }
            !stays
        });
        true
    }
}

/// When a name was looked up last, and whether it was found.
struct Looked {
    at: Instant,
    found: bool,
}

impl Looked {
    fn is_due(&self, now: Instant) -> bool {
        !self.found || now.duration_since(self.at) >= AGAIN
    }
}

async fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
    let answer = tokio::time::timeout(PATIENCE, tokio::net::lookup_host(name)).await;
    let all: Vec<_> = answer.map_err(|_| io::ErrorKind::TimedOut)??.collect();
    match all.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "it has no address")),
        false => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(all: &[&str]) -> io::Result<Vec<SocketAddr>> {
        Ok(all.iter().map(|one| one.parse().unwrap()).collect())
    }

    #[test]
    fn an_address_counts_as_it_is_and_a_name_once_it_was_found() {
        let edges = Edges::default();
        assert_eq!(edges.address("10.0.0.7:80"), "10.0.0.7:80".parse().ok());
        assert_eq!(edges.address("[fd00::7]:80"), "[fd00::7]:80".parse().ok());
        assert_eq!(edges.address("west.example:80"), None);
        let mut changes = edges.changes();
        assert!(edges.take("west.example:80", &addresses(&["10.0.0.7:80", "10.0.0.8:80"])));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        let west = || edges.address("west.example:80").unwrap().to_string();
        assert_eq!(west(), "10.0.0.7:80");
        // In another order it is the same; while nobody answers, too.
        assert!(edges.take("west.example:80", &addresses(&["10.0.0.8:80", "10.0.0.7:80"])));
        assert!(!edges.take("west.example:80", &Err(io::ErrorKind::TimedOut.into())));
        assert!(!edges.take("west.example:80", &addresses(&[])));
        assert_eq!(west(), "10.0.0.7:80");
        assert!(!changes.has_changed().unwrap());
        assert!(edges.take("west.example:80", &addresses(&["10.0.0.8:80"])));
        assert_eq!(west(), "10.0.0.8:80");
        assert!(changes.has_changed().unwrap());
    }

    #[tokio::test]
    async fn this_machine_has_an_address() {
        let found = look_up("localhost:80").await.unwrap();
        assert!(
            found
                .iter()
                .all(|address| address.ip().is_loopback() && address.port() == 80)
        );
        assert!(look_up("nobody.invalid:80").await.is_err());
    }
}
