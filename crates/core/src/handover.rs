//! A role passed on in order: given back by the cluster that has it, taken by the one that it is for. Each is one commit.
//!
//! Until it is taken the switchover may be called off, see [`crate::plan::cancellable`]: giving back, taking and calling off all compare
//! the role, and of those that were decided on the same one exactly one is applied.
//!
//! Invariant: who gives back lets nothing out at that epoch any more **before** the commit is sent; who takes has seen it.

use std::collections::BTreeMap;

use crate::{
    lease::{Grants, Hold, Role},
    name::{Epoch, RoleKey},
    operation::Operation,
    plan::{Change, Commit, Expect, Versioned},
};

/// The roles of an application, as they were read.
pub type Roles = BTreeMap<RoleKey, Versioned<Role>>;

/// The roles that the source of an operation has to stop answering for, with their epochs, before it sends [`release`].
pub fn to_revoke<'a>(roles: &'a Roles, operation: &'a Operation) -> impl Iterator<Item = (&'a RoleKey, Epoch)> {
    asked_for(roles, operation).map(|(key, role)| (key, role.value.epoch))
}

/// The roles that the source was asked to give back and has not. One that it holds is not among them: the operation was cancelled, which
/// may be known of the role before it is known of the plan.
fn asked_for<'a>(
    roles: &'a Roles,
    operation: &'a Operation,
) -> impl Iterator<Item = (&'a RoleKey, &'a Versioned<Role>)> {
    let source = &operation.from;
    roles
        .iter()
        .filter(move |(_, role)| role.value.owner == *source && role.value.hold == Hold::Revoking)
}

/// Gives the source's roles back; none when that is done. It is for this operation alone, so the plan is compared, too, at the revision at
/// which it was read: asked for anew, the roles are given back after a last point of their own.
pub fn release(roles: &Roles, plan: u64, operation: &Operation) -> Option<Commit> {
    let released = asked_for(roles, operation).map(|(key, role)| {
        let after = Role {
            hold: Hold::Released,
            ..role.value.clone()
        };
        (key, role.revision, after)
    });
    let mut commit = commit(released, format!("{} gives its roles back", operation.from))?;
    commit.expects.push(Expect::Plan(plan));
    Some(commit)
}

/// What a holder gives back: whatever a renewal that is on its way has read of it, nothing is granted at it any more.
///
/// It counts again once the role is known to be held at the same epoch and a later revision. Then the operation was cancelled, and what was
/// sent to give it back compares the older revision: it is never applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked(BTreeMap<(RoleKey, Epoch), u64>);

impl Revoked {
    /// Closes what an operation asks its source for, before [`release`] is sent.
    pub fn close(&mut self, roles: &Roles, operation: &Operation, grants: &mut Grants) {
        for (key, role) in asked_for(roles, operation) {
            self.0.insert((key.clone(), role.value.epoch), role.revision);
            grants.roles.remove(key);
        }
    }

    /// Leaves of what a renewal granted what was not given back; `known` is a role as it was last read.
    pub fn limit(&mut self, grants: &mut Grants, known: impl Fn(&RoleKey) -> Option<Versioned<Role>>) {
        self.0.retain(|(key, epoch), revision| {
            let held = |role: Versioned<Role>| {
                role.value.hold == Hold::Held && role.value.epoch == *epoch && role.revision > *revision
            };
            !known(key).is_some_and(held)
        });
        grants
            .roles
            .retain(|key, epoch| !self.0.contains_key(&(key.clone(), *epoch)));
    }
}

/// Takes the roles for the target; none when that is done. The plan is compared here, too, at the revision at which it was read: roles may be known
/// that were given back for another operation since, and the epoch of this one was given out again when it was called off.
///
/// # Errors
/// The first role that was not given back yet.
pub fn take(roles: &Roles, plan: u64, operation: &Operation) -> Result<Option<Commit>, RoleKey> {
    let missing = roles
        .iter()
        .filter(|(_, role)| role.value.owner != operation.to || role.value.epoch != operation.epoch);
    let mut taken = Vec::new();
    for (key, role) in missing {
        if role.value.hold != Hold::Released {
            return Err(key.clone());
        }
        let after = Role::held(operation.to.clone(), operation.epoch);
        taken.push((key, role.revision, after));
    }
    let why = format!("{} takes the roles at epoch {}", operation.to, operation.epoch);
    Ok(commit(taken.into_iter(), why).map(|mut commit| {
        commit.expects.push(Expect::Plan(plan));
        commit
    }))
}

fn commit<'a>(changed: impl Iterator<Item = (&'a RoleKey, u64, Role)>, why: String) -> Option<Commit> {
    let (expects, changes): (Vec<_>, Vec<_>) = changed
        .map(|(key, revision, role)| (Expect::Role(key.clone(), revision), Change::Role(key.clone(), role)))
        .unzip();
    (!changes.is_empty()).then_some(Commit { expects, changes, why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Kind;
    use crate::samples::at;

    fn operation() -> Operation {
        Operation {
            id: "o".into(),
            kind: Kind::Switchover,
            from: "west".into(),
            to: "east".into(),
            epoch: Epoch(5),
            began_ms: 0,
            decided_ms: 0,
            steps: vec![],
            accepted_loss_ms: None,
        }
    }

    fn roles(owner: &str, epoch: u64, hold: Hold) -> Roles {
        let role = Role {
            hold,
            ..Role::held(owner.into(), Epoch(epoch))
        };
        let value = Versioned {
            value: role,
            revision: 8,
        };
        BTreeMap::from([("shop/web/data".parse().unwrap(), value)])
    }

    #[test]
    fn a_role_is_given_back_at_the_revision_that_was_read_and_only_once() {
        let revoking = roles("west", 4, Hold::Revoking);
        let commit = release(&revoking, 7, &operation()).unwrap();
        assert_eq!(
            commit.expects,
            [Expect::Role("shop/web/data".parse().unwrap(), 8), Expect::Plan(7)]
        );
        assert_eq!(to_revoke(&revoking, &operation()).count(), 1);
        assert_eq!(release(&roles("west", 4, Hold::Released), 7, &operation()), None);
        assert_eq!(release(&roles("east", 5, Hold::Held), 7, &operation()), None);
    }

    #[test]
    fn a_role_whose_operation_was_cancelled_is_not_given_back() {
        let held = roles("west", 4, Hold::Held);
        assert_eq!(release(&held, 7, &operation()), None);
        assert_eq!(to_revoke(&held, &operation()).count(), 0);
    }

    #[test]
    fn what_was_given_back_is_granted_again_only_once_it_is_known_to_be_held_since() {
        let grants = || Grants {
            admit_until: at(1000),
            answer_until: at(2000),
            roles: [("shop/web/data".parse().unwrap(), Epoch(4))].into(),
        };
        let known = |hold, revision| {
            let role = roles("west", 4, hold).into_values().next().unwrap();
            Some(Versioned { revision, ..role })
        };
        let mut revoked = Revoked::default();
        let mut granted = grants();
        revoked.close(&roles("west", 4, Hold::Revoking), &operation(), &mut granted);
        assert!(granted.roles.is_empty());
        for (role, granted) in [
            (None, false),
            (known(Hold::Revoking, 8), false),
            (known(Hold::Released, 9), false),
            // A copy that went back to before the switchover.
            (known(Hold::Held, 7), false),
            (known(Hold::Held, 9), true),
        ] {
            let mut renewed = grants();
            revoked.limit(&mut renewed, |_| role.clone());
            assert_eq!(!renewed.roles.is_empty(), granted, "{role:?}");
        }
    }

    #[test]
    fn a_role_is_taken_only_when_it_was_given_back() {
        assert!(take(&roles("west", 4, Hold::Revoking), 7, &operation()).is_err());
        assert!(take(&roles("west", 4, Hold::Held), 7, &operation()).is_err());
        let commit = take(&roles("west", 4, Hold::Released), 7, &operation())
            .unwrap()
            .unwrap();
        assert!(commit.expects.contains(&Expect::Plan(7)));
        let Change::Role(_, role) = &commit.changes[0] else {
            panic!()
        };
        assert_eq!(
            (role.owner.as_str(), role.epoch, role.hold),
            ("east", Epoch(5), Hold::Held)
        );
        assert_eq!(take(&roles("east", 5, Hold::Held), 7, &operation()), Ok(None));
    }
}
