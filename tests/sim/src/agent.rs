//! One region's agent: what `leeward-controller` does around the core, without tasks. It asks the core on each tick and sends what it
//! says; answers come back through [`Agent::answered`].

mod gate;
mod in_sync;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use leeward_core::{
    app::App,
    check::check,
    execute::{self, Mode},
    gates::Gates,
    handover::{self, Revoked},
    holder::{Holder, Offer, Renewal},
    in_sync::{Confirmed, Sets},
    lease::{Grants, Hold, Lease, Moment, Role, Timing},
    name::{ClusterName, Epoch, RoleKey},
    operation::{self, StepName, StepRecord},
    plan::{Change, Expect, next},
    report::{AppReport, ClusterReport, Seen},
    votes::Heard,
};
use leeward_quorum::{
    Entry, Outcome, Txn, commit, key,
    known::{Known, Situation, roles},
};

use crate::app::{Process, Volume, report};
use crate::mutant::Mutant;

/// Why a transaction was sent.
#[derive(Debug, Clone)]
enum Purpose {
    /// To read the lease, at the moment from which a renewal counts.
    Begin(Moment),
    Renew(Offer, Moment),
    /// An in-sync set that is to be.
    Sync(BTreeSet<ClusterName>),
    /// Whether what is wanted was applied shows in what is read.
    Other,
    Follow,
}

/// What an agent sends.
#[derive(Debug, Clone)]
pub(crate) enum Send {
    Txn(u64, Txn),
    Follow(u64, u64),
    Report(ClusterReport),
    Heartbeat(Moment),
}

pub(crate) struct Agent {
    pub(crate) me: ClusterName,
    peer: ClusterName,
    timing: Timing,
    mutant: Option<Mutant>,
    holder: Holder,
    name: String,
    pub(crate) grants: Grants,
    sets: Sets,
    /// Points of an epoch that were sent, with the moment before each was taken; and what was confirmed of them.
    taken: BTreeMap<u64, Moment>,
    confirmed: (u64, Confirmed),
    revoked: Revoked,
    gates: Gates,
    pub(crate) known: Known,
    pub(crate) heard: Heard,
    calls: BTreeMap<u64, (Purpose, Moment)>,
    next_call: u64,
    next_renewal: Moment,
    next_report: Moment,
    app: App,
    role: RoleKey,
    /// What the copy says of the application, made anew when the copy changed.
    situation: Option<Arc<Situation>>,
}

/// What an agent sees of its own region.
pub(crate) struct Here<'a> {
    pub(crate) volume: &'a mut Volume,
    pub(crate) process: Process,
    /// Whether every point that was sent is confirmed, of a log that does not grow any more.
    pub(crate) all_confirmed: bool,
}

impl Agent {
    pub(crate) fn new(
        app: App,
        me: ClusterName,
        peer: ClusterName,
        name: String,
        timing: Timing,
        mutant: Option<Mutant>,
    ) -> Self {
        Self {
            holder: Holder::new(me.clone(), name.clone()),
            me,
            peer,
            timing,
            mutant,
            name,
            grants: Grants::none(),
            sets: Sets::default(),
            taken: BTreeMap::new(),
            confirmed: (0, Confirmed::new()),
            revoked: Revoked::default(),
            gates: Gates::default(),
            known: Known::default(),
            heard: Heard::default(),
            calls: BTreeMap::new(),
            next_call: 0,
            next_renewal: Moment::default(),
            next_report: Moment::default(),
            role: RoleKey::new(app.key.clone(), "data"),
            app,
            situation: None,
        }
    }

    /// The epoch at which an answer may leave now.
    pub(crate) fn answer(&self, now: Moment) -> Option<Epoch> {
        let epoch = self.grants.answer(&self.role, now)?;
        (now < self.confirmed_until(epoch)).then_some(epoch)
    }

    fn call(&mut self, purpose: Purpose, now: Moment) -> u64 {
        self.next_call += 1;
        self.calls.insert(self.next_call, (purpose, now));
        self.next_call
    }

    fn send(&mut self, purpose: Purpose, txn: Txn, now: Moment) -> Send {
        Send::Txn(self.call(purpose, now), txn)
    }

    fn waits(&self, is: impl Fn(&Purpose) -> bool) -> bool {
        self.calls.values().any(|(purpose, _)| is(purpose))
    }

    /// One look at everything.
    pub(crate) fn tick(&mut self, here: &mut Here<'_>, now: Moment) -> Vec<Send> {
        let mut sends = Vec::new();
        self.forget(now);
        self.renew(now, &mut sends);
        if !self.waits(|purpose| matches!(purpose, Purpose::Follow)) {
            let after = self.known.view.revision();
            sends.push(Send::Follow(self.call(Purpose::Follow, now), after));
        }
        let said = report(here.volume, here.process, "data");
        if now >= self.next_report {
            self.next_report = now.after(self.timing.renew_every() / 2);
            sends.push(Send::Report(ClusterReport {
                cluster: self.me.clone(),
                holder: self.name.clone(),
                apps: [(self.app.key.clone(), said.clone())].into(),
                unseen: self.heard.unseen([&self.peer], &self.timing, now),
            }));
            sends.push(Send::Heartbeat(now));
        }
        self.accept(now, &mut sends);
        self.sync(now, &mut sends);
        if let Some(situation) = self.situation.take() {
            self.decide(&situation, said, now, &mut sends);
            self.execute(&situation, here, now, &mut sends);
            self.situation = Some(situation);
        }
        sends
    }

    /// An answer that does not come in time is none.
    fn forget(&mut self, now: Moment) {
        let timing = self.timing;
        let late: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, (_, sent))| now.since(*sent) > timing.ttl / 3)
            .map(|(call, _)| *call)
            .collect();
        for call in late {
            if let Some((Purpose::Renew(offer, sent), _)) = self.calls.remove(&call)
                && self.mutant == Some(Mutant::UnknownIsRenewed)
            {
                let roles: Vec<(RoleKey, Role)> = self
                    .known
                    .view
                    .roles(&self.app.key)
                    .into_iter()
                    .map(|(key, role)| (key, role.value))
                    .collect();
                let roles = roles.iter().map(|(key, role)| (key, role));
                let grants = self.holder.renewed(offer, sent, Some(0), roles, &timing);
                self.grant(grants);
            }
        }
    }

    fn renew(&mut self, now: Moment, sends: &mut Vec<Send>) {
        if now < self.next_renewal || self.waits(|purpose| matches!(purpose, Purpose::Begin(_) | Purpose::Renew(..))) {
            return;
        }
        self.next_renewal = now.after(self.timing.renew_every());
        // What was not answered by now may be applied or not; the renewal tells.
        self.calls
            .retain(|_, (purpose, _)| !matches!(purpose, Purpose::Sync(_)));
        match self.holder.renewal() {
            Renewal::Read => {
                let txn = Txn::default().read(key::lease(&self.me));
                sends.push(self.send(Purpose::Begin(now), txn, now));
            }
            Renewal::Write(offer) => sends.extend(self.offer(offer, now, now)),
        }
    }

    fn offer(&mut self, offer: Offer, sent: Moment, now: Moment) -> Option<Send> {
        let key = key::lease(&self.me);
        let txn = Txn::default()
            .expect(&key, offer.replaces)
            .put(&key, &offer.lease)
            .ok()?;
        let txn = txn.read(key::ROLES).read(&key);
        Some(self.send(Purpose::Renew(offer, sent), txn, now))
    }

    fn grant(&mut self, mut grants: Grants) {
        let roles = self.situation.as_ref().map(|situation| &situation.roles);
        self.revoked.limit(&mut grants, |role| roles?.get(role).cloned());
        if self.mutant == Some(Mutant::HolderWithoutDrift) {
            grants.answer_until = grants.answer_until.after(self.timing.drift);
        }
        self.grants = grants;
    }

    /// The answer to a transaction.
    pub(crate) fn answered(&mut self, call: u64, outcome: Outcome, now: Moment) -> Vec<Send> {
        let Some((purpose, _)) = self.calls.remove(&call) else {
            return Vec::new();
        };
        match purpose {
            Purpose::Begin(sent) => {
                let key = key::lease(&self.me);
                let entry = outcome.entries.iter().find(|entry| entry.key == key);
                let found = entry.and_then(|entry| Some((lease_of(entry)?, entry.revision)));
                self.take(outcome.entries.clone(), now);
                let sight = self.known.sights.get(&self.me);
                let found = found.as_ref().map(|(lease, revision)| (lease, *revision));
                let offer = self.holder.begin(found, sight, &self.timing, sent);
                offer
                    .and_then(|offer| self.offer(offer, sent, now))
                    .into_iter()
                    .collect()
            }
            Purpose::Renew(offer, sent) => {
                let sent = match self.mutant {
                    Some(Mutant::HolderCountsFromAnswer) => now,
                    _ => sent,
                };
                let mut roles = roles(&outcome.entries);
                if self.mutant == Some(Mutant::RevokingIsGranted) {
                    roles.values_mut().for_each(|role| role.hold = Hold::Held);
                }
                let revision = outcome.applied.then_some(outcome.revision);
                if outcome.applied {
                    self.gates.begin();
                    self.sets.renewed(&roles);
                }
                let grants = self.holder.renewed(offer, sent, revision, &roles, &self.timing);
                self.grant(grants);
                self.take(outcome.entries, now);
                Vec::new()
            }
            Purpose::Sync(set) => {
                if outcome.applied {
                    self.sets.applied(&self.role, set);
                }
                self.take(outcome.entries, now);
                Vec::new()
            }
            Purpose::Other | Purpose::Follow => {
                self.take(outcome.entries, now);
                Vec::new()
            }
        }
    }

    /// The answer to a question for what changed.
    pub(crate) fn followed(&mut self, call: u64, changes: leeward_quorum::Changes, now: Moment) {
        if self.calls.remove(&call).is_some() {
            let leases_only = !changes.whole && changes.entries.iter().all(|entry| entry.key.starts_with(key::LEASES));
            self.known.follow(changes, now);
            if !leases_only {
                self.situation = self.known.situation(&self.app.key);
            }
        }
    }

    /// Accepts the application where it was not yet, as the cluster of its resource does.
    fn accept(&mut self, now: Moment, sends: &mut Vec<Send>) {
        let spec = key::spec(&self.app.key);
        if self.me != self.app.authority || self.known.view.revision() == 0 || self.known.view.revision_of(&spec) != 0 {
            return;
        }
        if let Ok(txn) = Txn::default().expect(&spec, 0).put(&spec, &self.app)
            && !self.waits(|purpose| matches!(purpose, Purpose::Other))
        {
            sends.push(self.send(Purpose::Other, txn.read(&spec), now));
        }
    }

    fn decide(&mut self, situation: &Situation, said: AppReport, now: Moment, sends: &mut Vec<Send>) {
        if self.waits(|purpose| matches!(purpose, Purpose::Other)) {
            return;
        }
        let unseen_by = self.heard.unseen_by(&self.me, [&self.peer], &self.timing, now);
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
        let holders = self.heard.reports.values();
        let holders = holders.map(|(report, _)| (report.cluster.clone(), report.holder.clone()));
        let mut snapshot = situation.snapshot(&self.known, &unseen_by, holders.collect(), reports);
        if self.mutant == Some(Mutant::AnyoneIsInSync) {
            let all = [self.me.clone(), self.peer.clone()];
            snapshot
                .roles
                .values_mut()
                .for_each(|role| role.value.in_sync.extend(all.clone()));
        }
        let timing = self.taker();
        let (Some(mut commit), _) = next(&snapshot, &timing, now, 0) else {
            return;
        };
        if check(&commit, &snapshot, &timing, now).is_err() {
            return;
        }
        let takes = commit.changes.iter().any(|change| matches!(change, Change::Seal(_)));
        let cancels = commit.changes.iter().any(|change| match change {
            Change::Plan(plan) => plan
                .finished
                .as_ref()
                .is_some_and(|finished| finished.outcome == operation::Outcome::Cancelled),
            _ => false,
        });
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
        let txn = txn.expect(key::spec(&self.app.key), situation.app.revision);
        sends.push(self.send(Purpose::Other, txn, now));
    }

    fn taker(&self) -> Timing {
        match self.mutant {
            Some(Mutant::TakerWithoutDrift) => Timing {
                drift: Duration::ZERO,
                ..self.timing
            },
            Some(Mutant::TakerDoesNotWait) => Timing {
                ttl: Duration::ZERO,
                drift: Duration::ZERO,
                ..self.timing
            },
            _ => self.timing,
        }
    }

    /// What the application does here now.
    pub(crate) fn mode(&self) -> Mode {
        self.situation
            .as_ref()
            .map_or(Mode::Unmanaged, |situation| situation.mode(&self.me))
    }

    /// Whether no operation has yet to bring the data here.
    pub(crate) fn is_promoted(&self) -> bool {
        let situation = self.situation.as_ref();
        situation.is_some_and(|situation| situation.is_promoted(&self.me))
    }

    /// The role as it is known here.
    pub(crate) fn known_role(&self) -> Option<&Role> {
        let mut roles = self.situation.as_ref()?.roles.values();
        roles.next().map(|role| &role.value)
    }

    fn take(&mut self, entries: Vec<Entry>, now: Moment) {
        let leases_only = entries.iter().all(|entry| entry.key.starts_with(key::LEASES));
        self.known.take(entries, now);
        if !leases_only {
            self.situation = self.known.situation(&self.app.key);
        }
    }

    fn execute(&mut self, situation: &Situation, here: &mut Here<'_>, now: Moment, sends: &mut Vec<Send>) {
        let Some((operation, step)) = execute::step(situation.plan(), &situation.journal, &self.me) else {
            return;
        };
        if self.waits(|purpose| matches!(purpose, Purpose::Other)) {
            return;
        }
        let done = match step.name {
            StepName::Quiesce => here.process == Process::Stopped && !self.has_open_gate(now),
            StepName::LastPoint => here.all_confirmed || self.mutant == Some(Mutant::LastPointNotWaitedFor),
            StepName::Release => {
                if self.mutant != Some(Mutant::ReleasedBeforeClosed) {
                    self.revoked.close(&situation.roles, operation, &mut self.grants);
                }
                let gated = self.has_open_gate(now);
                let plan = situation.plan.as_ref().map_or(0, |plan| plan.revision);
                match handover::release(&situation.roles, plan, operation) {
                    _ if gated => false,
                    None => true,
                    Some(commit) => {
                        let txn = commit::txn(&self.app.key, &self.known.sights, &commit);
                        sends.extend(txn.ok().map(|txn| self.send(Purpose::Other, txn, now)));
                        false
                    }
                }
            }
            StepName::Take => match handover::take(&situation.roles, operation) {
                Ok(None) => true,
                Ok(Some(commit)) => {
                    let txn = commit::txn(&self.app.key, &self.known.sights, &commit);
                    sends.extend(txn.ok().map(|txn| self.send(Purpose::Other, txn, now)));
                    false
                }
                Err(_) => false,
            },
            StepName::Promote => {
                here.volume.promote(operation.epoch.0);
                true
            }
            StepName::Start => {
                matches!(here.process, Process::Running { .. }) && self.answer(now) == Some(operation.epoch)
            }
        };
        if done {
            let record = StepRecord {
                started_ms: 0,
                ended_ms: Some(0),
                trouble: None,
                point_ms: None,
            };
            let key = key::journal(&self.app.key, &operation.id, step.name);
            if let Ok(txn) = Txn::default().put(&key, &record) {
                sends.push(self.send(Purpose::Other, txn.read(&key), now));
            }
        }
    }
}

fn lease_of(entry: &Entry) -> Option<Lease> {
    serde_json::from_str(entry.value.as_deref()?).ok()
}
