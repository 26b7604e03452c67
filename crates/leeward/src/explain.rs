//! `leeward explain`: what an application waits for and why, what the loss of its active cluster would cost now, and which
//! leases and epoch stand behind it. All of it is read from the resources' status; the text is a pure function of them.

mod grant;
#[cfg(test)]
mod tests;
mod why;

use clap::Args;
use kube::ResourceExt as _;
use leeward_api::{
    ProtectedApp, ProtectedAppStatus,
    app::{FailoverMode, Model, Placement, PlacementStatus},
    operation::OperationType,
};
use leeward_core::{name::Epoch, report};

use crate::{
    fleet::{self, Picture, Source, Told, full_name},
    output,
    status::{active, kept_text, operation_of, seconds},
    values,
};

/// `leeward explain`
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The application, as NAME or NAMESPACE/NAME.
    #[arg(value_parser = values::app)]
    app: String,
    /// The application's namespace; not needed while the name is unique.
    #[arg(short, long, value_parser = values::name)]
    namespace: Option<String>,
    #[command(flatten)]
    source: Source,
}

/// Prints the explanation.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let picture = fleet::picture(&arguments.source)?;
    let told = picture.app(&arguments.app, arguments.namespace.as_deref())?;
    output::write(&explain(&picture, told))
}

/// The whole explanation.
fn explain(picture: &Picture, told: &Told<ProtectedApp>) -> String {
    let app = &told.resource;
    let Some(status) = &app.status else {
        return format!(
            "{} is not looked at yet.\n  why: no agent has written its status; `leeward status` shows whether the agents report\n",
            full_name(app)
        );
    };
    let mut lines = vec![headline(told, status)];
    lines.push(String::new());
    if let Some(running) = &status.operation {
        lines.push(format!("It is being moved: {}.", operation_of(app, running)));
        lines.push(String::new());
    }
    lines.extend(waiting(picture, app, status));
    lines.push(String::new());
    lines.extend(grant::writers(app, status));
    lines.extend(loss(picture, app, status));
    lines.push(String::new());
    lines.extend(behind(picture, app, status));
    lines.join("\n") + "\n"
}

fn headline(told: &Told<ProtectedApp>, status: &ProtectedAppStatus) -> String {
    let app = &told.resource;
    let what = match (app.spec.model, active(app).as_str()) {
        (_, "-") => "no cluster serves it".to_owned(),
        (Model::ActivePassive, active) => format!("{active} is active"),
        (Model::ActiveActive, active) => format!("served by {}", active.replace(',', ", ")),
    };
    let epoch = status
        .epoch
        .map(|epoch| format!(", epoch {}", Epoch(epoch).readable()))
        .unwrap_or_default();
    let plan = status
        .generation
        .map(|plan| format!(", plan {plan}"))
        .unwrap_or_default();
    let model = app.spec.model;
    format!(
        "{} ({model:?}): {what}{epoch}{plan}. Said by {}.",
        full_name(app),
        told.by
    )
}

/// What it waits for, step by step, and why.
fn waiting(picture: &Picture, app: &ProtectedApp, status: &ProtectedAppStatus) -> Vec<String> {
    if status.waiting_for.is_empty() {
        return vec!["It is protected: it waits for nothing.".to_owned()];
    }
    let mut lines = vec!["It is not protected. It waits for:".to_owned()];
    for (number, wait) in status.waiting_for.iter().enumerate() {
        lines.push(format!("  {}. {wait}", number + 1));
        lines.extend(why::why(picture, app, wait).map(|why| format!("     why: {why}")));
    }
    lines
}

/// What the loss of the active cluster would cost now.
fn loss(picture: &Picture, app: &ProtectedApp, status: &ProtectedAppStatus) -> Vec<String> {
    let active = match (app.spec.model, &status.active) {
        (Model::ActiveActive, _) => return shared_loss(status),
        (Model::ActivePassive, None) => return vec!["No cluster is active: there is nothing to lose yet.".to_owned()],
        (Model::ActivePassive, Some(active)) => active,
    };
    let gone = status
        .placements
        .iter()
        .any(|found| found.cluster == *active && found.state == "Lost");
    let over = lease_of(picture, active).as_deref() == Some("Lost");
    let mut lines = vec![match gone {
        true if over => {
            format!("{active} is not heard of, and its lease is over: it can write nothing more. If it stays away:")
        }
        true => format!("{active} is not heard of. If it stays away:"),
        false => format!("If {active} were lost now:"),
    }];
    let mut standbys: Vec<&Placement> = app.spec.placements.iter().filter(|p| p.cluster != *active).collect();
    standbys.sort_by_key(|placement| placement.priority);
    let (mut able, mut late) = (vec![], vec![]);
    for placement in standbys {
        let found = status
            .placements
            .iter()
            .find(|found| found.cluster == placement.cluster);
        let trouble = trouble(picture, &placement.cluster, found);
        let is_late = found.is_some_and(|found| found.in_sync == Some(false));
        lines.push(match trouble.is_empty() {
            true if is_late => format!(
                "  {} is not in sync: it could take over only if a person accepts what is lost",
                placement.cluster
            ),
            true => format!("  {} could take over", placement.cluster),
            false => format!("  {} could not take over: {}", placement.cluster, trouble.join("; ")),
        });
        lines.extend(data(app, found).map(|data| format!("    {data}")));
        let short = found.into_iter().flat_map(|found| &found.short);
        lines.extend(short.map(|short| format!("    with fewer pods than it should have: {short}")));
        let unknown = found.into_iter().flat_map(|found| &found.unknown);
        lines.extend(unknown.map(|unknown| format!("    not known: {unknown}")));
        let kept = found.and_then(|found| found.kept.as_ref());
        lines.extend(kept.map(|what| format!("    what only it had when it returned is kept: {}", kept_text(what))));
        match trouble.is_empty() {
            true if is_late => late.push(placement.cluster.as_str()),
            true => able.push(placement.cluster.as_str()),
            false => {}
        }
    }
    let no_spare = status.waiting_for.iter().find(|wait| wait.ends_with(report::NO_SPARE));
    lines.push(match (able.first(), app.spec.failover.mode) {
        (Some(_), _) if !gone && no_spare.is_some() => format!(
            "  nothing would be moved where a member of the quorum is lost with {active}, since none may be lost any more: leeward quorum status"
        ),
        (None, _) if !late.is_empty() => format!(
            "  nothing would fail over by itself, since more than the rpo could be lost: wait for {active}, or leeward failover {} --to {} \
             --accept-data-loss TIME",
            full_name(app),
            late[0]
        ),
        (None, _) => {
            "  nobody could take over: the application would be away until a cluster is ready or the lost one is back"
                .to_owned()
        }
        (Some(to), _) if app.spec.paused => format!(
            "  a person would have to move it, since it is paused: leeward failover {} --to {to}",
            full_name(app)
        ),
        (Some(to), FailoverMode::Automatic) => {
            format!("  Leeward would move it to {to} by itself, as soon as the lease of {active} is over")
        }
        (Some(to), FailoverMode::Manual) => format!(
            "  a person would have to move it: leeward failover {} --to {to}",
            full_name(app)
        ),
    });
    lines
}

fn shared_loss(status: &ProtectedAppStatus) -> Vec<String> {
    let serving: Vec<_> = status
        .placements
        .iter()
        .filter(|placement| placement.state == "Active")
        .map(|placement| placement.cluster.as_str())
        .collect();
    match serving.len() {
        0 => vec!["No cluster serves it now.".to_owned()],
        1 => vec![format!("If {} were lost now, nobody would serve it.", serving[0])],
        _ => vec![format!(
            "If one of {} were lost now, the others would go on; no data is kept, so none would be lost.",
            serving.join(", ")
        )],
    }
}

/// Why a cluster could not take over.
fn trouble(picture: &Picture, cluster: &str, found: Option<&PlacementStatus>) -> Vec<String> {
    let mut trouble: Vec<String> = picture
        .silence_of(cluster)
        .map(|reason| format!("its API does not answer ({reason})"))
        .into_iter()
        .collect();
    match found {
        None => trouble.push("nothing is known of it yet".to_owned()),
        Some(found) => {
            match found.state.as_str() {
                "Lost" => trouble.push("it is not heard of".to_owned()),
                "Fenced" => trouble.push("it has no lease".to_owned()),
                _ => {}
            }
            trouble.extend(found.missing.iter().map(|missing| format!("missing: {missing}")));
        }
    }
    trouble
}

/// How old the copy of the data is.
fn data(app: &ProtectedApp, found: Option<&PlacementStatus>) -> Option<String> {
    let roles: Vec<_> = app.spec.roles.iter().map(|role| role.name.as_str()).collect();
    if roles.is_empty() {
        return Some("nothing would be lost: the application has no writer roles".to_owned());
    }
    let roles = match roles.len() {
        1 => format!("role {}", roles[0]),
        _ => format!("the oldest of roles {}", roles.join(", ")),
    };
    let rpo = std::time::Duration::from(app.spec.objectives.rpo);
    let found = found?;
    if found.state == "Lost" {
        return Some(format!(
            "{roles}: how old its copy is cannot be known while it is not heard of"
        ));
    }
    // While it is in sync, the writer answers nothing beyond its last point and the rpo.
    let bound = found
        .in_sync
        .filter(|in_sync| *in_sync)
        .map_or(std::time::Duration::MAX, |_| rpo);
    Some(match found.lag.map(|lag| std::time::Duration::from(lag).min(bound)) {
        None => format!("{roles}: there is no complete point there, so all of its data would be missing"),
        Some(lag) if lag > rpo => format!(
            "{roles}: the last {} of writes would be lost, more than the rpo of {}",
            seconds(lag),
            seconds(rpo)
        ),
        Some(lag) => format!(
            "{roles}: at most the last {} of writes would be lost (rpo {})",
            seconds(lag),
            seconds(rpo)
        ),
    })
}

fn lease_of(picture: &Picture, cluster: &str) -> Option<String> {
    let mut clusters = picture.clusters.iter();
    let told = clusters.find(|told| told.resource.name_any() == cluster)?;
    told.resource.status.as_ref()?.lease.clone()
}

/// The leases and the epoch behind it.
fn behind(picture: &Picture, app: &ProtectedApp, status: &ProtectedAppStatus) -> Vec<String> {
    let mut lines = vec!["What stands behind it:".to_owned()];
    for placement in &app.spec.placements {
        let name = &placement.cluster;
        let lease = lease_of(picture, name).unwrap_or_else(|| "unknown".to_owned());
        let meaning = match lease.as_str() {
            "Held" => "it may serve what the plan gives it",
            "Lost" => "whatever it serves with a writer role is fenced",
            "Waiting" => "nobody has seen it hold one yet",
            _ => "there is no such Cluster, or no agent has looked at it",
        };
        lines.push(format!("  lease of {name}: {lease} ({meaning})"));
    }
    if let (Some(epoch), Some(active)) = (status.epoch, &status.active) {
        let raised = picture
            .operations_of(app)
            .into_iter()
            .find(|operation| operation.status.as_ref().and_then(|status| status.epoch) == Some(epoch));
        let by = raised.map_or(String::new(), |operation| {
            let type_ = match operation.spec.type_ {
                OperationType::Failover => "failover",
                OperationType::Switchover => "switchover",
            };
            format!(", raised by {type_} {}", operation.name_any())
        });
        lines.push(format!(
            "  epoch {}: {active} alone may write at it{by}; what an older epoch writes is refused",
            Epoch(epoch).readable()
        ));
    }
    lines
}
