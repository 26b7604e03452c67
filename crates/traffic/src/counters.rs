//! What the edge counted, for the agent's report and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters that only grow, but for `open_connections`.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
        }

        /// The counters at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// What was counted until now.
            pub fn snapshot(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Requests from clients and other edges; probes are not counted.
    requests,
    /// Requests that another edge passed on.
    forwarded_in,
    /// Tries at another cluster's edge.
    forwarded_out,
    /// Answered by an application.
    answered,
    /// Answered with `not-delivered`: the application never saw it.
    not_delivered,
    /// Answered with `unknown`: the application may have seen it.
    unknown,
    /// Refused as malformed or for a host that the table does not know.
    rejected,
    /// Tries after the first one.
    retries,
    /// Answers held back or cut because the region may not answer any more.
    fenced,
    /// Tries at a local pod that were not made because the region may not answer for the writer.
    not_admitted,
    /// Probes that were answered as they should be.
    probes_healthy,
    /// Probes that were not.
    probes_unhealthy,
    /// Connections accepted.
    connections,
    /// Connections open now.
    open_connections,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
