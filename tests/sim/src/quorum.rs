//! The store, as it is in one instant: linearizable, and away while a majority is.

use std::collections::BTreeMap;

use leeward_quorum::{Changes, Entry, Outcome, Txn};

/// Everything that was ever written, deleted keys included.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quorum {
    entries: BTreeMap<String, Entry>,
    revision: u64,
}

impl Quorum {
    pub(crate) fn txn(&mut self, txn: &Txn) -> Outcome {
        let revision_of = |key: &str| {
            let entry = self.entries.get(key).filter(|entry| entry.value.is_some());
            entry.map_or(0, |entry| entry.revision)
        };
        let applied = txn.compares.iter().all(|c| revision_of(&c.key) == c.revision);
        if applied && !txn.writes.is_empty() {
            self.revision += 1;
            for write in &txn.writes {
                let entry = Entry {
                    key: write.key.clone(),
                    value: write.value.clone(),
                    revision: self.revision,
                };
                self.entries.insert(write.key.clone(), entry);
            }
        }
        let read = |entry: &&Entry| {
            txn.read_prefixes
                .iter()
                .any(|prefix| entry.key.starts_with(prefix.as_str()))
        };
        Outcome {
            applied,
            revision: self.revision,
            entries: self.entries.values().filter(read).cloned().collect(),
        }
    }

    pub(crate) fn changes(&self, after: u64) -> Changes {
        Changes {
            revision: self.revision,
            entries: self
                .entries
                .values()
                .filter(|entry| entry.revision > after)
                .cloned()
                .collect(),
            whole: after == 0,
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }
}
