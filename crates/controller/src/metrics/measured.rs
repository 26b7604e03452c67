//! The quorum, with the time that its answers take.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use leeward_quorum::{Answer, Changes, Outcome, Store, Txn};
use leeward_traffic::Histogram;

/// What was measured.
#[derive(Debug)]
pub struct RoundTrips {
    /// From sending a transaction to its answer.
    pub took: Histogram,
    failed: AtomicU64,
}

impl RoundTrips {
    /// How many transactions were not answered, or not as such.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// A store that measures the one behind it and changes nothing.
pub struct Measured {
    store: Arc<dyn Store>,
    trips: Arc<RoundTrips>,
}

impl Measured {
    /// Around a store; and where it is read what it measures.
    pub fn around(store: Arc<dyn Store>) -> (Arc<dyn Store>, Arc<RoundTrips>) {
        let trips = Arc::new(RoundTrips {
            took: Histogram::new(Histogram::SHORT),
            failed: AtomicU64::new(0),
        });
        let measured = Self {
            store,
            trips: Arc::clone(&trips),
        };
        (Arc::new(measured), trips)
    }
}

impl Store for Measured {
    fn txn(&self, txn: Txn) -> Answer<'_, Outcome> {
        let began = Instant::now();
        let answer = self.store.txn(txn);
        Box::pin(async move {
            let answer = answer.await;
            match &answer {
                Ok(_) => self.trips.took.observe(began.elapsed()),
                Err(_) => {
                    self.trips.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            answer
        })
    }

    fn changes(&self, after: u64, wait: Duration) -> Answer<'_, Changes> {
        self.store.changes(after, wait)
    }
}
