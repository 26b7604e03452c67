//! What the controllers know of their region: each kind's objects as its watch told them, with our own writes put in at once.
//!
//! A plan that ran on a view without the last round's writes would do them again (a second set of pods). So what a write returned
//! is kept from the moment that it returned, and the watch's later word replaces it: an object's newest `resourceVersion` wins.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::Job,
    coordination::v1::Lease,
    core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service},
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
    storage::v1::StorageClass,
};
use kube::{
    core::{ObjectMeta, Resource},
    runtime::watcher::Event,
};

/// How long an object that we created is believed in without the watch having shown it.
const UNSEEN: Duration = Duration::from_secs(5);

type Name = (String, String);

#[derive(Debug, Clone)]
struct Entry<K> {
    object: Arc<K>,
    version: u64,
    // Created by us at this time and not yet shown by the watch.
    unseen_since: Option<Instant>,
}

/// The objects of one kind.
#[derive(Debug, Clone)]
pub struct Kept<K> {
    objects: BTreeMap<Name, Entry<K>>,
    incoming: Option<BTreeMap<Name, Entry<K>>>,
    newest_seen: u64,
    synced: bool,
}

impl<K> Default for Kept<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            incoming: None,
            newest_seen: 0,
            synced: false,
        }
    }
}

fn name_of(meta: &ObjectMeta) -> Name {
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

// The local API numbers versions from one counter, so that they can be compared.
fn version_of(meta: &ObjectMeta) -> u64 {
    meta.resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

impl<K: Resource> Kept<K> {
    /// Takes in one event of the watch; says whether something may have changed.
    pub fn observe(&mut self, event: Event<K>) -> bool {
        match event {
            Event::Init => {
                self.incoming = Some(BTreeMap::new());
                false
            }
            Event::InitApply(object) => {
                let (name, entry) = self.entry(object);
                self.incoming.get_or_insert_default().insert(name, entry);
                false
            }
            Event::InitDone => {
                let newest = self.newest_seen;
                let mut objects = self.incoming.take().unwrap_or_default();
                for (name, entry) in std::mem::take(&mut self.objects) {
                    // Written by us while the list was under way.
                    let newer = objects.get(&name).is_none_or(|listed| listed.version < entry.version);
                    if entry.version > newest && newer {
                        objects.insert(name, entry);
                    }
                }
                self.objects = objects;
                self.synced = true;
                true
            }
            Event::Apply(object) => {
                let (name, entry) = self.entry(object);
                match self.objects.get_mut(&name) {
                    Some(known) if known.version == entry.version && entry.version != 0 => {
                        known.unseen_since = None;
                        false
                    }
                    Some(known) if known.version > entry.version => false,
                    _ => {
                        self.objects.insert(name, entry);
                        true
                    }
                }
            }
            Event::Delete(object) => {
                let (name, entry) = self.entry(object);
                let gone = self
                    .objects
                    .get(&name)
                    .is_some_and(|known| known.version <= entry.version);
                if gone {
                    self.objects.remove(&name);
                }
                gone
            }
        }
    }

    fn entry(&mut self, object: K) -> (Name, Entry<K>) {
        let version = version_of(object.meta());
        self.newest_seen = self.newest_seen.max(version);
        let entry = Entry {
            version,
            unseen_since: None,
            object: Arc::new(object),
        };
        (name_of(object_meta(&entry)), entry)
    }

    /// Takes in what a write of ours returned.
    pub fn wrote(&mut self, object: K, now: Instant) {
        let version = version_of(object.meta());
        let name = name_of(object.meta());
        let known = self.objects.get(&name);
        // The watch may have shown this, and what came after it, before the answer arrived.
        if version <= self.newest_seen || known.is_some_and(|known| known.version >= version) {
            return;
        }
        let unseen_since = known.map_or(Some(now), |known| known.unseen_since);
        self.objects.insert(
            name,
            Entry {
                version,
                unseen_since,
                object: Arc::new(object),
            },
        );
    }

    /// Takes in that an object is gone.
    pub fn removed(&mut self, namespace: Option<&str>, name: &str, uid: &str) {
        let name = (namespace.unwrap_or_default().to_owned(), name.to_owned());
        if self
            .objects
            .get(&name)
            .is_some_and(|known| known.object.meta().uid.as_deref() == Some(uid))
        {
            self.objects.remove(&name);
        }
    }

    /// Forgets what we created but the watch has not shown for too long: it was removed in between.
    pub fn forget_unseen(&mut self, now: Instant) {
        self.objects.retain(|_, entry| {
            entry
                .unseen_since
                .is_none_or(|since| now.duration_since(since) < UNSEEN)
        });
    }

    /// Changes an object in place until the watch shows it anew.
    pub fn assume(&mut self, namespace: Option<&str>, name: &str, change: impl FnOnce(&mut K))
    where
        K: Clone,
    {
        let name = (namespace.unwrap_or_default().to_owned(), name.to_owned());
        if let Some(entry) = self.objects.get_mut(&name) {
            change(Arc::make_mut(&mut entry.object));
        }
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// All objects, ordered by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &K> {
        self.objects.values().map(|entry| entry.object.as_ref())
    }

    /// One object.
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<&K> {
        let name = (namespace.unwrap_or_default().to_owned(), name.to_owned());
        self.objects.get(&name).map(|entry| entry.object.as_ref())
    }
}

fn object_meta<K: Resource>(entry: &Entry<K>) -> &ObjectMeta {
    entry.object.meta()
}

/// Everything that the controllers watch.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "each field holds the kind that it is named after")]
pub struct Region {
    pub namespaces: Kept<Namespace>,
    pub nodes: Kept<Node>,
    pub leases: Kept<Lease>,
    pub pods: Kept<Pod>,
    pub services: Kept<Service>,
    pub slices: Kept<EndpointSlice>,
    pub claims: Kept<PersistentVolumeClaim>,
    pub volumes: Kept<PersistentVolume>,
    pub classes: Kept<StorageClass>,
    pub deployments: Kept<Deployment>,
    pub replica_sets: Kept<ReplicaSet>,
    pub stateful_sets: Kept<StatefulSet>,
    pub revisions: Kept<ControllerRevision>,
    pub daemon_sets: Kept<DaemonSet>,
    pub jobs: Kept<Job>,
    pub budgets: Kept<PodDisruptionBudget>,
}

impl Region {
    /// Whether every kind's first list is complete. Before that nothing may be planned: what is not known would seem gone.
    pub fn is_synced(&self) -> bool {
        self.namespaces.synced
            && self.nodes.synced
            && self.leases.synced
            && self.pods.synced
            && self.services.synced
            && self.slices.synced
            && self.claims.synced
            && self.volumes.synced
            && self.classes.synced
            && self.deployments.synced
            && self.replica_sets.synced
            && self.stateful_sets.synced
            && self.revisions.synced
            && self.daemon_sets.synced
            && self.jobs.synced
            && self.budgets.synced
    }

    /// See [`Kept::forget_unseen`].
    pub fn forget_unseen(&mut self, now: Instant) {
        self.namespaces.forget_unseen(now);
        self.pods.forget_unseen(now);
        self.slices.forget_unseen(now);
        self.claims.forget_unseen(now);
        self.volumes.forget_unseen(now);
        self.classes.forget_unseen(now);
        self.replica_sets.forget_unseen(now);
        self.revisions.forget_unseen(now);
    }

    /// Pods by the uid of their controller.
    pub fn pods_by_controller(&self) -> HashMap<&str, Vec<&Pod>> {
        let mut owned: HashMap<&str, Vec<&Pod>> = HashMap::new();
        for pod in self.pods.iter() {
            if let Some(owner) = super::object::controller(&pod.metadata) {
                owned.entry(owner.uid.as_str()).or_default().push(pod);
            }
        }
        owned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, version: u64) -> Node {
        Node {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                uid: Some(name.to_owned()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            ..Node::default()
        }
    }

    fn names(kept: &Kept<Node>) -> Vec<&str> {
        kept.iter().filter_map(|node| node.metadata.name.as_deref()).collect()
    }

    fn synced() -> Kept<Node> {
        let mut kept = Kept::default();
        kept.observe(Event::Init);
        kept.observe(Event::InitApply(node("a", 5)));
        assert!(!kept.is_synced());
        assert!(kept.observe(Event::InitDone));
        assert!(kept.is_synced());
        kept
    }

    #[test]
    fn a_write_is_seen_before_the_watch_shows_it() {
        let mut kept = synced();
        kept.wrote(node("b", 7), Instant::now());
        assert_eq!(names(&kept), ["a", "b"]);
        assert!(!kept.observe(Event::Apply(node("b", 7))), "nothing new");
    }

    #[test]
    fn an_older_event_does_not_undo_a_newer_write() {
        let mut kept = synced();
        kept.wrote(node("a", 9), Instant::now());
        assert!(!kept.observe(Event::Apply(node("a", 8))));
        assert_eq!(
            kept.get(None, "a").unwrap().metadata.resource_version.as_deref(),
            Some("9")
        );
        assert!(!kept.observe(Event::Delete(node("a", 8))));
        assert!(kept.observe(Event::Delete(node("a", 10))));
    }

    #[test]
    fn a_late_answer_does_not_bring_back_what_the_watch_saw_removed() {
        let mut kept = synced();
        kept.observe(Event::Apply(node("b", 7)));
        kept.observe(Event::Delete(node("b", 8)));
        kept.wrote(node("b", 7), Instant::now());
        assert_eq!(names(&kept), ["a"]);
    }

    #[test]
    fn what_the_watch_never_shows_is_forgotten() {
        let mut kept = synced();
        let start = Instant::now();
        kept.wrote(node("b", 7), start);
        kept.forget_unseen(start + Duration::from_secs(1));
        assert_eq!(names(&kept), ["a", "b"]);
        kept.forget_unseen(start + Duration::from_secs(6));
        assert_eq!(names(&kept), ["a"]);
    }

    #[test]
    fn a_new_list_drops_what_is_gone_and_keeps_what_was_written_meanwhile() {
        let mut kept = synced();
        kept.observe(Event::Init);
        kept.observe(Event::InitApply(node("c", 6)));
        kept.wrote(node("d", 9), Instant::now());
        kept.observe(Event::InitDone);
        assert_eq!(names(&kept), ["c", "d"]);
    }
}
