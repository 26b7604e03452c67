//! What a person sees of this cluster's `ProtectedApp`s: each is accepted or refused, gets its status, and an event for
//! every change of state.

use std::{sync::Arc, time::Duration};

use kube::{
    Resource as _,
    runtime::events::{Event, EventType},
};
use leeward_api::{ProtectedApp, ProtectedAppStatus, condition};
use leeward_core::{name::AppKey, report};
use tokio_util::sync::CancellationToken;

use super::{Context, accept, status};
use crate::{
    clock,
    events::{event, publish},
};

/// Accepts this cluster's resources and shows the state of all, until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let mut changes = context.agent.changes();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
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
        for resource in context.cache.apps.state() {
            show(&context, &resource).await;
        }
    }
}

async fn show(context: &Context, resource: &ProtectedApp) {
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
    let built = situation.map(|situation| {
        let unseen_by = agent.unseen_by();
        let reports = agent.reports(&situation.app.value.key);
        let snapshot = situation.snapshot(&known, &unseen_by, agent.holders(), reports);
        let instant = clock::now();
        let report = report::report(&snapshot, &agent.timing, instant);
        let sight = situation.routed().and_then(|basis| known.sights.get(basis.serving()));
        let until = status::wrote_until(sight, &agent.timing, instant, now);
        status::build(&situation, &report, resource.status.as_ref(), now, until)
    });
    // What is not accepted changes nothing: what runs on is shown with it.
    let wanted = match (status::refused(resource, &accepted, built.as_ref(), now), built) {
        (Some(refused), _) => refused,
        (None, Some(built)) => built,
        (None, None) => return,
    };
    if resource.status.as_ref() == Some(&wanted) {
        return;
    }
    if let Err(error) = status::apply(&context.client, &namespace, &name, &wanted).await {
        tracing::debug!(%error, "a status was not written");
        return;
    }
    let events = events(resource.status.as_ref(), &wanted);
    publish(&context.client, &agent.me, events, &resource.object_ref(&())).await;
}

/// The changes of state between two statuses that deserve an event.
fn events(before: Option<&ProtectedAppStatus>, after: &ProtectedAppStatus) -> Vec<Event> {
    let mut events = vec![];
    let active = before.and_then(|before| before.active.as_ref());
    if let Some(now) = after.active.as_ref().filter(|now| active != Some(now)) {
        let note = match (active, after.epoch) {
            (None, _) => format!("{now} is the active cluster"),
            (Some(old), Some(epoch)) => format!("{now} is the active cluster instead of {old}, at epoch {epoch}"),
            (Some(old), None) => format!("{now} is the active cluster instead of {old}"),
        };
        events.push(event(EventType::Normal, "ActiveClusterChanged", "Route", note));
    }
    let protected = |status: &ProtectedAppStatus| {
        status
            .conditions
            .iter()
            .find(|c| c.type_ == condition::PROTECTED)
            .map(|c| (c.status == "True", c.message.clone()))
    };
    match (before.and_then(protected), protected(after)) {
        (Some((false, _)) | None, Some((true, message))) => {
            events.push(event(EventType::Normal, "Protected", "Protect", message));
        }
        (Some((true, _)), Some((false, message))) => {
            events.push(event(EventType::Warning, "NotProtected", "Protect", message));
        }
        _ => {}
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(active: &str, protected: bool) -> ProtectedAppStatus {
        let mut status = ProtectedAppStatus {
            active: Some(active.into()),
            epoch: Some(2),
            ..Default::default()
        };
        let now = jiff::Timestamp::UNIX_EPOCH;
        condition::set(
            &mut status.conditions,
            condition::PROTECTED,
            protected,
            "R",
            "m",
            None,
            now,
        );
        status
    }

    fn reasons(before: Option<&ProtectedAppStatus>, after: &ProtectedAppStatus) -> Vec<String> {
        events(before, after).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn every_change_of_state_has_one_event_and_nothing_else_has() {
        let (west, lost, east) = (status("west", true), status("west", false), status("east", true));
        assert_eq!(reasons(None, &west), ["ActiveClusterChanged", "Protected"]);
        assert_eq!(reasons(Some(&west), &west), Vec::<String>::new());
        assert_eq!(reasons(Some(&west), &lost), ["NotProtected"]);
        assert_eq!(reasons(Some(&lost), &east), ["ActiveClusterChanged", "Protected"]);
    }
}
