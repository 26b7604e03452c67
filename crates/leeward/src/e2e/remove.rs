//! Removing: all that a run has made in a cluster goes, in the order in which it can, and it is looked whether anything is left.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        core::v1::Namespace,
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use leeward_api::{Cluster as ClusterResource, Operation, ProtectedApp};
use serde_json::json;
use tokio::time::Instant;

use super::{
    cluster::{Cluster, soon},
    sample,
};
use crate::output;

/// The namespace of the installation. No other installation is in it, so what is in it may be removed.
pub(crate) const NAMESPACE: &str = "leeward-e2e";
/// What every object of an installation has.
const LABEL: &str = "app.kubernetes.io/name=leeward";
/// How long agents may take to let what is protected go, before that is done for them.
const LET_GO: Duration = Duration::from_secs(60);
/// How long the rest may take.
const GONE: Duration = Duration::from_secs(120);

/// What is in the cluster of an installation or of the sample applications: kinds and names of what is in no namespace.
///
/// # Errors
/// The cluster cannot be asked.
pub(crate) async fn left(client: &Client) -> anyhow::Result<Vec<String>> {
    let mut left = vec![];
    let labelled = ListParams::default().labels(LABEL);
    macro_rules! each {
        ($($kind:ident),*) => { $(
            for object in soon(Api::<$kind>::all(client.clone()).list(&labelled)).await?.items {
                left.push(format!("{} {}", stringify!($kind), object.name_any()));
            }
        )* };
    }
    each!(Namespace, ClusterRole, ClusterRoleBinding, MutatingWebhookConfiguration);
    for name in definitions(client).await? {
        left.push(format!("CustomResourceDefinition {name}"));
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in sample::APPS.iter().map(|app| app.name).chain([NAMESPACE]) {
        if soon(namespaces.get_opt(name)).await?.is_some()
            && !left.iter().any(|one| one == &format!("Namespace {name}"))
        {
            left.push(format!("Namespace {name}"));
        }
    }
    Ok(left)
}

/// The definitions of the kinds, which have no label: whoever installs them with other tools than these has the same ones.
async fn definitions(client: &Client) -> anyhow::Result<Vec<String>> {
    let all: Api<CustomResourceDefinition> = Api::all(client.clone());
    let found = soon(all.list(&ListParams::default())).await?.items;
    let own = found.iter().filter(|one| one.spec.group == ProtectedApp::group(&()));
    Ok(own.map(CustomResourceDefinition::name_any).collect())
}

/// Removes everything from all clusters, and waits until it is gone. Another installation than a run's is not touched.
///
/// # Errors
/// A cluster cannot be asked, or something is left; the other clusters are cleared all the same.
pub(crate) async fn everything(clusters: &[Cluster]) -> anyhow::Result<()> {
    let mut failed = vec![];
    // In all clusters before the agents go: they let go together.
    for cluster in clusters {
        if let Err(error) = unprotect(cluster).await {
            failed.push(format!("{}: {error:#}", cluster.name));
        }
    }
    for cluster in clusters {
        if let Err(error) = objects(cluster).await {
            failed.push(format!("{}: {error:#}", cluster.name));
        }
    }
    for cluster in clusters {
        match gone(cluster).await {
            Ok(()) => output::say(format_args!("{}: nothing is left", cluster.name)),
            Err(error) => failed.push(format!("{}: {error:#}", cluster.name)),
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("it is not all removed: {}; --remove tries again", failed.join("; ")),
    }
}

async fn is_ours(cluster: &Cluster) -> anyhow::Result<bool> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    if soon(namespaces.get_opt(NAMESPACE)).await?.is_some() {
        return Ok(true);
    }
    for app in sample::APPS {
        if soon(namespaces.get_opt(app.name)).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Deletes what is protected and the Clusters; agents take their finalizers off, or it is done here.
async fn unprotect(cluster: &Cluster) -> anyhow::Result<()> {
    if !is_ours(cluster).await? {
        return Ok(());
    }
    let client = &cluster.client;
    for app in sample::APPS {
        let apps: Api<ProtectedApp> = Api::namespaced(client.clone(), app.name);
        absent(apps.delete(app.name, &DeleteParams::default()).await)?;
    }
    let until = Instant::now() + LET_GO;
    loop {
        let mut there = vec![];
        for app in sample::APPS {
            let apps: Api<ProtectedApp> = Api::namespaced(client.clone(), app.name);
            if let Some(found) = absent(soon_raw(apps.get_opt(app.name)).await?)?.flatten() {
                there.push(found);
            }
        }
        if there.is_empty() {
            break;
        }
        if Instant::now() > until {
            for app in there {
                let name = app.name_any();
                output::say(format_args!(
                    "{}: no agent lets {name} go; its finalizer is taken off",
                    cluster.name
                ));
                let apps: Api<ProtectedApp> = Api::namespaced(client.clone(), &name);
                let patch = json!({ "metadata": { "finalizers": null } });
                absent(apps.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await)?;
            }
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// What an answer says, where what was asked for may be absent, or its definition.
fn absent<T>(answer: Result<T, kube::Error>) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error @ kube::Error::Api(_)) => Err(anyhow::anyhow!(leeward_state::api_text(&error))),
        Err(error) => Err(error.into()),
    }
}

async fn soon_raw<T>(request: impl Future<Output = T>) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(Duration::from_secs(10), request).await;
    answer.context("the API server does not answer")
}

/// Deletes the installation and the applications.
async fn objects(cluster: &Cluster) -> anyhow::Result<()> {
    if !is_ours(cluster).await? {
        return Ok(());
    }
    let (client, now) = (&cluster.client, DeleteParams::default());
    // Without agents nobody answers the webhook, and what was deleted is not made anew.
    let labelled = ListParams::default().labels(LABEL);
    let hooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    soon(hooks.delete_collection(&now, &labelled)).await?;
    cluster.delete_namespace(NAMESPACE).await?;
    let until = Instant::now() + GONE;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    while soon(namespaces.get_opt(NAMESPACE)).await?.is_some() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    release::<ClusterResource>(client).await?;
    release::<Operation>(client).await?;
    release::<ProtectedApp>(client).await?;
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    soon(bindings.delete_collection(&now, &labelled)).await?;
    let roles: Api<ClusterRole> = Api::all(client.clone());
    soon(roles.delete_collection(&now, &labelled)).await?;
    let all: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in definitions(client).await? {
        soon(all.delete(&name, &now)).await?;
    }
    // Last, as they say whose all of this is, should this be cut short.
    for app in sample::APPS {
        cluster.delete_namespace(app.name).await?;
    }
    Ok(())
}

/// Takes the finalizers off all resources of a kind: nobody is left who would.
async fn release<K>(client: &Client) -> anyhow::Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let all: Api<kube::api::DynamicObject> = Api::all_with(client.clone(), &kube::api::ApiResource::erase::<K>(&()));
    let Some(found) = absent(soon_raw(all.list(&ListParams::default())).await?)? else {
        return Ok(());
    };
    for object in found.items.iter().filter(|object| !object.finalizers().is_empty()) {
        let name = object.name_any();
        let resource = kube::api::ApiResource::erase::<K>(&());
        let api: Api<kube::api::DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let patch = json!({ "metadata": { "finalizers": null } });
        absent(soon_raw(api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))).await?)?;
    }
    Ok(())
}

async fn gone(cluster: &Cluster) -> anyhow::Result<()> {
    let until = Instant::now() + GONE;
    loop {
        let left = left(&cluster.client).await?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("{} left", left.join(", "));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
