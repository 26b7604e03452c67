//! Volumes of a pod.

use super::container::{VOLUME_FIELDS, descending, field_reference, no_parent};
use super::rule::{Errors, Node, Rule, check, need, one_kind};
use super::words::Form;
use crate::machinery::FieldError;

use Rule::{Amount, By, Each, In, MayBe, Need, Text};

/// Whether the volume may be mounted: nothing is wrong with it.
pub(super) fn is_sound(volume: &Node<'_>) -> bool {
    let mut errors = Errors::new();
    one(volume, &mut errors);
    errors.is_empty()
}

pub(super) fn all(spec: &Node<'_>, errors: &mut Errors) {
    let mut names = Vec::new();
    for volume in spec.items("volumes") {
        let mut found = Errors::new();
        one(&volume, &mut found);
        let name = volume.text("name");
        if names.contains(&name) {
            found.push(FieldError::duplicate(volume.path("name"), &name.into()));
        }
        if found.is_empty() {
            names.push(name);
        }
        errors.append(&mut found);
    }
}

fn one(volume: &Node<'_>, errors: &mut Errors) {
    let found = one_kind(volume, "volume", &SOURCES, errors);
    if !found && volume.value.as_object().is_none_or(|map| map.len() < 2) {
        errors.push(FieldError::required(volume.at.clone(), "must specify a volume type"));
    }
    check(&[Need("name"), Text("name", Form::Label)], volume, errors);
}

const MODE: Rule = By(|node, errors| mode(node, "defaultMode", errors));

fn mode(node: &Node<'_>, name: &str, errors: &mut Errors) {
    if let Some(number) = node.number(name).filter(|number| !(0..=0o777).contains(number)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(node.path(name), &number.into(), detail));
    }
}

const ITEM: &[Rule] = &[
    Need("key"),
    Need("path"),
    By(|node, errors| {
        descending(node.text("path"), &node.path("path"), errors);
        if node.text("path").starts_with("..") && !node.text("path").split('/').any(|step| step == "..") {
            let detail = "must not start with '..'";
            errors.push(FieldError::invalid(
                node.path("path"),
                &node.text("path").into(),
                detail,
            ));
        }
        mode(node, "mode", errors);
    }),
];

const HOST_PATHS: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

pub(super) const HOST_PATH: &[Rule] = &[
    Need("path"),
    By(|node, errors| no_parent(node.text("path"), &node.path("path"), errors)),
    MayBe("type", HOST_PATHS),
];

const DOWNWARD: &[Rule] = &[
    Need("path"),
    By(|node, errors| {
        if let Some(field) = node.child("fieldRef") {
            field_reference(&field, VOLUME_FIELDS, errors);
        }
    }),
];

const PROJECTION: &[Rule] = &[
    In("secret", &[Need("name"), Each("items", ITEM)]),
    In("configMap", &[Need("name"), Each("items", ITEM)]),
    In("downwardAPI", &[Each("items", DOWNWARD)]),
    In("serviceAccountToken", &[By(token)]),
    By(|node, errors| {
        if node.value.as_object().is_some_and(|map| map.len() > 1) {
            let detail = "may not specify more than 1 volume type per source";
            errors.push(FieldError::forbidden(node.at.clone(), detail));
        }
    }),
];

fn token(node: &Node<'_>, errors: &mut Errors) {
    if let Some(seconds) = node.number("expirationSeconds").filter(|seconds| *seconds < 600) {
        let detail = "may not specify a duration less than 10 minutes";
        errors.push(FieldError::invalid(
            node.path("expirationSeconds"),
            &seconds.into(),
            detail,
        ));
    }
    need(node, "path", "", errors);
}

pub(super) const NFS: &[Rule] = &[Need("server"), Need("path")];

const SOURCES: [(&str, &[Rule]); 10] = [
    ("emptyDir", &[Amount("sizeLimit")]),
    ("hostPath", HOST_PATH),
    ("secret", &[Need("secretName"), MODE, Each("items", ITEM)]),
    ("nfs", NFS),
    ("persistentVolumeClaim", &[Need("claimName")]),
    ("downwardAPI", &[MODE, Each("items", DOWNWARD)]),
    ("configMap", &[Need("name"), MODE, Each("items", ITEM)]),
    ("projected", &[MODE, Each("sources", PROJECTION)]),
    ("csi", &[Need("driver")]),
    ("ephemeral", &[Need("volumeClaimTemplate")]),
];
