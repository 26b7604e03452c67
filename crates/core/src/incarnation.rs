//! What a new incarnation of the quorum does to what is in it, as pure functions.
//!
//! The quorum is begun anew from one member's copy once its majority is lost for good. That copy may lack the last decisions of the
//! majority, so nothing that is given out from then on may be mistaken for one of those: every epoch and every generation is raised into
//! the incarnation, in the same order. The sets of standbys in sync are emptied, since the majority may have committed one out: until
//! its writer takes it in again, nothing fails over to a standby without a person saying what may be lost.
//!
//! Invariants: raising keeps the order and equality of what was given out in one incarnation; raising twice is raising once.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    lease::Role,
    name::{ClusterName, Incarnation},
    plan::{Change, Commit, Plan},
};

/// A new incarnation as it stands in the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Which one.
    pub number: Incarnation,
    /// What a person named as lost for good: clusters, and the witness by the name `witness`.
    pub lost: BTreeSet<String>,
    /// When, on the wall clock of who began it, Unix ms; a record only.
    pub began_ms: u64,
}

impl Begun {
    /// Whether a cluster was named as lost.
    pub fn lost(&self, cluster: &ClusterName) -> bool {
        self.lost.contains(cluster.as_str())
    }

    /// A role as the new quorum has it.
    pub fn role(&self, role: Role) -> Role {
        Role {
            epoch: role.epoch.in_incarnation(self.number),
            in_sync: BTreeSet::new(),
            ..role
        }
    }

    /// A plan as the new quorum has it.
    pub fn plan(&self, plan: Plan) -> Plan {
        let mut plan = raise(plan, self.number);
        plan.generation = plan.generation.in_incarnation(self.number);
        plan
    }
}

fn raise(mut plan: Plan, incarnation: Incarnation) -> Plan {
    let finished = plan.finished.as_mut().map(|finished| &mut finished.operation);
    for operation in plan.operation.as_mut().into_iter().chain(finished) {
        operation.epoch = operation.epoch.in_incarnation(incarnation);
    }
    plan
}

/// A decision in an incarnation. An application's first plan begins with the first number of all; what is decided about one that the quorum
/// had when the incarnation began is in it already.
pub fn decided_in(incarnation: Incarnation, commit: Commit) -> Commit {
    let changes = commit.changes.into_iter().map(|change| match change {
        Change::Role(key, role) => {
            let epoch = role.epoch.in_incarnation(incarnation);
            Change::Role(key, Role { epoch, ..role })
        }
        Change::Plan(plan) => {
            let mut plan = raise(*plan, incarnation);
            plan.generation = plan.generation.in_incarnation(incarnation);
            Change::Plan(Box::new(plan))
        }
        other => other,
    });
    Commit {
        changes: changes.collect(),
        ..commit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lease::Hold,
        name::{Epoch, Generation},
        operation::{Finished, Kind, Operation, Outcome},
    };

    fn operation(epoch: u64) -> Operation {
        Operation {
            id: "o".into(),
            kind: Kind::Switchover,
            from: "west".into(),
            to: "east".into(),
            epoch: Epoch(epoch),
            began_ms: 0,
            decided_ms: 0,
            steps: vec![],
            accepted_loss_ms: None,
        }
    }

    fn plan() -> Plan {
        Plan {
            generation: Generation(9),
            app: "shop/web".parse().unwrap(),
            active: "east".into(),
            operation: Some(operation(5)),
            finished: Some(Finished {
                operation: operation(4),
                ended_ms: 0,
                outcome: Outcome::Succeeded,
            }),
        }
    }

    fn begun() -> Begun {
        Begun {
            number: Incarnation(2),
            lost: ["east".to_owned()].into(),
            began_ms: 7,
        }
    }

    #[test]
    fn whatever_was_given_out_is_raised_in_its_order_and_nobody_stays_in_sync() {
        let old = Role {
            hold: Hold::Revoking,
            in_sync: ["east".into()].into(),
            ..Role::held("west".into(), Epoch(4))
        };
        let (role, plan) = (begun().role(old), begun().plan(plan()));
        assert_eq!((role.epoch.readable().as_str(), role.hold), ("2.4", Hold::Revoking));
        assert!(role.in_sync.is_empty());
        // The running switchover still goes to an epoch above the one that is given back.
        assert!(plan.operation.as_ref().unwrap().epoch > role.epoch);
        assert_eq!(plan.finished.as_ref().unwrap().operation.epoch, role.epoch);
        assert!(plan.generation > Generation(1 << 40));
        assert_eq!((begun().role(role.clone()), begun().plan(plan.clone())), (role, plan));
    }

    #[test]
    fn an_application_that_is_new_begins_in_the_incarnation() {
        let key = "shop/web/data".parse().unwrap();
        let first = Commit {
            expects: vec![],
            changes: vec![
                Change::Plan(Box::new(plan())),
                Change::Role(key, Role::held("west".into(), Epoch(1))),
            ],
            why: "w".into(),
        };
        assert_eq!(decided_in(Incarnation(0), first.clone()), first);
        let raised = decided_in(Incarnation(2), first);
        let [Change::Plan(plan), Change::Role(_, role)] = &raised.changes[..] else {
            panic!()
        };
        assert_eq!(
            (plan.generation.incarnation(), role.epoch.readable().as_str()),
            (Incarnation(2), "2.1")
        );
        assert_eq!(decided_in(Incarnation(2), raised.clone()), raised);
    }
}
