//! What is true of each application at the moment somebody asks: the same report that its status is made from.

use std::{collections::BTreeMap, time::Duration};

use leeward_core::{
    app::App,
    lease::Moment,
    name::{AppKey, ClusterName, RoleKey},
    operation::Kind,
    report::{AppReport, MirrorReport, PlacementState, Report, Seen},
};
use leeward_images::inventory::LACK;
use leeward_quorum::known::{Known, Situation};

use crate::{
    agent::Agent,
    cache::Cache,
    clock,
    protected_app::{accept, show, status},
};

/// One application.
pub(super) struct Looked {
    pub(super) key: AppKey,
    pub(super) rpo: Duration,
    pub(super) rto: Duration,
    pub(super) paused: bool,
    pub(super) generation: Option<u64>,
    pub(super) last_rpo: Option<Duration>,
    pub(super) last_rto: Option<Duration>,
    /// The operation that runs, and since when.
    pub(super) operation: Option<(Kind, Duration)>,
    /// Each condition of its status.
    pub(super) conditions: Vec<(String, bool)>,
    pub(super) placements: Vec<Placement>,
    pub(super) roles: Vec<Role>,
    /// Images that are not whole here.
    pub(super) images_missing: usize,
}

/// One of its placements.
pub(super) struct Placement {
    pub(super) cluster: ClusterName,
    pub(super) active: bool,
    pub(super) ready: bool,
    pub(super) missing: usize,
    pub(super) endpoints: Option<u32>,
    pub(super) in_sync: Option<bool>,
    pub(super) loss: Option<Duration>,
}

/// One of its roles.
pub(super) struct Role {
    pub(super) name: String,
    pub(super) epoch: Option<u64>,
    /// How far each standby is behind.
    pub(super) lags: Vec<(ClusterName, Duration)>,
    /// What is mirrored from here.
    pub(super) mirror: Option<MirrorReport>,
}

/// What every look rests on.
struct Basis<'a> {
    agent: &'a Agent,
    known: &'a Known,
    now: Moment,
    wall_ms: u64,
}

/// Looks at all applications.
pub(super) fn look(agent: &Agent, cache: &Cache) -> Vec<Looked> {
    let known = agent.known();
    let unseen_by = agent.unseen_by();
    let basis = Basis {
        agent,
        known: &known,
        now: clock::now(),
        wall_ms: clock::wall_ms(),
    };
    let holders = agent.holders();
    let situations = known.situations();
    situations
        .map(|situation| {
            let reports = agent.reports(&situation.app.value.key);
            let snapshot = situation.snapshot(&known, &unseen_by, holders.clone(), reports.clone());
            let report = show::told(agent, &snapshot, basis.now);
            basis.look(situation, &report, &reports, cache)
        })
        .collect()
}

impl Basis<'_> {
    fn look(
        &self,
        situation: &Situation,
        report: &Report,
        reports: &BTreeMap<ClusterName, Seen<AppReport>>,
        cache: &Cache,
    ) -> Looked {
        let app = &situation.app.value;
        let serving = situation.routed().map(|routed| routed.serving().clone());
        let sight = serving.as_ref().and_then(|serving| self.known.sights.get(serving));
        let until = status::wrote_until(sight, &self.agent.timing, self.now, self.wall_ms);
        let written_ms = until.map_or(self.wall_ms, |until| until.min(self.wall_ms));
        // What was said of it last stays where nobody knows better.
        let before = accept::find(cache, &app.key).and_then(|resource| resource.status.clone());
        let bare = show::bare(cache, &self.agent.me, app);
        let status = status::build(situation, report, &bare, before.as_ref(), self.wall_ms, until);
        let of_conditions = status.conditions.iter();
        let own = reports.get(&self.agent.me).map(|seen| &seen.value);
        let images = own.map_or(0, |own| {
            own.missing.iter().filter(|what| what.starts_with(LACK)).count()
        });
        let running = situation.plan().and_then(|plan| plan.operation.as_ref());
        let since = |ms: u64| Duration::from_millis(self.wall_ms.saturating_sub(ms));
        Looked {
            key: app.key.clone(),
            rpo: app.rpo,
            rto: app.rto,
            paused: app.paused,
            generation: status.generation,
            last_rpo: status.last_rpo.map(Duration::from),
            last_rto: status.last_rto.map(Duration::from),
            operation: running.map(|running| (running.kind, since(running.decided_ms))),
            conditions: of_conditions.map(|c| (c.type_.clone(), c.status == "True")).collect(),
            placements: placements(app, report, reports, &status.placements, serving.as_ref(), written_ms),
            roles: roles(situation, reports, serving.as_ref(), own, written_ms),
            images_missing: images,
        }
    }
}

fn placements(
    app: &App,
    report: &Report,
    reports: &BTreeMap<ClusterName, Seen<AppReport>>,
    shown: &[leeward_api::app::PlacementStatus],
    serving: Option<&ClusterName>,
    written_ms: u64,
) -> Vec<Placement> {
    let found = report.placements.iter();
    found
        .map(|found| {
            let state = shown.iter().find(|shown| shown.cluster == found.cluster.as_str());
            let lost = found.state == PlacementState::Lost;
            let follows = serving.is_some_and(|serving| *serving != found.cluster);
            let behind = found.point.as_ref().filter(|_| follows && !lost);
            let behind = behind.map(|point| Duration::from_millis(written_ms.saturating_sub(point.source_ms)));
            // While it is in sync, the writer answers nothing beyond its last point and the rpo.
            let bound = found.in_sync.filter(|in_sync| *in_sync).map(|_| app.rpo);
            Placement {
                cluster: found.cluster.clone(),
                active: state.is_some_and(|shown| shown.state == PlacementState::Active.as_str()),
                ready: found.missing.is_empty() && !lost,
                missing: found.missing.len(),
                endpoints: reports.get(&found.cluster).map(|seen| seen.value.backends),
                in_sync: found.in_sync,
                loss: behind.map(|behind| bound.map_or(behind, |bound| behind.min(bound))),
            }
        })
        .collect()
}

fn roles(
    situation: &Situation,
    reports: &BTreeMap<ClusterName, Seen<AppReport>>,
    serving: Option<&ClusterName>,
    own: Option<&AppReport>,
    written_ms: u64,
) -> Vec<Role> {
    let app = &situation.app.value;
    let roles = app.roles.iter();
    roles
        .map(|role| {
            let key = RoleKey::new(app.key.clone(), &role.name);
            let standbys = app.placements.iter().map(|placement| &placement.cluster);
            let standbys = standbys.filter(|cluster| serving.is_some_and(|serving| serving != *cluster));
            let lag = |cluster: &ClusterName| {
                let point = reports.get(cluster)?.value.roles.get(&role.name)?.point.as_ref()?;
                let lag = Duration::from_millis(written_ms.saturating_sub(point.source_ms));
                Some((cluster.clone(), lag))
            };
            let here = own.and_then(|own| own.roles.get(&role.name));
            Role {
                name: role.name.clone(),
                epoch: situation.roles.get(&key).map(|state| state.value.epoch.0),
                lags: standbys.filter_map(lag).collect(),
                mirror: here.and_then(|here| here.mirror.clone()),
            }
        })
        .collect()
}
