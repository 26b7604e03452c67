//! The gate: the writer's parent process, and the check that the writer's answers pass through.
//!
//! It starts the writer once this region is granted its roles, ends it with everything that it started when the grant ends, and looks at
//! its own clock before each byte that leaves. Whatever is not known counts as no: a gate that was started anew, that cannot reach the
//! agent, that stood still, or that is dead lets nothing out. It knows nothing of Kubernetes.
//!
//! It comes into a writer's image as a copy of itself ([`install`]), or is built into it.
//!
//! Flow: [`mod@run`] owns the writer ([`writer`]) and asks the agent ([`ask`]); what the agent answers goes through [`hold`] (pure), which
//! says until when what may be done; the connections of [`relay`] look at that, and at the clock, for themselves.
//!
//! Invariants:
//! - a grant counts from before it was asked for, and only the answer to the newest question counts;
//! - nothing that the agent says lengthens what it said to somebody else: cluster, pod, roles and nonce are compared;
//! - the writer lives only while a grant lasts, and is started anew at another epoch;
//! - nothing is stored.

pub mod ask;
pub mod hold;
pub mod install;
pub mod relay;
pub mod run;
pub mod settings;
pub mod wire;
pub mod writer;

pub use run::run;
pub use settings::Arguments;

use leeward_core::lease::Moment;

/// Now, on the clock that goes on while the machine sleeps.
pub(crate) fn now() -> Moment {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from);
    // The clock exists on every Linux that this runs on; without it every grant has ended.
    Moment(time.unwrap_or(std::time::Duration::MAX))
}
