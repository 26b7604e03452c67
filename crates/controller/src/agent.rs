//! What every task of an agent shares, and how the tasks wake each other.
//!
//! Flow: [`follow`] merges the quorum's changes into [`Known`] and bumps `Agent::changed`; [`renew`] replaces the
//! [`Grants`]; [`exchange`] hears the peers and the witness; [`lead`] decides; the reconcilers read all of it and put what
//! they find into [`Agent::say`]. Each task owns what it writes; locks are held for copies only, never across an await.

pub mod decide;
pub mod exchange;
pub mod follow;
mod gates;
mod in_sync;
pub mod lead;
mod news;
pub mod renew;
mod replica;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use leeward_core::{
    gates::Gates,
    handover::{Revoked, Roles},
    in_sync::{Bound, Confirmed, Sets},
    lease::{Grants, Moment, Role, Timing},
    name::{AppKey, ClusterName, Epoch, Incarnation, RoleKey},
    operation::Operation,
    replica::{Event, Replica},
    report::{AppReport, ClusterReport, Seen},
    votes::Heard,
};
use leeward_quorum::{Store, key, known::Known};
use leeward_state::volumes::mirror::Status;
use tokio::sync::watch;

pub use replica::Whither;

use crate::{clock, holder::Reached, metrics::counted::Counted};

/// Where another cluster's agent is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The cluster.
    pub cluster: ClusterName,
    /// `https://HOST:PORT` of its peer link.
    pub url: String,
    /// `HOST:PORT` of its edge.
    pub ingress: String,
}

/// What the tasks of an agent share.
pub struct Agent {
    /// This cluster.
    pub me: ClusterName,
    /// This process: a restarted agent is another holder.
    pub holder: String,
    /// Where other replicas of this region's agent reach this one, where there may be any.
    pub reached: Option<Reached>,
    /// The lengths of leases.
    pub timing: Timing,
    /// How many applications may be moving at the same time: off drained clusters, and into this one.
    pub moves_together: usize,
    /// The quorum.
    pub quorum: Arc<dyn Store>,
    /// A client that proves who this is to peers and witness.
    pub http: reqwest::Client,
    /// `https://HOST:PORT` of the witness.
    pub witness_url: String,
    known: Mutex<Arc<Known>>,
    grants: ArcSwap<Grants>,
    /// The in-sync sets that what is granted is bounded by, and what the standbys confirmed.
    sets: Mutex<Sets>,
    synced: Mutex<BTreeMap<RoleKey, Synced>>,
    revoked: Mutex<Revoked>,
    gates: Mutex<Gates>,
    heard: Mutex<Heard>,
    /// The latest incarnation of the quorum that any peer knows.
    latest: AtomicU32,
    /// With the moment at which each was looked at last.
    said: Mutex<BTreeMap<AppKey, (AppReport, Moment)>>,
    peers: ArcSwap<Vec<Peer>>,
    replica: Mutex<Replica>,
    /// Whether it acted when it was looked at last.
    acted: AtomicBool,
    /// Why the quorum cannot lose a member more.
    no_spare: Mutex<Option<String>>,
    changed: watch::Sender<u64>,
    figures: watch::Sender<u64>,
    /// What is counted as it happens. Nothing is decided by it.
    pub(crate) counted: Counted,
    #[cfg(feature = "unfenced")]
    unfenced: bool,
}

/// What the standbys of a role that this cluster writes have confirmed.
pub(crate) struct Synced {
    /// The epoch that the mirrors send at: what was confirmed in another one says nothing.
    pub(crate) epoch: Epoch,
    /// What is agreed.
    pub(crate) bound: Bound,
    /// The mirror to each standby.
    pub(crate) mirrors: BTreeMap<ClusterName, watch::Receiver<Status>>,
}

impl Synced {
    fn confirmed(&self) -> Confirmed {
        let begun = self.mirrors.iter();
        begun
            .filter_map(|(standby, status)| Some((standby.clone(), status.borrow().begun?)))
            .collect()
    }
}

/// What an agent is made with.
pub struct Start {
    /// This cluster.
    pub me: ClusterName,
    /// This process.
    pub holder: String,
    /// Where other replicas reach it.
    pub reached: Option<Reached>,
    /// The lengths of leases.
    pub timing: Timing,
    /// How many applications may be moving at the same time.
    pub moves_together: usize,
    /// The quorum.
    pub quorum: Arc<dyn Store>,
    /// A client that proves who this is.
    pub http: reqwest::Client,
    /// The witness.
    pub witness_url: String,
    /// Test builds only: nothing is fenced.
    #[cfg(feature = "unfenced")]
    pub unfenced: bool,
}

impl Start {
    /// An agent for measurements: it is fenced in every build, and hears of nobody but by the quorum.
    pub fn alone(me: ClusterName, timing: Timing, quorum: Arc<dyn Store>) -> Self {
        Self {
            holder: me.to_string(),
            reached: None,
            me,
            timing,
            moves_together: usize::MAX,
            quorum,
            http: reqwest::Client::new(),
            witness_url: String::new(),
            #[cfg(feature = "unfenced")]
            unfenced: false,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each guarded value is replaced as a whole, so that a thread that panicked left nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    /// An agent that knows nothing yet and is granted nothing.
    pub fn new(start: Start) -> Arc<Self> {
        let replica = Replica::new(&*start.holder, start.reached.is_some(), start.timing, clock::now());
        Arc::new(Self {
            me: start.me,
            holder: start.holder,
            reached: start.reached,
            timing: start.timing,
            moves_together: start.moves_together,
            quorum: start.quorum,
            http: start.http,
            witness_url: start.witness_url,
            known: Mutex::default(),
            grants: ArcSwap::from_pointee(Grants::none()),
            sets: Mutex::default(),
            synced: Mutex::default(),
            revoked: Mutex::default(),
            gates: Mutex::default(),
            heard: Mutex::default(),
            latest: AtomicU32::new(0),
            said: Mutex::default(),
            peers: ArcSwap::default(),
            acted: AtomicBool::new(replica.acts(clock::now())),
            replica: Mutex::new(replica),
            no_spare: Mutex::default(),
            changed: watch::Sender::new(0),
            figures: watch::Sender::new(0),
            counted: Counted::default(),
            #[cfg(feature = "unfenced")]
            unfenced: start.unfenced,
        })
    }

    /// Told of every change that a decision may rest on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes whoever waits for a change.
    pub fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Whether the quorum can lose a member more, and if not, why.
    pub fn set_no_spare(&self, why: Option<String>) {
        let mut known = lock(&self.no_spare);
        if *known != why {
            *known = why;
            drop(known);
            self.wake();
        }
    }

    /// Why the quorum cannot lose a member more; none where it can, or where it is not known.
    pub fn no_spare(&self) -> Option<String> {
        lock(&self.no_spare).clone()
    }

    /// The newest copy of the quorum.
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&lock(&self.known))
    }

    /// Changes the copy of the quorum.
    pub(crate) fn learn(&self, change: impl FnOnce(&mut Known)) {
        let mut known = lock(&self.known);
        let before = news::Before::of(&known);
        change(Arc::make_mut(&mut known));
        // While it is locked: what is heard of the lease is heard in its order.
        self.hears(Event::Known(known.sights.get(&self.me)));
        let news = before.differs(&known, &self.timing);
        drop(known);
        if news {
            self.wake();
        }
    }

    /// The other clusters.
    pub fn peers(&self) -> Arc<Vec<Peer>> {
        self.peers.load_full()
    }

    /// Replaces the other clusters.
    pub fn set_peers(&self, peers: Vec<Peer>) {
        if **self.peers.load() != peers {
            self.peers.store(Arc::new(peers));
            self.wake();
        }
    }

    /// What this cluster says of an application, or none once it has nothing to say any more.
    pub fn say(&self, app: &AppKey, report: Option<AppReport>) {
        let mut said = lock(&self.said);
        let before = said.get(app).map(|(report, _)| report.clone());
        let news = before != report;
        let figures = before
            .zip(report.as_ref())
            .is_some_and(|(before, report)| news::only_figures(&before, report));
        match report {
            Some(report) => said.insert(app.clone(), (report, clock::now())),
            None => said.remove(app),
        };
        drop(said);
        if news && figures && !self.is_moving(app) {
            self.figures.send_modify(|count| *count += 1);
        } else if news {
            self.wake();
        }
    }

    /// Told of figures that are said of applications at rest: only others have to hear of them soon.
    pub(crate) fn figures(&self) -> watch::Receiver<u64> {
        self.figures.subscribe()
    }

    /// Whether something may be waiting for an application's data.
    fn is_moving(&self, app: &AppKey) -> bool {
        let situation = self.known().situation(app);
        let plan = situation.as_ref().and_then(|situation| situation.plan());
        plan.is_none_or(|plan| plan.operation.is_some())
    }

    /// What this cluster says of all applications.
    pub fn said(&self) -> BTreeMap<AppKey, AppReport> {
        let now = clock::now();
        let said = lock(&self.said);
        let reports = said.iter();
        reports
            .map(|(app, (report, at))| (app.clone(), report.clone().looked_at(now.since(*at))))
            .collect()
    }

    /// What the newest renewal granted.
    pub fn grants(&self) -> Arc<Grants> {
        self.grants.load_full()
    }

    /// Puts what a renewal granted in force, less what was given back meanwhile.
    pub(crate) fn grant(&self, mut grants: Grants) {
        if self.is_unfenced() && grants.roles.is_empty() {
            return;
        }
        if self.is_superseded() {
            grants = Grants::none();
        }
        let known = self.known();
        let role = |role: &RoleKey| known.view.get::<Role>(&key::role(role));
        let mut revoked = lock(&self.revoked);
        revoked.limit(&mut grants, role);
        let news = self.grants.load().roles != grants.roles;
        self.grants.store(Arc::new(grants));
        drop(revoked);
        if news {
            self.wake();
        }
    }

    /// Whether a peer knows a later incarnation of the quorum than the one that this agent follows: whatever that one grants is void.
    pub fn is_superseded(&self) -> bool {
        let (own, _) = self.known().incarnation();
        !self.is_unfenced() && Incarnation(self.latest.load(Ordering::Acquire)) > own
    }

    /// Takes in which incarnation a peer knows.
    pub(crate) fn hear_incarnation(&self, peer: &ClusterName, incarnation: Incarnation) {
        let before = self.latest.fetch_max(incarnation.0, Ordering::AcqRel);
        if self.is_superseded() {
            if before < incarnation.0 {
                tracing::error!(
                    %peer, %incarnation,
                    "the quorum was begun anew elsewhere, and this agent follows the old one: nothing is granted here until `leeward quorum \
                     adopt` has given it the new one's identity"
                );
            }
            self.grants.store(Arc::new(Grants::none()));
        }
    }

    /// Closes the roles that an operation asks this cluster to give back: from here on nothing is let in or out for them, unless the
    /// operation is cancelled.
    pub fn revoke(&self, roles: &Roles, operation: &Operation) {
        let mut revoked = lock(&self.revoked);
        let mut grants = Grants::clone(&self.grants.load());
        revoked.close(roles, operation, &mut grants);
        self.grants.store(Arc::new(grants));
    }

    /// The epoch at which all of these roles may be written now, `admit` for a new request and else for an answer.
    pub fn granted(&self, roles: &[RoleKey], admit: bool) -> Option<Epoch> {
        let now = clock::now();
        let grants = self.grants.load();
        let mut highest = None;
        for role in roles {
            let epoch = if admit {
                grants.admit(role, now)
            } else {
                grants.answer(role, now)
            };
            #[cfg(feature = "unfenced")]
            let epoch = if self.unfenced {
                grants.roles.get(role).copied()
            } else {
                epoch
            };
            let epoch = epoch?;
            highest = highest.max(Some(epoch));
            if !self.is_unfenced() && !self.is_within_rpo(role, epoch, admit, now) {
                return None;
            }
        }
        highest
    }

    /// Whether fencing is switched off, which only a test build can do.
    pub fn is_unfenced(&self) -> bool {
        #[cfg(feature = "unfenced")]
        return self.unfenced;
        #[cfg(not(feature = "unfenced"))]
        false
    }

    /// Takes in a peer's report.
    pub(crate) fn hear(&self, report: ClusterReport) {
        let before = lock(&self.heard)
            .reports
            .insert(report.cluster.clone(), (report.clone(), clock::now()));
        let is_moving = |app: &AppKey| self.is_moving(app);
        if before.is_none_or(|(before, _)| !news::only_figures_of(&before, &report, is_moving)) {
            self.wake();
        }
    }

    /// Takes in the witness's sights.
    pub(crate) fn hear_witness(&self, heard: BTreeMap<ClusterName, Moment>) {
        let mut known = lock(&self.heard);
        known.witness = heard;
        known.witness_at = Some(clock::now());
    }

    /// The clusters that this agent cannot see now.
    pub fn unseen(&self) -> Vec<ClusterName> {
        let peers = self.peers();
        lock(&self.heard).unseen(peers.iter().map(|peer| &peer.cluster), &self.timing, clock::now())
    }

    /// For each cluster, the observers that cannot see it: agents and the witness, each only while it is heard itself.
    pub fn unseen_by(&self) -> BTreeMap<ClusterName, BTreeSet<String>> {
        let peers = self.peers();
        let clusters = peers.iter().map(|peer| &peer.cluster);
        lock(&self.heard).unseen_by(&self.me, clusters, &self.timing, clock::now())
    }

    /// The process that reported last from each cluster, this one included.
    pub fn holders(&self) -> BTreeMap<ClusterName, String> {
        let heard = lock(&self.heard);
        let others = heard.reports.iter();
        let mut holders: BTreeMap<_, _> = others
            .map(|(cluster, (report, _))| (cluster.clone(), report.holder.clone()))
            .collect();
        holders.insert(self.me.clone(), self.holder.clone());
        holders
    }

    /// What each cluster says of an application, this one included.
    pub fn reports(&self, app: &AppKey) -> BTreeMap<ClusterName, Seen<AppReport>> {
        let now = clock::now();
        let mut reports: BTreeMap<_, _> = lock(&self.heard)
            .reports
            .iter()
            .filter_map(|(cluster, (report, at))| {
                let value = report.apps.get(app)?.clone();
                Some((
                    cluster.clone(),
                    Seen {
                        value,
                        age: now.since(*at),
                    },
                ))
            })
            .collect();
        if let Some((value, at)) = lock(&self.said).get(app) {
            let value = value.clone().looked_at(now.since(*at));
            let age = Duration::ZERO;
            reports.insert(self.me.clone(), Seen { value, age });
        }
        reports
    }
}
