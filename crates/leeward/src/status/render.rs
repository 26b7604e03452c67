//! Status as text: pure functions of the picture and the time.

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use leeward_api::{
    Cluster, Duration, Operation, ProtectedApp,
    app::{KeptStatus, PlacementStatus, RunningOperation},
    condition,
    operation::OperationType,
};
use leeward_core::name::Epoch;

use crate::fleet::{Picture, Told, began, full_name};

/// How many operations are shown.
const OPERATIONS: usize = 5;

/// What stands where nothing is known.
const NONE: &str = "-";

/// A table in columns without lines, as kubectl writes them; each line of it, with a line's end.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.trim_fmt() + "\n"
}

/// What only a cluster had when it returned: how much, of when, and where.
pub(crate) fn kept_text(kept: &KeptStatus) -> String {
    let times = match (&kept.from, &kept.to) {
        (Some(from), Some(to)) if to.0 < from.0 => format!(", nothing of it written after {}", from.0),
        (Some(from), Some(to)) => format!(", written from {} to {}", from.0, to.0),
        _ => String::new(),
    };
    format!("{} files, {} bytes{times}, in {}", kept.files, kept.bytes, kept.path)
}

/// A duration for a person: `850 ms`, `3 s`, `12.3 s`, `4 min 5 s`.
pub(crate) fn seconds(duration: std::time::Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        ms @ 1000..60_000 if ms % 1000 < 100 => format!("{} s", ms / 1000),
        ms @ 1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        ms => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// How long ago something was, in the largest unit: `5s`, `4m`, `3h`, `2d`.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    match now.duration_since(then).as_secs().max(0) {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// One line for each cluster that did not answer.
pub(crate) fn silent(picture: &Picture) -> Vec<String> {
    let line = |silent: &crate::fleet::Silent| format!("{} does not answer: {}", silent.cluster, silent.reason);
    picture.silent.iter().map(line).collect()
}

/// All clusters and all applications.
pub(crate) fn all(picture: &Picture, wide: bool) -> String {
    let mut text = clusters(picture, wide);
    text.push('\n');
    if !picture.remarks.is_empty() {
        text.push_str(&(picture.remarks.join("\n") + "\n\n"));
    }
    if picture.apps.is_empty() {
        text.push_str("No application is protected yet: apply a ProtectedApp.\n");
    } else {
        text.push_str(&apps(picture, wide));
    }
    text
}

fn clusters(picture: &Picture, wide: bool) -> String {
    let mut header = vec!["CLUSTER", "REGION", "READY", "LEASE", "API"];
    if wide {
        header.extend(["INGRESS", "REGISTRY", "PEER", "SAID BY"]);
    }
    header.push("MESSAGE");
    let row = |told: &Told<Cluster>| {
        let Told { resource, by } = told;
        let name = resource.name_any();
        let conditions = resource.status.iter().flat_map(|status| &status.conditions);
        let ready = conditions
            .into_iter()
            .find(|condition| condition.type_ == condition::READY);
        let lease = resource.status.as_ref().and_then(|status| status.lease.clone());
        let api = match (picture.silence_of(&name), picture.answered.contains(&name)) {
            (Some(_), _) => "silent",
            (None, true) => "answers",
            (None, false) => NONE,
        };
        let mut row = vec![
            name,
            resource.spec.region.clone(),
            ready.map_or(NONE.into(), |ready| ready.status.clone()),
            lease.unwrap_or(NONE.into()),
            api.to_owned(),
        ];
        if wide {
            let spec = &resource.spec;
            row.extend([
                spec.ingress.clone(),
                spec.registry.clone(),
                spec.peer.clone(),
                by.clone(),
            ]);
        }
        row.push(message(resource, ready));
        row
    };
    table(&header, picture.clusters.iter().map(row).collect())
}

/// What counts most of a cluster: that it is away, else that a person took it out of service.
fn message(cluster: &Cluster, ready: Option<&Condition>) -> String {
    let Some(ready) = ready else {
        return "its agent has not been heard of yet".into();
    };
    let status = cluster.status.as_ref();
    let maintenance = status.and_then(|status| status.maintenance.as_deref());
    let mut conditions = status.into_iter().flat_map(|status| &status.conditions);
    let drained = conditions.find(|condition| condition.type_ == condition::DRAINED);
    match (maintenance, drained) {
        (Some(_), _) if ready.status != "True" => format!("out of service; {}", ready.message),
        (Some(_), Some(drained)) => format!("drained: {}", drained.message),
        (Some(_), None) => "cordoned: nothing moves there".into(),
        (None, _) => ready.message.clone(),
    }
}

fn apps(picture: &Picture, wide: bool) -> String {
    let mut header = vec!["APPLICATION", "MODEL", "ACTIVE", "PROTECTED", "EPOCH"];
    if wide {
        header.extend(["PLAN", "LAST RPO", "LAST RTO", "SAID BY"]);
    }
    header.push("WAITING FOR");
    let row = |told: &Told<ProtectedApp>| {
        let app = &told.resource;
        let status = app.status.clone().unwrap_or_default();
        let mut row = vec![
            full_name(app),
            format!("{:?}", app.spec.model),
            movement(app),
            condition_of(app, condition::PROTECTED).map_or(NONE.into(), |c| c.status.clone()),
            epoch(status.epoch),
        ];
        if wide {
            row.extend([
                number(status.generation),
                duration(status.last_rpo),
                duration(status.last_rto),
                told.by.clone(),
            ]);
        }
        let more = match status.waiting_for.len() {
            0 | 1 => String::new(),
            more => format!(" (and {} more)", more - 1),
        };
        row.push(
            status
                .waiting_for
                .first()
                .map_or(NONE.into(), |first| format!("{first}{more}")),
        );
        row
    };
    table(&header, picture.apps.iter().map(row).collect())
}

/// The same, and while the application moves from where to where.
fn movement(app: &ProtectedApp) -> String {
    let running = app.status.as_ref().and_then(|status| status.operation.as_ref());
    running.map_or_else(|| active(app), |running| format!("{} -> {}", running.from, running.to))
}

/// The clusters that serve: the active one, or with ActiveActive all that do.
pub(crate) fn active(app: &ProtectedApp) -> String {
    let Some(status) = &app.status else { return NONE.into() };
    if let Some(active) = &status.active {
        return active.clone();
    }
    let serving: Vec<_> = status
        .placements
        .iter()
        .filter(|placement| placement.state == "Active")
        .map(|placement| placement.cluster.as_str())
        .collect();
    if serving.is_empty() {
        NONE.into()
    } else {
        serving.join(",")
    }
}

/// A condition of an application.
pub(crate) fn condition_of<'a>(app: &'a ProtectedApp, type_: &str) -> Option<&'a Condition> {
    let conditions = &app.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn epoch(number: Option<u64>) -> String {
    number.map_or(NONE.into(), |number| Epoch(number).readable())
}

fn number(number: Option<u64>) -> String {
    number.map_or(NONE.into(), |number| number.to_string())
}

fn duration(duration: Option<Duration>) -> String {
    duration.map_or(NONE.into(), |duration| seconds(duration.into()))
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
    use std::time::Duration;

    use super::*;
    use crate::fleet::{
        Answer, View, merge,
        samples::{cluster, operation, shop, time},
    };

    fn lost_west() -> Picture {
        let east = View {
            clusters: vec![cluster("east", "Held", true), cluster("west", "Lost", false)],
            apps: vec![shop(5, "east", &["west is not heard of", "a second thing"])],
            operations: vec![operation("failover-4-2", "Succeeded", 2)],
        };
        merge(vec![
            Answer {
                cluster: "west".into(),
                view: Err("Connection refused".into()),
            },
            Answer {
                cluster: "east".into(),
                view: Ok(east),
            },
        ])
    }

    #[test]
    fn all_clusters_and_applications_fit_two_tables() {
        let expected = "\
CLUSTER   REGION   READY   LEASE   API       MESSAGE
east      east     True    Held    answers   it is so
west      west     False   Lost    silent    it is so

APPLICATION   MODEL           ACTIVE   PROTECTED   EPOCH   WAITING FOR
shop/shop     ActivePassive   east     False       2       west is not heard of (and 1 more)
";
        assert_eq!(all(&lost_west(), false), expected);
        assert_eq!(silent(&lost_west()), ["west does not answer: Connection refused"]);
    }

    #[test]
    fn wide_tables_say_where_a_cluster_is_and_who_says_so() {
        let expected = "\
CLUSTER   REGION   READY   LEASE   API       INGRESS          REGISTRY         PEER             SAID BY   MESSAGE
east      east     True    Held    answers   127.1.0.3:8080   127.1.0.2:5000   127.1.0.4:7443   east      it is so
west      west     False   Lost    silent    127.1.0.3:8080   127.1.0.2:5000   127.1.0.4:7443   east      it is so

APPLICATION   MODEL           ACTIVE   PROTECTED   EPOCH   PLAN   LAST RPO   LAST RTO   SAID BY   WAITING FOR
shop/shop     ActivePassive   east     False       2       5      900 ms     3.4 s      east      west is not heard of (and 1 more)
";
        assert_eq!(all(&lost_west(), true), expected);
    }

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

    #[test]
    fn durations_are_written_for_people() {
        let cases = [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (12_349, "12.3 s"),
            (60_000, "1 min 0 s"),
            (245_900, "4 min 5 s"),
        ];
        for (ms, text) in cases {
            assert_eq!(seconds(Duration::from_millis(ms)), text);
        }
        let cases = [
            (5, "5s"),
            (119, "119s"),
            (120, "2m"),
            (7200, "2h"),
            (172_800, "2d"),
            (-3, "0s"),
        ];
        for (s, text) in cases {
            assert_eq!(ago(time(0), time(s)), text);
        }
    }
}
