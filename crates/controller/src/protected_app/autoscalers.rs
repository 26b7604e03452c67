//! The autoscalers of an application's workloads in this cluster: which they are, and their bounds.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use leeward_api::FIELD_MANAGER;
use leeward_core::app::App;
use leeward_state::{
    api_text,
    config::{Id, Running, autoscale, target},
};
use serde_json::Value;

use super::workloads::Workload;
use crate::{cache::Cache, clock};

/// The autoscalers of a namespace, by what they scale. What another controller makes is that one's to set.
pub(super) fn find(cache: &Cache, namespace: &str) -> BTreeMap<Id, Value> {
    let all = cache.autoscalers.state().into_iter();
    let here = all.filter(|scaler| scaler.metadata.namespace.as_deref() == Some(namespace));
    let own = here.filter(|scaler| {
        !scaler
            .owner_references()
            .iter()
            .any(|owner| owner.controller == Some(true))
    });
    own.filter_map(|scaler| {
        let object = serde_json::to_value(&*scaler).ok()?;
        Some((target(&object)?, object))
    })
    .collect()
}

/// Brings the bounds of a workload's autoscaler to what they should be. Returns whether there was anything to change. That it could
/// not be changed holds nothing up: to start with fewer pods is better than not to start.
pub(super) async fn bound(client: &Client, app: &App, workload: &Workload, running: Running) -> bool {
    let Some(scaler) = &workload.autoscaler else {
        return false;
    };
    let Some(patch) = autoscale(scaler, &workload.object, running, clock::wall_ms()) else {
        return false;
    };
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let name = scaler["metadata"]["name"].as_str().unwrap_or_default();
    let api = Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), &app.key.namespace);
    match api.patch(name, &params, &Patch::Merge(&patch)).await {
        Ok(_) => tracing::info!(app = %app.key, autoscaler = name, bounds = %patch["spec"], "its bounds are set"),
        Err(error) => {
            tracing::warn!(app = %app.key, autoscaler = name, error = api_text(&error), "its bounds could not be set")
        }
    }
    true
}
