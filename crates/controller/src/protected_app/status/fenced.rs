//! The condition `Fenced`: whether the writers of an application end with their region's right to write, or only what users get from them does.
//!
//! It is looked at where the application is active, reports and is not moving. Elsewhere nobody writes or nobody knows, and what was said stays.
//! Which pods have no gate is known in their own cluster only; the others go by which roles are granted to one.

use leeward_api::{ProtectedAppStatus, condition};
use leeward_core::name::ClusterName;
use leeward_core::{
    app::App,
    plan::Plan,
    report::{PlacementState, Report},
};

/// Every writer has its gate.
pub(in super::super) const GATED: &str = "Gated";
/// A writer has no gate, and nobody asked for one.
pub(in super::super) const BEST_EFFORT: &str = "BestEffort";
/// A writer was to have a gate and came up without.
pub(in super::super) const WITHOUT_GATE: &str = "WithoutGate";

/// The most pods that are named.
const NAMED: usize = 5;

/// The writers that run without a gate in one cluster, by the names of their pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bare {
    /// The cluster.
    pub cluster: Option<ClusterName>,
    /// Those that were to have one.
    pub asked: Vec<String>,
    /// The others.
    pub others: Vec<String>,
}

/// Says it, for an application that has writer roles.
pub(super) fn say(
    status: &mut ProtectedAppStatus,
    app: &App,
    plan: Option<&Plan>,
    report: &Report,
    bare: &Bare,
    now: jiff::Timestamp,
) {
    if app.roles.is_empty() {
        let other = |type_: &str| type_ != condition::FENCED;
        status.conditions.retain(|condition| other(&condition.type_));
        return;
    }
    let Some(plan) = plan.filter(|plan| plan.operation.is_none()) else {
        return;
    };
    let mut active = report.placements.iter();
    let active = active.find(|placement| placement.cluster == plan.active && placement.state == PlacementState::Active);
    let Some(active) = active else { return };
    let none = Bare::default();
    let bare = if bare.cluster.as_ref() == Some(&active.cluster) {
        bare
    } else {
        &none
    };
    let roles = app.roles.iter().map(|role| role.name.as_str());
    let ungranted: Vec<_> = roles.filter(|role| !active.gates.contains_key(*role)).collect();
    let (reason, message) = if !bare.asked.is_empty() {
        (WITHOUT_GATE, without_gate(&bare.asked))
    } else if ungranted.is_empty() && bare.others.is_empty() {
        let text = "every writer is behind its gate, which ends it with its region's right to write";
        (GATED, text.to_owned())
    } else {
        (BEST_EFFORT, best_effort(&active.cluster, &ungranted, &bare.others))
    };
    let generation = Some(app.observed);
    condition::set(
        &mut status.conditions,
        condition::FENCED,
        reason == GATED,
        reason,
        &message,
        generation,
        now,
    );
}

fn without_gate(pods: &[String]) -> String {
    format!(
        "{} without the gate that {} to have, and {} granted nothing: made while the webhook was away, or in a namespace without the label \
         {}: {}; nothing of it leaves through the edge where the region may not write, but it writes on. Delete it, and it is made behind its gate \
         (docs/how-to/put-a-writer-behind-its-gate.md)",
        running(pods),
        if pods.len() == 1 { "it was" } else { "they were" },
        if pods.len() == 1 { "is" } else { "are" },
        leeward_api::gate::INJECT_LABEL,
        leeward_api::gate::ENABLED,
    )
}

fn best_effort(active: &ClusterName, ungranted: &[&str], pods: &[String]) -> String {
    // Whether a pod has one is known in its own cluster only.
    if let (roles @ [_, ..], []) = (ungranted, pods) {
        return format!(
            "no gate is granted role {} in {active}: a writer that has one writes nothing meanwhile, and a writer without goes on where {active} is cut \
             off, until its pods are scaled down; put it behind its gate (docs/how-to/put-a-writer-behind-its-gate.md), or, where it is, see \
             whether its pod and its node answer and {active} holds its lease",
            roles.join(", ")
        );
    }
    let what = running(pods) + " without a gate";
    format!(
        "{what}: where {active} is cut off, nothing of what its writer writes leaves through the edge, but the writer itself goes on until its pods \
         are scaled down; put it behind its gate (docs/how-to/put-a-writer-behind-its-gate.md)"
    )
}

/// `pod a runs`, `pods a, b run`.
fn running(pods: &[String]) -> String {
    let named = pods
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let more = match pods.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match pods.len() {
        1 => format!("pod {named} runs"),
        _ => format!("pods {named}{more} run"),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use leeward_core::{
        app::{Model, WriterRole},
        in_sync::WhenStandbyAway,
        name::{AppKey, Epoch, Generation},
        report::{GateReport, PlacementReport},
    };

    use super::*;

    fn app(roles: &[&str]) -> App {
        let role = |name: &&str| WriterRole {
            name: (*name).into(),
            claims: vec![],
            interval: Duration::from_secs(1),
        };
        App {
            key: AppKey::new("shop", "shop"),
            authority: "west".into(),
            observed: 3,
            model: Model::ActivePassive,
            placements: vec![],
            rpo: Duration::from_secs(5),
            when_standby_away: WhenStandbyAway::Serve,
            rto: Duration::from_secs(60),
            automatic: true,
            paused: false,
            roles: roles.iter().map(role).collect(),
            traffic: None,
            selector: serde_json::Value::Null,
            resource: serde_json::Value::Null,
        }
    }

    /// What is said of west, which is active in this state, with gates that are granted these roles.
    fn said(before: &ProtectedAppStatus, app: &App, state: PlacementState, gated: &[&str]) -> ProtectedAppStatus {
        said_of(before, app, state, gated, &Bare::default())
    }

    fn said_of(
        before: &ProtectedAppStatus,
        app: &App,
        state: PlacementState,
        gated: &[&str],
        bare: &Bare,
    ) -> ProtectedAppStatus {
        let plan = Plan {
            generation: Generation(1),
            app: app.key.clone(),
            active: "west".into(),
            operation: None,
            finished: None,
        };
        let gate = |role: &&str| {
            let (pod, epoch) = ("uid".to_owned(), Epoch(1));
            ((*role).to_owned(), GateReport { pod, epoch })
        };
        let west = PlacementReport {
            cluster: "west".into(),
            state,
            missing: vec![],
            short: vec![],
            unknown: vec![],
            point: None,
            in_sync: None,
            answers: true,
            mirror: None,
            kept: None,
            gates: gated.iter().map(gate).collect::<BTreeMap<_, _>>(),
        };
        let report = Report {
            protected: true,
            waiting_for: vec![],
            placements: vec![west],
        };
        let mut status = before.clone();
        say(
            &mut status,
            app,
            Some(&plan),
            &report,
            bare,
            jiff::Timestamp::UNIX_EPOCH,
        );
        status
    }

    fn fenced(status: &ProtectedAppStatus) -> Option<(&str, &str)> {
        let mut conditions = status.conditions.iter();
        let found = conditions.find(|condition| condition.type_ == condition::FENCED)?;
        Some((found.status.as_str(), found.reason.as_str()))
    }

    #[test]
    fn writers_are_fenced_while_a_gate_is_granted_each_role() {
        let (app, new) = (app(&["data", "logs"]), ProtectedAppStatus::default());
        let both = said(&new, &app, PlacementState::Active, &["data", "logs"]);
        assert_eq!(fenced(&both), Some(("True", "Gated")));
        let one = said(&both, &app, PlacementState::Active, &["data"]);
        assert_eq!(fenced(&one), Some(("False", "BestEffort")));
        let message = &one.conditions[0].message;
        assert!(
            message.contains("role logs") && message.contains("put-a-writer-behind-its-gate.md"),
            "{message}"
        );
    }

    #[test]
    fn a_writer_without_its_gate_is_named_also_while_another_one_has_it() {
        let (app, new) = (app(&["data"]), ProtectedAppStatus::default());
        let bare = |cluster: &str, asked: &[&str], others: &[&str]| Bare {
            cluster: Some(cluster.into()),
            asked: asked.iter().map(|name| (*name).to_owned()).collect(),
            others: others.iter().map(|name| (*name).to_owned()).collect(),
        };
        let gated = &["data"][..];
        for (bare, gated, reason, named) in [
            (
                bare("west", &["shop-1"], &["shop-2"]),
                gated,
                "WithoutGate",
                "pod shop-1 runs without the gate",
            ),
            (
                bare("west", &["shop-1", "shop-2"], &[]),
                &[],
                "WithoutGate",
                "pods shop-1, shop-2 run",
            ),
            (
                bare("west", &[], &["shop-2"]),
                gated,
                "BestEffort",
                "pod shop-2 runs without a gate",
            ),
            (
                bare("west", &["a", "b", "c", "d", "e", "f", "g"], &[]),
                gated,
                "WithoutGate",
                "d, e and 2 more run",
            ),
            // What runs where the application is not active is no writer of it.
            (bare("east", &["shop-1"], &[]), gated, "Gated", "every writer"),
            (bare("west", &[], &[]), gated, "Gated", "every writer"),
        ] {
            let status = said_of(&new, &app, PlacementState::Active, gated, &bare);
            assert_eq!(fenced(&status).unwrap().1, reason, "{bare:?}");
            let message = &status.conditions[0].message;
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn what_was_said_stays_while_nobody_is_active_and_goes_with_the_roles() {
        let (with, without) = (app(&["data"]), app(&[]));
        let new = ProtectedAppStatus::default();
        assert_eq!(fenced(&said(&new, &with, PlacementState::Lost, &[])), None);
        let gated = said(&new, &with, PlacementState::Active, &["data"]);
        for state in [PlacementState::Lost, PlacementState::Fenced] {
            assert_eq!(
                fenced(&said(&gated, &with, state, &[])),
                Some(("True", "Gated")),
                "{state:?}"
            );
        }
        assert_eq!(fenced(&said(&gated, &without, PlacementState::Active, &[])), None);
    }
}
