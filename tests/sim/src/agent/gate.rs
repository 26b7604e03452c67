//! What the agent grants to the gates of its region's pods.

use leeward_core::{
    gates::{Asker, Gates, Right},
    lease::Moment,
};
use leeward_gate::wire::{Answer, Ask, Closed, Reason};

use super::Agent;
use crate::mutant::Mutant;

impl Agent {
    /// A gate of this region asks.
    pub(crate) fn ask_gate(&mut self, ask: Ask, now: Moment) -> Answer {
        let confirmed_until = |epoch| self.confirmed_until(epoch);
        let right = Right::of(
            &self.grants,
            &self.role,
            confirmed_until,
            self.app.rpo,
            &self.timing,
            now,
        );
        let right = right.map(|right| match self.mutant {
            Some(Mutant::GateGrantedWithoutEnd) => Right { rpo: None, ..right },
            _ => right,
        });
        let asker = Asker {
            pod: &ask.pod,
            gate: &ask.gate,
            nonce: &ask.nonce,
        };
        let rights = [(self.role.clone(), right)].into();
        let granted = match self.mutant {
            Some(Mutant::AnyPodIsGranted) => Gates::default().ask(asker, &rights, &self.timing, now),
            _ => self.gates.ask(asker, &rights, &self.timing, now),
        };
        match granted {
            Ok(granted) => Answer::granted(ask, self.me.clone(), granted),
            Err(refused) => Answer::refused(ask, Reason::NotHeld, refused.to_string()),
        }
    }

    /// A gate's writer has ended.
    pub(crate) fn gate_closed(&mut self, closed: &Closed) {
        self.gates.closed(&closed.gate, &closed.nonce, &closed.roles);
    }

    /// Whether a gate may still let something out.
    pub(super) fn has_open_gate(&self, now: Moment) -> bool {
        match self.mutant {
            _ if self.app.roles.is_empty() => false,
            Some(Mutant::ReleasedBeforeGatesClosed) => false,
            Some(Mutant::PredecessorsGatesForgotten) => self.gates.held(&self.role, now).is_some(),
            _ => self.gates.open(&self.role, now).is_some(),
        }
    }
}
