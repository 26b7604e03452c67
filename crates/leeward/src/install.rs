//! `leeward install`: prints what is to be applied to a cluster. It applies nothing itself: kubectl and what people deploy with do that already,
//! and show what would change before it does.

use anyhow::bail;
use leeward_install::{Values, render};

use crate::output::{self, Misused};

/// What `leeward install` can be told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Prints the manifests; needs no cluster.
    #[arg(long)]
    render: bool,
    /// The namespace of the installation, which it makes.
    #[arg(long, default_value_t = Values::default().namespace)]
    namespace: String,
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

/// Prints the manifests.
///
/// # Errors
/// A value cannot be used, or nobody said what to do with them.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let render_it = arguments.render;
    let values = Values {
        namespace: arguments.namespace,
        image: arguments.image,
        image_pull_secret: arguments.image_pull_secret,
        replicas: arguments.replicas,
        edge_type: arguments.edge_type,
        peer_type: arguments.peer_type,
        data_size: arguments.data_size,
        memory_limit: arguments.memory_limit,
        monitoring: arguments.monitoring,
    };
    values.check().map_err(|error| Misused(error.into()))?;
    if !render_it {
        bail!(Misused(anyhow::anyhow!(
            "nothing was installed: leeward prints manifests and leaves it to kubectl to apply them; run\n  \
             leeward install --render | kubectl apply --server-side -f -"
        )));
    }
    output::write(&render(&values)?)
}
