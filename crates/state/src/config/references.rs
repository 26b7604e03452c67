//! What a workload needs before its pods can start.

use std::collections::BTreeSet;

use serde_json::Value;

use super::object::{Id, Kind};

/// An object that another one needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// What is needed.
    pub id: Id,
    /// True when the pods start without it too.
    pub optional: bool,
}

/// What an object refers to: Secrets, ConfigMaps, claims and the service account of a workload, the pull secrets of a service account.
/// The claims of a StatefulSet's templates count for as many replicas as it has.
pub fn references(object: &Value) -> BTreeSet<Reference> {
    let mut found = Found::default();
    let Some(id) = Id::of(object) else { return found.0 };
    if id.kind == Kind::ServiceAccount {
        found.names(Kind::Secret, &object["imagePullSecrets"]);
    }
    if !id.kind.is_workload() {
        return found.0;
    }
    let pod = &object["spec"]["template"]["spec"];
    if let Some(account) = pod["serviceAccountName"]
        .as_str()
        .filter(|account| *account != "default")
    {
        found.add(Kind::ServiceAccount, account, false);
    }
    found.names(Kind::Secret, &pod["imagePullSecrets"]);
    for volume in items(&pod["volumes"]) {
        found.named(Kind::Secret, &volume["secret"], "secretName");
        found.named(Kind::ConfigMap, &volume["configMap"], "name");
        found.named(
            Kind::PersistentVolumeClaim,
            &volume["persistentVolumeClaim"],
            "claimName",
        );
        for source in items(&volume["projected"]["sources"]) {
            found.named(Kind::Secret, &source["secret"], "name");
            found.named(Kind::ConfigMap, &source["configMap"], "name");
        }
    }
    for container in containers(pod) {
        for variable in items(&container["env"]) {
            found.named(Kind::Secret, &variable["valueFrom"]["secretKeyRef"], "name");
            found.named(Kind::ConfigMap, &variable["valueFrom"]["configMapKeyRef"], "name");
        }
        for source in items(&container["envFrom"]) {
            found.named(Kind::Secret, &source["secretRef"], "name");
            found.named(Kind::ConfigMap, &source["configMapRef"], "name");
        }
    }
    let replicas = super::clean::active_replicas(object)
        .or(object["spec"]["replicas"].as_i64())
        .unwrap_or(1);
    for template in items(&object["spec"]["volumeClaimTemplates"]) {
        for ordinal in 0..replicas.clamp(0, 10_000) {
            if let Some(template) = template["metadata"]["name"].as_str() {
                found.add(
                    Kind::PersistentVolumeClaim,
                    &format!("{template}-{}-{ordinal}", id.name),
                    false,
                );
            }
        }
    }
    found.0
}

/// Every image that the objects' pods run, those of init containers included, as it is written there.
pub fn images<'a>(objects: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    let workloads = objects
        .into_iter()
        .filter(|object| Id::of(object).is_some_and(|id| id.kind.is_workload()));
    workloads
        .flat_map(|object| containers(&object["spec"]["template"]["spec"]))
        .filter_map(|container| container["image"].as_str().map(ToOwned::to_owned))
        .collect()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(|field| items(&pod[field]))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[derive(Default)]
struct Found(BTreeSet<Reference>);

impl Found {
    fn add(&mut self, kind: Kind, name: &str, optional: bool) {
        let mut reference = Reference {
            id: Id::new(kind, name),
            optional,
        };
        // What one place cannot do without is not optional, whatever another place says.
        reference.optional = optional
            && !self.0.contains(&Reference {
                optional: false,
                ..reference.clone()
            });
        if !optional {
            self.0.remove(&Reference {
                optional: true,
                ..reference.clone()
            });
        }
        self.0.insert(reference);
    }

    fn named(&mut self, kind: Kind, source: &Value, field: &str) {
        if let Some(name) = source[field].as_str() {
            self.add(kind, name, source["optional"] == true);
        }
    }

    fn names(&mut self, kind: Kind, list: &Value) {
        for name in items(list).filter_map(|item| item["name"].as_str()) {
            self.add(kind, name, false);
        }
    }
}
