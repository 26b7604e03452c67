//! A specification has one home. The authority's agent puts it into the quorum, and takes it out when the resource is
//! deleted there; every other cluster gets a read-only copy, whose change or absence means nothing.

use std::{collections::BTreeSet, sync::Arc};

use futures::FutureExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use leeward_api::{Cluster, FIELD_MANAGER, ProtectedApp};
use leeward_core::{
    app::App,
    lease::{Hold, Role},
    name::{AppKey, ClusterName},
};
use leeward_quorum::{Txn, key, known::Situation};
use serde_json::json;

use super::validate::{Invalid, keeps_active, validate};
use crate::{
    agent::{Agent, follow},
    cache::Cache,
    finalizer,
};

/// The annotation of a read-only copy: the cluster whose resource counts.
pub const AUTHORITY_ANNOTATION: &str = "leeward.dev/authority";

/// Why something could not be accepted now. Tried again.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The quorum did not answer.
    #[error(transparent)]
    Quorum(#[from] leeward_quorum::Error),
    /// The API refused or did not answer.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// The agent has begun just now.
    #[error("the API has not told yet which clusters there are")]
    ClustersUnknown,
}

/// What became of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It is in the quorum.
    Yes,
    /// It is a copy of what another cluster has authority over.
    Copy,
    /// It is wrong.
    No(Invalid),
    /// Another cluster has authority over an application of this name.
    Elsewhere(String),
    /// It is being deleted.
    Gone,
}

/// Whether a resource is a read-only copy.
pub fn is_copy(resource: &ProtectedApp) -> bool {
    resource.annotations().contains_key(AUTHORITY_ANNOTATION)
}

/// Puts one resource into the quorum, or takes it out.
///
/// # Errors
/// When quorum or API do not answer; nothing is half done.
pub async fn accept(
    agent: &Agent,
    client: &Client,
    cache: &Cache,
    resource: &ProtectedApp,
) -> Result<Accepted, AcceptError> {
    if is_copy(resource) {
        return Ok(Accepted::Copy);
    }
    if resource.metadata.deletion_timestamp.is_some() {
        withdraw(agent, client, resource).await?;
        return Ok(Accepted::Gone);
    }
    let known = agent.known();
    let key = AppKey::new(resource.namespace().unwrap_or_default(), resource.name_any());
    let before = known.situation(&key);
    // Until they were read, none would be known, and whatever names one would be called wrong.
    if cache.clusters.wait_until_ready().now_or_never().is_none() {
        return Err(AcceptError::ClustersUnknown);
    }
    // One that is being deleted takes nothing new; who is in it already may stay until it is taken out.
    let open = |cluster: &Cluster| {
        let name = ClusterName::new(cluster.name_any());
        let placed = |situation: &Arc<Situation>| situation.app.value.placement(&name).is_some();
        cluster.metadata.deletion_timestamp.is_none() || before.as_ref().is_some_and(placed)
    };
    let clusters: BTreeSet<String> = cache
        .clusters
        .state()
        .iter()
        .filter(|cluster| open(cluster))
        .map(|cluster| cluster.name_any())
        .collect();
    let clusters: Vec<String> = clusters.into_iter().collect();
    let others = known.situations().map(|situation| &situation.app.value);
    let app = match validate(resource, &agent.me, &clusters, &agent.timing, others) {
        Ok(app) => app,
        Err(invalid) => return Ok(Accepted::No(invalid)),
    };
    if let Some(situation) = &before
        && let Err(invalid) = keeps_active(&app, situation.plan())
    {
        return Ok(Accepted::No(invalid));
    }
    let spec = key::spec(&app.key);
    let old = known.view.get::<App>(&spec);
    match &old {
        Some(old) if old.value.authority != agent.me => {
            return Ok(Accepted::Elsewhere(old.value.authority.to_string()));
        }
        Some(old) if old.value == app => return Ok(Accepted::Yes),
        _ => {}
    }
    finalizer::add(&api(client, resource), resource).await?;
    let revision = known.view.revision_of(&spec);
    let outcome = agent
        .quorum
        .txn(Txn::default().expect(&spec, revision).put(&spec, &app)?.read(&spec))
        .await?;
    agent.learn(|known| follow::take(known, outcome.entries));
    Ok(Accepted::Yes)
}

/// Ends the protection: specification and plan leave the quorum, the roles are released and keep their epochs. Objects and
/// data stay where they are.
async fn withdraw(agent: &Agent, client: &Client, resource: &ProtectedApp) -> Result<(), AcceptError> {
    let app = AppKey::new(resource.namespace().unwrap_or_default(), resource.name_any());
    let known = agent.known();
    if let Some(situation) = known.situation(&app).filter(|s| s.app.value.authority == agent.me) {
        let mut txn = Txn::default()
            .expect(key::spec(&app), situation.app.revision)
            .delete(key::spec(&app));
        txn = txn.delete(key::plan(&app)).read(key::spec(&app)).read(key::plan(&app));
        for (role, state) in &situation.roles {
            let released = Role {
                hold: Hold::Released,
                ..state.value.clone()
            };
            txn = txn
                .expect(key::role(role), state.revision)
                .put(key::role(role), &released)?;
        }
        let outcome = agent.quorum.txn(txn).await?;
        agent.learn(|known| follow::take(known, outcome.entries));
        if !outcome.applied {
            return Ok(());
        }
    }
    finalizer::remove(&api(client, resource), resource).await?;
    Ok(())
}

fn api(client: &Client, resource: &ProtectedApp) -> Api<ProtectedApp> {
    Api::namespaced(client.clone(), &resource.namespace().unwrap_or_default())
}

/// Keeps the read-only copy of an application's resource up to date in a cluster that is not its authority.
///
/// # Errors
/// When the API refuses or does not answer.
pub async fn copy(client: &Client, cache: &Cache, app: &App) -> Result<(), kube::Error> {
    let here = find(cache, &app.key);
    if here.as_ref().is_some_and(|here| !is_copy(here)) {
        return Ok(());
    }
    let wanted = &app.resource;
    let same = here.is_some_and(|here| {
        here.annotations().get(AUTHORITY_ANNOTATION).map(String::as_str) == Some(app.authority.as_str())
            && serde_json::to_value(&here.spec).is_ok_and(|spec| spec == *wanted)
    });
    if same {
        return Ok(());
    }
    let copy = json!({
        "apiVersion": "leeward.dev/v1alpha1",
        "kind": "ProtectedApp",
        "metadata": {
            "name": app.key.name,
            "namespace": app.key.namespace,
            "annotations": { AUTHORITY_ANNOTATION: app.authority.as_str() },
        },
        "spec": wanted,
    });
    let api: Api<ProtectedApp> = Api::namespaced(client.clone(), &app.key.namespace);
    api.patch(
        &app.key.name,
        &PatchParams::apply(FIELD_MANAGER).force(),
        &Patch::Apply(&copy),
    )
    .await?;
    Ok(())
}

/// Removes the copy of an application that is not protected any more.
///
/// # Errors
/// When the API refuses or does not answer.
pub async fn remove_copy(client: &Client, cache: &Cache, app: &AppKey) -> Result<(), kube::Error> {
    let Some(here) = find(cache, app).filter(|here| is_copy(here)) else {
        return Ok(());
    };
    let api: Api<ProtectedApp> = Api::namespaced(client.clone(), &app.namespace);
    match api.delete(&here.name_any(), &kube::api::DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop),
    }
}

/// The resource of an application in this cluster.
pub fn find(cache: &Cache, app: &AppKey) -> Option<Arc<ProtectedApp>> {
    let reference = kube::runtime::reflector::ObjectRef::new(&app.name).within(&app.namespace);
    cache.apps.get(&reference)
}
