//! Clients that are pinned to a region and go around every edge: they write at the pods themselves, also at those that are gone or
//! were replaced, as far as they know.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client as Kube, api::ListParams};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    demo::client::{Answer, Http, Outcome, WRITE_LIMIT, Write},
    manifests,
};

/// Between two writes at one pod.
const PERIOD: Duration = Duration::from_millis(40);
/// Between two looks at the pods.
const LOOK: Duration = Duration::from_millis(300);
/// How many pods are remembered.
const REMEMBERED: usize = 3;
/// The first number; other clients use lower ones.
pub(crate) const FIRST: u64 = 1_000_000_000;

/// What all pinned clients share.
#[derive(Debug)]
pub(crate) struct Pinned {
    began: Instant,
    next: AtomicU64,
    writes: Mutex<Vec<Write>>,
}

impl Pinned {
    /// Whose clock begins at `began`.
    pub(crate) fn new(began: Instant) -> Arc<Self> {
        Arc::new(Self {
            began,
            next: AtomicU64::new(FIRST),
            writes: Mutex::default(),
        })
    }

    /// What has ended so far.
    pub(crate) fn writes(&self) -> Vec<Write> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Writes at a region's pods until `stop`, and waits then for what is in flight.
    pub(crate) async fn run(self: Arc<Self>, region: String, kube: Kube, stop: CancellationToken) {
        let http = Arc::new(Http::new(manifests::HOST));
        let mut pods: VecDeque<SocketAddr> = VecDeque::new();
        let mut flying = JoinSet::new();
        let mut looks = tokio::time::interval(LOOK);
        let mut ticks = tokio::time::interval(PERIOD);
        let mut looking = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = looks.tick(), if looking.is_empty() => {
                    looking.spawn(look(kube.clone()));
                }
                Some(found) = looking.join_next() => {
                    for pod in found.unwrap_or_default() {
                        if !pods.contains(&pod) {
                            pods.push_back(pod);
                        }
                    }
                    while pods.len() > REMEMBERED {
                        pods.pop_front();
                    }
                }
                _ = ticks.tick() => {
                    while flying.try_join_next().is_some() {}
                    for pod in pods.clone() {
                        flying.spawn(Arc::clone(&self).write(region.clone(), Arc::clone(&http), pod));
                    }
                }
            }
        }
        while flying.join_next().await.is_some() {}
    }

    async fn write(self: Arc<Self>, region: String, http: Arc<Http>, pod: SocketAddr) {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let sent_at = self.now();
        let outcome = match tokio::time::timeout(WRITE_LIMIT, http.write(pod, &region, n)).await {
            Ok(Answer::Unreachable) => Outcome::Refused,
            Ok(Answer::Outcome(outcome)) => outcome,
            Err(_) => Outcome::Unknown,
        };
        let write = Write {
            n,
            sent_at,
            answered_at: self.now(),
            outcome,
        };
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).push(write);
    }
}

/// The addresses of the application's pods, as the region's API has them.
async fn look(kube: Kube) -> Vec<SocketAddr> {
    let pods: Api<Pod> = Api::namespaced(kube, manifests::NAMESPACE);
    let all = ListParams::default().labels(&format!("app={}", manifests::APP));
    let Ok(Ok(list)) = tokio::time::timeout(LOOK * 2, pods.list(&all)).await else {
        return vec![];
    };
    let address = |pod: Pod| Some(SocketAddr::new(pod.status?.pod_ip?.parse().ok()?, manifests::PORT));
    list.items.into_iter().filter_map(address).collect()
}
