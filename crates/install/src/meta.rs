//! What every object of an installation has: its name, and labels by which it is found.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use leeward_api::install::NAME;

use crate::Values;

/// The label for what an object is of.
const APP: &str = "app.kubernetes.io/name";
/// The label for which part of it.
const COMPONENT: &str = "app.kubernetes.io/component";
/// The label for the version. Not among those by which anything is selected: they must not change.
const VERSION: &str = "app.kubernetes.io/version";

type Labels = BTreeMap<String, String>;

fn labels(all: &[(&str, &str)]) -> Labels {
    all.iter()
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

/// The labels by which a component is selected.
pub(crate) fn selected(component: &str) -> Labels {
    labels(&[(APP, NAME), (COMPONENT, component)])
}

/// The same as a selector.
pub(crate) fn selector(component: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some(selected(component)),
        ..LabelSelector::default()
    }
}

/// The metadata of an object of the whole cluster.
pub(crate) fn of_cluster(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        labels: Some(labels(&[(APP, NAME), (VERSION, env!("CARGO_PKG_VERSION"))])),
        ..ObjectMeta::default()
    }
}

/// The metadata of an object of the namespace.
pub(crate) fn of_namespace(values: &Values, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(values.namespace.clone()),
        ..of_cluster(name)
    }
}

/// The same, of a component that is selected.
pub(crate) fn of_component(values: &Values, name: &str, component: &str) -> ObjectMeta {
    let mut meta = of_namespace(values, name);
    meta.labels.get_or_insert_default().extend(selected(component));
    meta
}
