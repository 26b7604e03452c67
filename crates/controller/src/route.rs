//! What the edge goes by: its table, who may answer for which role, where the writers of this cluster are, and the edge of the replica that acts.
//!
//! Flow: a change of what is known, of looked-up addresses or of backends makes the table anew; [`Shared`] takes it when it is a newer one.
//! Invariant: where nothing is known, the last table goes on.

use std::sync::Arc;

use leeward_core::routing::salvage;
use leeward_traffic::{Backends, Shared};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::Whither,
    cluster,
    edges::Edges,
    protected_app::{Context, admission, table},
};

/// Keeps table, roles, backends and the other replica's edge up to date until `stop`.
pub(crate) async fn run(
    context: Arc<Context>,
    shared: Arc<Shared>,
    grants: Arc<admission::Grants>,
    edges: Arc<Edges>,
    stop: CancellationToken,
) {
    let mut changes = context.agent.changes();
    let mut addresses = edges.changes();
    let mut backends = context.backends.subscribe();
    let mut refused = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed() => { changes.borrow_and_update(); }
            _ = addresses.changed() => { addresses.borrow_and_update(); }
            _ = backends.changed() => {
                let now = backends.borrow_and_update().clone();
                shared.set_backends(Backends::new(now));
            }
        }
        shared.set_replica(match context.agent.whither() {
            Whither::There(reached) => Some(reached.edge()),
            _ => None,
        });
        let known = context.agent.known();
        let situations: Vec<_> = known.situations().cloned().collect();
        grants.set_roles(table::roles(situations.iter().map(AsRef::as_ref)));
        let (incarnation, _) = known.incarnation();
        let apps = situations.iter().map(AsRef::as_ref);
        let last = shared.index();
        let table = table::build(incarnation, apps, &known.maintenance, |cluster| {
            let said = cluster::ingress(&context.cache, cluster)?;
            // A name that was not looked up since the start is where it was before.
            edges.address(&said).or_else(|| {
                let mut all = last.table().profiles.iter().flat_map(|profile| &profile.endpoints);
                all.find(|endpoint| endpoint.cluster == *cluster)
                    .map(|endpoint| endpoint.address)
            })
        });
        // Without quorum or API nothing is known; the last table goes on. An agent without fences takes no notice of a plan.
        let unfenced = context.agent.is_unfenced() && !shared.index().profiles().is_empty();
        if table.profiles.is_empty() && situations.is_empty() || unfenced {
            continue;
        }
        // One application's bad profile must not hold up another one's failover.
        let (table, bad) = salvage(table, Some(shared.index().table()));
        for error in bad {
            tracing::debug!(%error, "a profile was left as it was");
        }
        match shared.install(table) {
            Ok(_) => refused = None,
            Err(error) => {
                let text = error.to_string();
                if refused.as_ref() != Some(&text) {
                    tracing::warn!(error = text, "the routing table");
                    refused = Some(text);
                }
            }
        }
    }
}
