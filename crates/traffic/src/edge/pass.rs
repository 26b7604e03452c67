//! The right to let one answer of a writer out, checked again and again until its last byte has gone.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use leeward_core::name::{AppKey, Epoch};

use crate::{Shared, Verdict, counters::count};

/// An answer given in an epoch, by a pod of this region or by another region.
pub(super) struct Pass {
    shared: Arc<Shared>,
    app: AppKey,
    epoch: Epoch,
    local: bool,
    /// The version of the table that `epoch` was last compared with, so that the common check is one load.
    version: AtomicU64,
}

impl Pass {
    pub(super) fn new(shared: Arc<Shared>, app: AppKey, epoch: Epoch, local: bool) -> Self {
        // No table has this version, so the first check compares.
        let version = AtomicU64::new(u64::MAX);
        Self {
            shared,
            app,
            epoch,
            local,
            version,
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the answer may go out now: this region's grant, if it answered itself, stands in the same epoch, and no
    /// higher epoch is known.
    pub(super) fn good(&self) -> bool {
        let granted = !self.local || self.shared.admit(&self.app) == (Verdict::Granted { epoch: self.epoch });
        let good = granted && self.newest();
        if !good {
            count(&self.shared.counters().fenced);
        }
        good
    }

    fn newest(&self) -> bool {
        let version = self.shared.version();
        if self.version.load(Ordering::Relaxed) == version {
            return true;
        }
        let newest = self
            .shared
            .writer_epoch(&self.app)
            .is_none_or(|epoch| epoch <= self.epoch);
        if newest {
            self.version.store(version, Ordering::Relaxed);
        }
        newest
    }
}
