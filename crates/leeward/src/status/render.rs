//! Status as text: pure functions of the picture and the time.

mod one;
mod words;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use leeward_api::{Cluster, ProtectedApp, condition};

pub(crate) use one::{app, kept_text, operation_of};
pub(crate) use words::seconds;

use self::words::{NONE, duration, epoch, number, table};
use crate::fleet::{Picture, Told, full_name};

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
fn condition_of<'a>(app: &'a ProtectedApp, type_: &str) -> Option<&'a Condition> {
    let conditions = &app.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{
        Answer, View, merge,
        samples::{cluster, operation, shop},
    };

    pub(super) fn lost_west() -> Picture {
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
}
