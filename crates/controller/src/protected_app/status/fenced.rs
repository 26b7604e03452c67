//! The condition `Fenced`: whether the writers of an application end with their region's right to write, or only what users get from them does.
//!
//! It is looked at where the application is active, reports and is not moving. Elsewhere nobody writes or nobody knows, and what was said stays.

use leeward_api::{ProtectedAppStatus, condition};
use leeward_core::{
    app::App,
    plan::Plan,
    report::{PlacementState, Report},
};

/// Says it, for an application that has writer roles.
pub(super) fn say(
    status: &mut ProtectedAppStatus,
    app: &App,
    plan: Option<&Plan>,
    report: &Report,
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
    let roles = app.roles.iter().map(|role| role.name.as_str());
    let bare: Vec<_> = roles.filter(|role| !active.gates.contains_key(*role)).collect();
    let (reason, message) = match bare.is_empty() {
        true => (
            "Gated",
            "every writer is behind its gate, which ends it with its region's right to write".to_owned(),
        ),
        false => (
            "BestEffort",
            format!(
                "no gate is granted role {}: where {} is cut off, nothing of what its writer writes leaves through the edge, but the writer itself goes \
             on until its pods are scaled down; put it behind its gate (docs/how-to/put-a-writer-behind-its-gate.md)",
                bare.join(", "),
                active.cluster
            ),
        ),
    };
    let generation = Some(app.observed);
    condition::set(
        &mut status.conditions,
        condition::FENCED,
        bare.is_empty(),
        reason,
        &message,
        generation,
        now,
    );
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
        say(&mut status, app, Some(&plan), &report, jiff::Timestamp::UNIX_EPOCH);
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
