//! Answers users from one immutable routing table: the HTTP edge and the health probes.
//!
//! Flow: the agent makes a [`Shared`], installs each new table and the local pods' addresses in it, and runs an
//! [`Edge`] and [`probe::run`] on it. The edge asks [`leeward_core::routing::route`] where a request goes, answers it
//! from local pods or through the other cluster's edge, and tells the shared [`HealthBook`] what failed; the probes tell
//! it what they find.
//!
//! Invariants:
//! - Nothing here needs the leader, the quorum or Kubernetes: the last table is kept on disk and goes on.
//! - A request that is not safe to repeat is delivered at most once.
//! - For an application with a writer role, no byte of an answer is let out unless the [`Admission`] grants the same
//!   epoch at that moment and the table knows of no higher one.

mod admission;
mod answers;
mod backends;
mod counters;
pub mod edge;
mod health_book;
mod histogram;
pub mod probe;
mod shared;

pub use admission::{Admission, Verdict};
pub use answers::Answers;
pub use backends::Backends;
pub use counters::{Counters, Counts};
pub use edge::{Edge, EdgeError, Limits};
pub use health_book::HealthBook;
pub use histogram::Histogram;
pub use shared::{InstallError, Installed, Shared};

/// Names of Leeward's own headers.
pub mod header {
    use http::HeaderName;

    /// On a request: the cluster whose edge passed it on. Such a request is answered locally or not at all.
    pub const FORWARDED: HeaderName = HeaderName::from_static("leeward-forwarded");
    /// On a request: another replica of this cluster's edge passed it on. It is not passed on again.
    pub const REPLICA: HeaderName = HeaderName::from_static("leeward-replica");
    /// On a request: a health probe. Answered by local pods at the profile's probe path.
    pub const PROBE: HeaderName = HeaderName::from_static("leeward-probe");
    /// On an answer made by an edge itself: `not-delivered` or `unknown`.
    pub const OUTCOME: HeaderName = HeaderName::from_static("leeward-outcome");
    /// On an answer: the cluster that gave it.
    pub const CLUSTER: HeaderName = HeaderName::from_static("leeward-cluster");
    /// On an answer of an application with a writer role: the epoch that it was given in.
    pub const EPOCH: HeaderName = HeaderName::from_static("leeward-epoch");
    /// On the answer to a probe: `not-asked`, since a probe is answered whether the region may write or not.
    pub const ADMISSION: HeaderName = HeaderName::from_static("leeward-admission");
    /// On requests and answers: the request's id.
    pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
}
