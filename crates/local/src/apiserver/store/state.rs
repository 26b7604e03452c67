//! What readers see: the objects of each kind, the recent changes of each kind, and who owns whom.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::{Id, Object};

/// Changes kept for watches that resume; older ones get 410. A kind has its own, so a busy kind ages no other.
const KEPT: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventType {
    Added,
    Modified,
    Deleted,
}

/// One committed change.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    pub(crate) event_type: EventType,
    /// The object after the change; of a deletion the last state, at the deletion's revision.
    pub(crate) object: Object,
    /// The object before the change.
    pub(crate) before: Option<Object>,
}

/// The revision asked for is older than what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooOld {
    /// The oldest revision that could have been resumed from.
    pub(crate) oldest: u64,
}

struct Table {
    objects: BTreeMap<(String, String), Object>,
    recent: VecDeque<Event>,
    /// The newest revision whose event is no longer kept.
    floor: u64,
    changed: watch::Sender<u64>,
}

impl Table {
    fn new(floor: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            recent: VecDeque::new(),
            floor,
            changed: watch::Sender::new(floor),
        }
    }
}

pub(crate) struct State {
    revision: u64,
    /// The revision at which memory was filled: nothing before it can be resumed.
    loaded: u64,
    tables: HashMap<Arc<str>, Table>,
    /// Owner's uid to its dependents.
    dependents: HashMap<String, BTreeSet<Id>>,
    /// Where the object with a uid is.
    uids: HashMap<String, Id>,
}

impl State {
    pub(super) fn load(revision: u64, objects: Vec<(Id, Value)>) -> Self {
        let mut state = Self {
            revision,
            loaded: revision,
            tables: HashMap::new(),
            dependents: HashMap::new(),
            uids: HashMap::new(),
        };
        for (id, object) in objects {
            let object = Arc::new(object);
            state.index(&id, None, Some(&object));
            state
                .table(&id.resource)
                .objects
                .insert((id.namespace, id.name), object);
        }
        state
    }

    /// Forgets what is in memory for what the disk holds; every watch has to list again.
    pub(super) fn replace(&mut self, revision: u64, objects: Vec<(Id, Value)>) {
        let mut fresh = Self::load(revision, objects);
        for (resource, old) in self.tables.drain() {
            let table = fresh.table(&resource);
            table.changed = old.changed;
            table.changed.send_replace(revision);
        }
        *self = fresh;
    }

    fn table(&mut self, resource: &Arc<str>) -> &mut Table {
        let floor = self.loaded;
        self.tables.entry(resource.clone()).or_insert_with(|| Table::new(floor))
    }

    /// The revision of the newest change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, id: &Id) -> Option<Object> {
        let table = self.tables.get(&id.resource)?;
        table.objects.get(&(id.namespace.clone(), id.name.clone())).cloned()
    }

    /// The objects of a resource in order of namespace and name, of one namespace or of all.
    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<Object> {
        let Some(table) = self.tables.get(resource) else {
            return Vec::new();
        };
        match namespace {
            None => table.objects.values().cloned().collect(),
            Some(namespace) => table
                .objects
                .range((namespace.to_owned(), String::new())..)
                .take_while(|((ns, _), _)| ns == namespace)
                .map(|(_, object)| object.clone())
                .collect(),
        }
    }

    /// The tables that hold anything in a namespace.
    pub(crate) fn ids_in_namespace(&self, namespace: &str) -> Vec<Id> {
        let mut ids = Vec::new();
        for (resource, table) in &self.tables {
            let start = (namespace.to_owned(), String::new());
            let names = table.objects.range(start..).take_while(|((ns, _), _)| ns == namespace);
            ids.extend(names.map(|((ns, name), _)| Id {
                resource: resource.clone(),
                namespace: ns.clone(),
                name: name.clone(),
            }));
        }
        ids
    }

    /// Changes of a resource after `revision`, and the revision that they lead to.
    pub(crate) fn since(&self, resource: &str, revision: u64) -> Result<(Vec<Event>, u64), TooOld> {
        let Some(table) = self.tables.get(resource) else {
            return if revision < self.loaded {
                Err(TooOld { oldest: self.loaded })
            } else {
                Ok((Vec::new(), self.revision))
            };
        };
        if revision < table.floor {
            return Err(TooOld { oldest: table.floor });
        }
        let start = table.recent.partition_point(|event| event.revision <= revision);
        Ok((table.recent.range(start..).cloned().collect(), self.revision))
    }

    /// The revision of a resource's newest change, or of loading where there was none since.
    pub(crate) fn changed_at(&self, resource: &str) -> u64 {
        self.tables
            .get(resource)
            .map_or(self.loaded, |table| *table.changed.borrow())
    }

    pub(crate) fn dependents(&self, uid: &str) -> Vec<Id> {
        self.dependents
            .get(uid)
            .map(|ids| ids.iter().cloned().collect())
            .unwrap_or_default()
    }

    pub(crate) fn by_uid(&self, uid: &str) -> Option<&Id> {
        self.uids.get(uid)
    }

    /// Every object that names an owner.
    pub(crate) fn owned(&self) -> BTreeSet<Id> {
        self.dependents.values().flatten().cloned().collect()
    }

    pub(super) fn subscribe(&self, resource: &Arc<str>) -> Option<watch::Receiver<u64>> {
        self.tables.get(resource).map(|table| table.changed.subscribe())
    }

    pub(super) fn subscribe_new(&mut self, resource: &Arc<str>) -> watch::Receiver<u64> {
        self.table(resource).changed.subscribe()
    }

    pub(super) fn apply(&mut self, id: &Id, event: Event) {
        self.revision = event.revision;
        let gone = event.event_type == EventType::Deleted;
        self.index(id, event.before.as_ref(), (!gone).then_some(&event.object));
        let table = self.table(&id.resource);
        let key = (id.namespace.clone(), id.name.clone());
        if gone {
            table.objects.remove(&key);
        } else {
            table.objects.insert(key, event.object.clone());
        }
        let revision = event.revision;
        table.recent.push_back(event);
        if table.recent.len() > KEPT
            && let Some(old) = table.recent.pop_front()
        {
            table.floor = old.revision;
        }
        table.changed.send_replace(revision);
    }

    fn index(&mut self, id: &Id, before: Option<&Object>, after: Option<&Object>) {
        if let Some(before) = before {
            for uid in owner_uids(before) {
                if let Some(ids) = self.dependents.get_mut(uid) {
                    ids.remove(id);
                    if ids.is_empty() {
                        self.dependents.remove(uid);
                    }
                }
            }
            if let Some(uid) = uid_of(before) {
                self.uids.remove(uid);
            }
        }
        if let Some(after) = after {
            for uid in owner_uids(after) {
                self.dependents.entry(uid.to_owned()).or_default().insert(id.clone());
            }
            if let Some(uid) = uid_of(after) {
                self.uids.insert(uid.to_owned(), id.clone());
            }
        }
    }
}

fn uid_of(object: &Value) -> Option<&str> {
    object.pointer("/metadata/uid").and_then(Value::as_str)
}

fn owner_uids(object: &Value) -> impl Iterator<Item = &str> {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners
        .into_iter()
        .flatten()
        .filter_map(|owner| owner.get("uid").and_then(Value::as_str))
}

/// The revision of an object from the store.
pub(crate) fn revision_of(object: &Value) -> u64 {
    let text = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}
