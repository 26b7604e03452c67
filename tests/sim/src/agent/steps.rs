//! The steps of operations that are this region's turn: each a level to reach, noted in the journal once it is reached.

use leeward_core::{
    execute, handover,
    lease::Moment,
    operation::{StepName, StepRecord},
    plan::Expect,
};
use leeward_quorum::{Txn, commit, key, known::Situation};

use super::{Agent, Here, Purpose, Send};
use crate::{app::Process, mutant::Mutant};

impl Agent {
    pub(super) fn execute(&mut self, situation: &Situation, here: &mut Here<'_>, now: Moment, sends: &mut Vec<Send>) {
        let Some((operation, step)) = execute::step(situation.plan(), &situation.journal, &self.me) else {
            return;
        };
        if self.waits(|purpose| matches!(purpose, Purpose::Other)) {
            return;
        }
        let plan = situation.plan.as_ref().map_or(0, |plan| plan.revision);
        let done = match step.name {
            StepName::Quiesce => here.process == Process::Stopped && !self.has_open_gate(now),
            StepName::LastPoint => {
                // What closes here stays closed: who does not close before a role is given back does not here either.
                let open = [Mutant::LastPointBeforeClosed, Mutant::ReleasedBeforeClosed];
                let open = self.mutant.is_some_and(|mutant| open.contains(&mutant));
                if !open {
                    self.revoked.close(&situation.roles, operation, &mut self.grants);
                }
                (open || !self.has_open_gate(now)) && here.all_confirmed
                    || self.mutant == Some(Mutant::LastPointNotWaitedFor)
            }
            StepName::Release => {
                if self.mutant != Some(Mutant::ReleasedBeforeClosed) {
                    self.revoked.close(&situation.roles, operation, &mut self.grants);
                }
                let gated = self.has_open_gate(now);
                match handover::release(&situation.roles, plan, operation) {
                    _ if gated => false,
                    None => self.takes_it_as_done(step.name),
                    Some(commit) => {
                        self.committed = Some(step.name);
                        let txn = commit::txn(&self.app.key, &self.known.sights, &commit);
                        sends.extend(txn.ok().map(|txn| self.send(Purpose::Other, txn, now)));
                        false
                    }
                }
            }
            StepName::Take => match handover::take(&situation.roles, plan, operation) {
                Ok(None) => self.takes_it_as_done(step.name),
                Ok(Some(mut commit)) => {
                    self.committed = Some(step.name);
                    if self.mutant == Some(Mutant::TakenForAnyPlan) {
                        commit.expects.retain(|expect| !matches!(expect, Expect::Plan(_)));
                    }
                    let txn = commit::txn(&self.app.key, &self.known.sights, &commit);
                    sends.extend(txn.ok().map(|txn| self.send(Purpose::Other, txn, now)));
                    false
                }
                Err(_) => false,
            },
            StepName::Promote if here.is_full => false,
            StepName::Promote => {
                match self.mutant {
                    Some(Mutant::PromotedAnew) => here.volume.promote_anew(operation.epoch.0),
                    _ => here.volume.promote(operation.epoch.0),
                }
                true
            }
            StepName::Start => {
                let is_granted = self.app.roles.is_empty() || self.answer(now) == Some(operation.epoch);
                matches!(here.process, Process::Running { .. }) && is_granted
            }
        };
        if done {
            let record = StepRecord {
                started_ms: 0,
                ended_ms: Some(0),
                trouble: None,
                point_ms: None,
            };
            let key = key::journal(&self.app.key, &operation.id, step.name);
            if let Ok(txn) = Txn::default().put(&key, &record) {
                sends.push(self.send(Purpose::Other, txn.read(&key), now));
            }
        }
    }

    /// Whether a step whose commit is applied is done, whoever sent that.
    fn takes_it_as_done(&self, step: StepName) -> bool {
        self.mutant != Some(Mutant::DoneByItsOwnCommitOnly) || self.committed == Some(step)
    }
}
