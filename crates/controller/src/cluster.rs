//! `Cluster` resources: where the other clusters are, and what is seen of them.

mod service;

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use leeward_api::{Cluster, ClusterStatus, FIELD_MANAGER, condition};
use leeward_core::{
    app::Model,
    lease::{Moment, Sight, Timing},
    maintenance::Maintenance,
    name::ClusterName,
};
use leeward_quorum::known::{Known, Situation};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Peer},
    cache::Cache,
    clock,
    events::{Written, event, publish},
};

/// The other clusters, from this cluster's resources.
pub fn peers(cache: &Cache, me: &ClusterName) -> Vec<Peer> {
    let mut peers: Vec<_> = cache
        .clusters
        .state()
        .into_iter()
        .filter(|cluster| cluster.name_any() != me.as_str())
        .map(|cluster| Peer {
            cluster: ClusterName::new(cluster.name_any()),
            url: format!("https://{}", cluster.spec.peer),
            ingress: cluster.spec.ingress.clone(),
        })
        .collect();
    peers.sort_by(|a, b| a.cluster.cmp(&b.cluster));
    peers
}

/// Where a cluster's edge is, `HOST:PORT` as it is said.
pub fn ingress(cache: &Cache, cluster: &ClusterName) -> Option<String> {
    let found = cache.clusters.find(|found| found.name_any() == cluster.as_str())?;
    Some(found.spec.ingress.clone())
}

/// Keeps the peers and the resources up to date until `stop`.
pub async fn run(agent: Arc<Agent>, client: Client, cache: Cache, stop: CancellationToken) {
    let mut changes = agent.changes();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut written = Written::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed() => { changes.borrow_and_update(); }
            _ = ticks.tick() => {}
        }
        // An empty list may only mean that the API has not answered yet; what was known goes on.
        let peers = peers(&cache, &agent.me);
        if !peers.is_empty() {
            agent.set_peers(peers);
        }
        let own = cache.clusters.find(|cluster| cluster.name_any() == agent.me.as_str());
        let shown = own.as_ref().and_then(|own| own.status.as_ref()?.agent.as_deref());
        agent.is_shown(shown);
        if !agent.acts() {
            continue;
        }
        let clusters = cache.clusters.state();
        written.retain(clusters.iter().map(AsRef::as_ref));
        for cluster in clusters {
            if cluster.name_any() == agent.me.as_str()
                && let Err(error) = service::say(&agent, &cluster).await
            {
                tracing::debug!(%error, "what was said of this cluster is not in the quorum yet");
            }
            match look_after(&agent, &client, &cluster, &mut written).await {
                // Who writes over it at once would else never be seen as another one after this one.
                Ok(()) if cluster.name_any() == agent.me.as_str() => agent.is_shown(Some(&agent.holder)),
                Ok(()) => {}
                // Not a matter of time: somebody has to grant it.
                Err(kube::Error::Api(ref status)) if status.is_forbidden() => {
                    tracing::warn!(cluster = cluster.name_any(), error = %status, "this agent's account lacks a right");
                }
                Err(error) => tracing::debug!(cluster = cluster.name_any(), %error, "it was not looked after"),
            }
        }
    }
}

/// One resource: its finalizer, its status, and an event for each change of state.
async fn look_after(
    agent: &Agent,
    client: &Client,
    cluster: &Cluster,
    written: &mut Written<ClusterStatus>,
) -> Result<(), kube::Error> {
    let known = agent.known();
    let kept = service::keep(client, &known, cluster).await?;
    let before = written.newest(cluster, cluster.status.as_ref());
    let status = status(agent, &known, cluster, before.clone(), kept);
    if before.as_ref() == Some(&status) {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": "leeward.dev/v1alpha1",
        "kind": "Cluster",
        "metadata": { "name": cluster.name_any() },
        "status": status,
    });
    let api: Api<Cluster> = Api::all(client.clone());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&cluster.name_any(), &params, &Patch::Apply(&patch))
        .await?;
    let events = events(&cluster.name_any(), &before.unwrap_or_default(), &status);
    written.note(cluster, status);
    publish(client, &agent.me, events, &cluster.object_ref(&())).await;
    Ok(())
}

fn status(
    agent: &Agent,
    known: &Known,
    cluster: &Cluster,
    before: Option<ClusterStatus>,
    kept: Option<String>,
) -> ClusterStatus {
    let name = ClusterName::new(cluster.name_any());
    let now = clock::now();
    let holders = agent.holders();
    let seen = name == agent.me || !agent.unseen().contains(&name);
    let lease = match known.sights.get(&name) {
        None => "Waiting",
        Some(sight)
            if sight.over(&agent.timing, now)
                && !(seen && is_waited_for(sight, holders.get(&name), &agent.timing, now)) =>
        {
            LOST
        }
        Some(sight) if sight.is_of_another(holders.get(&name)) => "Waiting",
        Some(_) => HELD,
    };
    let (reason, message) = match (lease, seen) {
        (HELD, true) => ("Reporting", "its agent reports and holds its lease"),
        (HELD, false) => ("Silent", "its agent is not heard of here; its lease is not over"),
        ("Waiting", true) => (
            "Waiting",
            "its agent has begun and waits for the lease, until the one of the agent before it has ended: what it serves with a writer \
             role is fenced",
        ),
        (_, true) => (
            "NoLease",
            "its agent reports and has no lease: what it serves with a writer role is fenced",
        ),
        (_, false) => ("Silent", "its agent is not heard of and its lease is over"),
    };
    let mut status = before.unwrap_or_default();
    status.lease = Some(lease.to_owned());
    status.agent = Some(agent.holder.clone());
    let active = known
        .situations()
        .filter(|situation| is_active(situation, &name))
        .count();
    status.active = Some(u32::try_from(active).unwrap_or(u32::MAX));
    let said = known
        .maintenance
        .get(&name)
        .map_or(Maintenance::None, |said| said.value);
    status.maintenance = (said != Maintenance::None).then(|| format!("{said:?}"));
    let wall = jiff::Timestamp::from_millisecond(clock::wall_ms() as i64).unwrap_or_default();
    let ready = lease == HELD && seen;
    let mut say = |type_, value, reason: &str, message: &str| {
        let generation = cluster.metadata.generation;
        condition::set(&mut status.conditions, type_, value, reason, message, generation, wall);
    };
    say(condition::READY, ready, reason, message);
    let drained = service::drained(agent, known, &name, now);
    if let Some((drained, message)) = &drained {
        let reason = if *drained { "Drained" } else { "Draining" };
        say(condition::DRAINED, *drained, reason, message);
    }
    if let Some(kept) = &kept {
        say(condition::LEAVING, false, "InUse", kept);
    }
    let ignored = service::ignored(&agent.me, &name, cluster.spec.maintenance, said);
    if let Some(ignored) = &ignored {
        say(condition::EFFECTIVE, false, "NotItsOwn", ignored);
    }
    status.conditions.retain(|condition| match condition.type_.as_str() {
        condition::EFFECTIVE => ignored.is_some(),
        condition::DRAINED => drained.is_some(),
        condition::LEAVING => kept.is_some(),
        _ => true,
    });
    status
}

/// Whether the process that reports is about to take the lease of the one before it: it has waited for it as long as anybody, and is heard of.
fn is_waited_for(sight: &Sight, reporting: Option<&String>, timing: &Timing, now: Moment) -> bool {
    let taken = timing.taken_from(timing.taken_from(sight.first_seen));
    !sight.lease.sealed && sight.is_of_another(reporting) && now < taken
}

const HELD: &str = "Held";
const LOST: &str = "Lost";

fn is_active(situation: &Situation, cluster: &ClusterName) -> bool {
    situation.app.value.model == Model::ActivePassive
        && situation.routed().is_some_and(|basis| basis.serving() == cluster)
}

/// The changes of state between two statuses that deserve an event: one for a lost cluster, however many applications it had.
fn events(name: &str, before: &ClusterStatus, after: &ClusterStatus) -> Vec<Event> {
    let lost = |status: &ClusterStatus| status.lease.as_deref() == Some(LOST);
    let active = |status: &ClusterStatus| status.active.unwrap_or_default();
    let drained = |status: &ClusterStatus| {
        let mut conditions = status.conditions.iter();
        conditions.any(|condition| condition.type_ == condition::DRAINED && condition.status == "True")
    };
    let mut events = vec![];
    if lost(after) && !lost(before) {
        let note = format!(
            "the lease of {name} is over: it is fenced; ActivePassive applications that were active in it: {}",
            active(before)
        );
        events.push(event(EventType::Warning, "Lost", "Fence", note));
    }
    if lost(before) && after.lease.as_deref() == Some(HELD) {
        let note = format!("{name} holds its lease again; what has moved away stays where it is");
        events.push(event(EventType::Normal, "Returned", "Renew", note));
    }
    if lost(after) && active(after) == 0 && active(before) > 0 {
        let note = format!("nothing is active in {name} any more: all of it is being started elsewhere");
        events.push(event(EventType::Normal, "FailedOver", "FailOver", note));
    }
    if after.maintenance != before.maintenance {
        let note = match after.maintenance.as_deref() {
            None => format!("{name} is in service again"),
            Some("Cordon") => format!("{name} is cordoned: nothing moves there"),
            Some(_) => format!("{name} is drained: what is active in it moves away, and nothing moves there"),
        };
        events.push(event(EventType::Normal, "Maintenance", "Maintain", note));
    }
    if drained(after) && !drained(before) {
        let note = format!("nothing is active in {name}: it may be switched off");
        events.push(event(EventType::Normal, "Drained", "Maintain", note));
    }
    events
}

#[cfg(test)]
mod tests {
    use leeward_core::lease::{Delays, Lease};

    use super::*;

    fn status(lease: &str, active: u32) -> ClusterStatus {
        ClusterStatus {
            lease: Some(lease.into()),
            active: Some(active),
            ..ClusterStatus::default()
        }
    }

    fn told(before: &ClusterStatus, after: &ClusterStatus) -> Vec<String> {
        let events = events("west", before, after).into_iter();
        events
            .map(|event| format!("{}: {}", event.reason, event.note.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn the_lease_of_a_process_that_was_followed_by_another_one_is_not_lost_before_that_one_could_take_it() {
        let timing = Timing::new(Duration::from_secs(6), Delays::WITHOUT_ELECTIONS).unwrap();
        let lease = Lease {
            cluster: "west".into(),
            holder: "a".into(),
            sequence: 1,
            sealed: false,
        };
        let sight = Sight::observe(None, lease.clone(), 1, Moment::default());
        let waited = |sight: &Sight, by: &str, s| {
            is_waited_for(sight, Some(&by.to_owned()), &timing, Moment(Duration::from_secs(s)))
        };
        assert!(waited(&sight, "b", 7) && !waited(&sight, "b", 13));
        // By itself, by nobody, and after a takeover it is.
        assert!(!waited(&sight, "a", 7) && !is_waited_for(&sight, None, &timing, Moment(Duration::from_secs(7))));
        let sealed = Sight::observe(None, Lease { sealed: true, ..lease }, 1, Moment::default());
        assert!(!waited(&sealed, "b", 7));
    }

    #[test]
    fn a_lost_cluster_is_one_event_however_many_applications_it_had() {
        let (held, lost, left) = (status(HELD, 1000), status(LOST, 1000), status(LOST, 0));
        assert_eq!(
            told(&held, &lost),
            ["Lost: the lease of west is over: it is fenced; ActivePassive applications that were active in it: 1000"]
        );
        assert_eq!(told(&lost, &status(LOST, 600)), Vec::<String>::new());
        assert_eq!(told(&lost, &left).len(), 1);
        assert!(told(&lost, &left)[0].starts_with("FailedOver: nothing is active in west"));
        assert!(told(&left, &status(HELD, 0))[0].starts_with("Returned: "));
        // At once.
        assert_eq!(told(&held, &left).len(), 2);
    }

    #[test]
    fn going_out_of_service_and_back_is_told() {
        let (held, mut drain) = (status(HELD, 1), status(HELD, 1));
        drain.maintenance = Some("Drain".into());
        assert!(told(&held, &drain)[0].contains("moves away"));
        let mut done = drain.clone();
        let now = jiff::Timestamp::UNIX_EPOCH;
        condition::set(&mut done.conditions, condition::DRAINED, true, "Drained", "", None, now);
        assert_eq!(
            told(&drain, &done),
            ["Drained: nothing is active in west: it may be switched off"]
        );
        assert_eq!(told(&done, &held), ["Maintenance: west is in service again"]);
    }
}
