//! Renews this cluster's lease every `T/6`. One transaction renews it and reads the roles; only those that it read as
//! held here are granted, for a time that is counted from before it was sent. An answer that does not come is no renewal.

use std::{sync::Arc, time::Duration};

use leeward_core::{
    holder::{Holder, Offer, Renewal},
    lease::{Lease, Moment},
};
use leeward_quorum::{Error, Txn, key, known::roles};
use tokio_util::sync::CancellationToken;

use super::{Agent, follow};
use crate::clock;

/// How often the in-sync sets are looked at.
const SYNC: Duration = Duration::from_millis(200);

/// Renews until `stop`.
pub async fn run(agent: Arc<Agent>, stop: CancellationToken) {
    let mut holder = Holder::new(agent.me.clone(), agent.holder.clone());
    let mut failing = false;
    loop {
        let sent = clock::now();
        let result = renew(&agent, &mut holder, sent).await;
        if let Err(error) = &result
            && !failing
        {
            tracing::warn!(%error, "the lease was not renewed");
        }
        failing = result.is_err();
        if failing {
            agent.counted.unanswered();
        }
        agent.counted.came_round();
        let next = sent.after(agent.timing.renew_every());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(next.since(clock::now())) => {}
            () = keep_in_sync(&agent, &holder) => {}
        }
    }
}

/// Looks after the in-sync sets until the next renewal is due. A change that was not answered by then may have been applied or not: it
/// counts for both until the renewal tells.
async fn keep_in_sync(agent: &Agent, holder: &Holder) {
    loop {
        tokio::time::sleep(SYNC).await;
        if let Some(lease) = holder.revision().filter(|_| agent.has_synced())
            && let Err(error) = agent.sync(lease).await
        {
            tracing::debug!(%error, "an in-sync set was not changed");
        }
    }
}

/// One renewal, or the first after an answer that did not come.
async fn renew(agent: &Agent, holder: &mut Holder, sent: Moment) -> Result<(), Error> {
    let key = key::lease(&agent.me);
    let offer = match holder.renewal() {
        Renewal::Write(offer) => offer,
        Renewal::Read => match begin(agent, holder, &key, sent).await? {
            Some(offer) => offer,
            None => return Ok(()),
        },
    };
    let txn = Txn::default()
        .expect(&key, offer.replaces)
        .put(&key, &offer.lease)?
        .read(key::ROLES)
        .read(&key);
    let outcome = agent.quorum.txn(txn).await?;
    agent.counted.answered(outcome.applied);
    if !outcome.applied {
        tracing::warn!(cluster = %agent.me, "the lease was sealed or taken: everything that it granted is void");
    }
    let revision = outcome.applied.then_some(outcome.revision);
    let roles = roles(&outcome.entries);
    if outcome.applied {
        agent.has_renewed(sent);
        agent.holds_gates(agent.timing.stopped_by(sent));
        agent.bound_by(|sets| sets.renewed(&roles));
    }
    agent.grant(holder.renewed(offer, sent, revision, &roles, &agent.timing));
    if outcome.applied {
        agent.learn(|known| known.take_renewal(outcome.entries, clock::now()));
    }
    Ok(())
}

/// Reads the lease; what to begin with.
async fn begin(agent: &Agent, holder: &Holder, key: &str, now: Moment) -> Result<Option<Offer>, Error> {
    let outcome = agent.quorum.txn(Txn::default().read(key)).await?;
    let entry = outcome.entries.iter().find(|entry| entry.key == key);
    let found: Option<(Lease, u64)> =
        entry.and_then(|entry| Some((serde_json::from_str(entry.value.as_deref()?).ok()?, entry.revision)));
    if let Some((lease, revision)) = &found {
        agent.has_read(lease, *revision, now);
    }
    agent.learn(|known| follow::take(known, outcome.entries));
    let known = agent.known();
    let found = found.as_ref().map(|(lease, revision)| (lease, *revision));
    Ok(holder.begin(found, known.sights.get(&agent.me), &agent.timing, now))
}
