//! What was seen while a fault was made, held against what has to hold. Pure.
//!
//! Times are milliseconds of one clock. An outage lasts from the end of the last answer before it to the end of the first one after it: what
//! is asked meanwhile is not answered, whenever it was sent.

use serde::Serialize;

use super::plan::{Answered, Fault};

/// A question to an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Whether it was for the ActivePassive application; else it was for the other one.
    pub(crate) passive: bool,
    /// The cluster whose edge was asked.
    pub(crate) edge: String,
    /// When it was sent.
    pub(crate) sent: u64,
    /// When it was answered, or given up.
    pub(crate) ended: u64,
    /// The cluster in which the application answered; none where there was no answer.
    pub(crate) by: Option<String>,
}

/// What a cluster says of the ActivePassive application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// When it said so.
    pub(crate) at: u64,
    /// The cluster that says so.
    pub(crate) cluster: String,
    /// The cluster that is active.
    pub(crate) active: String,
}

/// When the fault was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// Before it was made.
    pub(crate) began: u64,
    /// Before what ends it was done.
    pub(crate) ended: u64,
    /// When all was Protected again, or no longer waited for.
    pub(crate) rested: u64,
}

/// How long users of an edge were not answered at the most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Outage {
    pub(crate) model: &'static str,
    pub(crate) edge: String,
    pub(crate) ms: u64,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// Of each edge that users reached.
    pub(crate) outages: Vec<Outage>,
    /// What does not hold.
    pub(crate) broken: Vec<String>,
}

/// Judges a fault. `active` was active before it; users have to be answered again within `limit` milliseconds.
pub(crate) fn judge(fault: &Fault, active: &str, window: Window, limit: u64, asks: &[Ask], seen: &[Seen]) -> Verdict {
    let mut verdict = Verdict::default();
    let (from, until) = match fault.answered {
        Answered::Meanwhile => (window.began, window.ended),
        Answered::Afterwards => (window.ended, window.rested),
    };
    for (passive, model) in [(true, "ActivePassive"), (false, "ActiveActive")] {
        for edge in &fault.edges {
            let own = asks.iter().filter(|ask| ask.passive == passive && ask.edge == *edge);
            let answers = own.filter(|ask| ask.by.is_some()).map(|ask| ask.ended);
            let ms = outage(answers, from, until);
            if ms > limit {
                verdict.broken.push(format!(
                    "the edge of {edge} did not answer for the {model} application for {ms} ms, and {limit} ms is the most"
                ));
            }
            verdict.outages.push(Outage {
                model,
                edge: edge.clone(),
                ms,
            });
        }
    }
    match &fault.successor {
        Some(successor) => took_over(successor, window, asks, seen, &mut verdict),
        None => stayed(active, window, asks, seen, &mut verdict),
    }
    verdict
}

/// The longest time without an answer between two instants.
fn outage(answers: impl Iterator<Item = u64>, from: u64, until: u64) -> u64 {
    let mut instants: Vec<u64> = answers.filter(|at| (from..=until).contains(at)).collect();
    instants.extend([from, until.max(from)]);
    instants.sort_unstable();
    instants.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

fn took_over(successor: &str, window: Window, asks: &[Ask], seen: &[Seen], verdict: &mut Verdict) {
    let last = seen
        .iter()
        .rfind(|seen| seen.cluster == successor && (window.began..=window.ended).contains(&seen.at));
    if last.is_none_or(|seen| seen.active != successor) {
        let said = last.map_or("nothing", |seen| &seen.active);
        verdict.broken.push(format!(
            "{successor} did not take over: its ProtectedApp named {said} as active"
        ));
    }
    let answered = asks.iter().any(|ask| {
        ask.passive && ask.by.as_deref() == Some(successor) && (window.began..=window.ended).contains(&ask.ended)
    });
    if !answered {
        verdict.broken.push(format!(
            "no answer of the ActivePassive application came from {successor}"
        ));
    }
}

fn stayed(active: &str, window: Window, asks: &[Ask], seen: &[Seen], verdict: &mut Verdict) {
    let within = |at: u64| (window.began..=window.rested).contains(&at);
    if let Some(other) = seen.iter().find(|seen| within(seen.at) && seen.active != active) {
        verdict.broken.push(format!(
            "a failover where none may be: {} named {} as active {} ms after the fault",
            other.cluster,
            other.active,
            other.at - window.began
        ));
    }
    let other = asks.iter().find(|ask| {
        let elsewhere = ask.by.as_deref().is_some_and(|by| by != active);
        ask.passive && elsewhere && within(ask.sent)
    });
    if let Some(Ask { by: Some(by), edge, .. }) = other {
        verdict.broken.push(format!(
            "the edge of {edge} had an answer of the ActivePassive application from {by}, while it is active in {active}"
        ));
    }
}

/// An object of a namespace: its kind and name, and the one that it is of all those that ever had these.
pub(crate) type Known = (String, String);

/// What is not there any more, or is another object of the same name.
pub(crate) fn missing(before: &[Known], after: &[Known]) -> Vec<String> {
    let gone = before.iter().filter(|object| !after.contains(object));
    gone.map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::plan::Kind;

    const WINDOW: Window = Window {
        began: 1_000,
        ended: 41_000,
        rested: 50_000,
    };

    fn fault(successor: Option<&str>, edges: &[&str], answered: Answered) -> Fault {
        Fault {
            kind: Kind::DeletePods,
            target: "west".into(),
            hooks: None,
            successor: successor.map(str::to_owned),
            edges: edges.iter().map(|edge| (*edge).to_owned()).collect(),
            answered,
        }
    }

    /// Answers of both applications at an edge, each second, but between two instants.
    fn asked(edge: &str, by: &str, silent: std::ops::Range<u64>) -> Vec<Ask> {
        let at = (0..60_000).step_by(1_000);
        at.flat_map(|sent| {
            [true, false].map(|passive| Ask {
                passive,
                edge: edge.into(),
                sent,
                ended: sent + 100,
                by: (!silent.contains(&sent)).then(|| by.to_owned()),
            })
        })
        .collect()
    }

    fn seen(at: u64, cluster: &str, active: &str) -> Seen {
        Seen {
            at,
            cluster: cluster.into(),
            active: active.into(),
        }
    }

    #[test]
    fn an_edge_that_is_reached_has_to_answer_again_in_time() {
        for (silent, ms, holds) in [
            (2_000..2_000, 1_000, true),
            (2_000..31_000, 30_000, true),
            (2_000..33_000, 32_000, false),
        ] {
            let asks = asked("west", "west", silent.clone());
            let fault = fault(None, &["west"], Answered::Meanwhile);
            let got = judge(&fault, "west", WINDOW, 30_000, &asks, &[]);
            assert_eq!(got.outages.len(), 2);
            assert!(got.outages.iter().all(|outage| outage.ms == ms), "{silent:?} {got:?}");
            assert_eq!(got.broken.is_empty(), holds, "{silent:?} {got:?}");
        }
        // One that was never answered is no shorter outage than the fault.
        let got = judge(
            &fault(None, &["east"], Answered::Meanwhile),
            "west",
            WINDOW,
            30_000,
            &[],
            &[],
        );
        assert_eq!(got.outages[0].ms, 40_000);
    }

    #[test]
    fn where_no_node_is_left_what_counts_is_the_time_after_it_is_back() {
        let asks = asked("west", "west", 1_000..44_000);
        let meanwhile = judge(
            &fault(None, &["west"], Answered::Meanwhile),
            "west",
            WINDOW,
            30_000,
            &asks,
            &[],
        );
        assert!(!meanwhile.broken.is_empty());
        let after = judge(
            &fault(None, &["west"], Answered::Afterwards),
            "west",
            WINDOW,
            30_000,
            &asks,
            &[],
        );
        assert_eq!((after.outages[0].ms, after.broken.len()), (3_100, 0));
    }

    #[test]
    fn a_failover_where_none_may_be_is_seen_in_what_a_cluster_says_and_in_who_answers() {
        let fault = fault(None, &["west", "east"], Answered::Meanwhile);
        let mut asks = asked("west", "west", 0..0);
        asks.extend(asked("east", "west", 0..0));
        let judged = |asks: &[Ask], seen: &[Seen]| judge(&fault, "west", WINDOW, 30_000, asks, seen).broken;
        let held = [seen(5_000, "west", "west"), seen(5_000, "east", "west")];
        assert_eq!(judged(&asks, &held), Vec::<String>::new());
        // What was before the fault is not of it.
        assert_eq!(judged(&asks, &[seen(500, "east", "east")]), Vec::<String>::new());
        let broken = judged(&asks, &[seen(5_000, "east", "east")]);
        assert!(
            broken.len() == 1 && broken[0].contains("failover where none"),
            "{broken:?}"
        );
        asks.push(Ask {
            passive: true,
            edge: "east".into(),
            sent: 6_000,
            ended: 6_010,
            by: Some("east".into()),
        });
        let broken = judged(&asks, &held);
        assert!(broken.len() == 1 && broken[0].contains("from east"), "{broken:?}");
        // The other application answers everywhere.
        asks.last_mut().unwrap().passive = false;
        assert_eq!(judged(&asks, &held), Vec::<String>::new());
    }

    #[test]
    fn whoever_takes_over_says_so_and_answers() {
        let fault = fault(Some("east"), &["east"], Answered::Meanwhile);
        let asks = asked("east", "east", 1_000..20_000);
        let judged = |asks: &[Ask], seen: &[Seen]| judge(&fault, "west", WINDOW, 30_000, asks, seen).broken;
        let taken = [seen(2_000, "east", "west"), seen(30_000, "east", "east")];
        assert_eq!(judged(&asks, &taken), Vec::<String>::new());
        for (seen, said) in [
            (vec![], "nothing"),
            (vec![taken[0].clone()], "named west"),
            // Nobody sees what the lost one says, and what it says later does not count.
            (vec![taken[0].clone(), seen(60_000, "east", "east")], "named west"),
        ] {
            let broken = judged(&asks, &seen);
            assert!(broken.len() == 1 && broken[0].contains(said), "{broken:?}");
        }
        let by_west = asked("east", "west", 0..0);
        let broken = judged(&by_west, &taken);
        assert!(broken.len() == 1 && broken[0].contains("no answer"), "{broken:?}");
    }

    #[test]
    fn an_object_that_was_made_anew_is_missing() {
        let object = |name: &str, uid: &str| (name.to_owned(), uid.to_owned());
        let before = [object("Deployment a", "1"), object("Service a", "2")];
        assert!(missing(&before, &before).is_empty());
        let after = [
            object("Service a", "3"),
            object("Deployment a", "1"),
            object("Pod a", "4"),
        ];
        assert_eq!(missing(&before, &after), ["Service a"]);
    }
}
