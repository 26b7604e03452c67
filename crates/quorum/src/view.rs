//! A copy of the quorum's content, kept up to date from its changes, with each kind read as what it is.
//!
//! Invariants: an entry replaces another only with a higher revision, so that changes and the reads of transactions can
//! be merged in any order; a value that cannot be read is told of once, and is not taken for absent by who decides
//! ([`crate::known::Situation::unreadable`]).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use leeward_core::{
    name::{AppKey, RoleKey},
    operation::{Journal, StepName, StepRecord},
    plan::Versioned,
};
use serde::de::DeserializeOwned;

use crate::{Entry, key};

/// A copy of the quorum's content.
#[derive(Debug, Clone, Default)]
pub struct View {
    entries: BTreeMap<String, Entry>,
    revision: u64,
    told: Told,
}

/// The newest revision of each key that was told of as unreadable, by whichever copy of the view.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<BTreeMap<String, u64>>>);

impl Told {
    /// Whether it is news.
    fn is_news(&self, entry: &Entry) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(entry.key.clone(), entry.revision) != Some(entry.revision)
    }
}

impl View {
    /// Takes in entries; older ones than those that are here change nothing.
    pub fn merge(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            match self.entries.get(&entry.key) {
                Some(old) if old.revision >= entry.revision => {}
                _ => {
                    self.entries.insert(entry.key.clone(), entry);
                }
            }
        }
    }

    /// Takes in everything that there is at a revision: what is not among the entries is gone, unless it is newer.
    pub fn replace(&mut self, entries: impl IntoIterator<Item = Entry>, revision: u64) {
        self.entries.retain(|_, entry| entry.revision > revision);
        self.merge(entries);
    }

    /// All changes up to this revision have been merged.
    pub fn advance(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// The revision up to which every change is here.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One value; none when it is absent or cannot be read, which is logged.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Option<Versioned<T>> {
        let entry = self.entries.get(key)?;
        match serde_json::from_str(entry.value.as_deref()?) {
            Ok(value) => Some(Versioned {
                value,
                revision: entry.revision,
            }),
            Err(error) => {
                if self.told.is_news(entry) {
                    tracing::error!(
                        key,
                        revision = entry.revision,
                        %error,
                        "a value in the quorum cannot be read: it is damaged, or of a later version than this agent; update the agent, or put \
                         back what was there"
                    );
                }
                None
            }
        }
    }

    /// The keys with a prefix at which there is something, readable or not.
    pub fn keys<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.entries
            .range(prefix.to_owned()..)
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter(|(_, entry)| entry.value.is_some())
            .map(|(key, _)| key.as_str())
    }

    /// The revision that a comparison must name for this key to be as it is here.
    pub fn revision_of(&self, key: &str) -> u64 {
        self.entries
            .get(key)
            .filter(|entry| entry.value.is_some())
            .map_or(0, |entry| entry.revision)
    }

    /// All values with a prefix, by the rest of their key.
    pub fn list<'a, T: DeserializeOwned + 'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, Versioned<T>)> + 'a {
        self.entries
            .range(prefix.to_owned()..)
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(move |(key, _)| Some((&key[prefix.len()..], self.get(key)?)))
    }

    /// The roles of an application.
    pub fn roles(&self, app: &AppKey) -> BTreeMap<RoleKey, Versioned<leeward_core::lease::Role>> {
        let prefix = format!("{}{app}/", key::ROLES);
        self.list(&prefix)
            .filter_map(|(rest, role)| Some((format!("{app}/{rest}").parse().ok()?, role)))
            .collect()
    }

    /// The journal of an operation: its steps that this version knows.
    pub fn journal(&self, app: &AppKey, operation: &str) -> Journal {
        let prefix = key::journal_prefix(app, operation);
        self.list::<StepRecord>(&prefix)
            .filter_map(|(step, record)| Some((step_of(step)?, record.value)))
            .collect()
    }
}

/// The step that a key of a journal ends with.
pub(crate) fn step_of(name: &str) -> Option<StepName> {
    serde_json::from_value(name.into()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: Option<&str>, revision: u64) -> Entry {
        Entry {
            key: key.into(),
            value: value.map(str::to_owned),
            revision,
        }
    }

    #[test]
    fn an_older_entry_changes_nothing() {
        let mut view = View::default();
        view.merge([entry("a", Some("2"), 5)]);
        view.merge([entry("a", Some("1"), 4), entry("b", Some("7"), 6)]);
        assert_eq!(view.get::<u8>("a").unwrap().value, 2);
        assert_eq!(view.list::<u8>("").count(), 2);
    }

    #[test]
    fn what_is_not_among_everything_is_gone_unless_it_is_newer() {
        let mut view = View::default();
        view.merge([
            entry("a", Some("1"), 5),
            entry("b", Some("2"), 6),
            entry("c", Some("3"), 9),
        ]);
        view.replace([entry("b", Some("4"), 7)], 8);
        assert_eq!(
            (view.revision_of("a"), view.revision_of("b"), view.revision_of("c")),
            (0, 7, 9)
        );
    }

    #[test]
    fn what_cannot_be_read_is_there_and_is_told_of_once_for_each_revision() {
        let mut view = View::default();
        view.merge([
            entry("a", Some("{\"cut"), 5),
            entry("b", Some("1"), 6),
            entry("c", None, 7),
        ]);
        let copy = view.clone();
        assert_eq!(view.get::<u8>("a"), None);
        assert_eq!(view.keys("").collect::<Vec<_>>(), ["a", "b"]);
        let is_news = |view: &View| view.told.is_news(&view.entries["a"]);
        assert!(!is_news(&view) && !is_news(&copy));
        view.merge([entry("a", Some("{"), 8)]);
        assert!(is_news(&view));
        assert!(!is_news(&view));
    }

    #[test]
    fn a_deleted_key_compares_as_absent() {
        let mut view = View::default();
        view.merge([entry("a", Some("2"), 5), entry("a", None, 6)]);
        assert_eq!(view.revision_of("a"), 0);
        assert_eq!(view.get::<u8>("a"), None);
    }
}
