//! One region's agent: what `leeward-controller` does around the core, without tasks. It asks the core on each tick and sends what it
//! says; answers come back through [`Agent::answered`].

mod decide;
mod gate;
mod in_sync;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use leeward_core::{
    app::App,
    execute::Mode,
    gates::Gates,
    handover::Revoked,
    holder::{Holder, Offer, Renewal},
    in_sync::{Confirmed, Sets},
    lease::{Grants, Hold, Lease, Moment, Role, Timing},
    name::{ClusterName, Epoch, RoleKey},
    operation::StepName,
    replica::{Event, Replica},
    report::ClusterReport,
    votes::Heard,
};
use leeward_quorum::{
    Entry, Outcome, Txn, key,
    known::{Known, Situation, roles},
};

use crate::app::{Process, Volume, report};
use crate::disk::{Carried, Disk};
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
    pub(crate) mutant: Option<Mutant>,
    holder: Holder,
    name: String,
    /// Says whether it acts; none where it does everything, whoever else does.
    replica: Option<Replica>,
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
    pub(crate) carried: Carried,
    /// The step whose commit this process sent last.
    committed: Option<StepName>,
    /// Something was heard that the edge has not been told yet.
    pub(crate) has_news: bool,
    /// What the planner wanted and the check refused.
    pub(crate) refused: Option<String>,
}

/// What an agent sees of its own region.
pub(crate) struct Here<'a> {
    pub(crate) volume: &'a mut Volume,
    pub(crate) process: Process,
    /// Whether every point that was sent is confirmed, of a log that does not grow any more.
    pub(crate) all_confirmed: bool,
    pub(crate) disk: &'a mut Disk,
    pub(crate) is_full: bool,
    /// Whom the region's resource names as the one that acts.
    pub(crate) shown: &'a mut Option<String>,
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
            replica: None,
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
            carried: Carried::default(),
            committed: None,
            has_news: true,
            refused: None,
        }
    }

    /// From now on it acts only when it is the one of two replicas that does.
    pub(crate) fn asks_who_acts(&mut self, now: Moment) {
        self.replica = Some(Replica::new(self.name.clone(), true, self.timing, now));
    }

    /// Whether it acts for its region.
    pub(crate) fn acts(&self, now: Moment) -> bool {
        self.replica.as_ref().is_none_or(|replica| replica.acts(now))
    }

    fn hears(&mut self, event: Event<'_>, now: Moment) {
        if let Some(replica) = &mut self.replica {
            replica.hear(event, now);
        }
    }

    fn hears_of_lease(&mut self, now: Moment) {
        if let Some(replica) = &mut self.replica {
            replica.hear(Event::Known(self.known.sights.get(&self.me)), now);
        }
    }

    /// Looks whom the region's resource names, and is named there if it acts.
    fn shows(&mut self, shown: &mut Option<String>, now: Moment) {
        self.hears(Event::Shown(shown.as_deref()), now);
        if self.replica.is_some() && self.acts(now) {
            *shown = Some(self.name.clone());
            self.hears(Event::Shown(shown.as_deref()), now);
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
        self.shows(here.shown, now);
        let acts = self.acts(now);
        self.renew(now, &mut sends);
        if !self.waits(|purpose| matches!(purpose, Purpose::Follow)) {
            let after = self.known.view.revision();
            sends.push(Send::Follow(self.call(Purpose::Follow, now), after));
        }
        let plan = self.situation.as_ref().and_then(|situation| situation.plan().cloned());
        if let Some(situation) = self.situation.take() {
            self.forgets_configuration(&situation, here.disk);
            self.situation = Some(situation);
        }
        let missing = self.lacks(plan.as_ref());
        let said = report(here.volume, here.process, missing, "data");
        if now >= self.next_report {
            self.next_report = now.after(self.timing.renew_every() / 2);
            let report = || ClusterReport {
                cluster: self.me.clone(),
                holder: self.name.clone(),
                apps: [(self.app.key.clone(), said.clone())].into(),
                unseen: self.heard.unseen([&self.peer], &self.timing, now),
            };
            sends.extend(acts.then(|| Send::Report(report())));
            sends.push(Send::Heartbeat(now));
        }
        if !acts {
            return sends;
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
                if let Some((lease, revision)) = &found {
                    let revision = *revision;
                    self.hears(Event::Read { lease, revision, sent }, now);
                }
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
                    self.hears(Event::Renewed(sent), now);
                    let until = match self.mutant {
                        Some(Mutant::OnceHolderAlwaysHolder) => Moment(Duration::MAX),
                        _ => self.timing.stopped_by(sent),
                    };
                    self.gates.hold(until);
                    self.sets.renewed(&roles);
                }
                let grants = self.holder.renewed(offer, sent, revision, &roles, &self.timing);
                self.grant(grants);
                match self.mutant {
                    Some(Mutant::RolesWithoutTheirPlan | Mutant::TakenForAnyPlan) => self.take(outcome.entries, now),
                    _ => self.known.take_renewal(outcome.entries, now),
                }
                self.hears_of_lease(now);
                Vec::new()
            }
            Purpose::Sync(set) => {
                if outcome.applied {
                    self.sets.applied(&self.role, set);
                    self.take(outcome.entries, now);
                }
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
            self.hears_of_lease(now);
            if !leases_only {
                self.put_together();
            }
        }
    }

    /// What the copy says of the application.
    pub(crate) fn situation(&self) -> Option<&Situation> {
        self.situation.as_deref()
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
        self.hears_of_lease(now);
        if !leases_only {
            self.put_together();
        }
    }

    fn put_together(&mut self) {
        self.situation = self.known.situation(&self.app.key);
        self.has_news = true;
    }

    /// What the edge is told in place of what is known, if it is cheated.
    pub(crate) fn cheated_situation(&self) -> Option<Arc<Situation>> {
        let situation = self
            .situation
            .as_deref()
            .filter(|_| self.mutant == Some(Mutant::EdgeAsksThePlan))?;
        let mut cheated = situation.clone();
        if let Some(plan) = &cheated.plan {
            cheated
                .roles
                .values_mut()
                .for_each(|role| role.value.owner = plan.value.active.clone());
        }
        Some(Arc::new(cheated))
    }
}

fn lease_of(entry: &Entry) -> Option<Lease> {
    serde_json::from_str(entry.value.as_deref()?).ok()
}
