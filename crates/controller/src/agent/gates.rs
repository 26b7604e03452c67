//! What this agent grants to the gates of its pods: never more than it is granted itself, see [`leeward_core::gates`].

use std::{collections::BTreeMap, time::Duration};

use leeward_core::{
    gates::{Asker, Granted, Held, Open, Refused, Right},
    lease::Moment,
    name::RoleKey,
};

use super::{Agent, lock};
use crate::clock;

/// How far ahead an agent without fences grants, in test builds.
#[cfg(feature = "unfenced")]
const FOR_EVER: Duration = Duration::from_secs(3600);

impl Agent {
    /// A gate asks for roles of one application.
    ///
    /// # Errors
    /// Why its writer may not write.
    pub(crate) fn ask_gate<'a>(
        &self,
        asker: Asker<'_>,
        roles: impl IntoIterator<Item = &'a RoleKey>,
        rpo: Duration,
    ) -> Result<Granted, Refused> {
        let mut gates = lock(&self.gates);
        let now = clock::now();
        let rights: BTreeMap<_, _> = roles
            .into_iter()
            .map(|role| (role.clone(), self.right(role, rpo, now)))
            .collect();
        gates.ask(asker, &rights, &self.timing, now)
    }

    fn right(&self, role: &RoleKey, rpo: Duration, now: Moment) -> Option<Right> {
        let grants = self.grants();
        #[cfg(feature = "unfenced")]
        if self.is_unfenced() {
            let until = now.after(FOR_EVER);
            return grants.roles.get(role).map(|epoch| Right {
                epoch: *epoch,
                admit_until: until,
                answer_until: until,
                rpo: None,
            });
        }
        let confirmed_until = |epoch| self.confirmed_until(role, epoch);
        Right::of(&grants, role, confirmed_until, rpo, &self.timing, now)
    }

    /// A gate says that its writer has ended.
    pub(crate) fn gate_closed(&self, closed: &leeward_gate::wire::Closed) {
        lock(&self.gates).closed(&closed.gate, &closed.nonce, &closed.roles);
        self.wake();
    }

    /// This agent holds its region's lease until then.
    pub(super) fn holds_gates(&self, until: Moment) {
        lock(&self.gates).hold(until);
    }

    /// Why something may still be written in a role; none when no gate is open.
    pub(crate) fn open_gate(&self, role: &RoleKey) -> Option<String> {
        let (gates, now) = (lock(&self.gates), clock::now());
        Some(match gates.open(role, now)? {
            Open::OfAnother => format!(
                "this agent to hold the region's lease: gates that another one granted may be open in role {} until that one's lease is over",
                role.role
            ),
            Open::Gate(held) => format!(
                "the gate of pod {} to close role {}, {} ms at the most",
                held.pod,
                role.role,
                held.until.since(now).as_millis()
            ),
        })
    }

    /// The pod that may be writing in a role.
    pub(crate) fn gate(&self, role: &RoleKey) -> Option<Held> {
        lock(&self.gates).held(role, clock::now()).cloned()
    }
}
