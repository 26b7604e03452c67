//! ControllerRevisions: the templates that a StatefulSet or a DaemonSet has had, so that its pods can be told apart and it can go back.

use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::runtime::RawExtension,
};
use kube::core::{ObjectMeta, Resource};
use serde_json::{Value, json};

use super::{
    action::{self, Action, Kind, Target, value},
    object::{self, is_terminating},
};

/// The label of a pod that says of which revision it is.
pub const LABEL: &str = "controller-revision-hash";
/// The label of a StatefulSet's revision that has its hash; that of a DaemonSet has [`LABEL`].
pub const HASH: &str = "controller.kubernetes.io/hash";

/// The revision of the present template.
#[derive(Debug, Clone, PartialEq)]
pub struct Newest {
    /// Its name.
    pub name: String,
    /// What creates it, or makes an earlier one of the same content the newest again.
    pub action: Option<Action>,
    /// How many times a name that was wanted belonged to something else.
    pub collisions: i32,
}

/// The revisions that `owner` controls, from the oldest to the newest.
pub fn of<'a>(owner: &ObjectMeta, all: &[&'a ControllerRevision]) -> Vec<&'a ControllerRevision> {
    let own = all.iter().copied().filter(|one| object::controls(owner, &one.metadata));
    let mut own: Vec<_> = own.collect();
    own.sort_by_key(|one| {
        let created = one.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (one.revision, created, one.metadata.name.clone())
    });
    own
}

/// What a revision keeps: a strategic merge patch that puts the template back.
fn content(template: &PodTemplateSpec) -> Value {
    let mut template = value(template);
    if let Some(template) = template.as_object_mut() {
        template.insert("$patch".to_owned(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

/// The template that a revision keeps.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref()?.0.pointer("/spec/template")?;
    serde_json::from_value(template.clone()).ok()
}

/// The revision of this template. `own` are those of the owner in order, `all` those of its namespace; `label` gets the hash.
pub fn newest<K: Resource<DynamicType = ()>>(
    owner: &K,
    template: &PodTemplateSpec,
    (own, all): (&[&ControllerRevision], &[&ControllerRevision]),
    label: &str,
    collisions: i32,
) -> Newest {
    let content = content(template);
    let next = own.last().map_or(0, |last| last.revision) + 1;
    if let Some(same) = own
        .iter()
        .rev()
        .find(|one| one.data.as_ref().map(|data| &data.0) == Some(&content))
    {
        let again = Action::patch(
            Target::new(Kind::ControllerRevision, &same.metadata),
            json!({ "revision": next }),
        );
        return Newest {
            name: same.metadata.name.clone().unwrap_or_default(),
            action: (same.revision + 1 != next).then_some(again),
            collisions,
        };
    }
    let text = value(template).to_string();
    let meta = owner.meta();
    let prefix = object::cut(meta.name.as_deref().unwrap_or_default(), 223);
    let named = |collisions: i32| {
        let mut parts = vec![text.as_bytes()];
        let count = collisions.to_le_bytes();
        if collisions > 0 {
            parts.push(&count);
        }
        let hash = object::short_hash(&parts, 10);
        (format!("{prefix}-{hash}"), hash)
    };
    let mut collisions = collisions;
    let is_taken = |name: &str| all.iter().any(|one| one.metadata.name.as_deref() == Some(name));
    while is_taken(&named(collisions).0) {
        collisions += 1;
    }
    let (name, hash) = named(collisions);
    let mut labels = template
        .metadata
        .as_ref()
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    labels.insert(label.to_owned(), hash);
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations.clone(),
            owner_references: Some(vec![object::owner_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(content)),
        revision: next,
    };
    Newest {
        name,
        action: Some(action::create(Kind::ControllerRevision, &revision)),
        collisions,
    }
}

/// Deletes the oldest of those that nothing uses, down to the limit.
pub fn forget(own: &[&ControllerRevision], used: &[&str], limit: Option<i32>) -> Vec<Action> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let unused = |one: &&&ControllerRevision| {
        !is_terminating(&one.metadata) && !used.contains(&one.metadata.name.as_deref().unwrap_or_default())
    };
    let unused: Vec<_> = own.iter().filter(unused).collect();
    let surplus = unused.len().saturating_sub(limit);
    let oldest = unused.into_iter().take(surplus);
    oldest
        .map(|one| Action::delete(Target::new(Kind::ControllerRevision, &one.metadata)))
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::StatefulSet;

    use super::*;
    use crate::controllers::samples::object_of;

    fn owner(image: &str) -> StatefulSet {
        object_of(json!({
            "metadata": {"name": "db", "namespace": "shop", "uid": "set"},
            "spec": {"selector": {}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
        }))
    }

    fn made(image: &str, own: &[&ControllerRevision]) -> (Newest, Option<ControllerRevision>) {
        let owner = owner(image);
        let template = &owner.spec.as_ref().unwrap().template;
        let newest = newest(&owner, template, (own, own), HASH, 0);
        let created = match &newest.action {
            Some(Action::Create { object, .. }) => Some(object_of(object.clone())),
            _ => None,
        };
        (newest, created)
    }

    #[test]
    fn a_template_has_one_revision_and_going_back_makes_it_the_newest() {
        let first = made("1", &[]).1.unwrap();
        assert_eq!(first.revision, 1);
        assert_eq!(made("1", &[&first]).0.action, None);
        let second = made("2", &[&first]).1.unwrap();
        assert_eq!(second.revision, 2);
        let back = made("1", &[&first, &second]).0;
        assert_eq!(Some(&back.name), first.metadata.name.as_ref());
        assert!(matches!(back.action, Some(Action::Patch { patch, .. }) if patch == json!({"revision": 3})));
        assert_eq!(template(&first), Some(owner("1").spec.unwrap().template));
    }

    #[test]
    fn a_name_that_belongs_to_something_else_is_passed_over() {
        let mut other = made("1", &[]).1.unwrap();
        other.data = None;
        let (newest, created) = made("1", &[&other]);
        assert_eq!(newest.collisions, 1);
        assert_ne!(created.unwrap().metadata.name, other.metadata.name);
    }

    #[test]
    fn the_oldest_unused_ones_are_forgotten() {
        let mut all = Vec::new();
        for number in 0..4 {
            let mut one = made(&number.to_string(), &[]).1.unwrap();
            one.metadata.name = Some(format!("r{number}"));
            all.push(one);
        }
        let all: Vec<&ControllerRevision> = all.iter().collect();
        let forgotten = forget(&all, &["r0", "r3"], Some(1));
        let names: Vec<&str> = forgotten
            .iter()
            .filter_map(|action| Some(action.target()?.name.as_str()))
            .collect();
        assert_eq!(names, ["r1"]);
    }
}
