//! The question whether this region may answer for an application now. The agent's lease clock stands behind it.

use std::borrow::Cow;

use leeward_core::name::{AppKey, Epoch};

/// What [`Admission::admit`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The application has no writer role, so every region may answer. For a profile that has a writer this counts as
    /// a refusal: whoever says so does not know the application yet.
    Free,
    /// This region may answer, in this epoch.
    Granted {
        /// The epoch of the writer role.
        epoch: Epoch,
    },
    /// This region may not answer.
    Refused {
        /// Why, for people.
        reason: Cow<'static, str>,
    },
}

/// Whether this region may answer for an application at this moment.
///
/// Asked before a request is passed to a pod, before the head of the answer, before each part of its body and before each
/// write to the client, so it must be quick, must not block, and must look at the clock each time.
pub trait Admission: Send + Sync {
    /// The verdict now.
    fn admit(&self, app: &AppKey) -> Verdict;
}
