//! What is wrong with the members, said before nothing can be written any more: pure.
//!
//! etcd keeps every revision until it is told to forget some, and agents write several in a second. Once a member's space is used up it raises
//! an alarm, and no lease is renewed: every writer stops. So it is said while there is time.

use super::{Alarm, Member, State, Status};
use crate::certificate::Trouble;

/// The space of a member that was told no other one, bytes: etcd's own default.
pub const DEFAULT_QUOTA: u64 = 2 << 30;
/// From this part of its space on a member is warned of, percent. With three regions and leases of 15 s the rest lasts for days.
const SOON: u64 = 80;

impl State {
    /// How much of the member's space is used, percent.
    pub fn percent(&self) -> u64 {
        let quota = self.quota.unwrap_or(DEFAULT_QUOTA).max(1);
        self.size.saturating_mul(100) / quota
    }
}

impl Status {
    /// What is wrong, what it means, and what to do: alarms, then members whose space is used up soon.
    pub fn troubles(&self) -> Vec<Trouble> {
        let raised = self.alarms.iter().flatten();
        let raised =
            raised.map(|(member, alarm)| Trouble::Over(format!("member {member:x} of etcd: {}", alarm.text())));
        let soon = self.endpoints.iter().filter_map(space);
        raised.chain(soon).collect()
    }
}

impl Alarm {
    fn text(self) -> &'static str {
        match self {
            Self::NoSpace => {
                "its space is used up, so nothing can be written: compact and defragment the members, then disarm the alarm \
                 (`etcdctl compact`, `etcdctl defrag`, `etcdctl alarm disarm`)"
            }
            Self::Corrupt => "its data is damaged: remove the member and add it anew",
            Self::Other(_) => "it raised an alarm that this version does not know: see `etcdctl alarm list`",
        }
    }
}

fn space(member: &Member) -> Option<Trouble> {
    let state = member.state.as_ref().ok().filter(|state| state.percent() >= SOON)?;
    let of = match state.quota {
        Some(quota) => format!("the {} that it may use", gib(quota)),
        None => format!(
            "the {} that etcd may use by default (its version does not say whether it may use more)",
            gib(DEFAULT_QUOTA)
        ),
    };
    Some(Trouble::Soon(format!(
        "{} has used {} of {of}, {} of it for what it still needs: once that is used up nothing can be written, no lease is renewed and every writer \
         stops. Let etcd forget old revisions by itself (--auto-compaction-mode=revision --auto-compaction-retention=10000 for each member), \
         then give space back with `etcdctl defrag`, one member after the other",
        member.endpoint,
        gib(state.size),
        gib(state.used)
    )))
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::etcd::{status::state, wire::StatusResponse};

    fn status(size: u64, quota: Option<u64>) -> Status {
        let state = State {
            id: 7,
            cluster: 1,
            incarnation: None,
            version: "3.6.4".into(),
            leader: 7,
            term: 2,
            revision: 40,
            size,
            used: size / 2,
            quota,
        };
        let member = |endpoint: &str, state| Member {
            endpoint: endpoint.into(),
            state,
        };
        Status {
            cluster: 1,
            incarnation: None,
            members: 2,
            ids: None,
            endpoints: vec![
                member("https://a:2379", Ok(state)),
                member("https://b:2379", Err("no answer".into())),
            ],
            alarms: Some(vec![]),
        }
    }

    #[test]
    fn a_quorum_that_can_lose_no_member_more_is_told_only_where_every_member_was_asked() {
        let with = |members: usize, answering: &[u64], silent: usize| {
            let mut status = status(1, None);
            let Ok(state) = status.endpoints[0].state.clone() else {
                unreachable!()
            };
            let member = |state| Member {
                endpoint: "https://a:2379".into(),
                state,
            };
            status.members = members;
            status.endpoints = (0..silent).map(|_| member(Err("no answer".into()))).collect();
            let answering = answering.iter().map(|id| {
                member(Ok(State {
                    id: *id,
                    ..state.clone()
                }))
            });
            status.endpoints.extend(answering);
            status.without_spare()
        };
        assert_eq!(with(3, &[1, 2, 3], 0), None);
        assert_eq!(with(5, &[1, 2, 3, 4], 1), None);
        let short = |answer: &str| Some(format!("{answer} members of the quorum answer"));
        assert_eq!(with(3, &[1, 2], 1), short("2 of the 3"));
        assert_eq!(with(3, &[1], 2), short("1 of the 3"));
        // Two addresses of one member are one member.
        assert_eq!(with(3, &[1, 2, 2], 0), short("2 of the 3"));
        // After a new incarnation was begun its only member is all of it, whoever else is named.
        assert_eq!(with(1, &[1], 2), short("1 of the 1"));
        // One address in front of three members.
        assert_eq!(with(3, &[1], 0), None);
    }

    #[test]
    fn space_is_warned_of_before_it_is_used_up_and_an_alarm_is_one() {
        const GIB: u64 = 1 << 30;
        assert_eq!(status(GIB, Some(8 * GIB)).troubles(), []);
        assert_eq!(status(GIB * 3 / 2, None).troubles(), []);
        let told = status(GIB * 13 / 2, Some(8 * GIB)).troubles();
        let [Trouble::Soon(text)] = &told[..] else {
            panic!("{told:?}")
        };
        assert!(
            text.starts_with("https://a:2379 has used 6.5 GiB of the 8.0 GiB that it may use, 3.2 GiB of it"),
            "{text}"
        );
        let assumed = status(GIB * 9 / 5, None).troubles();
        let [Trouble::Soon(text)] = &assumed[..] else {
            panic!("{assumed:?}")
        };
        assert!(text.contains("of the 2.0 GiB that etcd may use by default"), "{text}");
        let mut full = status(GIB, Some(GIB));
        full.alarms = Some(vec![(0xab, Alarm::NoSpace)]);
        let troubles = full.troubles();
        let [Trouble::Over(alarm), Trouble::Soon(_)] = &troubles[..] else {
            panic!("{troubles:?}")
        };
        assert!(alarm.starts_with("member ab of etcd: its space is used up"), "{alarm}");
    }

    #[test]
    fn a_member_from_version_3_6_on_says_its_quota() {
        // Field 12 of StatusResponse as etcd sends it, a number of three bytes: 65,536.
        let told = StatusResponse::decode(&[0x60, 0x80, 0x80, 0x04][..]).unwrap();
        assert_eq!(state(told).quota, Some(65536));
        assert_eq!(state(StatusResponse::default()).quota, None);
    }
}
