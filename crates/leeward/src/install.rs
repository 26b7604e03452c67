//! `leeward install`: what an installation is made of, applied to a cluster; or printed, for those who deploy with other tools.
//!
//! Flow: the values are checked and the region's bundle is made before anything is applied; [`cluster`] is what the kubeconfig names; the
//! definitions go first and are waited for, then everything else in its order; [`ready`] waits for an agent.

pub(crate) mod cluster;
pub(crate) mod ready;

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use leeward_install::{Values, objects, render};
use serde_json::Value;

use crate::{
    apply, join,
    output::{self, Misused},
    process, values,
};

/// What `leeward install` can be told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Prints the manifests instead; needs no cluster.
    #[arg(long, conflicts_with_all = ["context", "kubeconfig", "timeout"])]
    render: bool,
    /// The context of the kubeconfig, and so the cluster; its current one without it.
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    context: Option<String>,
    /// The kubeconfig; without it what KUBECONFIG names, else ~/.kube/config.
    #[arg(long, value_name = "FILE", value_parser = values::path)]
    kubeconfig: Option<PathBuf>,
    /// The directory of `leeward join`: what the cluster is given of it is applied, too.
    #[arg(long, value_name = "DIR", requires = "cluster", value_parser = values::path)]
    join: Option<PathBuf>,
    /// The cluster's name in that directory.
    #[arg(long, value_name = "NAME", requires = "join", value_parser = join::cluster)]
    cluster: Option<String>,
    /// How long to wait for the definitions, and then for an agent that is ready.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = values::duration)]
    timeout: Duration,
    /// The namespace of the installation, which it makes; the one of `--join`, else leeward-system.
    #[arg(long)]
    namespace: Option<String>,
    /// The image.
    #[arg(long, default_value_t = Values::default().image)]
    image: String,
    /// The Secret of the namespace by which the image may be pulled.
    #[arg(long, value_name = "SECRET")]
    image_pull_secret: Option<String>,
    /// How many agents run in the cluster.
    #[arg(long, value_name = "N", default_value_t = Values::default().replicas)]
    replicas: i32,
    /// The type of the Service where users' requests enter: LoadBalancer, NodePort or ClusterIP.
    #[arg(long, value_name = "TYPE", default_value_t = Values::default().edge_type)]
    edge_type: String,
    /// The type of the Service where the other regions' agents enter.
    #[arg(long, value_name = "TYPE", default_value_t = Values::default().peer_type)]
    peer_type: String,
    /// The most that an agent may keep on its node: images, and points of volumes.
    #[arg(long, value_name = "BYTES", default_value_t = Values::default().data_size)]
    data_size: String,
    /// The most memory that an agent may use.
    #[arg(long, value_name = "BYTES", default_value_t = Values::default().memory_limit)]
    memory_limit: String,
    /// A ServiceMonitor and a PrometheusRule, too; needs the Prometheus operator.
    #[arg(long)]
    monitoring: bool,
}

/// Applies them to a cluster, or prints them.
///
/// # Errors
/// A value cannot be used, the cluster refuses something, or no agent becomes ready in time.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let bundle = match (&arguments.join, &arguments.cluster) {
        (Some(dir), Some(name)) => Some(join::Bundle::of(dir, name)?),
        _ => None,
    };
    let values = arguments.values(bundle.as_ref())?;
    values.check().map_err(|error| Misused(error.into()))?;
    if arguments.render {
        let manifests = render(&values)?;
        return match bundle {
            Some(bundle) => bundle.print(&manifests),
            None => output::write(&manifests),
        };
    }
    process::runtime(1)?.block_on(install(&arguments, &values, bundle))
}

impl Arguments {
    fn values(&self, bundle: Option<&join::Bundle>) -> Result<Values, Misused> {
        let namespace = match (&self.namespace, bundle) {
            (Some(said), Some(bundle)) if said != bundle.namespace() => {
                return Err(Misused(anyhow::anyhow!(
                    "--namespace {said}: the installation in --join is for {}; leave one of them out. Nothing was changed",
                    bundle.namespace()
                )));
            }
            (Some(said), _) => said.clone(),
            (None, Some(bundle)) => bundle.namespace().to_owned(),
            (None, None) => Values::default().namespace,
        };
        Ok(Values {
            namespace,
            image: self.image.clone(),
            image_pull_secret: self.image_pull_secret.clone(),
            replicas: self.replicas,
            edge_type: self.edge_type.clone(),
            peer_type: self.peer_type.clone(),
            data_size: self.data_size.clone(),
            memory_limit: self.memory_limit.clone(),
            monitoring: self.monitoring,
        })
    }
}

/// Applies everything to the cluster, and waits for an agent. What is there already stays as it is; applying again is safe.
async fn install(arguments: &Arguments, values: &Values, bundle: Option<join::Bundle>) -> anyhow::Result<()> {
    let cluster = cluster::open(arguments.kubeconfig.as_deref(), arguments.context.as_deref()).await?;
    let client = cluster.client().await?;
    output::say(format_args!("{cluster}: installing in namespace {}", values.namespace));
    let mut all = objects(values)?;
    let definitions = all.iter().take_while(|object| is_definition(object)).count();
    if let Some(bundle) = &bundle {
        all.extend(apply::parse(bundle.manifests())?);
    }
    for (done, object) in all.iter().enumerate() {
        if done == definitions {
            ready::definitions(&client, &all[..definitions], arguments.timeout).await?;
        }
        let applied = apply::apply(&client, object, &values.namespace).await;
        let applied = applied.map_err(|error| apply::stopped(error, &all, done));
        output::line(applied.map_err(|error| error.context(format!("{cluster}")))?)?;
    }
    let joined = bundle.is_some();
    if let Some(bundle) = bundle {
        bundle.given()?;
    }
    if !joined && !ready::is_configured(&client, &values.namespace).await? {
        return output::line(
            "no agent starts before it has its region's part: install again with --join DIR --cluster NAME, or apply what `leeward join \
             render NAME` prints",
        );
    }
    ensure!(
        ready::agent(&client, &values.namespace, arguments.timeout).await?,
        "{cluster}: everything is applied, and no agent was ready after {:?}: what it waits for is said above. It starts by itself once that is \
         there; installing again is safe",
        arguments.timeout
    );
    output::line(format_args!("{cluster}: an agent is ready"))
}

fn is_definition(object: &Value) -> bool {
    object["kind"] == "CustomResourceDefinition"
}
