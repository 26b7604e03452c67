//! What users were answered at this edge: by application, by the cluster that answered, and by the class of the status.
//!
//! Invariant: there is never an entry of an application or a cluster that the table does not name, so that no request can make any.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use leeward_core::{
    name::{AppKey, ClusterName},
    routing::{Profile, Table},
};

use crate::Histogram;

/// The classes of a status: 1xx to 5xx.
const CLASSES: usize = 5;

/// Who answered; none where the edge itself did.
type By = Option<ClusterName>;
type Counts = Vec<(By, Box<[AtomicU64; CLASSES]>)>;

/// What users were answered.
#[derive(Debug)]
pub struct Answers {
    apps: RwLock<HashMap<AppKey, Counts>>,
    took: Histogram,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            apps: RwLock::default(),
            took: Histogram::new(Histogram::SHORT),
        }
    }
}

impl Answers {
    /// Counts one answer with this status, of a cluster as its own header names it.
    pub(crate) fn count(&self, profile: &Profile, by: Option<&str>, status: u16, took: Duration) {
        self.took.observe(took);
        let class = usize::from(status / 100).clamp(1, CLASSES) - 1;
        let endpoint = by.and_then(|by| profile.endpoints.iter().find(|e| e.cluster.as_str() == by));
        let by = endpoint.map(|endpoint| &endpoint.cluster);
        if self.add(&profile.app, by, class) {
            return;
        }
        let mut apps = self.apps.write().unwrap_or_else(PoisonError::into_inner);
        let counts = apps.entry(profile.app.clone()).or_default();
        if !counts.iter().any(|(known, _)| known.as_ref() == by) {
            counts.push((by.cloned(), Box::default()));
        }
        drop(apps);
        self.add(&profile.app, by, class);
    }

    fn add(&self, app: &AppKey, by: Option<&ClusterName>, class: usize) -> bool {
        let apps = self.apps.read().unwrap_or_else(PoisonError::into_inner);
        let mut counts = apps.get(app).into_iter().flatten();
        let Some((_, classes)) = counts.find(|(known, _)| known.as_ref() == by) else {
            return false;
        };
        classes[class].fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Forgets what is not in the table.
    pub(crate) fn retain(&self, table: &Table) {
        let profiles: HashMap<_, _> = table.profiles.iter().map(|profile| (&profile.app, profile)).collect();
        let mut apps = self.apps.write().unwrap_or_else(PoisonError::into_inner);
        apps.retain(|app, counts| {
            let Some(profile) = profiles.get(app) else { return false };
            let known = |by: &By| by.as_ref().is_none_or(|by| profile.endpoint(by).is_some());
            counts.retain(|(by, _)| known(by));
            true
        });
    }

    /// How often each application's users were answered: by whom, and in which class of status, 1 for 1xx. What never was is left out.
    pub fn snapshot(&self) -> BTreeMap<AppKey, Vec<(Option<ClusterName>, u16, u64)>> {
        let apps = self.apps.read().unwrap_or_else(PoisonError::into_inner);
        let of = |counts: &Counts| {
            let classes = counts.iter().flat_map(|(by, classes)| {
                let counts = classes.iter().map(|count| count.load(Ordering::Relaxed));
                (1..).zip(counts).map(|(class, count)| (by.clone(), class, count))
            });
            classes.filter(|(.., count)| *count > 0).collect()
        };
        apps.iter().map(|(app, counts)| (app.clone(), of(counts))).collect()
    }

    /// How long answers took, from the head of the request to that of the answer.
    pub fn took(&self) -> &Histogram {
        &self.took
    }
}
