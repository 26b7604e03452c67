//! Whose points are taken: those of the cluster that the quorum gave the role to, at exactly the epoch that it gave.
//!
//! The highest epoch is kept for good. A number that was given to nobody must never get there: whoever writes in the role next would be
//! refused for ever. What this region knows of the quorum may lag behind what the sender knows; then the answer is "not known yet", and the
//! sender asks again soon. A region that is cut off from the quorum goes on taking points of the epoch that it knows.

use std::sync::Arc;

use leeward_core::{
    lease::Role,
    name::{ClusterName, Epoch, RoleKey},
};

use super::TargetError;

/// Who asks on the peer link, by its certificate. Whoever mounts the routes puts it among a request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender(pub ClusterName);

/// Whether a sender may bring points of a role at an epoch, by what is known at this instant; see [`judge`].
pub type Rule = Arc<dyn Fn(&Sender, &RoleKey, Epoch) -> Result<(), TargetError> + Send + Sync>;

/// Why nothing of an epoch is taken from who sent it. It may be that this region hears of it later than the sender: ask again.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The quorum gave the epoch to nobody, as far as this region knows.
    #[error(
        "epoch {} of role {role} was given to nobody that this region knows of ({}): nothing of it is taken until this region reads it \
         in the quorum; the sender asks again by itself, and where that does not end, see whether this region reaches the quorum", 
        .epoch.readable(), here(.known.as_ref())
    )]
    NotGiven {
        /// The role.
        role: RoleKey,
        /// The epoch that was sent.
        epoch: Epoch,
        /// What this region knows.
        known: Option<Role>,
    },
    /// The epoch is another cluster's.
    #[error(
        "epoch {} of role {role} was given to {owner}, and {sender} sent something of it: nothing is taken; see whether two clusters show a \
         certificate of the same name, or an old agent of {sender} still runs", 
        .epoch.readable()
    )]
    Another {
        /// The role.
        role: RoleKey,
        /// The epoch that was sent.
        epoch: Epoch,
        /// Whose it is.
        owner: ClusterName,
        /// Who sent it.
        sender: ClusterName,
    },
}

fn here(role: Option<&Role>) -> String {
    match role {
        Some(role) => format!("it knows epoch {}, of {}", role.epoch.readable(), role.owner),
        None => "it knows of no such role".to_owned(),
    }
}

/// Whether `sender` may bring points of `role` at `epoch`, where the quorum is known to say `known` of the role. Roles that are asked for or were
/// given back still belong to who had them: what it sends at its epoch was written before.
///
/// # Errors
/// [`TargetError::StaleEpoch`] where a higher epoch was given out, else [`TargetError::Denied`].
pub fn judge(sender: &ClusterName, role: &RoleKey, epoch: Epoch, known: Option<&Role>) -> Result<(), TargetError> {
    let denied = match known {
        Some(known) if epoch < known.epoch => {
            let highest = known.epoch;
            return Err(TargetError::StaleEpoch { epoch, highest });
        }
        Some(known) if epoch == known.epoch && *sender == known.owner => return Ok(()),
        Some(known) if epoch == known.epoch => Denied::Another {
            role: role.clone(),
            epoch,
            owner: known.owner.clone(),
            sender: sender.clone(),
        },
        known => Denied::NotGiven {
            role: role.clone(),
            epoch,
            known: known.cloned(),
        },
    };
    Err(Box::new(denied).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_brings_points_and_only_at_the_epoch_that_was_given_to_it() {
        let role: RoleKey = "shop/web/data".parse().unwrap();
        let west = Role::held("west".into(), Epoch(7));
        let of = |sender: &str, epoch, known: Option<&Role>| judge(&sender.into(), &role, Epoch(epoch), known);
        assert!(of("west", 7, Some(&west)).is_ok());
        let text = |refused: Result<(), TargetError>| refused.unwrap_err().to_string();
        let ahead = text(of("west", 9, Some(&west)));
        assert!(
            ahead.starts_with("epoch 9 of role shop/web/data was given to nobody that this region knows of (it knows epoch 7, of west)"),
            "{ahead}"
        );
        let unknown = text(of("west", 1, None));
        assert!(unknown.contains("it knows of no such role"), "{unknown}");
        let other = text(of("east", 7, Some(&west)));
        assert!(
            other.starts_with("epoch 7 of role shop/web/data was given to west, and east sent"),
            "{other}"
        );
        assert!(matches!(
            of("west", 6, Some(&west)),
            Err(TargetError::StaleEpoch {
                epoch: Epoch(6),
                highest: Epoch(7)
            })
        ));
        assert!(matches!(
            of("east", 6, Some(&west)),
            Err(TargetError::StaleEpoch { .. })
        ));
    }
}
