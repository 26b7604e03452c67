//! The table for the built-in kinds: path, server-side apply's topology, strategic merge's key.
//!
//! In a path `[]` stands for the items of a list. The topology is `atomic`, `set`, or the keys of a list, each with its
//! default after `=`. The last column is the merge key of a strategic patch, `*` for a merging list of scalars, empty
//! for a list that is replaced.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Key, PatchStrategy, Shape, Topology};

type Row = (&'static str, &'static str, &'static str);

const METADATA: &[Row] = &[("finalizers", "set", "*"), ("ownerReferences", "uid", "uid")];

const CONTAINER: &[Row] = &[
    ("env", "name", "name"),
    ("env.[].valueFrom.configMapKeyRef", "atomic", ""),
    ("env.[].valueFrom.fieldRef", "atomic", ""),
    ("env.[].valueFrom.resourceFieldRef", "atomic", ""),
    ("env.[].valueFrom.secretKeyRef", "atomic", ""),
    ("ports", "containerPort,protocol=TCP", "containerPort"),
    ("resources.claims", "name", ""),
    ("volumeDevices", "devicePath", "devicePath"),
    ("volumeMounts", "mountPath", "mountPath"),
];

const POD_SPEC: &[Row] = &[
    (
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        "atomic",
        "",
    ),
    ("containers", "name", "name"),
    ("ephemeralContainers", "name", "name"),
    ("hostAliases", "ip", "ip"),
    ("imagePullSecrets", "name", "name"),
    ("initContainers", "name", "name"),
    ("nodeSelector", "atomic", ""),
    ("resourceClaims", "name", "name"),
    ("schedulingGates", "name", "name"),
    (
        "topologySpreadConstraints",
        "topologyKey,whenUnsatisfiable",
        "topologyKey",
    ),
    ("volumes", "name", "name"),
];

const CONDITIONS: &[Row] = &[("status.conditions", "type", "type")];

const POD_STATUS: &[Row] = &[
    ("status.hostIPs", "atomic", "ip"),
    ("status.podIPs", "ip", "ip"),
    ("status.resourceClaimStatuses", "name", "name"),
];

const NODE: &[Row] = &[
    ("spec.podCIDRs", "set", "*"),
    ("spec.taints", "atomic", "key"),
    ("status.addresses", "type", "type"),
];

const SERVICE: &[Row] = &[
    ("spec.ports", "port,protocol=TCP", "port"),
    ("spec.selector", "atomic", ""),
];
const CLAIM: &[Row] = &[("spec.selector", "atomic", ""), ("spec.dataSource", "atomic", "")];
const WORKLOAD: &[Row] = &[("spec.selector", "atomic", "")];
const SERVICE_ACCOUNT: &[Row] = &[("secrets", "name", "name")];
const EVENT: &[Row] = &[
    ("involvedObject", "atomic", ""),
    ("regarding", "atomic", ""),
    ("related", "atomic", ""),
];
const NONE: &[Row] = &[];

/// Kind, place of the pod spec's parent (whose `metadata` and `spec` are a pod's), rows of its own, status subresource.
type KindRow = (&'static str, Option<&'static str>, &'static [&'static [Row]], bool);

const KINDS: &[KindRow] = &[
    ("CustomResourceDefinition", None, &[CONDITIONS], true),
    ("DaemonSet", Some("spec.template"), &[WORKLOAD, CONDITIONS], true),
    ("Deployment", Some("spec.template"), &[WORKLOAD, CONDITIONS], true),
    ("Event", None, &[EVENT], false),
    ("Job", Some("spec.template"), &[WORKLOAD, CONDITIONS], true),
    ("Namespace", None, &[CONDITIONS], true),
    ("Node", None, &[NODE, CONDITIONS], true),
    ("PersistentVolume", None, &[NONE], true),
    ("PersistentVolumeClaim", None, &[CLAIM, CONDITIONS], true),
    ("Pod", Some(""), &[POD_STATUS, CONDITIONS], true),
    ("ReplicaSet", Some("spec.template"), &[WORKLOAD, CONDITIONS], true),
    ("Service", None, &[SERVICE, CONDITIONS], true),
    ("ServiceAccount", None, &[SERVICE_ACCOUNT], false),
    ("StatefulSet", Some("spec.template"), &[WORKLOAD, CONDITIONS], true),
];

/// Whether the kind's status is written through a subresource only.
pub(super) fn has_status(kind: &str) -> bool {
    KINDS.iter().any(|(name, _, _, status)| *name == kind && *status)
}

/// The shape of a kind of which only the metadata is known.
pub(super) fn metadata_only() -> Shape {
    let mut root = Shape::default();
    insert(&mut root, "metadata", METADATA);
    root
}

/// The shape of each kind in the table.
pub(super) fn all() -> BTreeMap<&'static str, Arc<Shape>> {
    KINDS
        .iter()
        .map(|(kind, pod, tables, _)| {
            let mut root = metadata_only();
            if let Some(parent) = pod {
                insert_pod(&mut root, parent);
            }
            for rows in *tables {
                insert(&mut root, "", rows);
            }
            (*kind, Arc::new(root))
        })
        .collect()
}

fn insert_pod(root: &mut Shape, parent: &str) {
    let spec = if parent.is_empty() {
        "spec".into()
    } else {
        format!("{parent}.spec")
    };
    if !parent.is_empty() {
        insert(root, &format!("{parent}.metadata"), METADATA);
    }
    insert(root, &spec, POD_SPEC);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        insert(root, &format!("{spec}.{list}.[]"), CONTAINER);
    }
}

fn insert(root: &mut Shape, prefix: &str, rows: &[Row]) {
    for (path, topology, patch) in rows {
        let names = prefix.split('.').chain(path.split('.')).filter(|name| !name.is_empty());
        let shape = names.fold(&mut *root, |shape, name| match name {
            "[]" => shape.items.get_or_insert_default(),
            _ => shape.fields.entry(name.to_owned()).or_default(),
        });
        shape.topology = parse_topology(topology);
        shape.patch = match *patch {
            "" => PatchStrategy::Replace,
            "*" => PatchStrategy::MergeScalars,
            key => PatchStrategy::MergeBy(key.to_owned()),
        };
    }
}

fn parse_topology(text: &str) -> Topology {
    match text {
        "atomic" => Topology::Atomic,
        "set" => Topology::Set,
        keys => Topology::Keys(keys.split(',').map(parse_key).collect()),
    }
}

fn parse_key(text: &str) -> Key {
    let (name, default) = match text.split_once('=') {
        Some((name, default)) => (name, Some(Value::from(default))),
        None => (text, None),
    };
    Key {
        name: name.to_owned(),
        default,
    }
}
