//! What the agent accepts, where its cluster has the resource, and what it decides: the real planner, looked at again by the real check.

use std::{collections::BTreeMap, time::Duration};

use leeward_core::{
    app::App,
    check::check,
    lease::{Moment, Sight, Timing},
    name::ClusterName,
    operation::Outcome,
    plan::{Change, Expect, decide},
    report::{AppReport, Seen, report},
};
use leeward_quorum::{Txn, commit, key, known::Situation};

use super::{Agent, Purpose, Send};
use crate::{clock::wall_ms, mutant::Mutant};

impl Agent {
    /// The resource, as it is in its cluster.
    pub(crate) fn reads(&mut self, resource: &App) {
        if self.app.observed != resource.observed {
            self.app = resource.clone();
        }
    }

    /// Accepts the resource where the quorum does not have it as it is, as the agent of its cluster does.
    pub(super) fn accept(&mut self, now: Moment, sends: &mut Vec<Send>) {
        let accepted = self.situation.as_ref().map(|situation| &situation.app.value);
        let is_known = accepted.is_some_and(|accepted| accepted.observed == self.app.observed);
        if self.me != self.app.authority || self.known.view.revision() == 0 || is_known {
            return;
        }
        let spec = key::spec(&self.app.key);
        let before = self.known.view.revision_of(&spec);
        if let Ok(txn) = Txn::default().expect(&spec, before).put(&spec, &self.app)
            && !self.waits(|purpose| matches!(purpose, Purpose::Other))
        {
            sends.push(self.send(Purpose::Other, txn.read(&spec), now));
        }
    }

    pub(super) fn decide(&mut self, situation: &Situation, said: AppReport, now: Moment, sends: &mut Vec<Send>) {
        if self.waits(|purpose| matches!(purpose, Purpose::Other)) {
            return;
        }
        let unseen_by = self.heard.unseen_by(&self.me, [&self.peer], &self.timing, now);
        let mut snapshot = situation.snapshot(&self.known, &unseen_by, self.holders(), self.reports(said, now));
        if self.mutant == Some(Mutant::AnyoneIsInSync) {
            let all = [self.me.clone(), self.peer.clone()];
            snapshot
                .roles
                .values_mut()
                .for_each(|role| role.value.in_sync.extend(all.clone()));
        }
        if self.mutant == Some(Mutant::AnyoneIsReady) {
            let reports = snapshot.reports.values_mut();
            reports.for_each(|seen| seen.value.missing.clear());
        }
        let running_on = (self.mutant == Some(Mutant::PauseIgnored)).then(|| App {
            paused: false,
            ..snapshot.app.clone()
        });
        snapshot.app = running_on.as_ref().unwrap_or(snapshot.app);
        let waited = (self.mutant == Some(Mutant::TakerDoesNotWait)).then(|| self.waited_out(now));
        snapshot.leases = waited.as_ref().unwrap_or(snapshot.leases);
        let timing = self.taker();
        let Some(mut commit) = decide(&snapshot, &timing, now, wall_ms(&self.name, now)) else {
            return;
        };
        if self.mutant == Some(Mutant::PlannerForgetsThePlan) {
            commit.expects.retain(|expect| !matches!(expect, Expect::Plan(_)));
        }
        if let Err(violation) = check(&commit, &snapshot, &timing, now) {
            self.refused = Some(format!("{:?} ({}): {violation}", commit.why, self.name));
            return;
        }
        let takes = commit.changes.iter().any(|change| matches!(change, Change::Seal(_)));
        let cancels = commit.changes.iter().any(|change| match change {
            Change::Plan(plan) => plan
                .finished
                .as_ref()
                .is_some_and(|finished| finished.outcome == Outcome::Cancelled),
            _ => false,
        });
        if self.mutant == Some(Mutant::MaintenanceUncompared) {
            commit
                .expects
                .retain(|expect| !matches!(expect, Expect::Maintenance(..)));
        }
        match self.mutant {
            Some(Mutant::CancelledUncompared) if cancels => {
                commit.expects.retain(|expect| matches!(expect, Expect::Plan(_)));
            }
            Some(Mutant::LeaseNotCompared) if takes => {
                commit.expects.retain(|expect| !matches!(expect, Expect::Lease(..)));
            }
            Some(Mutant::NeitherSealedNorCompared) if takes => {
                commit.changes.retain(|change| !matches!(change, Change::Seal(_)));
                commit
                    .expects
                    .retain(|expect| !matches!(expect, Expect::Role(..) | Expect::Plan(_)));
            }
            _ => {}
        }
        let Ok(txn) = commit::txn(&self.app.key, &self.known.sights, &commit) else {
            return;
        };
        let txn = match self.mutant {
            Some(Mutant::SpecificationUncompared) => txn,
            _ => txn.expect(key::spec(&self.app.key), situation.app.revision),
        };
        sends.push(self.send(Purpose::Other, txn, now));
    }

    /// What every cluster says of the application.
    fn reports(&self, said: AppReport, now: Moment) -> BTreeMap<ClusterName, Seen<AppReport>> {
        let mut reports: BTreeMap<_, _> = self
            .heard
            .reports
            .iter()
            .filter_map(|(cluster, (report, at))| {
                let value = report.apps.get(&self.app.key)?.clone();
                let age = now.since(*at);
                Some((cluster.clone(), Seen { value, age }))
            })
            .collect();
        let age = Duration::ZERO;
        reports.insert(self.me.clone(), Seen { value: said, age });
        reports
    }

    fn holders(&self) -> BTreeMap<ClusterName, String> {
        let holders = self.heard.reports.values();
        holders
            .map(|(report, _)| (report.cluster.clone(), report.holder.clone()))
            .collect()
    }

    /// What is waited for before the application is protected, as its status would say.
    pub(crate) fn waiting_for(&self, said: AppReport, now: Moment) -> Vec<String> {
        let Some(situation) = self.situation() else {
            return vec!["nothing is known".to_owned()];
        };
        let unseen_by = self.heard.unseen_by(&self.me, [&self.peer], &self.timing, now);
        let snapshot = situation.snapshot(&self.known, &unseen_by, self.holders(), self.reports(said, now));
        report(&snapshot, &self.timing, now).waiting_for
    }

    fn taker(&self) -> Timing {
        match self.mutant {
            Some(Mutant::TakerWithoutDrift) => Timing {
                drift: Duration::ZERO,
                ..self.timing
            },
            _ => self.timing,
        }
    }

    /// The leases as they would be if what the other region was granted were over already.
    fn waited_out(&self, now: Moment) -> BTreeMap<ClusterName, Sight> {
        let mut sights = self.known.sights.clone();
        if let Some(sight) = sights.get_mut(&self.peer) {
            sight.first_seen = now.before(self.timing.ttl + self.timing.drift);
        }
        sights
    }
}
