//! `leeward cordon`, `leeward drain` and `leeward uncordon`: takes a cluster out of service for a while, and back.
//!
//! It is said in the cluster's own `Cluster` resource, which its agent tells to all. The commands return when that has happened; a drain
//! returns when nothing is active in the cluster any more.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::TryStreamExt as _;
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use leeward_api::{Cluster, cluster::Maintenance, condition};
use leeward_controller::holder::Holder;
use leeward_core::name::ClusterName;
use serde_json::json;

use crate::{
    fleet::{self, Picture, Source},
    operate::INTERRUPTED,
    output, process, values,
};

/// The longest time until an agent has told it to all.
const NOTICED: Duration = Duration::from_secs(20);

/// `leeward cordon`, `leeward uncordon`
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The cluster.
    #[arg(value_parser = values::name)]
    cluster: String,
    #[command(flatten)]
    source: Source,
}

/// `leeward drain`
#[derive(Args, Debug)]
pub(crate) struct Drain {
    #[command(flatten)]
    common: Arguments,
    /// Gives up waiting after this time, such as 10m; the drain goes on. Without it there is no limit
    #[arg(long, value_name = "DURATION", value_parser = values::duration, allow_hyphen_values = true, conflicts_with = "no_wait")]
    timeout: Option<Duration>,
    /// Returns as soon as the cluster's agent has told it to all.
    #[arg(long)]
    no_wait: bool,
}

/// Says that nothing moves to a cluster.
pub(crate) fn cordon(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = &arguments.cluster;
    process::runtime(1)?.block_on(async {
        say(arguments, Some(Maintenance::Cordon)).await?;
        output::line(format!(
            "{name} is cordoned: nothing moves there until `leeward uncordon {name}`; what is active in it stays"
        ))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Takes a cluster back into service.
pub(crate) fn uncordon(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    process::runtime(1)?.block_on(async {
        say(arguments, None).await?;
        let name = &arguments.cluster;
        output::line(format!("{name} is in service; what has moved away stays where it is"))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Moves away what is active in a cluster, and waits for that.
pub(crate) fn drain(arguments: &Drain) -> anyhow::Result<ExitCode> {
    let name = &arguments.common.cluster;
    process::runtime(1)?.block_on(async {
        let clusters = say(&arguments.common, Some(Maintenance::Drain)).await?;
        output::line(format!(
            "{name} is drained: what is active in it moves away, and nothing moves there until `leeward uncordon {name}`"
        ))?;
        if arguments.no_wait {
            return Ok(ExitCode::SUCCESS);
        }
        let mut last = String::new();
        let drained = tokio::select! {
            drained = follow(clusters, name, &mut last) => drained?,
            () = elapsed(arguments.timeout) => {
                bail!("{name} is not empty in time, and the drain goes on ({last}); see `leeward explain` for each application");
            }
            signal = tokio::signal::ctrl_c() => {
                signal.context("Ctrl-C cannot be waited for")?;
                output::say(format_args!("\nthe drain goes on until `leeward uncordon {name}`"));
                return Ok(ExitCode::from(INTERRUPTED));
            }
        };
        output::line(format!("{name}: {drained}"))?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn elapsed(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// Says it in the cluster's own resource, and waits until its agent has told it to all.
async fn say(arguments: &Arguments, maintenance: Option<Maintenance>) -> anyhow::Result<Api<Cluster>> {
    let name = &arguments.cluster;
    let fleet = arguments.source.open().await?;
    let picture = fleet.ask_any().await?;
    picture.expect_cluster(name)?;
    if let Some(silence) = picture.silence_of(name) {
        bail!(
            "{name} does not answer ({silence}), so that nothing can be said of it now; nothing moves to a cluster that is away"
        );
    }
    let client = fleet.client(name);
    let client = client.with_context(|| format!("{name} was not asked; give its --kubeconfig"))?;
    of_itself(&picture, name)?;
    let clusters: Api<Cluster> = Api::all(client.clone());
    let params = PatchParams {
        field_manager: Some("leeward-cli".into()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({ "spec": { "maintenance": maintenance } }));
    if let Err(error) = clusters.patch(name, &params, &patch).await {
        bail!("{name} refused it: {}", fleet::reason(&error));
    }
    let wanted = maintenance.map(|maintenance| format!("{maintenance:?}"));
    let noticed = kube::runtime::wait::await_condition(clusters.clone(), name, move |cluster: Option<&Cluster>| {
        let status = cluster.and_then(|cluster| cluster.status.as_ref());
        status.is_some_and(|status| status.maintenance == wanted)
    });
    match tokio::time::timeout(NOTICED, noticed).await {
        Ok(noticed) => {
            noticed.context("the cluster cannot be watched")?;
        }
        Err(_) => bail!(
            "the resource of {name} says so, but its agent has not told it to the others within {} s: see `leeward status` and `leeward \
             quorum status`",
            NOTICED.as_secs()
        ),
    }
    Ok(clusters)
}

/// What is said of a cluster in another one counts for nothing.
fn of_itself(picture: &Picture, name: &str) -> anyhow::Result<()> {
    let [asked] = &picture.answered[..] else {
        return Ok(());
    };
    let told = picture.clusters.iter().find(|told| told.by == *asked);
    let agent = told.and_then(|told| told.resource.status.as_ref()?.agent.as_deref());
    match agent.and_then(cluster_of) {
        Some(other) if other.as_str() != name => {
            bail!("{asked} is the API of {other}; what is said of {name} counts in {name} only: give its --kubeconfig")
        }
        _ => Ok(()),
    }
}

/// The cluster in the name that an agent signs its lease with.
fn cluster_of(agent: &str) -> Option<ClusterName> {
    Some(agent.parse::<Holder>().ok()?.cluster)
}

/// Follows a cluster until it is drained; what it waits for is told and kept in `last`.
async fn follow(clusters: Api<Cluster>, name: &str, last: &mut String) -> anyhow::Result<String> {
    let stream = watcher::watch_object(clusters, name).default_backoff();
    let mut stream = std::pin::pin!(stream);
    loop {
        let cluster = match stream.try_next().await {
            Ok(Some(Some(cluster))) => cluster,
            Ok(Some(None)) => bail!("the Cluster {name} was deleted"),
            Ok(None) => bail!("the Cluster {name} cannot be followed any more"),
            Err(error) => {
                *last = format!("it does not answer: {error}");
                continue;
            }
        };
        if cluster.spec.maintenance != Some(Maintenance::Drain) {
            bail!("{name} was taken back into service meanwhile");
        }
        let mut conditions = cluster.status.iter().flat_map(|status| &status.conditions);
        let Some(drained) = conditions.find(|condition| condition.type_ == condition::DRAINED) else {
            continue;
        };
        if drained.status == "True" {
            return Ok(drained.message.clone());
        }
        if *last != drained.message {
            output::say(&drained.message);
            last.clone_from(&drained.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_of_an_agent_is_known_by_the_name_that_it_signs_with() {
        assert_eq!(cluster_of("west-2/4711/1700000000000"), Some("west-2".into()));
        assert_eq!(
            cluster_of("west/leeward-7d-x/1700@10.0.0.7/7443/-/8080"),
            Some("west".into())
        );
        assert_eq!(cluster_of("west"), None);
    }
}
