//! What there is to say of an agent.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use leeward_api::metrics as table;
use leeward_core::maintenance::Maintenance;
use leeward_images::{peers::Peers, store::Store};
use leeward_traffic::Shared;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{
    Observed,
    apps::{self, Looked},
    measured::RoundTrips,
    operations::{self, KINDS, OUTCOMES},
    page::Page,
    process,
    tasks::Tasks,
    text_of,
};
use crate::{agent::Agent, cache::Cache, clock, reach::Reach};

/// The renewing task comes round several times within a lease, whether the quorum answers or not; one that did not for so long hangs.
const HANGS: Duration = Duration::from_secs(60);

/// Where it is read from.
#[derive(Clone)]
pub struct Sources {
    /// The agent.
    pub agent: Arc<Agent>,
    /// What is in its cluster.
    pub cache: Cache,
    /// The edge and the probes.
    pub shared: Arc<Shared>,
    /// The images here.
    pub store: Store,
    /// Where they are copied from.
    pub images: Peers,
    /// The quorum's answers.
    pub trips: Arc<RoundTrips>,
    /// The Kubernetes API.
    pub reach: Arc<Reach>,
    /// What runs.
    pub tasks: Tasks,
}

/// An agent, looked at from outside.
pub struct Observer(pub Sources);

impl Observed for Observer {
    fn metrics(&self) -> Result<String, fmt::Error> {
        text_of(Read(self.0.clone()))
    }

    fn alive(&self) -> Result<(), String> {
        self.0.tasks.alive()?;
        match self.0.agent.counted.round_ms_ago() {
            Some(ms) if u128::from(ms) > HANGS.as_millis() => {
                Err(format!("the lease was not attempted to be renewed for {} s", ms / 1000))
            }
            _ => Ok(()),
        }
    }

    /// Every listener is bound before this is asked. From the first answer of the quorum or the API on it stays ready while either is away: the
    /// edge has a table then and must go on serving by it, and nothing would be the better for its being taken out of a Service. One that starts
    /// with both away serves by the table that it kept, if it has one.
    fn ready(&self) -> Result<(), String> {
        let Sources {
            agent, reach, shared, ..
        } = &self.0;
        let was_ready = &agent.counted.was_ready;
        let heard =
            || agent.known().view.revision() > 0 || reach.has_answered() || !shared.index().profiles().is_empty();
        if was_ready.load(Ordering::Relaxed) || heard() {
            was_ready.store(true, Ordering::Relaxed);
            return Ok(());
        }
        Err("neither the quorum nor the Kubernetes API has answered yet".to_owned())
    }
}

/// One reading.
struct Read(Sources);

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Read").finish_non_exhaustive()
    }
}

impl Collector for Read {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (mut page, sources) = (Page(encoder), &self.0);
        let looked = apps::look(&sources.agent, &sources.cache);
        of_apps(&mut page, &looked)?;
        of_placements(&mut page, &looked)?;
        of_roles(&mut page, &looked)?;
        of_operations(&mut page, &sources.agent)?;
        of_clusters(&mut page, &sources.agent)?;
        of_lease(&mut page, sources)?;
        of_edge(&mut page, &sources.shared)?;
        of_probes(&mut page, &sources.shared)?;
        let (copied, failed) = sources.images.noted();
        page.counter(&table::IMAGES_COPIED, copied)?;
        page.counter(&table::IMAGES_FAILED, failed)?;
        page.gauge(&table::IMAGES_WANTED, sources.store.damaged().len() as f64)?;
        page.family(&table::API_REQUESTS, |family| {
            let requests = sources.reach.requests();
            let mut requests = requests.iter();
            requests.try_for_each(|(verb, resource, count)| family.counter(&[verb, resource], *count))
        })?;
        page.gauge(&table::API_UP, number(sources.reach.answers()))?;
        process::write(&mut page)
    }
}

fn number(flag: bool) -> f64 {
    f64::from(u8::from(flag))
}

fn of_apps(page: &mut Page<'_>, looked: &[Looked]) -> fmt::Result {
    let names = |app: &Looked| (app.key.namespace.clone(), app.key.name.clone());
    page.family(&table::APP_CONDITION, |family| {
        looked.iter().try_for_each(|app| {
            let mut conditions = app.conditions.iter();
            conditions
                .try_for_each(|(condition, holds)| family.flag(&[&app.key.namespace, &app.key.name, condition], *holds))
        })
    })?;
    let mut of_app = |metric, value: &dyn Fn(&Looked) -> Option<f64>| {
        page.family(metric, |family| {
            let mut values = looked.iter().filter_map(|app| Some((names(app), value(app)?)));
            values.try_for_each(|((namespace, name), value)| family.gauge(&[&namespace, &name], value))
        })
    };
    of_app(&table::APP_RPO, &|app| Some(app.rpo.as_secs_f64()))?;
    of_app(&table::APP_RTO, &|app| Some(app.rto.as_secs_f64()))?;
    of_app(&table::APP_LAST_RPO, &|app| Some(app.last_rpo?.as_secs_f64()))?;
    of_app(&table::APP_LAST_RTO, &|app| Some(app.last_rto?.as_secs_f64()))?;
    of_app(&table::APP_GENERATION, &|app| Some(app.generation? as f64))?;
    of_app(&table::APP_PAUSED, &|app| Some(number(app.paused)))?;
    of_app(&table::APP_IMAGES_MISSING, &|app| Some(app.images_missing as f64))?;
    page.family(&table::APP_OPERATION, |family| {
        let mut running = looked.iter().filter_map(|app| Some((&app.key, app.operation?)));
        running.try_for_each(|(key, (kind, since))| {
            let labels = [&*key.namespace, &*key.name, operations::kind(kind)];
            family.gauge(&labels, since.as_secs_f64())
        })
    })
}

fn of_placements(page: &mut Page<'_>, looked: &[Looked]) -> fmt::Result {
    let mut of_placement = |metric, value: &dyn Fn(&apps::Placement) -> Option<f64>| {
        page.family(metric, |family| {
            looked.iter().try_for_each(|app| {
                let placements = app.placements.iter();
                let mut values = placements.filter_map(|found| Some((found.cluster.as_str(), value(found)?)));
                values
                    .try_for_each(|(cluster, value)| family.gauge(&[&app.key.namespace, &app.key.name, cluster], value))
            })
        })
    };
    of_placement(&table::APP_ACTIVE, &|found| Some(number(found.active)))?;
    of_placement(&table::APP_READY, &|found| Some(number(found.ready)))?;
    of_placement(&table::APP_MISSING, &|found| Some(found.missing as f64))?;
    of_placement(&table::APP_ENDPOINTS, &|found| found.endpoints.map(f64::from))?;
    of_placement(&table::APP_IN_SYNC, &|found| found.in_sync.map(number))?;
    of_placement(&table::APP_LOSS, &|found| Some(found.loss?.as_secs_f64()))
}

fn of_roles(page: &mut Page<'_>, looked: &[Looked]) -> fmt::Result {
    let roles = || {
        looked
            .iter()
            .flat_map(|app| app.roles.iter().map(|role| (&app.key, role)))
    };
    page.family(&table::ROLE_LAG, |family| {
        roles().try_for_each(|(app, role)| {
            let mut lags = role.lags.iter();
            lags.try_for_each(|(cluster, lag)| {
                let labels = [&*app.namespace, &*app.name, &*role.name, cluster.as_str()];
                family.gauge(&labels, lag.as_secs_f64())
            })
        })
    })?;
    page.family(&table::ROLE_EPOCH, |family| {
        let mut epochs = roles().filter_map(|(app, role)| Some((app, role, role.epoch?)));
        epochs.try_for_each(|(app, role, epoch)| family.gauge(&[&app.namespace, &app.name, &role.name], epoch as f64))
    })?;
    let mirrors =
        || roles().filter_map(|(app, role)| Some(([&*app.namespace, &*app.name, &*role.name], role.mirror.as_ref()?)));
    page.family(&table::MIRROR_POINTS, |family| {
        mirrors().try_for_each(|(labels, mirror)| family.counter(&labels, mirror.points))
    })?;
    page.family(&table::MIRROR_BYTES, |family| {
        mirrors().try_for_each(|(labels, mirror)| family.counter(&labels, mirror.bytes_sent))
    })?;
    page.family(&table::MIRROR_PAUSE, |family| {
        mirrors().try_for_each(|(labels, mirror)| {
            let pause = Duration::from_micros(mirror.pause_us_max);
            family.gauge(&labels, pause.as_secs_f64())
        })
    })
}

fn of_operations(page: &mut Page<'_>, agent: &Agent) -> fmt::Result {
    let operations = &agent.counted.operations;
    page.family(&table::OPERATIONS, |family| {
        let ended = operations.ended();
        ended.iter().try_for_each(|(app, ended)| {
            // Also what never happened: the first of its kind would be no increase of a series that was not there.
            let rows = KINDS
                .into_iter()
                .flat_map(|one| OUTCOMES.map(|outcome| (operations::kind(one), outcome)));
            rows.into_iter().try_for_each(|row| {
                let count = ended.get(&row).copied().unwrap_or_default();
                family.counter(&[&app.namespace, &app.name, row.0, row.1], count)
            })
        })
    })?;
    page.family(&table::OPERATION_DURATION, |family| {
        let mut took = operations.took();
        took.try_for_each(|(kind, took)| family.histogram(&[kind], took))
    })?;
    page.family(&table::STEP_DURATION, |family| {
        let mut steps = operations.steps();
        steps.try_for_each(|(step, took)| family.histogram(&[&step], took))
    })
}

fn of_clusters(page: &mut Page<'_>, agent: &Agent) -> fmt::Result {
    let (known, now) = (agent.known(), clock::now());
    page.family(&table::CLUSTER_LEASE, |family| {
        let mut sights = known.sights.iter();
        sights.try_for_each(|(cluster, sight)| family.flag(&[cluster.as_str()], !sight.over(&agent.timing, now)))
    })?;
    page.family(&table::CLUSTER_LEASE_AGE, |family| {
        let mut sights = known.sights.iter();
        sights.try_for_each(|(cluster, sight)| {
            family.gauge(&[cluster.as_str()], now.since(sight.first_seen).as_secs_f64())
        })
    })?;
    page.family(&table::CLUSTER_MISSED_BY, |family| {
        let (missed, peers) = (agent.unseen_by(), agent.peers());
        let mut clusters = peers.iter().map(|peer| &peer.cluster).chain([&agent.me]);
        clusters.try_for_each(|cluster| {
            let by = missed.get(cluster).map_or(0, |observers| observers.len());
            family.gauge(&[cluster.as_str()], by as f64)
        })
    })?;
    page.family(&table::CLUSTER_OUT_OF_SERVICE, |family| {
        let peers = agent.peers();
        let mut clusters = peers.iter().map(|peer| &peer.cluster).chain([&agent.me]);
        clusters.try_for_each(|cluster| {
            let said = known
                .maintenance
                .get(cluster)
                .map_or(Maintenance::None, |said| said.value);
            family.flag(&[cluster.as_str()], said != Maintenance::None)
        })
    })
}

fn of_lease(page: &mut Page<'_>, sources: &Sources) -> fmt::Result {
    let (agent, now) = (&sources.agent, clock::now());
    let known = agent.known();
    page.gauge(&table::LEASE_TTL, agent.timing.ttl.as_secs_f64())?;
    let me = agent.me.as_str();
    page.family(&table::LEASE_LEFT, |family| {
        family.gauge(&[me], agent.grants().answer_until.since(now).as_secs_f64())
    })?;
    page.family(&table::RENEWALS, |family| {
        let mut renewals = agent.counted.renewals().into_iter();
        renewals.try_for_each(|(outcome, count)| family.counter(&[me, outcome], count))
    })?;
    let leads = known
        .leader
        .as_ref()
        .is_some_and(|sight| sight.lease.holder == agent.holder && !sight.over(&agent.timing, now));
    page.gauge(&table::LEADER, number(leads))?;
    page.histogram(&table::QUORUM_ROUND_TRIP, &sources.trips.took)?;
    page.counter(&table::QUORUM_FAILURES, sources.trips.failed())?;
    page.gauge(&table::QUORUM_REVISION, known.view.revision() as f64)
}

fn of_edge(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let counts = shared.counters().snapshot();
    page.family(&table::EDGE_REQUESTS, |family| {
        let answers = shared.answers().snapshot();
        answers.iter().try_for_each(|(app, answers)| {
            let mut answers = answers.iter();
            answers.try_for_each(|(by, class, count)| {
                // No cluster has this name.
                let by = by.as_ref().map_or("-", |by| by.as_str());
                family.counter(&[&app.namespace, &app.name, by, &format!("{class}xx")], *count)
            })
        })
    })?;
    page.histogram(&table::EDGE_DURATION, shared.answers().took())?;
    page.counter(&table::EDGE_FORWARDED, counts.forwarded_out)?;
    page.counter(&table::EDGE_RETRIES, counts.retries)?;
    page.counter(&table::EDGE_REJECTED, counts.rejected)?;
    page.counter(&table::EDGE_NOT_DELIVERED, counts.not_delivered)?;
    page.counter(&table::EDGE_UNKNOWN, counts.unknown)?;
    page.counter(&table::EDGE_NOT_ADMITTED, counts.not_admitted)?;
    page.counter(&table::EDGE_FENCED, counts.fenced)?;
    page.gauge(&table::EDGE_CONNECTIONS, counts.open_connections as f64)
}

fn of_probes(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let counts = shared.counters().snapshot();
    page.family(&table::PROBES, |family| {
        family.counter(&["healthy"], counts.probes_healthy)?;
        family.counter(&["unhealthy"], counts.probes_unhealthy)
    })?;
    let report = shared.health().report();
    let found = || {
        let clusters = report.clusters.iter();
        clusters.flat_map(|(cluster, apps)| apps.iter().map(move |(app, health)| (cluster.as_str(), app, health)))
    };
    page.family(&table::PROBE_HEALTHY, |family| {
        found()
            .try_for_each(|(cluster, app, health)| family.flag(&[&app.namespace, &app.name, cluster], health.healthy))
    })?;
    page.family(&table::PROBE_ROUND_TRIP, |family| {
        let mut good = found().filter_map(|(cluster, app, health)| Some((cluster, app, health.rtt_ms?)));
        good.try_for_each(|(cluster, app, ms)| {
            let seconds = Duration::from_millis(ms).as_secs_f64();
            family.gauge(&[&app.namespace, &app.name, cluster], seconds)
        })
    })
}
