//! One pod on its node, from the first sight to the last.
//!
//! ```text
//! volumes ── init containers, one after the other ── containers, side by side
//!    └── stop (deletion, deadline): TERM, grace, KILL ── directories removed ── object deleted
//! ```
//!
//! Nothing is cancelled by dropping it: every container's task hears of the stop, ends its process and waits for its end, so
//! that the object is deleted only when no process of the pod is left.

mod container;
mod hook;
mod report;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};
use tokio::sync::{Notify, watch};

use super::Node;
use super::log::Log;
use super::plan::{Place, Sources, Volume, references};
use super::spawn::Running;
use super::state::{PodState, RestartPolicy};
use super::volume;

/// How often something that a pod waits for is looked at again.
const RECHECK: Duration = Duration::from_millis(300);

/// How often files from ConfigMaps and Secrets are compared with what the API says; a kubelet takes up to a minute.
const REFRESH: Duration = Duration::from_secs(10);

/// What the API says about the pod.
#[derive(Clone, Debug)]
pub(super) struct Update {
    /// Its newest version.
    pub(super) pod: Arc<Pod>,
    /// The object does not exist any more.
    pub(super) gone: bool,
}

impl Update {
    /// The grace period, if the pod is to end.
    fn grace(&self) -> Option<Duration> {
        if self.gone {
            return Some(Duration::ZERO);
        }
        let deleting = self.pod.metadata.deletion_timestamp.is_some();
        let seconds = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
        deleting.then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }
}

/// What the rest of the node may ask about a pod.
pub(super) struct Shared {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Where everything of the pod lies.
    pub(super) dir: PathBuf,
    pub(super) ip: Ipv4Addr,
    state: Mutex<PodState>,
    changed: Notify,
    running: Mutex<BTreeMap<String, Arc<Running>>>,
    logs: Mutex<BTreeMap<String, (i32, Weak<Log>)>>,
}

impl Shared {
    pub(super) fn new(pod: &Pod, ip: Ipv4Addr, dir: PathBuf, now: Timestamp) -> Self {
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            dir,
            ip,
            state: Mutex::new(PodState::adopt(pod, ip, now)),
            changed: Notify::new(),
            running: Mutex::default(),
            logs: Mutex::default(),
        }
    }

    /// Changes the state; the status is written when something is different.
    fn update(&self, change: impl FnOnce(&mut PodState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    fn state(&self) -> PodState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The containers that run at the moment.
    pub(super) fn running(&self) -> Vec<Arc<Running>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.values().filter(|running| running.is_alive()).cloned().collect()
    }

    /// The start of a container whose log is asked for, and the log, if that is still being written; or why there is none.
    pub(super) fn log(&self, container: &str, previous: bool) -> Result<(i32, Option<Arc<Log>>), String> {
        let state = self.state();
        let known = state.main.iter().chain(&state.init).find(|c| c.name == container);
        let newest = {
            let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
            logs.get(container).map(|(attempt, log)| (*attempt, log.upgrade()))
        };
        let newest = newest.or_else(|| known.map(|known| (known.restarts, None)));
        let (Some(known), Some((attempt, log))) = (known, newest) else {
            return Err(format!(
                "container \"{container}\" in pod \"{}\" is not available",
                self.name
            ));
        };
        known.log_of(&self.name, attempt, previous).map(|wanted| {
            let log = log.filter(|_| wanted == attempt);
            (wanted, log)
        })
    }

    /// The names of all containers.
    pub(super) fn containers(&self) -> Vec<String> {
        let state = self.state();
        state
            .main
            .into_iter()
            .chain(state.init)
            .map(|container| container.name)
            .collect()
    }
}

/// What every container's task of a pod shares.
struct Life {
    node: Arc<Node>,
    shared: Arc<Shared>,
    updates: watch::Receiver<Update>,
    stop: watch::Receiver<Option<Duration>>,
    place: Place,
}

impl Life {
    fn pod(&self) -> Arc<Pod> {
        Arc::clone(&self.updates.borrow().pod)
    }

    fn stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Returns when the pod is to stop.
    async fn stopped(&self) {
        let mut stop = self.stop.clone();
        if stop.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits; false when the pod is to stop.
    async fn sleep(&self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => !self.stopping(),
            () = self.stopped() => false,
        }
    }

    /// Fetches what the pod refers to, as it is now.
    async fn sources(&self) -> Result<Sources, kube::Error> {
        let pod = self.pod();
        let (maps, secrets) = references(&pod);
        let mut sources = Sources::default();
        for name in maps {
            let api = Api::namespaced(self.node.client.clone(), &self.shared.namespace);
            if let Some(object) = api.get_opt(&name).await? {
                sources.config_maps.insert(name, object);
            }
        }
        for name in secrets {
            let api = Api::namespaced(self.node.client.clone(), &self.shared.namespace);
            if let Some(object) = api.get_opt(&name).await? {
                sources.secrets.insert(name, object);
            }
        }
        Ok(sources)
    }
}

/// Runs the pod until its object is gone.
pub(super) async fn run(node: Arc<Node>, shared: Arc<Shared>, mut updates: watch::Receiver<Update>) {
    let (stop, stopped) = watch::channel(updates.borrow().grace());
    let stop = Arc::new(stop);
    let place = Place {
        pod_ip: shared.ip,
        host_ip: *node.config.kubelet_address.ip(),
        node: node.config.name.clone(),
    };
    let life = Arc::new(Life {
        node: Arc::clone(&node),
        shared: Arc::clone(&shared),
        updates: updates.clone(),
        stop: stopped,
        place,
    });
    let reporter = tokio::spawn(report::report(Arc::clone(&life)));
    let mut work = tokio::spawn(live(Arc::clone(&life), Arc::clone(&stop)));
    let mut working = true;
    let deadline = deadline(&life);
    tokio::pin!(deadline);
    while working || updates.borrow().grace().is_none() {
        tokio::select! {
            _ = &mut work, if working => working = false,
            () = &mut deadline, if working && !life.stopping() => {
                let message = "Pod was active on the node longer than the specified deadline".to_owned();
                shared.update(|state| state.failure = Some(("DeadlineExceeded".to_owned(), message)));
                stop.send_replace(Some(termination_grace(&life.pod())));
            }
            changed = updates.changed() => {
                if changed.is_err() { break }
                let grace = updates.borrow_and_update().grace();
                if let Some(grace) = grace {
                    stop.send_if_modified(|current| {
                        let shorter = current.is_none_or(|current| grace < current);
                        if shorter { *current = Some(grace); }
                        shorter
                    });
                }
                shared.changed.notify_one();
            }
        }
    }
    reporter.abort();
    let _ = reporter.await;
    let dir = shared.dir.clone();
    let removed = tokio::task::spawn_blocking(move || crate::container::path::remove_tree(&dir)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(pod = %shared.name, %error, "cannot remove the pod's directory");
    }
    if !updates.borrow().gone {
        report::final_status(&life).await;
        delete(&life).await;
    }
    node.forget(&shared);
}

/// The pod's own time limit; never, when it has none.
async fn deadline(life: &Life) {
    let seconds = life.pod().spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
    let Some(seconds) = seconds.and_then(|seconds| u64::try_from(seconds).ok()) else {
        return std::future::pending().await;
    };
    let ran = u64::try_from(Timestamp::now().duration_since(life.shared.state().start).as_secs()).unwrap_or(0);
    tokio::time::sleep(Duration::from_secs(seconds.saturating_sub(ran))).await;
}

fn termination_grace(pod: &Pod) -> Duration {
    let seconds = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds)
        .unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Volumes, init containers, containers; returns when nothing of the pod runs and nothing will.
async fn live(life: Arc<Life>, stop: Arc<watch::Sender<Option<Duration>>>) {
    let pod = life.pod();
    if finished(&life, &pod) {
        return;
    }
    if let Some(failure) = failed(&pod) {
        life.shared.update(|state| state.failure = Some(failure));
        return;
    }
    let Some(volumes) = volumes(&life).await.map(Arc::new) else {
        return;
    };
    tokio::select! {
        () = containers(&life, &stop, &pod, &volumes) => {}
        () = refresh(&life) => {}
    }
}

/// Brings what the API provides as files up to date, for as long as it is polled.
async fn refresh(life: &Life) {
    let dir = life.shared.dir.join("volumes");
    loop {
        tokio::time::sleep(REFRESH).await;
        let pod = life.pod();
        if !volume::changes(&pod) {
            std::future::pending::<()>().await;
        }
        if let Ok(sources) = life.sources().await {
            volume::refresh(&pod, &sources, &life.place, &dir);
        }
    }
}

/// Init containers, then the others.
async fn containers(
    life: &Arc<Life>,
    stop: &Arc<watch::Sender<Option<Duration>>>,
    pod: &Pod,
    volumes: &Arc<BTreeMap<String, Volume>>,
) {
    let Some(spec) = &pod.spec else { return };
    let mut sidecars = Vec::new();
    for (index, declared) in spec.init_containers.iter().flatten().enumerate() {
        let slot = container::Slot {
            init: true,
            index,
            sidecar: container::is_sidecar(declared),
        };
        if slot.sidecar {
            let task = tokio::spawn(container::run(Arc::clone(life), slot, Arc::clone(volumes)));
            sidecars.push(task);
            container::until_started(life, slot).await;
        } else if !container::run(Arc::clone(life), slot, Arc::clone(volumes)).await {
            end_sidecars(life, stop, sidecars).await;
            return;
        }
    }
    let tasks = (0..spec.containers.len())
        .map(|index| container::Slot {
            init: false,
            index,
            sidecar: false,
        })
        .map(|slot| tokio::spawn(container::run(Arc::clone(life), slot, Arc::clone(volumes))))
        .collect();
    join(tasks).await;
    end_sidecars(life, stop, sidecars).await;
}

/// Sidecars end when what they stand beside has ended.
async fn end_sidecars(
    life: &Life,
    stop: &watch::Sender<Option<Duration>>,
    sidecars: Vec<tokio::task::JoinHandle<bool>>,
) {
    if !sidecars.is_empty() {
        stop.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(termination_grace(&life.pod()));
            first
        });
    }
    join(sidecars).await;
}

async fn join(tasks: Vec<tokio::task::JoinHandle<bool>>) {
    for task in tasks {
        let _ = task.await;
    }
}

/// Whether the pod had come to its end before this process of the node saw it.
fn finished(life: &Life, pod: &Pod) -> bool {
    let phase = life.shared.state().phase(RestartPolicy::of(pod));
    matches!(phase, "Succeeded" | "Failed")
}

/// Why others declared the pod failed, such as by an eviction; it is never run then.
fn failed(pod: &Pod) -> Option<(String, String)> {
    let status = pod
        .status
        .as_ref()
        .filter(|status| status.phase.as_deref() == Some("Failed"))?;
    Some((
        status.reason.clone().unwrap_or_default(),
        status.message.clone().unwrap_or_default(),
    ))
}

/// Waits until every volume is there; nothing when the pod is to stop before.
async fn volumes(life: &Life) -> Option<BTreeMap<String, Volume>> {
    let dir = life.shared.dir.join("volumes");
    let mut told = String::new();
    while !life.stopping() {
        let pod = life.pod();
        let attempt = match life.sources().await {
            Ok(sources) => volume::prepare(&life.node.client, &pod, &sources, &life.place, &dir)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match attempt {
            Ok(volumes) => return Some(volumes),
            Err(message) if message != told => {
                life.node.events.warning(&pod, None, "FailedMount", message.clone());
                told = message;
            }
            Err(_) => {}
        }
        if !life.sleep(RECHECK).await {
            return None;
        }
    }
    None
}

/// Deletes the object for good, unless another has taken its name.
async fn delete(life: &Life) {
    let api: Api<Pod> = Api::namespaced(life.node.client.clone(), &life.shared.namespace);
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: Some(life.shared.uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let mut wait = Duration::from_millis(50);
    loop {
        match api.delete(&life.shared.name, &params).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(error) => tracing::debug!(pod = %life.shared.name, %error, "cannot delete the pod's object yet"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(2));
    }
}
