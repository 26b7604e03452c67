//! A role passed on in order: given back by the cluster that has it, taken by the one that it is for. Each is one commit.
//!
//! Invariant: who gives back lets nothing out at that epoch any more **before** the commit is sent; who takes has seen it.

use std::collections::BTreeMap;

use crate::{
    lease::{Hold, Role},
    name::{Epoch, RoleKey},
    operation::Operation,
    plan::{Change, Commit, Expect, Versioned},
};

type Roles = BTreeMap<RoleKey, Versioned<Role>>;

/// The roles that the source of an operation has to stop answering for, with their epochs, before it sends [`release`].
pub fn to_revoke<'a>(roles: &'a Roles, operation: &'a Operation) -> impl Iterator<Item = (&'a RoleKey, Epoch)> {
    held(roles, operation).map(|(key, role)| (key, role.value.epoch))
}

fn held<'a>(roles: &'a Roles, operation: &'a Operation) -> impl Iterator<Item = (&'a RoleKey, &'a Versioned<Role>)> {
    let source = &operation.from;
    roles
        .iter()
        .filter(move |(_, role)| role.value.owner == *source && role.value.hold != Hold::Released)
}

/// Gives the source's roles back; none when that is done.
pub fn release(roles: &Roles, operation: &Operation) -> Option<Commit> {
    let released = held(roles, operation).map(|(key, role)| {
        let after = Role {
            hold: Hold::Released,
            ..role.value.clone()
        };
        (key, role.revision, after)
    });
    commit(released, format!("{} gives its roles back", operation.from))
}

/// Takes the roles for the target; none when that is done.
///
/// # Errors
/// The first role that was not given back yet.
pub fn take(roles: &Roles, operation: &Operation) -> Result<Option<Commit>, RoleKey> {
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
    Ok(commit(
        taken.into_iter(),
        format!("{} takes the roles at epoch {}", operation.to, operation.epoch),
    ))
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
        let commit = release(&revoking, &operation()).unwrap();
        assert_eq!(commit.expects, [Expect::Role("shop/web/data".parse().unwrap(), 8)]);
        assert_eq!(to_revoke(&revoking, &operation()).count(), 1);
        assert_eq!(release(&roles("west", 4, Hold::Released), &operation()), None);
        assert_eq!(release(&roles("east", 5, Hold::Held), &operation()), None);
    }

    #[test]
    fn a_role_is_taken_only_when_it_was_given_back() {
        assert!(take(&roles("west", 4, Hold::Revoking), &operation()).is_err());
        assert!(take(&roles("west", 4, Hold::Held), &operation()).is_err());
        let commit = take(&roles("west", 4, Hold::Released), &operation()).unwrap().unwrap();
        let Change::Role(_, role) = &commit.changes[0] else {
            panic!()
        };
        assert_eq!(
            (role.owner.as_str(), role.epoch, role.hold),
            ("east", Epoch(5), Hold::Held)
        );
        assert_eq!(take(&roles("east", 5, Hold::Held), &operation()), Ok(None));
    }
}
