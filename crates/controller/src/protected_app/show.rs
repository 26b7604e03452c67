//! What a person sees of this cluster's `ProtectedApp`s: each is accepted or refused, gets its status, and an event for
//! every change of state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Resource as _, ResourceExt as _,
    runtime::events::{Event, EventType},
};
use leeward_api::{ProtectedApp, ProtectedAppStatus, app::RunningOperation, condition, operation::OperationType};
use leeward_core::{
    app::{App, Model},
    lease::Moment,
    name::{AppKey, ClusterName},
    plan::Snapshot,
    report::{self, Report},
};
use tokio_util::sync::CancellationToken;

use super::{
    Context, accept,
    status::{
        self,
        fenced::{self, Bare},
        figures,
    },
    workloads,
};
use crate::{
    agent::Agent,
    cache::Cache,
    clock,
    events::{Written, event, publish},
};

/// Accepts this cluster's resources and shows the state of all, until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let mut changes = context.agent.changes();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut written = Shown::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed() => {
                changes.borrow_and_update();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            _ = ticks.tick() => {}
        }
        if !context.agent.speaks() {
            continue;
        }
        let resources = context.cache.apps.state();
        written.statuses.retain(resources.iter().map(AsRef::as_ref));
        let here: BTreeSet<_> = resources.iter().filter_map(|resource| resource.uid()).collect();
        written.at.retain(|uid, _| here.contains(uid));
        for resource in resources {
            show(&context, &resource, &mut written).await;
        }
    }
}

/// What was written.
#[derive(Default)]
struct Shown {
    statuses: Written<ProtectedAppStatus>,
    /// When each was written last, by UID.
    at: BTreeMap<String, Moment>,
}

impl Shown {
    /// Whether a status is worth being written now.
    fn is_due(&self, uid: &str, before: Option<&ProtectedAppStatus>, wanted: &ProtectedAppStatus, now: Moment) -> bool {
        let Some(before) = before else { return true };
        let lately = self.at.get(uid).is_some_and(|at| now < at.after(figures::EVERY));
        before != wanted && !(lately && figures::only(before, wanted))
    }
}

async fn show(context: &Context, resource: &ProtectedApp, written: &mut Shown) {
    let agent = &context.agent;
    let accepted = match accept::accept(agent, &context.client, &context.cache, resource).await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::debug!(%error, "a resource could not be accepted now");
            return;
        }
    };
    let name = resource.metadata.name.clone().unwrap_or_default();
    let namespace = resource.metadata.namespace.clone().unwrap_or_default();
    let known = agent.known();
    let situation = known.situation(&AppKey::new(&namespace, &name));
    let now = clock::wall_ms();
    let before = written.statuses.newest(resource, resource.status.as_ref());
    let built = situation.map(|situation| {
        let unseen_by = agent.unseen_by();
        let reports = agent.reports(&situation.app.value.key);
        let snapshot = situation.snapshot(&known, &unseen_by, agent.holders(), reports);
        let instant = clock::now();
        let report = told(agent, &snapshot, instant);
        let sight = situation.routed().and_then(|basis| known.sights.get(basis.serving()));
        let until = status::wrote_until(sight, &agent.timing, instant, now);
        let bare = bare(&context.cache, &agent.me, &situation.app.value);
        status::build(&situation, &report, &bare, before.as_ref(), now, until)
    });
    // What is not accepted changes nothing: what runs on is shown with it.
    let wanted = match (status::refused(resource, &accepted, built.as_ref(), now), built) {
        (Some(refused), _) => refused,
        (None, Some(built)) => built,
        (None, None) => return,
    };
    let uid = resource.uid().unwrap_or_default();
    if !written.is_due(&uid, before.as_ref(), &wanted, clock::now()) {
        return;
    }
    if let Err(error) = status::apply(&context.client, &namespace, &name, &wanted).await {
        tracing::debug!(%error, "a status was not written");
        return;
    }
    let events = events(before.as_ref(), &wanted);
    written.statuses.note(resource, wanted);
    written.at.insert(uid, clock::now());
    publish(&context.client, &agent.me, events, &resource.object_ref(&())).await;
}

/// What is true of an application, as this agent sees it, and whether the quorum could still decide on its next loss.
pub(crate) fn told(agent: &Agent, snapshot: &Snapshot<'_>, now: Moment) -> Report {
    let mut told = report::report(snapshot, &agent.timing, now);
    if snapshot.app.model == Model::ActivePassive {
        told.waits_for(agent.no_spare().map(|why| why + report::NO_SPARE));
    }
    told
}

/// The application's writers that run here without a gate.
pub(crate) fn bare(cache: &Cache, me: &ClusterName, app: &App) -> Bare {
    let (asked, others) = workloads::without_gate(cache, app);
    Bare {
        cluster: Some(me.clone()),
        asked,
        others,
    }
}

/// The changes of state between two statuses that deserve an event.
fn events(before: Option<&ProtectedAppStatus>, after: &ProtectedAppStatus) -> Vec<Event> {
    let mut events = moves(before, after);
    let active = before.and_then(|before| before.active.as_ref());
    if let Some(now) = after.active.as_ref().filter(|now| active != Some(now)) {
        let note = match (active, after.epoch) {
            (None, _) => format!("{now} is the active cluster"),
            (Some(old), Some(epoch)) => format!("{now} is the active cluster instead of {old}, at epoch {epoch}"),
            (Some(old), None) => format!("{now} is the active cluster instead of {old}"),
        };
        events.push(event(EventType::Normal, "ActiveClusterChanged", "Route", note));
    }
    events.extend(refusal(before, after));
    events.extend(aspects(before, after));
    events.extend(standbys(before, after));
    events.extend(bare_writer(before, after));
    events
}

/// An operation that began or ended.
fn moves(before: Option<&ProtectedAppStatus>, after: &ProtectedAppStatus) -> Vec<Event> {
    let word = |running: &RunningOperation| match running.type_ {
        OperationType::Failover => "Failover",
        OperationType::Switchover => "Switchover",
    };
    let old = before.and_then(|before| before.operation.as_ref());
    let new = after.operation.as_ref();
    let mut events = vec![];
    if old.map(|old| &old.name) == new.map(|new| &new.name) {
        return events;
    }
    if let Some(old) = old {
        let (type_, what) = match &after.active {
            Some(active) if *active != old.to => {
                (EventType::Warning, format!("{active} is active, and not {}", old.to))
            }
            Some(active) => (EventType::Normal, format!("{active} is active")),
            None => (EventType::Normal, "its Operation says how".to_owned()),
        };
        let reason = format!("{}Ended", word(old));
        events.push(event(type_, &reason, "Move", format!("{} has ended: {what}", old.name)));
    }
    if let Some(new) = new {
        let type_ = match new.type_ {
            OperationType::Failover => EventType::Warning,
            OperationType::Switchover => EventType::Normal,
        };
        let note = format!("{} has begun: from {} to {}", new.name, new.from, new.to);
        events.push(event(type_, &format!("{}Started", word(new)), "Move", note));
    }
    events
}

fn found<'a>(status: &'a ProtectedAppStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

/// A specification that was not accepted, each time that it is for another reason.
fn refusal(before: Option<&ProtectedAppStatus>, after: &ProtectedAppStatus) -> Option<Event> {
    let refused = |status: &ProtectedAppStatus| {
        let condition = found(status, condition::PROTECTED)?;
        status::REFUSED
            .contains(&condition.reason.as_str())
            .then(|| (condition.reason.clone(), condition.message.clone()))
    };
    let now = refused(after)?;
    let news = before.and_then(refused).is_none_or(|old| old != now);
    news.then(|| event(EventType::Warning, &now.0, "Accept", now.1))
}

/// The conditions: what each is called when it holds and when it does not, and whether the first time that it is said is news.
const ASPECTS: [(&str, &str, &str, [bool; 2]); 3] = [
    (condition::PROTECTED, "Protected", "NotProtected", [true, false]),
    (condition::SERVING, "Serving", "NotServing", [false, false]),
    (condition::FENCED, "Fenced", "NotFenced", [true, true]),
];

fn aspects(before: Option<&ProtectedAppStatus>, after: &ProtectedAppStatus) -> Vec<Event> {
    let mut events = vec![];
    for (type_, holds, holds_not, [first, first_not]) in ASPECTS {
        let was = before
            .and_then(|before| found(before, type_))
            .map(|c| c.status == "True");
        let Some(now) = found(after, type_) else { continue };
        if now.reason == fenced::WITHOUT_GATE {
            continue;
        }
        let note = now.message.clone();
        match (was, now.status == "True") {
            (Some(false), true) => events.push(event(EventType::Normal, holds, "Watch", note)),
            (None, true) if first => events.push(event(EventType::Normal, holds, "Watch", note)),
            (Some(true), false) => events.push(event(EventType::Warning, holds_not, "Watch", note)),
            (None, false) if first_not => events.push(event(EventType::Warning, holds_not, "Watch", note)),
            _ => {}
        }
    }
    events
}

/// Standbys that are in sync from now on, or no longer.
fn standbys(before: Option<&ProtectedAppStatus>, after: &ProtectedAppStatus) -> Vec<Event> {
    let was = |cluster: &str| {
        let mut placements = before?.placements.iter();
        placements.find(|placement| placement.cluster == cluster)?.in_sync
    };
    let placements = after.placements.iter();
    let news = placements.filter_map(|placement| {
        let (cluster, was, now) = (&placement.cluster, was(&placement.cluster), placement.in_sync?);
        match (was.unwrap_or(false), now) {
            (false, true) => Some(event(
                EventType::Normal,
                "StandbyInSync",
                "Mirror",
                format!("{cluster} lacks no more than the rpo: it may take over"),
            )),
            (true, false) => Some(event(
                EventType::Warning,
                "StandbyNotInSync",
                "Mirror",
                format!("{cluster} lacks more than the rpo: nothing fails over to it by itself"),
            )),
            _ => None,
        }
    });
    news.collect()
}

/// That a pod came up without the gate that it was to have is news each time, whatever was before.
fn bare_writer(before: Option<&ProtectedAppStatus>, after: &ProtectedAppStatus) -> Option<Event> {
    let reason = |status: &ProtectedAppStatus| found(status, condition::FENCED).map(|c| c.reason.clone());
    let now = found(after, condition::FENCED).filter(|now| now.reason == fenced::WITHOUT_GATE)?;
    let news = before.and_then(reason).as_ref() != Some(&now.reason);
    news.then(|| event(EventType::Warning, "WriterWithoutGate", "Fence", now.message.clone()))
}

#[cfg(test)]
mod tests {
    use leeward_api::app::PlacementStatus;

    use super::*;

    fn status(active: &str, protected: bool) -> ProtectedAppStatus {
        let mut status = ProtectedAppStatus {
            active: Some(active.into()),
            epoch: Some(2),
            ..Default::default()
        };
        say(&mut status, condition::PROTECTED, protected, "R");
        status
    }

    fn say(status: &mut ProtectedAppStatus, type_: &str, holds: bool, reason: &str) {
        let now = jiff::Timestamp::UNIX_EPOCH;
        condition::set(&mut status.conditions, type_, holds, reason, "m", None, now);
    }

    fn moving(mut status: ProtectedAppStatus, type_: OperationType) -> ProtectedAppStatus {
        status.operation = Some(RunningOperation {
            name: "move-1".into(),
            type_,
            from: "west".into(),
            to: "east".into(),
            step: None,
            cancellable: false,
            not_cancellable: None,
        });
        status
    }

    fn reasons(before: Option<&ProtectedAppStatus>, after: &ProtectedAppStatus) -> Vec<String> {
        events(before, after).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn figures_are_written_now_and_then_and_everything_else_at_once() {
        let at = |seconds| Moment(Duration::from_secs(seconds));
        let (mut shown, mut west, lost) = (Shown::default(), status("west", true), status("west", false));
        west.conditions[0].message = "1 s behind".into();
        let mut behind = west.clone();
        behind.conditions[0].message = "12 s behind".into();
        assert!(shown.is_due("a", None, &west, at(1)));
        assert!(!shown.is_due("a", Some(&west), &west, at(100)));
        assert!(shown.is_due("a", Some(&west), &behind, at(100)), "never written yet");
        shown.at.insert("a".into(), at(100));
        assert!(!shown.is_due("a", Some(&west), &behind, at(109)));
        assert!(shown.is_due("a", Some(&west), &behind, at(110)));
        assert!(shown.is_due("a", Some(&west), &lost, at(101)), "more than a figure");
    }

    #[test]
    fn a_writer_that_comes_up_without_its_gate_is_an_event() {
        let fenced = |reason: &str| {
            let mut status = status("west", true);
            let now = jiff::Timestamp::UNIX_EPOCH;
            condition::set(
                &mut status.conditions,
                condition::FENCED,
                reason == "Gated",
                reason,
                "m",
                None,
                now,
            );
            status
        };
        for (before, after, event) in [
            ("Gated", "Gated", None),
            ("Gated", "BestEffort", Some("NotFenced")),
            ("Gated", "WithoutGate", Some("WriterWithoutGate")),
            ("BestEffort", "WithoutGate", Some("WriterWithoutGate")),
            ("WithoutGate", "BestEffort", None),
            ("WithoutGate", "Gated", Some("Fenced")),
            ("BestEffort", "Gated", Some("Fenced")),
        ] {
            let events = reasons(Some(&fenced(before)), &fenced(after));
            assert_eq!(events.first().map(String::as_str), event, "{before} {after}");
        }
        let first = |reason| reasons(None, &fenced(reason)).pop();
        assert_eq!(first("WithoutGate").as_deref(), Some("WriterWithoutGate"));
        assert_eq!(first("Gated").as_deref(), Some("Fenced"));
        assert_eq!(first("BestEffort").as_deref(), Some("NotFenced"));
    }

    #[test]
    fn every_change_of_state_has_one_event_and_nothing_else_has() {
        let (west, lost, east) = (status("west", true), status("west", false), status("east", true));
        assert_eq!(reasons(None, &west), ["ActiveClusterChanged", "Protected"]);
        assert_eq!(reasons(Some(&west), &west), Vec::<String>::new());
        assert_eq!(reasons(Some(&west), &lost), ["NotProtected"]);
        assert_eq!(reasons(Some(&lost), &east), ["ActiveClusterChanged", "Protected"]);
    }

    #[test]
    fn an_operation_is_told_when_it_begins_and_when_it_ends() {
        let (west, east) = (status("west", false), status("east", false));
        for (type_, word) in [
            (OperationType::Failover, "Failover"),
            (OperationType::Switchover, "Switchover"),
        ] {
            let under_way = moving(west.clone(), type_);
            assert_eq!(reasons(Some(&west), &under_way), [format!("{word}Started")]);
            assert_eq!(reasons(Some(&under_way), &under_way), Vec::<String>::new());
            let ended = [format!("{word}Ended"), "ActiveClusterChanged".into()];
            assert_eq!(reasons(Some(&under_way), &east), ended);
            // It was called off or failed.
            let back = events(Some(&under_way), &west);
            assert_eq!(back.len(), 1);
            let note = back[0].note.clone().unwrap();
            assert!(note.contains("west is active, and not east"), "{note}");
        }
    }

    #[test]
    fn whether_it_is_served_and_fenced_is_told_as_it_changes() {
        let mut before = status("west", true);
        say(&mut before, condition::SERVING, true, "Active");
        let mut after = before.clone();
        say(&mut after, condition::SERVING, false, "NoCluster");
        say(&mut after, condition::FENCED, false, "BestEffort");
        assert_eq!(reasons(Some(&before), &after), ["NotServing", "NotFenced"]);
        assert_eq!(reasons(Some(&after), &before), ["Serving"]);
        let mut fenced = after.clone();
        say(&mut fenced, condition::FENCED, true, "Gated");
        assert_eq!(reasons(Some(&after), &fenced), ["Fenced"]);
    }

    #[test]
    fn a_standby_that_joins_or_leaves_those_in_sync_is_told() {
        let with = |in_sync| {
            let placement = |cluster: &str, in_sync| PlacementStatus {
                cluster: cluster.into(),
                in_sync,
                ..Default::default()
            };
            let mut status = status("west", true);
            status.placements = vec![placement("west", None), placement("east", in_sync)];
            status
        };
        let steps = [None, Some(false), Some(true), Some(true), Some(false), None];
        let told: Vec<_> = steps
            .windows(2)
            .map(|pair| reasons(Some(&with(pair[0])), &with(pair[1])))
            .collect();
        let none = Vec::<String>::new();
        let (joins, leaves) = (vec!["StandbyInSync".to_owned()], vec!["StandbyNotInSync".to_owned()]);
        assert_eq!(told, [none.clone(), joins, none.clone(), leaves, none]);
    }

    #[test]
    fn a_specification_that_is_refused_is_told_once_for_each_reason() {
        let mut refused = status("west", false);
        say(&mut refused, condition::PROTECTED, false, "Invalid");
        let west = status("west", true);
        assert_eq!(reasons(Some(&west), &refused), ["Invalid", "NotProtected"]);
        assert_eq!(reasons(Some(&refused), &refused), Vec::<String>::new());
        let mut otherwise = refused.clone();
        otherwise.conditions[0].message = "another reason".into();
        assert_eq!(reasons(Some(&refused), &otherwise), ["Invalid"]);
        assert_eq!(reasons(Some(&otherwise), &west), ["Protected"]);
    }
}
