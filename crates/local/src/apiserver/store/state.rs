//! What readers see: the objects of each kind, the recent changes of each kind, and who owns whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::changes::{Changes, Event, EventType, TooOld};
use super::disk::Loaded;
use super::held::{Held, weight};
use super::{Id, Object};

struct Table {
    objects: BTreeMap<Key, Held>,
    changes: Changes,
    changed: watch::Sender<u64>,
}

impl Table {
    fn new(floor: u64, revision: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            changes: Changes::new(floor),
            changed: watch::Sender::new(revision),
        }
    }
}

pub(crate) struct State {
    revision: u64,
    /// The revision at which memory was filled.
    loaded: u64,
    /// The revision at the last [`settle`](State::settle).
    settled: u64,
    /// Nothing before this revision can be resumed.
    floor: u64,
    tables: HashMap<Arc<str>, Table>,
    /// Owner's uid to its dependents.
    dependents: HashMap<String, BTreeSet<Id>>,
    /// Where the object with a uid is.
    uids: HashMap<String, Id>,
}

impl State {
    pub(super) fn load(loaded: Loaded) -> Self {
        let mut state = Self {
            revision: loaded.revision,
            loaded: loaded.revision,
            settled: loaded.revision,
            floor: loaded.floor,
            tables: HashMap::new(),
            dependents: HashMap::new(),
            uids: HashMap::new(),
        };
        for (id, held) in loaded.objects {
            state.index(&id, None, Some(held.head()));
            let table = state.table(&id.resource);
            table.objects.insert((id.namespace, id.name), held);
        }
        for (id, change) in loaded.changes {
            state.table(&id.resource).changes.keep_packed(change);
        }
        state
    }

    /// Forgets what is in memory for what the disk holds, and has every watch look.
    pub(super) fn replace(&mut self, loaded: Loaded) {
        let revision = loaded.revision;
        let mut fresh = Self::load(loaded);
        for (resource, old) in self.tables.drain() {
            let table = fresh.table(&resource);
            table.changed = old.changed;
            table.changed.send_replace(revision);
        }
        *self = fresh;
    }

    fn table(&mut self, resource: &Arc<str>) -> &mut Table {
        let (floor, loaded) = (self.floor, self.loaded);
        self.tables
            .entry(resource.clone())
            .or_insert_with(|| Table::new(floor, loaded))
    }

    /// The revision of the newest change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, id: &Id) -> Option<Held> {
        let table = self.tables.get(&id.resource)?;
        table.objects.get(&(id.namespace.clone(), id.name.clone())).cloned()
    }

    /// The objects of a resource in the order of `namespace/name`, of one namespace or of all.
    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<Held> {
        let table = self.tables.get(resource);
        table.map_or_else(Vec::new, |table| listed(&table.objects, namespace))
    }

    /// The objects as they were at an earlier revision, in the same order.
    pub(crate) fn list_at(&self, resource: &str, namespace: Option<&str>, revision: u64) -> Result<Vec<Held>, TooOld> {
        let (events, _) = self.since(resource, revision)?;
        let Some(table) = self.tables.get(resource).filter(|_| !events.is_empty()) else {
            return Ok(self.list(resource, namespace));
        };
        let mut objects = table.objects.clone();
        for event in events.into_iter().rev() {
            let text = |key: &str| {
                event
                    .object
                    .pointer(key)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            let key = (text("/metadata/namespace"), text("/metadata/name"));
            match event.before {
                Some(before) => objects.insert(key, Held::Value(before)),
                None => objects.remove(&key),
            };
        }
        Ok(listed(&objects, namespace))
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
            return if revision < self.floor {
                Err(TooOld { oldest: self.floor })
            } else {
                Ok((Vec::new(), self.revision))
            };
        };
        let floor = table.changes.floor();
        if revision < floor {
            return Err(TooOld { oldest: floor });
        }
        Ok((table.changes.since(revision), self.revision))
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

    /// Packs the changes that were there at the last settling: every watch has read them by now.
    pub(super) fn settle(&mut self) {
        let until = std::mem::replace(&mut self.settled, self.revision);
        for table in self.tables.values_mut() {
            table.changes.settle(until);
        }
    }

    pub(super) fn apply(&mut self, id: &Id, event: Event) {
        self.revision = event.revision;
        let gone = event.event_type == EventType::Deleted;
        self.index(id, event.before.as_ref(), (!gone).then_some(&event.object));
        let weighs = weight(&event.object);
        let table = self.table(&id.resource);
        let key = (id.namespace.clone(), id.name.clone());
        if gone {
            table.objects.remove(&key);
        } else {
            table.objects.insert(key, Held::new(event.object.clone(), weighs));
        }
        let revision = event.revision;
        table.changes.keep(event, weighs);
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

type Key = (String, String);

/// The objects of one namespace, or all in the order of `namespace/name`.
fn listed(objects: &BTreeMap<Key, Held>, namespace: Option<&str>) -> Vec<Held> {
    let Some(namespace) = namespace else {
        return in_order(objects.iter().collect());
    };
    let from = objects.range((namespace.to_owned(), String::new())..);
    let of_it = from.take_while(|((ns, _), _)| ns == namespace);
    of_it.map(|(_, held)| held.clone()).collect()
}

/// Namespaces that begin alike are in another order by themselves than with a slash behind them.
fn in_order(mut objects: Vec<(&Key, &Held)>) -> Vec<Held> {
    let bytes = |key: &'_ Key| key.0.bytes().chain([b'/']).chain(key.1.bytes()).collect::<Vec<u8>>();
    if objects.first().is_some_and(|(key, _)| !key.0.is_empty()) {
        objects.sort_by_cached_key(|(key, _)| bytes(key));
    }
    objects.into_iter().map(|(_, held)| held.clone()).collect()
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
