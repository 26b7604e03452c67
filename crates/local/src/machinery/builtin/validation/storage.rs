//! Claims, volumes and classes of storage.

use serde_json::Value;

use super::rule::{Errors, Node, Rule, check, one_kind, one_of};
use super::words::Form;
use super::{pod, volume};
use crate::machinery::FieldError;
use crate::machinery::builtin::quantity::Amount;

use Rule::{By, In, MayBe, Need, OneOf, Selector, Text};

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// A claim, or the template of one.
pub(super) fn claim(node: &Node<'_>, errors: &mut Errors) {
    check(&[In("spec", CLAIM_SPEC)], node, errors);
}

pub(super) const CLAIM: &[Rule] = &[By(claim)];

const CLAIM_SPEC: &[Rule] = &[
    By(some_mode),
    Selector("selector"),
    By(access_modes),
    By(|spec, errors| {
        let size = spec.value.pointer("/resources/requests/storage");
        positive(size, &spec.path("resources[storage]"), errors);
    }),
    Text("storageClassName", Form::Subdomain),
    MayBe("volumeMode", &["Block", "Filesystem"]),
];

fn some_mode(spec: &Node<'_>, errors: &mut Errors) {
    if spec.count("accessModes") == 0 {
        let detail = "at least 1 access mode is required";
        errors.push(FieldError::required(spec.path("accessModes"), detail));
    }
}

fn access_modes(spec: &Node<'_>, errors: &mut Errors) {
    let at = || spec.path("accessModes");
    for mode in spec.items("accessModes") {
        one_of(Some(mode.value), MODES, at(), errors);
    }
    let alone = spec.items("accessModes").any(|mode| *mode.value == "ReadWriteOncePod");
    if alone && spec.count("accessModes") > 1 {
        errors.push(FieldError::forbidden(
            at(),
            "may not use ReadWriteOncePod with other access modes",
        ));
    }
}

fn positive(value: Option<&Value>, at: &str, errors: &mut Errors) {
    let Some(value) = value else {
        return errors.push(FieldError::required(at, ""));
    };
    if Amount::of(value).is_some_and(|amount| amount.nanos() <= 0) {
        errors.push(FieldError::invalid(at, value, "must be greater than zero"));
    }
}

pub(super) const VOLUME: &[Rule] = &[In(
    "spec",
    &[
        Need("accessModes"),
        By(access_modes),
        By(|spec, errors| {
            let sizes = spec.get("capacity").and_then(Value::as_object);
            if sizes.is_none_or(|sizes| sizes.len() != 1 || !sizes.contains_key("storage")) {
                if sizes.is_none_or(serde_json::Map::is_empty) {
                    errors.push(FieldError::required(spec.path("capacity"), ""));
                }
                let shown = sizes.map(|sizes| Value::Object(sizes.clone())).unwrap_or_default();
                let names: Vec<String> = vec!["\"storage\"".into()];
                errors.push(FieldError::unsupported(spec.path("capacity"), &shown, &names));
            }
            for (name, size) in sizes.into_iter().flatten() {
                if let Some(amount) = Amount::of(size).filter(|amount| amount.nanos() < 0) {
                    let shown = i64::try_from(amount.nanos() / 1_000_000_000).unwrap_or(i64::MIN).into();
                    let at = format!("{}[{name}]", spec.path("capacity"));
                    errors.push(FieldError::invalid(at, &shown, "must be a valid resource quantity"));
                }
                positive(Some(size), &format!("{}[{name}]", spec.path("capacity")), errors);
            }
        }),
        MayBe("persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]),
        In("nodeAffinity", &[In("required", pod::NODE_SELECTOR)]),
        By(sources),
        Text("storageClassName", Form::Subdomain),
        MayBe("volumeMode", &["Block", "Filesystem"]),
    ],
)];

/// What a volume may be made of, and what that needs.
pub(super) const SOURCES: [(&str, &[Rule]); 22] = [
    ("hostPath", volume::HOST_PATH),
    ("gcePersistentDisk", &[Need("pdName")]),
    ("awsElasticBlockStore", &[Need("volumeID")]),
    ("glusterfs", &[Need("endpoints"), Need("path")]),
    ("nfs", volume::NFS),
    ("rbd", &[Need("monitors"), Need("image")]),
    ("quobyte", &[Need("registry"), Need("volume")]),
    ("cephfs", &[Need("monitors")]),
    ("iscsi", &[Need("targetPortal"), Need("iqn")]),
    ("cinder", &[Need("volumeID")]),
    ("fc", &[]),
    ("flocker", &[]),
    ("azureFile", &[Need("secretName"), Need("shareName")]),
    ("flexVolume", &[Need("driver")]),
    ("vsphereVolume", &[Need("volumePath")]),
    ("photonPersistentDisk", &[Need("pdID")]),
    ("portworxVolume", &[Need("volumeID")]),
    ("azureDisk", &[Need("diskName"), Need("diskURI")]),
    ("scaleIO", &[Need("gateway"), Need("system"), Need("volumeName")]),
    ("local", &[Need("path"), By(needs_node)]),
    ("storageos", &[]),
    ("csi", &[Need("driver"), Need("volumeHandle")]),
];

fn needs_node(local: &Node<'_>, errors: &mut Errors) {
    if local.parent.get("nodeAffinity").is_none() {
        errors.push(FieldError::required(
            "spec.nodeAffinity",
            "Local volume requires node affinity",
        ));
    }
}

fn sources(spec: &Node<'_>, errors: &mut Errors) {
    if !one_kind(spec, "volume", &SOURCES, errors) {
        errors.push(FieldError::required(spec.at.clone(), "must specify a volume type"));
    }
}

pub(super) const CLASS: &[Rule] = &[
    Need("provisioner"),
    By(|class, errors| {
        let keys = class.entries("parameters").filter(|(key, _)| key.is_empty());
        for _ in keys {
            errors.push(FieldError::invalid("parameters", &"".into(), "field can not be empty."));
        }
    }),
    MayBe("reclaimPolicy", &["Delete", "Retain"]),
    OneOf("volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]),
];
