//! The data of an application's writer roles in this cluster: mirrored from here where it writes, received where it
//! stands by.
//!
//! Invariant: a role is mirrored by one task for each standby, at the epoch that this cluster holds; a cluster that no
//! longer owns the role stops mirroring before it follows.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Api, Client};
use leeward_core::{
    app::{App, WriterRole},
    in_sync::Bound,
    name::{ClusterName, Epoch, RoleKey},
    report::{GateReport, MirrorReport, PointReport, RoleReport},
};
use leeward_state::volumes::{
    Claim, Point,
    link::Link,
    mirror::{Mirror, MirrorError, Status},
    source::{Freeze, NoFreeze, Source, SourceError},
    target::{Target, TargetError},
};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::kept;
use crate::{
    agent::{Agent, Synced},
    cache::Cache,
    clock,
    freezer::PodFreezer,
};

/// Pods never stand still longer than this for a point.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What it means that a claim cannot be read is said with it: who reads it decides what to do about the application.
const ELSEWHERE: &str = "cannot be read: the agent runs in a pod, and the volume is on a node. Nothing of the role's data is copied, so nothing \
    fails over, and what the writer's region loses is lost";
const NO_DIRECTORY: &str = "has a volume that is no directory of a node (hostPath or local); only such volumes are mirrored. Nothing of the \
    role's data is copied, so nothing fails over, and what the writer's region loses is lost";
const NOT_HERE: &str = "has a volume whose directory is not on this machine. Nothing of the role's data is copied, so nothing fails over, and what \
    the writer's region loses is lost";

/// Why the data of a role is not as it should be. All of these are tried again.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A claim or its volume cannot be read.
    #[error("claim {claim}: {}", leeward_state::api_text(.source))]
    Kube {
        /// The claim.
        claim: String,
        /// What the API said.
        source: Box<kube::Error>,
    },
    /// A claim is not bound to a volume whose directory can be reached from here.
    #[error("claim {claim} {reason}")]
    Claim {
        /// The claim.
        claim: String,
        /// What is missing.
        reason: &'static str,
    },
    /// The store of points refused or failed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The points cannot be taken.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A point was not confirmed.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The work was broken off.
    #[error("the work on the volumes was broken off: {0}")]
    Broken(String),
}

struct Running {
    epoch: Epoch,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    task: JoinHandle<Mirror>,
}

/// The data of all roles in this cluster.
pub struct Data {
    agent: Arc<Agent>,
    client: Client,
    cache: Cache,
    target: Arc<Target>,
    staging: PathBuf,
    kubelet_token: Option<Arc<str>>,
    volumes_are_here: bool,
    mirrors: Mutex<BTreeMap<(RoleKey, ClusterName), Running>>,
    /// Why a role that is written here is not mirrored at all.
    unmirrored: Mutex<BTreeMap<RoleKey, String>>,
    /// The roles that follow with their mirror where their claims are.
    placed: Mutex<BTreeSet<RoleKey>>,
}

impl Data {
    /// The data, with the store of points in `target` and temporary files in `staging`. `kubelet_token` opens the local
    /// nodes' endpoint; without it pods are not frozen, and points are only as consistent as the file system. Where the volumes are not
    /// here, no role is mirrored, and each says so.
    pub fn new(
        agent: Arc<Agent>,
        client: Client,
        cache: Cache,
        target: Arc<Target>,
        staging: PathBuf,
        kubelet_token: Option<Arc<str>>,
        volumes_are_here: bool,
    ) -> Self {
        Self {
            agent,
            client,
            cache,
            target,
            staging,
            kubelet_token,
            volumes_are_here,
            mirrors: Mutex::default(),
            unmirrored: Mutex::default(),
            placed: Mutex::default(),
        }
    }

    /// Writes from here: mirrors every role to every other placement, at this epoch.
    ///
    /// # Errors
    /// When a claim has no directory, or the store of points says that another cluster writes.
    pub async fn write(&self, app: &App, epoch: Epoch) -> Result<(), DataError> {
        for role in &app.roles {
            let key = RoleKey::new(app.key.clone(), &role.name);
            // One that was taken out cannot be late.
            self.end_mirrors(&key, |standby| app.placement(standby).is_none()).await;
            for peer in self
                .agent
                .peers()
                .iter()
                .filter(|peer| app.placement(&peer.cluster).is_some())
            {
                let id = (key.clone(), peer.cluster.clone());
                let mut mirrors = self.mirrors.lock().await;
                match mirrors.get(&id) {
                    Some(running) if running.epoch == epoch && !running.task.is_finished() => continue,
                    Some(_) => stop(mirrors.remove(&id)).await,
                    None => {}
                }
                self.blocking(&key, move |target, key| target.begin(key, epoch)).await?;
                let made = self.mirror(app, role, epoch, &peer.url).await;
                match &made {
                    Ok(_) => self.unmirrored.lock().await.remove(&key),
                    Err(error) => self.unmirrored.lock().await.insert(key.clone(), error.to_string()),
                };
                let (mirror, status) = made?;
                let stop = CancellationToken::new();
                let task = tokio::spawn(mirror.run(role.interval, stop.clone()));
                mirrors.insert(
                    id,
                    Running {
                        epoch,
                        status,
                        stop,
                        task,
                    },
                );
            }
            self.tell_synced(app, &key, epoch).await;
        }
        Ok(())
    }

    /// Tells the agent where a role's mirrors stand.
    async fn tell_synced(&self, app: &App, key: &RoleKey, epoch: Epoch) {
        let mirrors = self.mirrors.lock().await;
        let of_role = mirrors.iter().filter(|((role, _), _)| role == key);
        let synced = Synced {
            epoch,
            bound: Bound {
                rpo: app.rpo,
                away: app.when_standby_away,
            },
            mirrors: of_role
                .map(|((_, standby), running)| (standby.clone(), running.status.clone()))
                .collect(),
        };
        self.agent.set_synced(key, Some(synced));
    }

    async fn mirror(
        &self,
        app: &App,
        role: &WriterRole,
        epoch: Epoch,
        peer_url: &str,
    ) -> Result<(Mirror, watch::Receiver<Status>), DataError> {
        let key = RoleKey::new(app.key.clone(), &role.name);
        let claims = self.claims(app, role).await?;
        let pause = role.interval.min(LONGEST_PAUSE);
        let freezer = self.freezer(app, role);
        let source = Source::new(key.clone(), epoch, claims, freezer, self.staging.clone(), pause)?;
        let link = Link::new(self.agent.http.clone(), peer_url, &key);
        Ok(Mirror::new(source, link, clock::now))
    }

    fn freezer(&self, app: &App, role: &WriterRole) -> Arc<dyn Freeze> {
        match &self.kubelet_token {
            Some(token) => Arc::new(PodFreezer::new(
                self.client.clone(),
                self.cache.clone(),
                app.key.namespace.clone(),
                role.claims.clone(),
                Arc::clone(token),
            )),
            None => Arc::new(NoFreeze),
        }
    }

    /// Stands by: stops mirroring, and receives what the cluster at `epoch` sends, which went on from a point of `since_ms`. Nothing may use the
    /// claims.
    ///
    /// # Errors
    /// When a claim has no directory yet, or the store of points failed.
    pub async fn follow(
        &self,
        app: &App,
        role: &WriterRole,
        epoch: Epoch,
        since_ms: Option<u64>,
    ) -> Result<(), DataError> {
        let key = RoleKey::new(app.key.clone(), &role.name);
        self.stop_mirrors(&key).await;
        let accepts = self.blocking(&key, |target, key| target.head(key)).await;
        let follows = accepts.is_ok_and(|head| head.accepts && head.epoch >= epoch);
        if follows && self.placed.lock().await.contains(&key) {
            return Ok(());
        }
        let claims = match self.claims(app, role).await {
            // Points are received before there are claims, too. Where the claims are is looked at once they are there.
            Err(_) if follows => return Ok(()),
            claims => claims?,
        };
        self.blocking(&key, move |target, key| target.follow(key, epoch, &claims, since_ms))
            .await?;
        self.placed.lock().await.insert(key);
        Ok(())
    }

    async fn stop_mirrors(&self, key: &RoleKey) {
        self.agent.set_synced(key, None);
        self.unmirrored.lock().await.remove(key);
        self.end_mirrors(key, |_| true).await;
    }

    /// Ends a role's mirrors to some of the clusters.
    async fn end_mirrors(&self, key: &RoleKey, ends: impl Fn(&ClusterName) -> bool) {
        let mut mirrors = self.mirrors.lock().await;
        let of_role: Vec<_> = mirrors
            .keys()
            .filter(|(role, standby)| role == key && ends(standby))
            .cloned()
            .collect();
        for id in of_role {
            stop(mirrors.remove(&id)).await;
        }
    }

    /// Sends what the cluster `to` still lacks of a role, with no pod running.
    ///
    /// # Errors
    /// When the other side does not confirm it.
    pub async fn last_point(
        &self,
        app: &App,
        role: &WriterRole,
        epoch: Epoch,
        to: &ClusterName,
    ) -> Result<Point, DataError> {
        let id = (RoleKey::new(app.key.clone(), &role.name), to.clone());
        let (mut mirror, status) = match self.mirrors.lock().await.remove(&id) {
            Some(running) => {
                running.stop.cancel();
                let mirror = running.task.await.map_err(|e| DataError::Broken(e.to_string()))?;
                (mirror, running.status)
            }
            // The agent was restarted in between.
            None => {
                let peers = self.agent.peers();
                let peer = peers.iter().find(|peer| peer.cluster == *to);
                let peer = peer.ok_or_else(|| DataError::Broken(format!("{to} is not known here yet")))?;
                self.mirror(app, role, epoch, &peer.url).await?
            }
        };
        mirror.source_mut().set_freezer(Arc::new(NoFreeze));
        let point = mirror.round().await;
        mirror.source_mut().set_freezer(self.freezer(app, role));
        // It goes on being a mirror, so that a switchover that is given up has one, and its figures can be read.
        let stop = CancellationToken::new();
        let task = tokio::spawn(mirror.run(role.interval, stop.clone()));
        self.mirrors.lock().await.insert(
            id,
            Running {
                epoch,
                status,
                stop,
                task,
            },
        );
        Ok(point?)
    }

    /// Makes the newest complete point of a role this cluster's volumes.
    ///
    /// # Errors
    /// When there is none, or the volumes cannot be replaced.
    pub async fn promote(&self, app: &App, role: &WriterRole, epoch: Epoch) -> Result<Option<Point>, DataError> {
        let key = RoleKey::new(app.key.clone(), &role.name);
        let claims = self.claims(app, role).await?;
        let promoted = self
            .blocking(&key, move |target, key| target.promote(key, epoch, &claims))
            .await?;
        Ok(promoted.point)
    }

    /// Ends everything about an application.
    pub async fn forget(&self, app: &App) {
        for key in app.role_keys() {
            self.stop_mirrors(&key).await;
        }
    }

    /// What this cluster says of the roles' data.
    pub async fn report(&self, app: &App) -> BTreeMap<String, RoleReport> {
        let mut reports = BTreeMap::new();
        for role in &app.roles {
            let key = RoleKey::new(app.key.clone(), &role.name);
            // Together: each question wakes a thread.
            let asked = self.blocking(&key, |target, key| Ok((target.head(key).ok(), target.kept(key).ok())));
            let (head, kept) = asked.await.unwrap_or_default();
            let kept = kept.and_then(|kept| kept::told(kept.last()?));
            let point = head
                .filter(|head| head.accepts)
                .and_then(|head| head.point)
                .map(|point| PointReport {
                    epoch: point.epoch,
                    sequence: point.sequence,
                    source_ms: point.source_time_ms,
                });
            reports.insert(
                role.name.clone(),
                RoleReport {
                    point,
                    mirror: self.mirror_report(app, &key).await,
                    kept,
                    gate: self.agent.gate(&key).map(|held| GateReport {
                        pod: held.pod,
                        epoch: held.epoch,
                    }),
                },
            );
        }
        reports
    }

    async fn mirror_report(&self, app: &App, key: &RoleKey) -> Option<MirrorReport> {
        let unmirrored = self.unmirrored.lock().await.get(key).cloned();
        let mut report = unmirrored.map(|trouble| MirrorReport {
            trouble: Some(trouble),
            ..MirrorReport::default()
        });
        let mirrors = self.mirrors.lock().await;
        for ((_, to), running) in mirrors.iter().filter(|((role, _), _)| role == key) {
            let status = running.status.borrow();
            let sum = report.get_or_insert_default();
            sum.points += status.stats.points;
            sum.bytes_sent += status.stats.bytes_sent;
            sum.pause_us_max = sum.pause_us_max.max(status.stats.pause_max.as_micros() as u64);
            let lag = status.lag_ms(clock::wall_ms());
            let late = lag.is_none_or(|lag| lag > app.rpo.as_millis() as u64);
            let trouble = match (&status.error, lag) {
                (Some(error), _) if late => Some(error.clone()),
                (None, Some(lag)) if late => Some(format!("{lag} ms behind, more than the rpo")),
                (None, None) => Some("no point was confirmed yet".to_owned()),
                _ => None,
            };
            sum.trouble = sum
                .trouble
                .take()
                .or_else(|| trouble.map(|trouble| format!("{to}: {trouble}")));
        }
        report
    }

    /// The directories of a role's claims in this cluster.
    async fn claims(&self, app: &App, role: &WriterRole) -> Result<Vec<Claim>, DataError> {
        let mut found = vec![];
        for name in &role.claims {
            let kube = |source| DataError::Kube {
                claim: name.clone(),
                source: Box::new(source),
            };
            let missing = |reason| DataError::Claim {
                claim: name.clone(),
                reason,
            };
            if !self.volumes_are_here {
                return Err(missing(ELSEWHERE));
            }
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &app.key.namespace);
            let claim = claims
                .get_opt(name)
                .await
                .map_err(kube)?
                .ok_or(missing("does not exist here yet"))?;
            let volume = claim
                .spec
                .and_then(|spec| spec.volume_name)
                .ok_or(missing("is not bound yet"))?;
            let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
            let volume = volumes
                .get_opt(&volume)
                .await
                .map_err(kube)?
                .and_then(|volume| volume.spec);
            let path = volume.and_then(|spec| {
                spec.host_path
                    .map(|path| path.path)
                    .or_else(|| spec.local.map(|local| local.path))
            });
            let directory = PathBuf::from(path.ok_or(missing(NO_DIRECTORY))?);
            if !directory.is_dir() {
                return Err(missing(NOT_HERE));
            }
            found.push(Claim {
                name: name.clone(),
                directory,
            });
        }
        Ok(found)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        key: &RoleKey,
        work: impl FnOnce(&Target, &RoleKey) -> Result<T, TargetError> + Send + 'static,
    ) -> Result<T, DataError> {
        let (target, key) = (Arc::clone(&self.target), key.clone());
        tokio::task::spawn_blocking(move || work(&target, &key))
            .await
            .map_err(|e| DataError::Broken(e.to_string()))?
            .map_err(DataError::from)
    }
}

async fn stop(running: Option<Running>) {
    if let Some(running) = running {
        running.stop.cancel();
        // Whether it ended well does not matter: what it confirmed is at the target.
        let _ = running.task.await;
    }
}
