//! What a pure function said before. The core takes a thousand times longer over a decision than to find one that it made.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{PoisonError, RwLock};

/// Answers by question.
#[derive(Debug)]
pub(crate) struct Memo<K, V>(RwLock<HashMap<K, V>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Eq + Hash, V: Copy> Memo<K, V> {
    /// The answer, from `compute` the first time.
    pub(crate) fn get(&self, key: K, compute: impl FnOnce() -> V) -> V {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return *known;
        }
        let value = compute();
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, value);
        value
    }
}
