//! What a gate and its agent say to each other: version 1 of the grant protocol.
//!
//! The gate posts an [`Ask`] to `/v1/grant` and is answered with an [`Answer`]; once its writer has ended it posts a [`Closed`] to
//! `/v1/closed`. All are JSON, over TLS, with a bearer token that belongs to the application. A field that is unknown is ignored; what
//! must not be ignored gets another [`VERSION`].

use std::collections::{BTreeMap, BTreeSet};

use leeward_core::{
    gates::{ASK_AGAIN, Granted},
    name::{ClusterName, Epoch, RoleKey},
};
use serde::{Deserialize, Serialize};

/// The version that is spoken here.
pub const VERSION: u32 = 1;

/// The most bytes that a message may have.
pub const MAX_BYTES: usize = 64 << 10;

/// A length as messages have it, rounded down.
fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A gate asks whether its writer may write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    /// [`VERSION`].
    pub version: u32,
    /// The roles that the writer writes in, all of one application.
    pub roles: BTreeSet<RoleKey>,
    /// The UID of the pod.
    pub pod: String,
    /// The gate itself: drawn when it starts, so that another one, of the same pod or started in its place, is told apart.
    pub gate: String,
    /// New for each question; the answer repeats it.
    pub nonce: String,
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The writer may write for a while.
    Granted(Grant),
    /// It may not, from now on.
    Refused(Refusal),
}

impl Answer {
    /// The answer to a question that was decided so.
    pub fn granted(ask: Ask, cluster: ClusterName, granted: Granted) -> Self {
        Self::Granted(Grant {
            version: VERSION,
            cluster,
            pod: ask.pod,
            nonce: ask.nonce,
            roles: granted.roles,
            admit_ms: millis(granted.admit),
            answer_ms: millis(granted.answer),
            again_ms: millis(granted.again),
        })
    }

    /// The answer to a question that was refused.
    pub fn refused(ask: Ask, reason: Reason, text: impl Into<String>) -> Self {
        Self::Refused(Refusal {
            version: VERSION,
            nonce: ask.nonce,
            reason,
            text: text.into(),
            again_ms: millis(ASK_AGAIN),
        })
    }
}

/// The right to write for a while, counted from before it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// [`VERSION`].
    pub version: u32,
    /// Where.
    pub cluster: ClusterName,
    /// For whom.
    pub pod: String,
    /// Of the question.
    pub nonce: String,
    /// Each role, and the epoch at which it is written.
    pub roles: BTreeMap<RoleKey, Epoch>,
    /// How long new requests are let in, in milliseconds.
    pub admit_ms: u64,
    /// How long answers are let out, in milliseconds.
    pub answer_ms: u64,
    /// When to ask again, in milliseconds.
    pub again_ms: u64,
}

/// Why the writer may not write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// [`VERSION`].
    pub version: u32,
    /// Of the question.
    pub nonce: String,
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub text: String,
    /// When to ask again, in milliseconds.
    pub again_ms: u64,
}

/// Why a grant is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The agent does not speak this version.
    Version,
    /// The question makes no sense, such as roles of two applications.
    Invalid,
    /// The pod is not one of the application's that the agent knows of.
    UnknownPod,
    /// This region does not hold the role.
    NotHeld,
    /// A standby that is in sync has not confirmed for too long.
    StandbyAway,
    /// The writer behind another gate may still be writing.
    AnotherGate,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

/// A gate says that its writer has ended, with everything that it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Closed {
    /// [`VERSION`].
    pub version: u32,
    /// The roles.
    pub roles: BTreeSet<RoleKey>,
    /// The gate.
    pub gate: String,
    /// The nonce of the newest question; what was granted to a later one is not closed.
    pub nonce: String,
}
