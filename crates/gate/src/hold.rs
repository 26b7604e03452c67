//! What a gate may do, by what the agent answered. Pure: time and nonces are arguments.

use std::collections::{BTreeMap, BTreeSet};

use leeward_core::{
    lease::Moment,
    name::{ClusterName, Epoch, RoleKey},
};

use crate::wire::{Answer, Ask, Closed, Refusal, VERSION};

/// What may be done, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Where.
    pub cluster: ClusterName,
    /// Each role and its epoch.
    pub roles: BTreeMap<RoleKey, Epoch>,
    /// New requests are refused from here on.
    pub admit_until: Moment,
    /// No answer leaves from here on, and the writer is ended.
    pub answer_until: Moment,
}

impl Open {
    /// The highest epoch of the roles.
    pub fn epoch(&self) -> Epoch {
        self.roles.values().copied().max().unwrap_or_default()
    }
}

/// What an answer changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The gate is open, or stays open for longer.
    Open,
    /// It is open at other epochs: what runs at the old ones has to end first.
    Anew,
    /// It is closed.
    Closed(Refusal),
}

/// Why an answer does not count. What was granted before goes on until it ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is of another version.
    #[error(
        "the agent speaks version {0} of the grant protocol, this gate version {VERSION}: use a gate of the agent's release"
    )]
    Version(u32),
    /// It is not the answer to the newest question.
    #[error("an answer was repeated or came too late: its nonce is not that of the newest question")]
    Nonce,
    /// It is for another pod.
    #[error("a grant for another pod, {0}")]
    Pod(String),
    /// It is for other roles.
    #[error("a grant for other roles than were asked for")]
    Roles,
    /// It is of an epoch that has passed.
    #[error("a grant of role {role} at epoch {epoch}, which is over since epoch {highest} was granted")]
    Epoch {
        /// The role.
        role: RoleKey,
        /// What was granted.
        epoch: Epoch,
        /// What was granted before.
        highest: Epoch,
    },
}

/// One gate.
#[derive(Debug, Clone)]
pub struct Hold {
    pod: String,
    gate: String,
    roles: BTreeSet<RoleKey>,
    /// The newest question's nonce, and when it was about to be asked; none once it was answered.
    asked: Option<(String, Moment)>,
    /// The newest question's nonce.
    newest: String,
    open: Option<Open>,
    highest: BTreeMap<RoleKey, Epoch>,
}

impl Hold {
    /// A gate that was just started: it is closed. `gate` is its own name, which no other gate ever has.
    pub fn new(pod: impl Into<String>, gate: impl Into<String>, roles: BTreeSet<RoleKey>) -> Self {
        Self {
            pod: pod.into(),
            gate: gate.into(),
            roles,
            asked: None,
            newest: String::new(),
            open: None,
            highest: BTreeMap::new(),
        }
    }

    /// The next question, about to be sent at `now`.
    pub fn ask(&mut self, nonce: String, now: Moment) -> Ask {
        self.asked = Some((nonce.clone(), now));
        self.newest.clone_from(&nonce);
        Ask {
            version: VERSION,
            roles: self.roles.clone(),
            pod: self.pod.clone(),
            gate: self.gate.clone(),
            nonce,
        }
    }

    /// Takes an answer in.
    ///
    /// # Errors
    /// When it does not count.
    pub fn hear(&mut self, answer: Answer) -> Result<Heard, Fault> {
        let (version, nonce) = match &answer {
            Answer::Granted(grant) => (grant.version, &grant.nonce),
            Answer::Refused(refusal) => (refusal.version, &refusal.nonce),
        };
        if version != VERSION {
            return Err(Fault::Version(version));
        }
        let Some((_, asked)) = self.asked.take_if(|(newest, _)| newest == nonce) else {
            return Err(Fault::Nonce);
        };
        let grant = match answer {
            Answer::Refused(refusal) => {
                self.open = None;
                return Ok(Heard::Closed(refusal));
            }
            Answer::Granted(grant) => grant,
        };
        if grant.pod != self.pod {
            return Err(Fault::Pod(grant.pod));
        }
        if !grant.roles.keys().eq(self.roles.iter()) {
            return Err(Fault::Roles);
        }
        for (role, epoch) in &grant.roles {
            let highest = self.highest.get(role).copied().unwrap_or_default();
            if *epoch < highest {
                let (role, epoch) = (role.clone(), *epoch);
                return Err(Fault::Epoch { role, epoch, highest });
            }
        }
        self.highest.clone_from(&grant.roles);
        let after = |ms| asked.after(std::time::Duration::from_millis(ms));
        let open = Open {
            cluster: grant.cluster,
            roles: grant.roles,
            admit_until: after(grant.admit_ms.min(grant.answer_ms)),
            answer_until: after(grant.answer_ms),
        };
        let anew = self
            .open
            .as_ref()
            .is_some_and(|before| (&before.cluster, &before.roles) != (&open.cluster, &open.roles));
        self.open = Some(open);
        Ok(if anew { Heard::Anew } else { Heard::Open })
    }

    /// What may be done, if anything at `now`.
    pub fn open(&self, now: Moment) -> Option<&Open> {
        self.open.as_ref().filter(|open| now < open.answer_until)
    }

    /// Closes until a grant is asked for anew; the agent may be told so once nothing runs any more. What was asked and not answered yet
    /// does not count, since the agent takes what it granted for given back.
    pub fn close(&mut self) -> Closed {
        self.open = None;
        self.asked = None;
        Closed {
            version: VERSION,
            roles: self.roles.clone(),
            gate: self.gate.clone(),
            nonce: self.newest.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::{Grant, Reason};

    fn at(ms: u64) -> Moment {
        Moment(Duration::from_millis(ms))
    }

    fn role() -> RoleKey {
        "shop/web/data".parse().unwrap()
    }

    fn hold() -> Hold {
        Hold::new("pod-1", "gate-1", [role()].into())
    }

    fn grant(nonce: &str, epoch: u64) -> Grant {
        Grant {
            version: VERSION,
            cluster: "west".into(),
            pod: "pod-1".into(),
            nonce: nonce.into(),
            roles: [(role(), Epoch(epoch))].into(),
            admit_ms: 800,
            answer_ms: 1000,
            again_ms: 250,
        }
    }

    fn granted(nonce: &str, epoch: u64) -> Answer {
        Answer::Granted(grant(nonce, epoch))
    }

    #[test]
    fn a_grant_counts_from_before_it_was_asked_for() {
        let mut hold = hold();
        assert_eq!(hold.open(at(0)), None);
        hold.ask("a".into(), at(5000));
        assert_eq!(hold.hear(granted("a", 3)), Ok(Heard::Open));
        let open = hold.open(at(5999)).unwrap();
        assert_eq!((open.admit_until, open.epoch()), (at(5800), Epoch(3)));
        assert_eq!(hold.open(at(6000)), None);
    }

    #[test]
    fn only_the_answer_to_the_newest_question_counts_and_only_once() {
        let mut hold = hold();
        assert_eq!(hold.hear(granted("a", 3)), Err(Fault::Nonce));
        hold.ask("a".into(), at(0));
        hold.ask("b".into(), at(900));
        assert_eq!(hold.hear(granted("a", 3)), Err(Fault::Nonce));
        assert_eq!(hold.hear(granted("b", 3)), Ok(Heard::Open));
        assert_eq!(hold.hear(granted("b", 3)), Err(Fault::Nonce));
        assert_eq!(hold.open(at(1899)).map(Open::epoch), Some(Epoch(3)));
    }

    #[test]
    fn a_grant_for_somebody_else_does_not_count_and_takes_nothing_away() {
        let other: RoleKey = "shop/web/logs".parse().unwrap();
        let cases = [
            (
                Grant {
                    version: 2,
                    ..grant("b", 3)
                },
                Fault::Version(2),
            ),
            (
                Grant {
                    pod: "pod-2".into(),
                    ..grant("b", 3)
                },
                Fault::Pod("pod-2".into()),
            ),
            (
                Grant {
                    roles: [(other.clone(), Epoch(3))].into(),
                    ..grant("b", 3)
                },
                Fault::Roles,
            ),
            (
                Grant {
                    roles: [(role(), Epoch(3)), (other, Epoch(3))].into(),
                    ..grant("b", 3)
                },
                Fault::Roles,
            ),
            (
                Grant {
                    roles: BTreeMap::new(),
                    ..grant("b", 3)
                },
                Fault::Roles,
            ),
            (
                grant("b", 2),
                Fault::Epoch {
                    role: role(),
                    epoch: Epoch(2),
                    highest: Epoch(3),
                },
            ),
        ];
        for (wrong, fault) in cases {
            let mut hold = hold();
            hold.ask("a".into(), at(0));
            hold.hear(granted("a", 3)).unwrap();
            hold.ask("b".into(), at(500));
            assert_eq!(hold.hear(Answer::Granted(wrong)), Err(fault));
            assert!(hold.open(at(999)).is_some() && hold.open(at(1000)).is_none());
        }
    }

    #[test]
    fn a_refusal_closes_at_once_and_the_next_grant_opens_again() {
        let mut hold = hold();
        hold.ask("a".into(), at(0));
        hold.hear(granted("a", 3)).unwrap();
        hold.ask("b".into(), at(100));
        let refusal = Refusal {
            version: VERSION,
            nonce: "b".into(),
            reason: Reason::NotHeld,
            text: "gone".into(),
            again_ms: 100,
        };
        assert_eq!(hold.hear(Answer::Refused(refusal.clone())), Ok(Heard::Closed(refusal)));
        assert_eq!(hold.open(at(101)), None);
        hold.ask("c".into(), at(200));
        assert_eq!(hold.hear(granted("c", 4)), Ok(Heard::Open));
    }

    #[test]
    fn what_is_answered_after_the_gate_closed_does_not_open_it() {
        let mut hold = hold();
        hold.ask("a".into(), at(0));
        hold.hear(granted("a", 3)).unwrap();
        hold.ask("b".into(), at(900));
        assert_eq!(hold.close().nonce, "b");
        assert_eq!(hold.hear(granted("b", 3)), Err(Fault::Nonce));
        assert_eq!(hold.open(at(901)), None);
    }

    #[test]
    fn another_epoch_means_that_the_writer_starts_anew() {
        let mut hold = hold();
        hold.ask("a".into(), at(0));
        hold.hear(granted("a", 3)).unwrap();
        hold.ask("b".into(), at(100));
        assert_eq!(hold.hear(granted("b", 4)), Ok(Heard::Anew));
    }

    #[test]
    fn requests_are_never_let_in_for_longer_than_answers_are_let_out() {
        let mut hold = hold();
        hold.ask("a".into(), at(0));
        let strange = Grant {
            admit_ms: u64::MAX,
            ..grant("a", 1)
        };
        hold.hear(Answer::Granted(strange)).unwrap();
        assert_eq!(hold.open(at(0)).unwrap().admit_until, at(1000));
    }
}
