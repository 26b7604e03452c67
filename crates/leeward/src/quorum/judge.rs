//! Whether a quorum may be begun anew, from who answers and what a person said: pure.
//!
//! Invariant: nobody who answers is taken for lost, and nobody who does not is forgotten.

use std::collections::BTreeSet;

use thiserror::Error;

/// The name of the witness.
pub(super) const WITNESS: &str = "witness";

/// Somebody who may have a part in the old quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Party {
    /// The cluster's name, [`WITNESS`], or a member's endpoint.
    pub(super) name: String,
    /// `HOST:PORT`.
    pub(super) address: String,
    /// Whether it is a member of etcd: members are never named.
    pub(super) member: bool,
}

/// Why nothing is begun anew.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    #[error("{0} is this region itself: run this where what is left is, and name what is lost")]
    Own(String),
    #[error("there is no {name}: what can be lost is {known}")]
    Unknown { name: String, known: String },
    #[error("{name} answers at {address}, so it is not lost: end it for good, or leave it out of --lost")]
    Answers { name: String, address: String },
    #[error(
        "the member of etcd at {0} answers: while a member of the old quorum may come into its own again, none is begun anew. If a majority \
         answers (`leeward quorum status`) there is nothing to recover; else end this one for good, and add a new one in its place afterwards"
    )]
    Member(String),
    #[error(
        "{0} neither answers nor is named as lost: name it with --lost {0} if it is destroyed or switched off for good, else bring it back. A \
         region that is only cut off may be writing"
    )]
    Silent(String),
    #[error("the quorum has no other member than this one, so no majority is lost: start etcd on its data")]
    Alone,
}

/// Judges. `heard` says who answers.
pub(super) fn judge(
    own: &str,
    parties: &[Party],
    lost: &BTreeSet<String>,
    heard: impl Fn(&Party) -> bool,
) -> Result<(), Refusal> {
    let (members, others): (Vec<&Party>, Vec<&Party>) = parties.iter().partition(|party| party.member);
    if members.is_empty() {
        return Err(Refusal::Alone);
    }
    for name in lost {
        if name == own {
            return Err(Refusal::Own(name.clone()));
        }
        if !others.iter().any(|party| party.name == *name) {
            let known: Vec<&str> = others.iter().map(|party| party.name.as_str()).collect();
            return Err(Refusal::Unknown {
                name: name.clone(),
                known: known.join(", "),
            });
        }
    }
    if let Some(member) = members.iter().find(|member| heard(member)) {
        return Err(Refusal::Member(member.address.clone()));
    }
    for party in others {
        match (heard(party), lost.contains(&party.name)) {
            (true, true) => {
                return Err(Refusal::Answers {
                    name: party.name.clone(),
                    address: party.address.clone(),
                });
            }
            (false, false) => return Err(Refusal::Silent(party.name.clone())),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parties() -> Vec<Party> {
        let party = |name: &str, address: &str, member| Party {
            name: name.into(),
            address: address.into(),
            member,
        };
        vec![
            party("east", "east:7000", false),
            party(WITNESS, "witness:7443", false),
            party("https://east:2379", "east:2379", true),
            party("https://witness:2379", "witness:2379", true),
        ]
    }

    fn judged(lost: &[&str], answering: &[&str]) -> Result<(), String> {
        let lost = lost.iter().map(|name| (*name).to_owned()).collect();
        let heard = |party: &Party| answering.contains(&party.address.as_str());
        judge("west", &parties(), &lost, heard).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn it_is_begun_anew_only_when_whoever_is_silent_is_named_and_whoever_is_named_is_silent() {
        assert_eq!(judged(&["east", WITNESS], &[]), Ok(()));
        // A region that is left without its member is no obstacle.
        assert_eq!(judged(&[WITNESS], &["east:7000"]), Ok(()));
        for (lost, answering, says) in [
            (&["east"][..], &[][..], "--lost witness"),
            (&[], &[], "--lost east"),
            (&["east", WITNESS], &["east:7000"], "east answers at east:7000"),
            (&["east", WITNESS], &["witness:7443"], "witness answers"),
            (
                &["east", WITNESS],
                &["east:2379"],
                "member of etcd at east:2379 answers",
            ),
            (
                &["east", WITNESS],
                &["witness:2379"],
                "member of etcd at witness:2379 answers",
            ),
            (&["east", WITNESS, "north"], &[], "what can be lost is east, witness"),
            (&["east", WITNESS, "west"], &[], "this region itself"),
        ] {
            let refusal = judged(lost, answering).unwrap_err();
            assert!(refusal.contains(says), "{lost:?} {answering:?}: {refusal}");
        }
        assert_eq!(judge("west", &[], &BTreeSet::new(), |_| false), Err(Refusal::Alone));
    }
}
