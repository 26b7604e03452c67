//! What an agent knows of the quorum: the copy of its content, when each lease in it was first seen, and each application put together.
//!
//! Invariants: sight of a lease is taken the moment it is heard of, so that a leader that was elected just now need not begin to wait;
//! an application is put together anew exactly when something of it changed, since a leader looks at all of them many times a second.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use leeward_core::{
    app::App,
    execute::{self, Mode},
    incarnation::Begun,
    lease::{Lease, Moment, Role, Sight},
    maintenance::Maintenance,
    name::{AppKey, ClusterName, Incarnation, RoleKey},
    operation::{Journal, Operation, Request, Step},
    plan::{Plan, Snapshot, Versioned},
    report::{AppReport, Seen},
    routing::Basis,
};

use crate::{
    Changes, Entry, key,
    view::{View, step_of},
};

/// A copy of the quorum and what was seen of the leases in it.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The copy.
    pub view: View,
    /// The leases.
    pub sights: BTreeMap<ClusterName, Sight>,
    /// The leader's lease.
    pub leader: Option<Sight>,
    /// What people said of clusters.
    pub maintenance: BTreeMap<ClusterName, Versioned<Maintenance>>,
    situations: BTreeMap<AppKey, Arc<Situation>>,
    others: u64,
}

/// The roles among entries that a transaction read.
pub fn roles(entries: &[Entry]) -> BTreeMap<RoleKey, Role> {
    entries
        .iter()
        .filter_map(|entry| {
            let key = entry.key.strip_prefix(key::ROLES)?.parse().ok()?;
            Some((key, serde_json::from_str(entry.value.as_deref()?).ok()?))
        })
        .collect()
}

/// What is known of one application, copied out of [`Known`].
#[derive(Debug, Clone)]
pub struct Situation {
    /// The accepted specification and its revision.
    pub app: Versioned<App>,
    /// The newest plan.
    pub plan: Option<Versioned<Plan>>,
    /// Its roles.
    pub roles: BTreeMap<RoleKey, Versioned<Role>>,
    /// The journal of its operation, the running one or the one that ended last.
    pub journal: Journal,
    /// What people ask for and was not refused, oldest first.
    pub requests: Vec<Versioned<Request>>,
    /// The keys of its plan, its roles and that journal that are there and cannot be read: who took them for absent would decide without them.
    pub unreadable: Vec<String>,
    /// The revision of the quorum's incarnation: what rests on this is of no other one.
    pub begun: u64,
}

impl Known {
    /// Takes in what a renewal read, but for the roles: those are for what it grants alone. The copy hears of them together with the plan that moved
    /// them, or what runs in a region would be decided by roles that are newer than the plan.
    pub fn take_renewal(&mut self, mut entries: Vec<Entry>, now: Moment) {
        entries.retain(|entry| !entry.key.starts_with(key::ROLES));
        self.take(entries, now);
    }

    /// Merges entries into the copy and takes sight of the leases among them, at this instant. Roles are among them only together with the plan, or as
    /// they were changed by who knew it.
    pub fn take(&mut self, entries: Vec<Entry>, now: Moment) {
        let leases: Vec<_> = entries
            .iter()
            .filter(|e| e.key.starts_with(key::LEASES) || e.key == key::LEADER)
            .map(|entry| entry.key.clone())
            .collect();
        let said = entries
            .iter()
            .filter_map(|entry| entry.key.strip_prefix(key::MAINTENANCE));
        let said: Vec<_> = said.map(ClusterName::new).collect();
        let changed: BTreeSet<AppKey> = entries.iter().filter_map(|entry| key::app_of(&entry.key)).collect();
        self.others += (entries.len() - leases.len()) as u64;
        self.view.merge(entries);
        for app in changed {
            self.put_together(app);
        }
        for cluster in said {
            let said = self.view.get(&key::maintenance(&cluster));
            match said {
                Some(said) => self.maintenance.insert(cluster, said),
                None => self.maintenance.remove(&cluster),
            };
        }
        for key in leases {
            let Some(current) = self.view.get::<Lease>(&key) else {
                continue;
            };
            let (lease, revision) = (current.value, current.revision);
            if key == key::LEADER {
                self.leader = Some(Sight::observe(self.leader.take(), lease, revision, now));
            } else {
                let cluster = lease.cluster.clone();
                let sight = Sight::observe(self.sights.remove(&cluster), lease, revision, now);
                self.sights.insert(cluster, sight);
            }
        }
    }

    /// Takes in what changed; when it is everything, what is not in it is gone.
    pub fn follow(&mut self, changes: Changes, now: Moment) {
        if changes.whole {
            self.others += 1;
            self.view.replace([], changes.revision);
            self.maintenance.clear();
            for app in self.situations.keys().cloned().collect::<Vec<_>>() {
                self.put_together(app);
            }
        }
        self.take(changes.entries, now);
        self.view.advance(changes.revision);
    }

    /// Grows with all that is taken in, but for leases: those are seen in `sights` and `leader`.
    pub fn others(&self) -> u64 {
        self.others
    }

    /// The quorum's incarnation, and the revision that a comparison must name for it to be still that.
    pub fn incarnation(&self) -> (Incarnation, u64) {
        let begun: Option<Versioned<Begun>> = self.view.get(key::INCARNATION);
        begun.map_or_else(Default::default, |begun| (begun.value.number, begun.revision))
    }

    /// All applications.
    pub fn situations(&self) -> impl ExactSizeIterator<Item = &Arc<Situation>> {
        self.situations.values()
    }

    /// One application.
    pub fn situation(&self, app: &AppKey) -> Option<Arc<Situation>> {
        self.situations.get(app).cloned()
    }

    fn put_together(&mut self, app: AppKey) {
        match self.view.get(&key::spec(&app)) {
            Some(accepted) => {
                let situation = Arc::new(self.about(accepted));
                self.situations.insert(app, situation);
            }
            None => {
                self.situations.remove(&app);
            }
        }
    }

    /// What is there of an application and was not read.
    fn unreadable(
        &self,
        app: &AppKey,
        plan: &Option<Versioned<Plan>>,
        roles: &BTreeMap<RoleKey, Versioned<Role>>,
        operation: Option<&str>,
        journal: &Journal,
    ) -> Vec<String> {
        let is_there = |key: &String| self.view.revision_of(key) > 0;
        let plan = plan.is_none().then(|| key::plan(app)).filter(is_there);
        let below = format!("{}{app}/", key::ROLES);
        let read = |key: &&str| {
            let role = key[key::ROLES.len()..].parse();
            role.is_ok_and(|role: RoleKey| roles.contains_key(&role))
        };
        let unread = self.view.keys(&below).filter(|key| !read(key)).map(str::to_owned);
        let mut found: Vec<_> = plan.into_iter().chain(unread).collect();
        if let Some(operation) = operation {
            let below = key::journal_prefix(app, operation);
            let read = |key: &&str| step_of(&key[below.len()..]).is_some_and(|step| journal.contains_key(&step));
            found.extend(self.view.keys(&below).filter(|key| !read(key)).map(str::to_owned));
        }
        found
    }

    fn about(&self, app: Versioned<App>) -> Situation {
        let plan: Option<Versioned<Plan>> = self.view.get(&key::plan(&app.value.key));
        let operation = plan.as_ref().and_then(|plan| {
            let finished = plan.value.finished.as_ref().map(|finished| &finished.operation);
            plan.value
                .operation
                .as_ref()
                .or(finished)
                .map(|operation| operation.id.clone())
        });
        let journal = operation
            .as_ref()
            .map(|id| self.view.journal(&app.value.key, id))
            .unwrap_or_default();
        let roles = self.view.roles(&app.value.key);
        let below = format!("{}{}/", key::REQUESTS, app.value.key);
        let asked = self.view.list(&below);
        let asked = asked.map(|(_, request): (_, Versioned<Request>)| request);
        let mut requests: Vec<_> = asked.filter(|request| request.value.refused.is_none()).collect();
        requests.sort_by_key(|request| request.value.asked_ms);
        let unreadable = self.unreadable(&app.value.key, &plan, &roles, operation.as_deref(), &journal);
        Situation {
            app,
            plan,
            roles,
            journal,
            requests,
            unreadable,
            begun: self.incarnation().1,
        }
    }
}

impl Situation {
    /// What the application does in a cluster.
    pub fn mode(&self, cluster: &ClusterName) -> Mode {
        execute::mode(&self.app.value, self.plan(), &self.roles, &self.journal, cluster)
    }

    /// The step that a cluster has to execute now; none while something cannot be read, since a step does its part for all roles.
    pub fn step(&self, cluster: &ClusterName) -> Option<(&Operation, &Step)> {
        let step = || execute::step(self.plan(), &self.journal, cluster);
        self.unreadable.is_empty().then(step).flatten()
    }

    /// Whether the data of the roles in a cluster is what it may write to.
    pub fn is_promoted(&self, cluster: &ClusterName) -> bool {
        let plan = self.plan();
        plan.is_some_and(|plan| execute::is_promoted(plan, &self.journal, cluster))
    }

    /// The newest plan.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref().map(|plan| &plan.value)
    }

    /// What edges are told of it, once there is a plan.
    pub fn routed(&self) -> Option<Basis<'_>> {
        self.plan.as_ref().map(|plan| Basis {
            app: &self.app,
            plan,
            roles: &self.roles,
            journal: &self.journal,
        })
    }

    /// Everything that a decision rests on.
    pub fn snapshot<'a>(
        &'a self,
        known: &'a Known,
        unseen_by: &'a BTreeMap<ClusterName, BTreeSet<String>>,
        holders: BTreeMap<ClusterName, String>,
        reports: BTreeMap<ClusterName, Seen<AppReport>>,
    ) -> Snapshot<'a> {
        Snapshot {
            app: &self.app.value,
            plan: self.plan.clone(),
            roles: self.roles.clone(),
            leases: &known.sights,
            unseen_by,
            holders,
            reports,
            maintenance: &known.maintenance,
            may_drain: true,
            requests: self.requests.clone(),
            journal: self.journal.clone(),
            unreadable: &self.unreadable,
        }
    }
}
