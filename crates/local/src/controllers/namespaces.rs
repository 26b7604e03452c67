//! Namespaces that every cluster has. What belongs to a namespace is the API's own work.

use k8s_openapi::api::core::v1::Namespace;
use kube::core::ObjectMeta;

use super::{
    action::{self, Action, Kind},
    region::Region,
};

const ALWAYS: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// What to do for all namespaces.
pub fn plan(region: &Region) -> Vec<Action> {
    let missing = ALWAYS
        .iter()
        .filter(|name| region.namespaces.get(None, name).is_none())
        .map(|name| {
            let namespace = Namespace {
                metadata: ObjectMeta {
                    name: Some((*name).to_owned()),
                    ..ObjectMeta::default()
                },
                ..Namespace::default()
            };
            action::create(Kind::Namespace, &namespace)
        });
    missing.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::*;
    use crate::controllers::samples::object_of;

    #[test]
    fn a_missing_one_is_made() {
        let mut region = Region::default();
        assert_eq!(plan(&region).len(), 4);
        for (name, version) in ALWAYS.iter().zip(1..) {
            let namespace =
                object_of(json!({"metadata": {"name": name, "uid": name, "resourceVersion": version.to_string()}}));
            region.namespaces.wrote(namespace, Instant::now());
        }
        assert_eq!(plan(&region), []);
    }
}
