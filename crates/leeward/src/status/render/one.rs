//! One application, with everything about it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use leeward_api::{
    Operation, ProtectedApp,
    app::{KeptStatus, PlacementStatus, RunningOperation},
    operation::OperationType,
};

use super::{
    movement,
    words::{NONE, ago, duration, epoch, number, seconds, table},
};
use crate::fleet::{Picture, Told, began, full_name};

/// How many operations are shown.
const OPERATIONS: usize = 5;

/// What only a cluster had when it returned: how much, of when, and where.
pub(crate) fn kept_text(kept: &KeptStatus) -> String {
    let times = match (&kept.from, &kept.to) {
        (Some(from), Some(to)) if to.0 < from.0 => format!(", nothing of it written after {}", from.0),
        (Some(from), Some(to)) => format!(", written from {} to {}", from.0, to.0),
        _ => String::new(),
    };
    format!("{} files, {} bytes{times}, in {}", kept.files, kept.bytes, kept.path)
}

/// One application.
pub(crate) fn app(picture: &Picture, told: &Told<ProtectedApp>, wide: bool, now: Timestamp) -> String {
    let app = &told.resource;
    let status = app.status.clone().unwrap_or_default();
    let objectives = &app.spec.objectives;
    let rows = [
        ("Application", full_name(app)),
        ("Model", format!("{:?}", app.spec.model)),
        ("Active", movement(app)),
        ("Epoch", epoch(status.epoch)),
        ("Plan", number(status.generation)),
        (
            "RPO",
            format!(
                "{} allowed, {} in the last failover",
                seconds(objectives.rpo.into()),
                duration(status.last_rpo)
            ),
        ),
        (
            "RTO",
            format!(
                "{} allowed, {} in the last failover",
                seconds(objectives.rto.into()),
                duration(status.last_rto)
            ),
        ),
        ("Said by", told.by.clone()),
    ];
    let mut text: String = rows
        .iter()
        .map(|(name, value)| format!("{:<12}  {value}\n", format!("{name}:")))
        .collect();
    if app.status.is_none() {
        text.push_str("\nNo agent has looked at it yet.\n");
        return text;
    }
    if let Some(running) = &status.operation {
        text.push_str(&format!("\nRunning: {}\n", operation_of(app, running)));
    }
    if !status.waiting_for.is_empty() {
        text.push_str("\nWaiting for:\n");
        text.extend(status.waiting_for.iter().map(|what| format!("  - {what}\n")));
    }
    text.push('\n');
    text.push_str(&placements(app, &status.placements, wide, now));
    for placement in &status.placements {
        if let Some(kept) = &placement.kept {
            let cluster = &placement.cluster;
            let kept = kept_text(kept);
            text.push_str(&format!("\nWhat only {cluster} had when it returned is kept: {kept}\n"));
        }
    }
    text.push('\n');
    text.push_str(&conditions(&status.conditions, now));
    let operations = picture.operations_of(app);
    if !operations.is_empty() {
        text.push('\n');
        text.push_str(&operations_table(&operations, wide, now));
    }
    text
}

/// What runs, and whether there is a way back.
pub(crate) fn operation_of(app: &ProtectedApp, running: &RunningOperation) -> String {
    let type_ = match running.type_ {
        OperationType::Failover => "failover",
        OperationType::Switchover => "switchover",
    };
    let step = running
        .step
        .as_ref()
        .map(|step| format!(", at {step}"))
        .unwrap_or_default();
    let back = match &running.not_cancellable {
        None => format!(
            "it can be called off with `leeward switchover {} --cancel`",
            full_name(app)
        ),
        Some(why) => format!("it cannot be called off: {why}"),
    };
    format!(
        "{type_} {} from {} to {}{step}; {back}",
        running.name, running.from, running.to
    )
}

fn placements(app: &ProtectedApp, placements: &[PlacementStatus], wide: bool, now: Timestamp) -> String {
    let mut header = vec!["CLUSTER", "STATE", "READY", "LAG", "LAST POINT"];
    if wide {
        header.extend(["PRIORITY", "WEIGHT", "STANDBY REPLICAS"]);
    }
    header.push("MISSING");
    let row = |placement: &PlacementStatus| {
        let point = placement
            .last_point
            .as_ref()
            .map(|point| format!("{} ago", ago(point.0, now)));
        let mut row = vec![
            placement.cluster.clone(),
            placement.state.clone(),
            if placement.ready { "True" } else { "False" }.to_owned(),
            duration(placement.lag),
            point.unwrap_or(NONE.into()),
        ];
        if wide {
            let spec = app
                .spec
                .placements
                .iter()
                .find(|spec| spec.cluster == placement.cluster);
            row.extend(spec.map_or([NONE; 3].map(str::to_owned), |spec| {
                [
                    spec.priority.to_string(),
                    spec.weight.to_string(),
                    spec.standby_replicas.to_string(),
                ]
            }));
        }
        row.push(if placement.missing.is_empty() {
            NONE.into()
        } else {
            placement.missing.join("; ")
        });
        row
    };
    table(&header, placements.iter().map(row).collect())
}

fn conditions(conditions: &[Condition], now: Timestamp) -> String {
    let row = |condition: &Condition| {
        vec![
            condition.type_.clone(),
            condition.status.clone(),
            condition.reason.clone(),
            ago(condition.last_transition_time.0, now),
            condition.message.clone(),
        ]
    };
    let rows = conditions.iter().map(row).collect();
    table(&["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"], rows)
}

fn operations_table(operations: &[&Operation], wide: bool, now: Timestamp) -> String {
    let row = |operation: &&Operation| {
        let status = operation.status.clone().unwrap_or_default();
        let took = match (&status.started, &status.ended) {
            (Some(started), Some(ended)) => {
                let took = ended.0.duration_since(started.0);
                std::time::Duration::try_from(took).map_or(NONE.into(), seconds)
            }
            _ => NONE.into(),
        };
        vec![
            operation.name_any(),
            format!("{:?}", operation.spec.type_),
            operation.spec.to.clone(),
            status.phase.unwrap_or("New".into()),
            epoch(status.epoch),
            began(operation).map_or(NONE.into(), |began| format!("{} ago", ago(began, now))),
            took,
            status.message.unwrap_or(NONE.into()),
        ]
    };
    let shown = if wide { operations.len() } else { OPERATIONS };
    let rows = operations.iter().take(shown).map(row).collect();
    let header = ["OPERATION", "TYPE", "TO", "PHASE", "EPOCH", "BEGAN", "TOOK", "MESSAGE"];
    table(&header, rows)
}

#[cfg(test)]
mod tests {
    use super::super::{all, tests::lost_west};
    use super::*;
    use crate::fleet::{
        merge,
        samples::{shop, time},
    };

    #[test]
    fn one_application_is_shown_with_everything_about_it() {
        let picture = lost_west();
        let told = picture.app("shop", None).unwrap();
        let expected = "\
Application:  shop/shop
Model:        ActivePassive
Active:       east
Epoch:        2
Plan:         5
RPO:          3 s allowed, 900 ms in the last failover
RTO:          30 s allowed, 3.4 s in the last failover
Said by:      east

Waiting for:
  - west is not heard of
  - a second thing

CLUSTER   STATE     READY   LAG   LAST POINT   MISSING
west      Standby   False   2 s   7s ago       its configuration; an image
east      Active    True    -     -            -

What only west had when it returned is kept: 3 files, 120 bytes, written from 2026-01-01T00:00:03Z to 2026-01-01T00:00:05Z, in /kept

CONDITION   STATUS   REASON    SINCE   MESSAGE
Protected   False    Waiting   9s      it is so

OPERATION      TYPE       TO     PHASE       EPOCH   BEGAN    TOOK    MESSAGE
failover-4-2   Failover   east   Succeeded   2       6s ago   2.5 s   east is active
";
        assert_eq!(app(&picture, told, false, time(10)), expected);
    }

    #[test]
    fn what_runs_is_shown_with_whether_there_is_a_way_back() {
        let mut app = shop(5, "east", &[]);
        let mut running = RunningOperation {
            name: "op".into(),
            type_: OperationType::Switchover,
            from: "west".into(),
            to: "east".into(),
            step: Some("LastPoint in west".into()),
            cancellable: true,
            not_cancellable: None,
        };
        assert_eq!(
            operation_of(&app, &running),
            "switchover op from west to east, at LastPoint in west; it can be called off with `leeward switchover shop/shop --cancel`"
        );
        running.not_cancellable = Some("east has taken the roles".into());
        let text = operation_of(&app, &running);
        assert!(
            text.ends_with("it cannot be called off: east has taken the roles"),
            "{text}"
        );
        app.status.as_mut().unwrap().operation = Some(running);
        let picture = merge(vec![]);
        let told = Told {
            resource: app,
            by: "east".into(),
        };
        let shown = super::app(&picture, &told, false, time(10));
        assert!(shown.contains(&format!("\nRunning: {text}\n")), "{shown}");
        assert!(shown.contains("\nActive:       west -> east\n"), "{shown}");
        let picture = Picture {
            apps: vec![told],
            remarks: vec!["Cluster north is being deleted".into()],
            ..Picture::default()
        };
        let shown = all(&picture, false);
        for part in [
            "\nshop/shop     ActivePassive   west -> east   True",
            "\n\nCluster north is being deleted\n\nAPPLICATION",
        ] {
            assert!(shown.contains(part), "{part:?} is not in {shown}");
        }
    }
}
