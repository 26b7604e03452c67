//! The finalizer of what other regions depend on: it keeps a resource until it may go.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
};
use leeward_api::FIELD_MANAGER;
use serde::de::DeserializeOwned;
use serde_json::json;

/// Its name.
pub const FINALIZER: &str = "leeward.dev/protection";

/// Puts the finalizer on a resource, if it is not there.
///
/// # Errors
/// The API refuses, also because the resource has changed meanwhile, or does not answer.
pub async fn add<K>(api: &Api<K>, resource: &K) -> Result<(), kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    if has(resource) {
        return Ok(());
    }
    let all = resource.finalizers().iter().map(String::as_str).chain([FINALIZER]);
    set(api, resource, all.collect()).await
}

/// Takes it off.
///
/// # Errors
/// As [`add`].
pub async fn remove<K>(api: &Api<K>, resource: &K) -> Result<(), kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    if !has(resource) {
        return Ok(());
    }
    let others = resource.finalizers().iter().map(String::as_str);
    set(api, resource, others.filter(|name| *name != FINALIZER).collect()).await
}

fn has<K: Resource>(resource: &K) -> bool {
    resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

async fn set<K>(api: &Api<K>, resource: &K, finalizers: Vec<&str>) -> Result<(), kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let patch = json!({
        "metadata": { "finalizers": finalizers, "resourceVersion": resource.resource_version() },
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    api.patch(&resource.name_any(), &params, &Patch::Merge(&patch)).await?;
    Ok(())
}
