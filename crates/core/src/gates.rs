//! Which gate, of which pod, may write in a role, and until when: what an agent grants to the gates of its region.
//!
//! Invariants:
//! - one gate a role: another one, also of the same pod, is granted only after what was granted before is over, or was given back;
//! - a gate counts on the clock of its own node, which may run slow while the agent's runs fast: what it was granted is taken for a forty-ninth
//!   longer than it is;
//! - nobody is granted more than the region has, nor further ahead than a quarter of the rpo: so a standby that comes into the in-sync set
//!   later, with a last point younger than half of the rpo, does not shorten what a gate was granted already;
//! - all of it is forgotten with the agent, whose successor waits until its lease, and with it every grant, is over: until then any gate
//!   may be open, so nothing is granted and no role is given back;
//! - so it is, too, with an agent whose own lease is over: another one of its region may have it since, and grants.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    lease::{Grants, Moment, Timing},
    name::{Epoch, RoleKey},
};

/// What a region may do in a role now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// The epoch.
    pub epoch: Epoch,
    /// New requests are let in until then.
    pub admit_until: Moment,
    /// Answers are let out until then.
    pub answer_until: Moment,
    /// The most that may be lost, where that bounds the writer.
    pub rpo: Option<Duration>,
}

impl Right {
    /// What a region may do in a role, by its lease and by what the standbys in sync have confirmed: answers may leave until
    /// `confirmed_until` (see [`crate::in_sync::Bound::until`]). None when it may not write.
    pub fn of(
        grants: &Grants,
        role: &RoleKey,
        confirmed_until: impl FnOnce(Epoch) -> Moment,
        rpo: Duration,
        timing: &Timing,
        now: Moment,
    ) -> Option<Self> {
        let epoch = grants.answer(role, now)?;
        let confirmed = confirmed_until(epoch);
        Some(Self {
            epoch,
            admit_until: grants.admit_until.min(confirmed.before(timing.stop)),
            answer_until: grants.answer_until.min(confirmed),
            rpo: Some(rpo),
        })
    }

    /// What of it is granted to a gate at `now`.
    fn granted(self, now: Moment) -> Self {
        let furthest = self.rpo.map_or(self.answer_until, |rpo| now.after(rpo / 4));
        Self {
            answer_until: self.answer_until.min(furthest),
            admit_until: self.admit_until.min(furthest),
            ..self
        }
    }
}

/// What a gate is granted, for all of its roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Each role's epoch.
    pub roles: BTreeMap<RoleKey, Epoch>,
    /// How long new requests are let in.
    pub admit: Duration,
    /// How long answers are let out.
    pub answer: Duration,
    /// When to ask again.
    pub again: Duration,
}

/// Why a gate is not granted what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The region may not write in a role.
    #[error("this region holds no grant for role {0}")]
    NotHeld(RoleKey),
    /// The region may write in a role, but not further ahead of a standby that is in sync than it is.
    #[error(
        "this region holds role {0}, and a standby in sync has confirmed no point for so long that more than the rpo could be lost: the writer \
         goes on once it confirms one, or is left out of the in-sync set"
    )]
    StandbyAway(RoleKey),
    /// The writer behind another gate may still be writing.
    #[error("another gate, in pod {pod}, may be letting out writes in role {role}")]
    AnotherGate {
        /// The role.
        role: RoleKey,
        /// The UID of its pod.
        pod: String,
    },
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker<'a> {
    /// The UID of the pod.
    pub pod: &'a str,
    /// The gate.
    pub gate: &'a str,
    /// The question's nonce.
    pub nonce: &'a str,
}

/// What a gate was granted in a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The UID of its pod.
    pub pod: String,
    /// The gate.
    pub gate: String,
    /// The epoch.
    pub epoch: Epoch,
    /// The end of all that it was granted, on the slowest clock.
    pub until: Moment,
    /// The nonce of its newest question.
    pub nonce: String,
}

/// What may still be letting something out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open<'a> {
    /// A gate that another agent of this region granted, one before this one or one beside it: which, is not known here.
    OfAnother,
    /// A gate that this agent granted.
    Gate(&'a Held),
}

/// The gates of a region, by what they were granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gates {
    granted: BTreeMap<RoleKey, Held>,
    /// Until when this agent holds the region's lease.
    holds_until: Moment,
}

/// By how much longer this may take on a clock that runs a hundredth slow than on one that runs a hundredth fast: 2/99, rounded up.
fn slower(duration: Duration) -> Duration {
    duration / 49
}

/// A refused gate asks again after this time.
pub const ASK_AGAIN: Duration = Duration::from_millis(100);

impl Gates {
    /// A gate asks for roles in which the region has these rights.
    ///
    /// # Errors
    /// Why it may not write. Then nothing is remembered of it.
    pub fn ask(
        &mut self,
        asker: Asker<'_>,
        rights: &BTreeMap<RoleKey, Option<Right>>,
        timing: &Timing,
        now: Moment,
    ) -> Result<Granted, Refused> {
        let mut granted = BTreeMap::new();
        for (role, right) in rights {
            let right = right.ok_or_else(|| Refused::NotHeld(role.clone()))?.granted(now);
            if right.answer_until <= now {
                return Err(Refused::StandbyAway(role.clone()));
            }
            granted.insert(role, right);
            if let Some(other) = self
                .granted
                .get(role)
                .filter(|held| held.gate != asker.gate && now < held.until)
            {
                return Err(Refused::AnotherGate {
                    role: role.clone(),
                    pod: other.pod.clone(),
                });
            }
        }
        let end = |of: fn(&Right) -> Moment| granted.values().map(of).min().unwrap_or_default().since(now);
        let (admit, answer) = (end(|right| right.admit_until), end(|right| right.answer_until));
        for (role, right) in &granted {
            let own = self.granted.get(*role).filter(|held| held.gate == asker.gate);
            let before = own.map(|held| held.until);
            let held = Held {
                pod: asker.pod.to_owned(),
                gate: asker.gate.to_owned(),
                epoch: right.epoch,
                // The answer may not arrive, and then the one before it counts.
                until: now.after(answer + slower(answer)).max(before.unwrap_or_default()),
                nonce: asker.nonce.to_owned(),
            };
            self.granted.insert((*role).clone(), held);
        }
        Ok(Granted {
            roles: granted
                .iter()
                .map(|(role, right)| ((*role).clone(), right.epoch))
                .collect(),
            admit,
            answer,
            again: (answer / 4).min(timing.renew_every()),
        })
    }

    /// The writer of a gate, which asked nothing after `nonce`, has ended.
    pub fn closed(&mut self, gate: &str, nonce: &str, roles: &BTreeSet<RoleKey>) {
        self.granted
            .retain(|role, held| !(roles.contains(role) && held.gate == gate && held.nonce == nonce));
    }

    /// This agent holds the region's lease until then, see [`Timing::stopped_by`]: so that of any other one is over, and with it whatever that
    /// one granted.
    pub fn hold(&mut self, until: Moment) {
        self.holds_until = until;
    }

    /// Which gate was granted a role.
    pub fn held(&self, role: &RoleKey, now: Moment) -> Option<&Held> {
        self.granted.get(role).filter(|held| now < held.until)
    }

    /// What may be open in a role. Only when nothing is, its last point is the last and it may be given back.
    pub fn open(&self, role: &RoleKey, now: Moment) -> Option<Open<'_>> {
        match now < self.holds_until {
            false => Some(Open::OfAnother),
            true => self.held(role, now).map(Open::Gate),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples::{at, timing};

    fn role(name: &str) -> RoleKey {
        format!("shop/web/{name}").parse().unwrap()
    }

    fn right(until: u64, rpo: Option<u64>) -> Right {
        Right {
            epoch: Epoch(4),
            admit_until: at(until.saturating_sub(300)),
            answer_until: at(until),
            rpo: rpo.map(Duration::from_millis),
        }
    }

    fn rights(until: u64, rpo: Option<u64>) -> BTreeMap<RoleKey, Option<Right>> {
        [(role("data"), Some(right(until, rpo)))].into()
    }

    /// A gate of the only pod.
    fn asker<'a>(gate: &'a str, nonce: &'a str) -> Asker<'a> {
        Asker {
            pod: "pod",
            gate,
            nonce,
        }
    }

    #[test]
    fn a_gate_is_granted_what_the_region_has_left() {
        let mut gates = Gates::default();
        let granted = gates
            .ask(asker("a", "1"), &rights(3000, None), &timing(), at(1000))
            .unwrap();
        assert_eq!(
            (granted.admit, granted.answer),
            (Duration::from_millis(1700), Duration::from_secs(2))
        );
        assert_eq!(granted.roles, [(role("data"), Epoch(4))].into());
        assert_eq!(granted.again, Duration::from_millis(500));
    }

    #[test]
    fn where_an_rpo_bounds_the_writer_a_gate_is_granted_a_quarter_of_it_at_a_time() {
        let mut gates = Gates::default();
        let granted = gates
            .ask(asker("a", "1"), &rights(9000, Some(4000)), &timing(), at(1000))
            .unwrap();
        assert_eq!(
            (granted.admit, granted.answer),
            (Duration::from_secs(1), Duration::from_secs(1))
        );
    }

    #[test]
    fn another_gate_of_the_same_pod_too_waits_until_the_first_ones_grant_is_over_or_given_back() {
        let mut gates = Gates::default();
        gates
            .ask(asker("a", "1"), &rights(3000, None), &timing(), at(1000))
            .unwrap();
        // Two seconds, and a forty-ninth for a slow clock.
        let refused = gates
            .ask(asker("b", "2"), &rights(5000, None), &timing(), at(3040))
            .unwrap_err();
        assert!(matches!(refused, Refused::AnotherGate { .. }));
        let mut later = gates.clone();
        assert!(
            later
                .ask(asker("b", "2"), &rights(5000, None), &timing(), at(3041))
                .is_ok()
        );
        // It has asked again since.
        gates.closed("a", "0", &[role("data")].into());
        assert!(gates.held(&role("data"), at(2000)).is_some());
        gates.closed("a", "1", &[role("data")].into());
        assert_eq!(gates.held(&role("data"), at(2000)), None);
        assert!(
            gates
                .ask(asker("b", "2"), &rights(5000, None), &timing(), at(2000))
                .is_ok()
        );
    }

    #[test]
    fn all_roles_or_none() {
        let mut gates = Gates::default();
        let mut both = rights(3000, None);
        both.insert(role("logs"), None);
        assert_eq!(
            gates.ask(asker("a", "1"), &both, &timing(), at(0)),
            Err(Refused::NotHeld(role("logs")))
        );
        assert_eq!(gates, Gates::default());
    }

    #[test]
    fn a_region_that_holds_a_role_and_waits_for_a_standby_says_so() {
        let grants = Grants {
            admit_until: at(2_700),
            answer_until: at(3_000),
            roles: [(role("data"), Epoch(4))].into(),
        };
        let ask = |confirmed_until, now| {
            let rpo = Duration::from_secs(4);
            let right = Right::of(&grants, &role("data"), |_| at(confirmed_until), rpo, &timing(), at(now));
            let rights = [(role("data"), right)].into();
            Gates::default().ask(asker("a", "1"), &rights, &timing(), at(now))
        };
        assert!(ask(1_000, 999).is_ok());
        let refused = ask(1_000, 1_000).unwrap_err();
        assert_eq!(refused, Refused::StandbyAway(role("data")));
        assert!(
            refused.to_string().starts_with("this region holds role shop/web/data"),
            "{refused}"
        );
        // Without its lease it holds nothing, whoever confirmed what.
        assert_eq!(ask(9_000, 3_000), Err(Refused::NotHeld(role("data"))));
    }

    #[test]
    fn what_was_granted_counts_though_a_later_answer_is_shorter() {
        let mut gates = Gates::default();
        gates
            .ask(asker("a", "1"), &rights(3000, None), &timing(), at(0))
            .unwrap();
        gates
            .ask(asker("a", "2"), &rights(2000, None), &timing(), at(100))
            .unwrap();
        assert_eq!(
            gates.held(&role("data"), at(0)).unwrap().until,
            at(3000).after(Duration::from_secs(3) / 49)
        );
    }

    proptest! {
        /// Of any two gates, one's grants are over before the other's begin, and none outlasts the region's own.
        #[test]
        fn no_two_gates_hold_a_role_at_once(asks in prop::collection::vec((0..3u8, 0..500u64, 0..2000u64, prop::bool::ANY), 1..40)) {
            let mut gates = Gates::default();
            let mut now = 0;
            let mut granted: Vec<(u8, u64, u64)> = vec![];
            for (n, (pod, pause, left, gives_back)) in asks.into_iter().enumerate() {
                now += pause;
                let (name, nonce) = (pod.to_string(), n.to_string());
                if let Ok(answer) = gates.ask(asker(&name, &nonce), &rights(now + left, None), &timing(), at(now)) {
                    let end = now + u64::try_from(answer.answer.as_millis()).unwrap();
                    prop_assert!(end <= now + left);
                    for (other, from, until) in &granted {
                        prop_assert!(*other == pod || *until <= now || now < *from, "{other} until {until}, {pod} at {now}");
                    }
                    granted.push((pod, now, end));
                    if gives_back {
                        gates.closed(&name, &nonce, &[role("data")].into());
                        for (_, _, until) in granted.iter_mut().filter(|(of, ..)| *of == pod) {
                            *until = (*until).min(now);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_agent_that_never_held_the_lease_knows_nothing_of_its_predecessors_gates() {
        let mut gates = Gates::default();
        assert_eq!(gates.open(&role("data"), at(1_000_000)), Some(Open::OfAnother));
        gates.hold(at(3_000));
        assert_eq!(gates.open(&role("data"), at(0)), None);
        gates
            .ask(asker("a", "1"), &rights(1_000, None), &timing(), at(0))
            .unwrap();
        assert!(matches!(gates.open(&role("data"), at(500)), Some(Open::Gate(held)) if held.gate == "a"));
        assert_eq!(gates.open(&role("data"), at(2_000)), None);
    }

    #[test]
    fn an_agent_whose_lease_is_over_knows_nothing_of_what_another_one_grants_since() {
        let mut gates = Gates::default();
        gates.hold(at(3_000));
        assert_eq!(gates.open(&role("data"), at(2_999)), None);
        // It stood still, or its renewals fail: another agent of its region may have the lease.
        assert_eq!(gates.open(&role("data"), at(3_000)), Some(Open::OfAnother));
        gates.hold(at(9_000));
        assert_eq!(gates.open(&role("data"), at(8_000)), None);
    }
}
