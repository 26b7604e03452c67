//! Renews this cluster's lease every `T/6`. One transaction renews it and reads the roles; only those that it read as
//! held here are granted, for a time that is counted from before it was sent. An answer that does not come is no renewal.

use std::{collections::BTreeMap, sync::Arc};

use leeward_core::{
    lease::{Grants, Lease, Moment, Role, Sight},
    name::RoleKey,
};
use leeward_quorum::{Entry, Error, Txn, key};
use tokio_util::sync::CancellationToken;

use super::{Agent, follow};
use crate::clock;

/// Renews until `stop`.
pub async fn run(agent: Arc<Agent>, stop: CancellationToken) {
    let mut held: Option<(Lease, u64)> = None;
    let mut failing = false;
    loop {
        let sent = clock::now();
        let result = renew(&agent, &mut held, sent).await;
        if let Err(error) = &result
            && !failing
        {
            tracing::warn!(%error, "the lease was not renewed");
        }
        failing = result.is_err();
        let next = sent.after(agent.timing.renew_every());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(next.since(clock::now())) => {}
        }
    }
}

/// One renewal. A lease that is not ours is taken only when it is over: a predecessor may still be answering.
async fn renew(agent: &Agent, held: &mut Option<(Lease, u64)>, sent: Moment) -> Result<(), Error> {
    let key = key::lease(&agent.me);
    let (lease, revision) = match held.take() {
        Some((lease, revision)) => (
            Lease {
                sequence: lease.sequence + 1,
                ..lease
            },
            revision,
        ),
        None => match fresh(agent, &key, sent).await? {
            Some(fresh) => fresh,
            None => return Ok(()),
        },
    };
    let txn = Txn::default()
        .expect(&key, revision)
        .put(&key, &lease)?
        .read(key::ROLES)
        .read(&key);
    let outcome = agent.quorum.txn(txn).await?;
    if !outcome.applied {
        tracing::warn!(cluster = %agent.me, "the lease was sealed or taken: everything that it granted is void");
        agent.grant(Grants::none());
        return Ok(());
    }
    let roles = roles(&outcome.entries);
    agent.grant(Grants::from_renewal(&agent.timing, &agent.me, sent, &roles));
    *held = Some((lease, outcome.revision));
    agent.learn(|known| follow::take(known, outcome.entries));
    Ok(())
}

/// The lease to begin with, and the revision that it replaces; none while a predecessor's may be in force.
async fn fresh(agent: &Agent, key: &str, now: Moment) -> Result<Option<(Lease, u64)>, Error> {
    let outcome = agent.quorum.txn(Txn::default().read(key)).await?;
    agent.learn(|known| follow::take(known, outcome.entries.clone()));
    let entry = outcome.entries.into_iter().find(|entry| entry.key == key);
    let found = entry.and_then(|entry| {
        let lease: Lease = serde_json::from_str(entry.value.as_deref()?).ok()?;
        Some((lease, entry.revision))
    });
    let begin = |sequence| Lease {
        cluster: agent.me.clone(),
        holder: agent.holder.clone(),
        sequence,
        sealed: false,
    };
    Ok(match found {
        None => Some((begin(1), 0)),
        Some((lease, revision)) if lease.sealed || lease.holder == agent.holder => {
            Some((begin(lease.sequence + 1), revision))
        }
        Some((lease, revision)) => {
            let known = agent.known();
            let seen = known.sights.get(&agent.me).filter(|sight| sight.revision == revision);
            seen.is_some_and(|sight: &Sight| sight.over(&agent.timing, now))
                .then(|| (begin(lease.sequence + 1), revision))
        }
    })
}

fn roles(entries: &[Entry]) -> BTreeMap<RoleKey, Role> {
    entries
        .iter()
        .filter_map(|entry| {
            let key = entry.key.strip_prefix(key::ROLES)?.parse().ok()?;
            Some((key, serde_json::from_str(entry.value.as_deref()?).ok()?))
        })
        .collect()
}
