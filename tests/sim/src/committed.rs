//! What the quorum has taken: a transaction is applied, and everybody who looks at the run knows of it at once; the agents do when they hear.

use leeward_core::{lease::Hold, name::ClusterName, operation::Outcome};
use leeward_quorum::{Outcome as Answer, Txn, key};

use crate::{fault::Place, network::Message, world::World};

impl World {
    pub(crate) fn commit(&mut self, txn: &Txn) -> Answer {
        let before = self.role.clone();
        let answer = self.quorum.txn(txn);
        if answer.applied && !txn.writes.is_empty() {
            let changes = self.quorum.changes(self.view.revision());
            self.view.merge(changes.entries);
            self.view.advance(changes.revision);
            if txn.writes.iter().any(|write| write.key.starts_with(key::ROLES)) {
                let mut roles = self.view.roles(&self.app.key).into_values();
                self.role = roles.next().map(|role| role.value);
            }
            if txn.writes.iter().any(|write| write.key.starts_with(key::PLANS)) {
                self.plan = self.view.get(&key::plan(&self.app.key)).map(|plan| plan.value);
                self.note_end();
                self.note_steps();
            }
            if txn.writes.iter().any(|write| write.key.starts_with(key::SPECS)) {
                self.note_specification();
            }
            if let (Some(before), Some(after)) = (before, self.role.clone())
                && before != after
            {
                let in_sync: Vec<&str> = after.in_sync.iter().map(ClusterName::as_str).collect();
                self.tell(format!(
                    "{} {:?} at epoch {}, in sync: {}",
                    after.owner,
                    after.hold,
                    after.epoch,
                    in_sync.join(" ")
                ));
                self.perhaps_calls_off_after_the_release();
                self.perhaps_asks_again(&before);
                if before.owner != after.owner {
                    self.moves += 1;
                    if before.hold != Hold::Released {
                        self.failed_over.insert(before.epoch.0);
                    }
                }
            }
            for (place, start, call, after) in std::mem::take(&mut self.waiting) {
                let changes = self.quorum.changes(after);
                self.post(Place::Quorum, place, start, Message::Changes(call, changes));
            }
        }
        answer
    }

    fn note_end(&mut self) {
        let Some(finished) = self.plan.as_ref().and_then(|plan| plan.finished.as_ref()) else {
            return;
        };
        let id = finished.operation.id.clone();
        let (news, word) = match &finished.outcome {
            Outcome::Failed(why) => (self.failed.insert(id.clone()), format!("has failed: {why}")),
            Outcome::Cancelled => (self.cancelled.insert(id.clone()), "is cancelled".to_owned()),
            Outcome::Succeeded => (false, String::new()),
        };
        if news {
            self.tell(format!("{id} {word}"));
        }
    }
}
