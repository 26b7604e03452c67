//! The members of etcd, judged: who answers, who leads, and who is of another quorum; and the way to mend what is wrong. Pure.

use leeward_quorum::etcd::status::{Member, State, Status};

/// What is to be said of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// In a word or two, for a table.
    pub(crate) word: &'static str,
    /// In a sentence.
    pub(crate) text: String,
    /// What to do, where something is wrong.
    pub(crate) mend: Option<String>,
    /// Whether it may take part in no decision, or two quorums or leaders may be taken for one.
    pub(crate) grave: bool,
}

impl Finding {
    fn well(word: &'static str, text: String) -> Self {
        Self {
            word,
            text,
            mend: None,
            grave: false,
        }
    }

    fn wrong(word: &'static str, text: String, mend: String, grave: bool) -> Self {
        Self {
            word,
            text,
            mend: Some(mend),
            grave,
        }
    }
}

/// What a member says that lives and hears of no majority.
const NO_LEADER: &str = "etcdserver: no leader";

/// One for each endpoint, in their order.
pub(crate) fn judge(status: &Status) -> Vec<Finding> {
    status.endpoints.iter().map(|member| finding(status, member)).collect()
}

fn finding(status: &Status, member: &Member) -> Finding {
    match &member.state {
        Err(why) if why.contains(NO_LEADER) => leaderless(status),
        // It begins with the endpoint, which is named already.
        Err(why) => silent(
            status,
            why.strip_prefix(&format!("{}/: ", member.endpoint)).unwrap_or(why),
        ),
        Ok(state) if state.cluster != status.cluster => foreign(status, state),
        Ok(state) => own(status, state),
    }
}

fn silent(status: &Status, why: &str) -> Finding {
    // Who is counted answers at another endpoint, so nobody of this quorum is behind this one.
    let all_answer = status.ids.as_ref().is_some_and(|ids| {
        let answers = |id: &u64| status.own().any(|(_, state)| state.id == *id);
        ids.iter().all(answers)
    });
    if all_answer {
        return Finding::wrong(
            "no member",
            format!("no member of the quorum is there ({why})"),
            "take it out of the endpoints in the agents' configuration, or add a member there: `etcdctl member add`, started with an empty data \
             directory"
                .to_owned(),
            false,
        );
    }
    let mend = match status.spare() {
        Some(_) => {
            "start it, and see its log; one whose data is lost is replaced with `etcdctl member remove` and `etcdctl member add`, and an empty \
             data directory"
        }
        None => {
            "start it, and see its log: without a majority nothing is decided. Only where a majority is lost for good, `leeward quorum recover` \
             begins anew from one that is left"
        }
    };
    Finding::wrong(
        "does not answer",
        format!("does not answer: {why}"),
        mend.to_owned(),
        true,
    )
}

fn leaderless(status: &Status) -> Finding {
    let mend = match status.spare() {
        Some(_) => {
            "it is cut off from the others, or they elect one now: ask again, then look at the links between the members and at their disks"
        }
        None => "it lives, and a majority does not: see to the others, or to the links to them",
    };
    Finding::wrong(
        "no leader",
        "answers and knows no leader".to_owned(),
        mend.to_owned(),
        true,
    )
}

fn foreign(status: &Status, state: &State) -> Finding {
    let said = |number: Option<_>| number.map_or(String::new(), |number| format!(", incarnation {number}"));
    let leads = match state.leader {
        0 => "",
        leader if leader == state.id => "; it leads there",
        _ => "; it follows a leader there",
    };
    let text = format!(
        "is of another quorum: etcd cluster {:x}{}{leads}",
        state.cluster,
        said(state.incarnation)
    );
    let mend = match state.incarnation > status.incarnation && state.incarnation.is_some() {
        true => format!(
            "the quorum was begun anew: `leeward quorum adopt --cluster {:x}` takes this region over to it",
            state.cluster
        ),
        false => format!(
            "no agent of this quorum asks it. Stop it for good; to have a member of {:x} there, empty its data directory and add it with \
             `etcdctl member add`",
            status.cluster
        ),
    };
    Finding::wrong("another quorum", text, mend, true)
}

fn own(status: &Status, state: &State) -> Finding {
    let (id, term) = (state.id, state.term);
    let newer = status
        .own()
        .find(|(_, other)| other.id != id && other.leader == other.id && other.term > term);
    match state.leader {
        0 => leaderless(status),
        leader if leader == id => match newer {
            None => Finding::well("leads", format!("answers and leads, term {term}")),
            Some((endpoint, newer)) => Finding::wrong(
                "led before",
                format!("says that it leads, at term {term}, and {endpoint} leads at term {}", newer.term),
                "it is cut off from the others and decides nothing any more: look at the links to it; it follows once it hears of the other one"
                    .to_owned(),
                true,
            ),
        },
        leader => match status.own().find(|(_, other)| other.id == leader) {
            Some((endpoint, _)) => Finding::well("follows", format!("answers and follows {endpoint}, term {term}")),
            None => Finding::wrong(
                "follows",
                format!("answers and follows member {leader:x}, which does not answer here"),
                "see to the member that does not answer; if it is lost, they elect another one".to_owned(),
                false,
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use leeward_core::name::Incarnation;

    use super::*;

    fn state(id: u64, leader: u64, term: u64) -> State {
        State {
            id,
            cluster: 7,
            incarnation: Some(Incarnation(1)),
            version: "3.4.23".into(),
            leader,
            term,
            revision: 40,
            size: 20480,
            used: 8192,
            quota: None,
        }
    }

    fn status(states: [Result<State, &str>; 3]) -> Status {
        let endpoints = states.into_iter().zip(["a", "b", "c"]);
        Status {
            cluster: 7,
            incarnation: Some(Incarnation(1)),
            members: 3,
            ids: Some(vec![1, 2, 3]),
            endpoints: endpoints
                .map(|(state, endpoint)| Member {
                    endpoint: endpoint.into(),
                    state: state.map_err(str::to_owned),
                })
                .collect(),
            alarms: Some(vec![]),
        }
    }

    fn told(status: &Status) -> Vec<String> {
        judge(status)
            .into_iter()
            .map(|finding| {
                format!(
                    "{} {} -> {}",
                    finding.word,
                    finding.text,
                    finding.mend.unwrap_or_default()
                )
            })
            .collect()
    }

    #[track_caller]
    fn expect(said: &str, parts: &[&str]) {
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
    }

    #[test]
    fn who_leads_who_follows_and_who_is_silent_is_said() {
        let all = told(&status([Ok(state(1, 1, 3)), Ok(state(2, 1, 3)), Err("refused")]));
        assert_eq!(all[0], "leads answers and leads, term 3 -> ");
        assert_eq!(all[1], "follows answers and follows a, term 3 -> ");
        expect(&all[2], &["does not answer: refused", "member remove"]);
        let without = told(&status([Ok(state(1, 0, 3)), Err("refused"), Err("refused")]));
        expect(&without[0], &["no leader", "see to the others"]);
        let says = told(&status([
            Err("etcd says Unavailable: etcdserver: no leader"),
            Err("b/: refused"),
            Err("refused"),
        ]));
        expect(
            &says[0],
            &["no leader answers and knows no leader", "see to the others"],
        );
        expect(&says[1], &["does not answer: refused"]);
        expect(&without[1], &["leeward quorum recover"]);
        let orphan = told(&status([Err("refused"), Ok(state(2, 1, 3)), Ok(state(3, 1, 3))]));
        expect(&orphan[1], &["follows member 1, which does not answer"]);
    }

    #[test]
    fn two_that_say_they_lead_are_told_apart_by_their_terms() {
        let status = status([Ok(state(1, 1, 3)), Ok(state(2, 2, 4)), Ok(state(3, 2, 4))]);
        expect(
            &told(&status)[0],
            &["says that it leads, at term 3, and b leads at term 4", "cut off"],
        );
        assert!(judge(&status)[0].grave);
        assert_eq!(told(&status)[1], "leads answers and leads, term 4 -> ");
    }

    #[test]
    fn a_member_of_another_quorum_is_no_member_whatever_it_says() {
        let other = |cluster, incarnation| State {
            cluster,
            incarnation,
            ..state(2, 2, 9)
        };
        let mut found = status([Ok(state(1, 1, 3)), Ok(other(6, Some(Incarnation(0)))), Err("refused")]);
        expect(
            &told(&found)[1],
            &[
                "is of another quorum: etcd cluster 6, incarnation 0; it leads there",
                "Stop it for good",
            ],
        );
        assert!(judge(&found)[1].grave);
        assert_eq!(found.spare(), None, "it counts for no majority");
        found.members = 1;
        found.ids = Some(vec![1]);
        assert_eq!(found.spare(), Some(0));
        expect(
            &told(&found)[2],
            &["no member of the quorum is there (refused)", "endpoints"],
        );
        let later = status([Ok(state(1, 1, 3)), Ok(other(8, Some(Incarnation(2)))), Err("refused")]);
        expect(
            &told(&later)[1],
            &["incarnation 2", "`leeward quorum adopt --cluster 8`"],
        );
    }
}
