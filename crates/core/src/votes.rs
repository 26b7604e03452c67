//! Who cannot see whom. Each observer (the agents and the witness) has one vote on each cluster, and votes only while it is heard
//! itself: the word of somebody who is silent says nothing about now.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    lease::{Moment, Timing},
    name::ClusterName,
    plan::unseen_after,
    report::ClusterReport,
};

/// The witness's name among observers.
pub const WITNESS: &str = "witness";

/// What one agent heard, and when.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// The newest report of each other cluster.
    pub reports: BTreeMap<ClusterName, (ClusterReport, Moment)>,
    /// When the witness heard of each cluster, on this agent's clock.
    pub witness: BTreeMap<ClusterName, Moment>,
    /// When the witness was heard itself.
    pub witness_at: Option<Moment>,
}

impl Heard {
    /// Those of `peers` that this agent cannot see.
    pub fn unseen<'a>(
        &self,
        peers: impl IntoIterator<Item = &'a ClusterName>,
        timing: &Timing,
        now: Moment,
    ) -> Vec<ClusterName> {
        let late = |peer: &&ClusterName| {
            let heard = self.reports.get(*peer);
            heard.is_none_or(|(_, at)| now.since(*at) > unseen_after(timing))
        };
        peers.into_iter().filter(late).cloned().collect()
    }

    /// For each cluster, the observers that cannot see it, `me` among them.
    pub fn unseen_by<'a>(
        &self,
        me: &ClusterName,
        peers: impl IntoIterator<Item = &'a ClusterName> + Clone,
        timing: &Timing,
        now: Moment,
    ) -> BTreeMap<ClusterName, BTreeSet<String>> {
        let late = |at: Moment| now.since(at) > unseen_after(timing);
        let mut votes: BTreeMap<ClusterName, BTreeSet<String>> = BTreeMap::new();
        let mut vote = |cluster: &ClusterName, observer: &str| {
            votes.entry(cluster.clone()).or_default().insert(observer.to_owned());
        };
        for cluster in self.unseen(peers.clone(), timing, now) {
            vote(&cluster, me.as_str());
        }
        for (report, _) in self.reports.values().filter(|(_, at)| !late(*at)) {
            for cluster in &report.unseen {
                vote(cluster, report.cluster.as_str());
            }
        }
        if self.witness_at.is_some_and(|at| !late(at)) {
            for peer in peers {
                if self.witness.get(peer).is_none_or(|at| late(*at)) {
                    vote(peer, WITNESS);
                }
            }
        }
        votes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lease::Delays;
    use crate::samples::at;

    fn report(cluster: &str, unseen: &[&str]) -> ClusterReport {
        ClusterReport {
            cluster: cluster.into(),
            holder: "h".into(),
            apps: BTreeMap::new(),
            unseen: unseen.iter().map(|name| (*name).into()).collect(),
        }
    }

    #[test]
    fn only_observers_that_are_heard_have_a_vote() {
        let timing = Timing::new(Duration::from_secs(2), Delays::WITHOUT_ELECTIONS).unwrap();
        let (me, west, north): (ClusterName, ClusterName, ClusterName) = ("east".into(), "west".into(), "north".into());
        let heard = Heard {
            reports: BTreeMap::from([
                (west.clone(), (report("west", &[]), at(0))),
                (north.clone(), (report("north", &["west"]), at(1500))),
            ]),
            witness: BTreeMap::from([(west.clone(), at(100)), (north.clone(), at(1900))]),
            witness_at: Some(at(1900)),
        };
        let voters = |now: u64| -> Vec<String> {
            let votes = heard.unseen_by(&me, [&west, &north], &timing, at(now));
            votes.get(&west).cloned().unwrap_or_default().into_iter().collect()
        };
        assert_eq!(voters(1000), ["north"]);
        assert_eq!(voters(2000), ["east", "north", "witness"]);
        // North and the witness have been silent for too long themselves.
        assert_eq!(voters(3000), ["east"]);
    }
}
