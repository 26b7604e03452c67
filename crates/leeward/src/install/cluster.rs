//! The cluster that a kubeconfig names.

use std::{fmt, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};

/// A cluster that does not answer a connection by then is not reached.
const CONNECTED: Duration = Duration::from_secs(10);

/// A cluster, and what it is called here.
pub(crate) struct Cluster {
    context: String,
    config: kube::Config,
}

impl fmt::Display for Cluster {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The port is part of it, the path hardly ever is.
        write!(to, "{} ({})", self.context, self.config.cluster_url)
    }
}

/// The cluster of a context; of the current one where none is said.
///
/// # Errors
/// There is no kubeconfig, it cannot be used, or it has no such context.
pub(crate) async fn open(file: Option<&Path>, context: Option<&str>) -> anyhow::Result<Cluster> {
    let kubeconfig = match file {
        Some(file) => Kubeconfig::read_from(file).with_context(|| format!("kubeconfig {}", file.display()))?,
        None => Kubeconfig::read().context(
            "no kubeconfig can be read: name one with --kubeconfig or KUBECONFIG. `leeward install --render` needs none and prints the manifests",
        )?,
    };
    let known: Vec<&str> = kubeconfig.contexts.iter().map(|one| one.name.as_str()).collect();
    let Some(wanted) = context.or(kubeconfig.current_context.as_deref().filter(|name| !name.is_empty())) else {
        bail!(
            "the kubeconfig has no current context: name one with --context, of {}",
            listed(&known)
        );
    };
    if !known.contains(&wanted) {
        bail!("the kubeconfig has no context {wanted}, only {}", listed(&known));
    }
    let context = wanted.to_owned();
    let options = KubeConfigOptions {
        context: Some(context.clone()),
        ..KubeConfigOptions::default()
    };
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .with_context(|| format!("context {context} of the kubeconfig cannot be used"))?;
    config.connect_timeout = Some(CONNECTED);
    Ok(Cluster { context, config })
}

fn listed(known: &[&str]) -> String {
    match known {
        [] => "none".to_owned(),
        known => known.join(", "),
    }
}

impl Cluster {
    /// The name of its context.
    pub(crate) fn context(&self) -> &str {
        &self.context
    }

    /// A client for it, which has asked nothing yet.
    ///
    /// # Errors
    /// What the kubeconfig says of it cannot be used.
    pub(crate) fn unasked(&self) -> anyhow::Result<Client> {
        Client::try_from(self.config.clone()).with_context(|| format!("{self} cannot be asked"))
    }

    /// A client for it, once it has answered.
    ///
    /// # Errors
    /// It cannot be reached, or does not know who asks.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let client = Client::try_from(self.config.clone())?;
        // Asked for what everybody may ask who is known there at all.
        match client.list_core_api_versions().await {
            Ok(_) => Ok(client),
            Err(error @ kube::Error::Api(_)) => bail!(
                "{self} does not let this user in: {}; nothing was applied",
                leeward_state::api_text(&error)
            ),
            Err(error) => Err(error).with_context(|| format!("{self} cannot be reached; nothing was applied")),
        }
    }
}
