//! A cluster that goes out of service for a while, and one that leaves for good.
//!
//! What a person says of a cluster is said in the cluster's own resource; its agent puts it into the quorum, where every leader reads it. A
//! copy of the resource in another cluster says nothing about that. A `Cluster` that an application has a placement in is kept by a
//! finalizer, in each cluster by its own agent.

use kube::{Api, Client, ResourceExt as _};
use leeward_api::{Cluster, cluster as api};
use leeward_core::{
    lease::Moment,
    maintenance::{Left, Maintenance, left},
    name::{AppKey, ClusterName},
};
use leeward_quorum::{Error, Txn, key, known::Known};

use crate::{
    agent::{Agent, follow},
    finalizer,
};

/// At most this many applications are named; the others are counted.
const NAMED: usize = 5;

/// Puts what was said of this cluster into the quorum, if it is not there.
///
/// # Errors
/// The quorum does not answer.
pub(super) async fn say(agent: &Agent, own: &Cluster) -> Result<(), Error> {
    let wanted = wanted(own.spec.maintenance);
    let known = agent.known();
    let said = known.maintenance.get(&agent.me);
    if said.map_or(Maintenance::None, |said| said.value) == wanted || known.view.revision() == 0 {
        return Ok(());
    }
    let key = key::maintenance(&agent.me);
    let revision = said.map_or(0, |said| said.revision);
    let txn = Txn::default().expect(&key, revision).put(&key, &wanted)?.read(&key);
    let outcome = agent.quorum.txn(txn).await?;
    if outcome.applied {
        tracing::info!(cluster = %agent.me, ?wanted, "maintenance");
    }
    agent.learn(|known| follow::take(known, outcome.entries));
    Ok(())
}

fn wanted(said: Option<api::Maintenance>) -> Maintenance {
    match said {
        None => Maintenance::None,
        Some(api::Maintenance::Cordon) => Maintenance::Cordon,
        Some(api::Maintenance::Drain) => Maintenance::Drain,
    }
}

/// Why what a copy of a cluster's resource says of its maintenance counts for nothing, and where to say it; none where it says nothing, or
/// what is known to all (`known`) anyhow.
pub(super) fn ignored(
    me: &ClusterName,
    name: &ClusterName,
    said: Option<api::Maintenance>,
    known: Maintenance,
) -> Option<String> {
    let said = said.filter(|said| me != name && wanted(Some(*said)) != known)?;
    let command = match said {
        api::Maintenance::Cordon => "cordon",
        api::Maintenance::Drain => "drain",
    };
    Some(format!(
        "spec.maintenance: {said:?} counts for nothing here: this is the API of {me}, and it counts in {name} itself only. Say it there: \
         `leeward {command} {name}`, and take it out here"
    ))
}

/// Whether a drained cluster may be switched off, why not, and what else to know; none for one that is not drained.
pub(super) fn drained(agent: &Agent, known: &Known, name: &ClusterName, now: Moment) -> Option<(bool, String)> {
    let said = known.maintenance.get(name)?;
    if said.value != Maintenance::Drain {
        return None;
    }
    let unseen_by = agent.unseen_by();
    let mut found = Left::default();
    for situation in known.situations() {
        let reports = agent.reports(&situation.app.value.key);
        let snapshot = situation.snapshot(known, &unseen_by, agent.holders(), reports);
        left(&mut found, &snapshot, name, &agent.timing, now);
    }
    Some(told(&found))
}

/// The same for a person.
fn told(found: &Left) -> (bool, String) {
    let named = |apps: Vec<String>| {
        let more = apps.len().saturating_sub(NAMED);
        let mut text = apps.into_iter().take(NAMED).collect::<Vec<_>>().join("; ");
        if more > 0 {
            text += &format!("; and {more} more");
        }
        text
    };
    if !found.active.is_empty() {
        let apps = found.active.iter().map(|(app, why)| format!("{app}: {why}"));
        let text = named(apps.collect());
        return (false, format!("{} left: {text}", found.active.len()));
    }
    let mut text = "nothing is active in it: it may be switched off".to_owned();
    if !found.stops.is_empty() {
        let apps = named(found.stops.iter().map(AppKey::to_string).collect());
        text += &format!(", but what has whenStandbyAway: Stop does not write while it is away ({apps})");
    }
    (true, text)
}

/// Keeps a `Cluster` that is being deleted until no application has a placement in it. What keeps it, if anything.
///
/// # Errors
/// The API does not answer.
pub(super) async fn keep(client: &Client, known: &Known, cluster: &Cluster) -> Result<Option<String>, kube::Error> {
    let clusters: Api<Cluster> = Api::all(client.clone());
    if cluster.metadata.deletion_timestamp.is_none() {
        finalizer::add(&clusters, cluster).await?;
        return Ok(None);
    }
    // Before everything was read, nothing seems to be placed anywhere.
    if known.view.revision() == 0 {
        return Ok(Some("the quorum has not been read yet".into()));
    }
    let name = ClusterName::new(cluster.name_any());
    let apps = known.situations().map(|situation| &situation.app.value);
    let placed: Vec<_> = apps.filter(|app| app.placement(&name).is_some()).collect();
    match placed.first() {
        None => finalizer::remove(&clusters, cluster).await.map(|()| None),
        Some(first) => Ok(Some(format!(
            "applications that have a placement in it: {} ({} among them); take it out of their spec.placements first",
            placed.len(),
            first.key
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_copy_says_of_maintenance_counts_for_nothing_and_that_is_said() {
        let (west, east) = (ClusterName::new("west"), ClusterName::new("east"));
        let drain = Some(api::Maintenance::Drain);
        let said = ignored(&east, &west, drain, Maintenance::None).unwrap();
        for part in [
            "Drain counts for nothing here",
            "the API of east",
            "`leeward drain west`",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert!(ignored(&east, &west, Some(api::Maintenance::Cordon), Maintenance::Drain).is_some());
        // Its own resource, one that says nothing, and one that says what is so.
        assert_eq!(ignored(&west, &west, drain, Maintenance::None), None);
        assert_eq!(ignored(&east, &west, None, Maintenance::Drain), None);
        assert_eq!(ignored(&east, &west, drain, Maintenance::Drain), None);
    }

    #[test]
    fn what_is_left_in_a_drained_cluster_is_named_up_to_a_limit() {
        let app = |n: usize| AppKey::new("shop", format!("web-{n}"));
        let mut found = Left::default();
        assert_eq!(
            told(&found),
            (true, "nothing is active in it: it may be switched off".into())
        );
        found.stops.push(app(1));
        assert!(told(&found).1.contains("does not write while it is away (shop/web-1)"));
        found.active = (0..7).map(|n| (app(n), "it is paused".to_owned())).collect();
        let (drained, text) = told(&found);
        assert!(!drained);
        assert!(text.starts_with("7 left: shop/web-0: it is paused; "), "{text}");
        assert!(text.ends_with("shop/web-4: it is paused; and 2 more"), "{text}");
    }
}
