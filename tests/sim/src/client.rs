//! Clients, one pinned to each region, which write numbers and remember what was acknowledged.

use crate::fault::{Place, Time};

/// A write that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    /// The number that was written.
    pub(crate) n: u64,
    /// The epoch at which it was.
    pub(crate) epoch: u64,
    /// Where, as an index of the regions.
    pub(crate) region: usize,
    /// When the answer left; microseconds of real time.
    pub(crate) at: u64,
}

/// The clients of all regions.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    next: u64,
    pub(crate) acks: Vec<Ack>,
}

impl Clients {
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn acknowledged(&mut self, n: u64, epoch: u64, region: Place, at: Time) {
        self.acks.push(Ack {
            n,
            epoch,
            region: usize::from(region == Place::East),
            at,
        });
    }
}
