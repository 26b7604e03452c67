//! The users: they ask each edge for each application a few times a second; and an observer of what the clusters say of who is active.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use reqwest::header::HOST;
use serde::Deserialize;
use tokio::task::JoinSet;

use super::{
    cluster::Cluster,
    judge::{Ask, Seen},
    sample,
};

/// How often an edge is asked for an application, and a cluster what it says.
const EVERY: Duration = Duration::from_millis(250);
/// A user who was not answered by then has given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was seen so far.
#[derive(Default)]
struct Shared {
    asks: Vec<Ask>,
    seen: Vec<Seen>,
}

/// The users and the observer, while they ask.
pub(crate) struct Users {
    began: Instant,
    shared: Arc<Mutex<Shared>>,
    _tasks: JoinSet<()>,
}

#[derive(Deserialize)]
struct Answer {
    cluster: String,
}

impl Users {
    /// Begins. `edges` has the address of each cluster's edge.
    pub(crate) fn start(edges: &[(String, String)], clusters: &[Cluster]) -> anyhow::Result<Self> {
        // Each question comes over a connection of its own, as those of many users do.
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(PATIENCE);
        let http = http.build()?;
        let (began, shared) = (Instant::now(), Arc::<Mutex<Shared>>::default());
        let mut tasks = JoinSet::new();
        for (edge, at) in edges {
            for app in sample::APPS {
                let user = User {
                    http: http.clone(),
                    url: format!("http://{at}/"),
                    edge: edge.clone(),
                    app,
                    began,
                };
                tasks.spawn(user.ask(Arc::clone(&shared)));
            }
        }
        for cluster in clusters {
            tasks.spawn(observe(cluster.clone(), began, Arc::clone(&shared)));
        }
        Ok(Self {
            began,
            shared,
            _tasks: tasks,
        })
    }

    /// Now, in milliseconds of the users' clock.
    pub(crate) fn now(&self) -> u64 {
        since(self.began)
    }

    /// Everything that was seen since an instant.
    pub(crate) fn since(&self, from: u64) -> (Vec<Ask>, Vec<Seen>) {
        let shared = lock(&self.shared);
        let asks = shared.asks.iter().filter(|ask| ask.ended >= from).cloned();
        let seen = shared.seen.iter().filter(|seen| seen.at >= from).cloned();
        (asks.collect(), seen.collect())
    }

    /// Whether every edge has answered for every application since an instant.
    pub(crate) fn all_answered(&self, edges: &[(String, String)], from: u64) -> bool {
        let (asks, _) = self.since(from);
        edges.iter().all(|(edge, _)| {
            sample::APPS.iter().all(|app| {
                let own = |ask: &&Ask| ask.edge == *edge && ask.passive == app.passive && ask.sent >= from;
                asks.iter().filter(own).any(|ask| ask.by.is_some())
            })
        })
    }

    /// How many questions were asked, and answered.
    pub(crate) fn counted(&self) -> (u64, u64) {
        let shared = lock(&self.shared);
        let answered = shared.asks.iter().filter(|ask| ask.by.is_some()).count();
        (shared.asks.len() as u64, answered as u64)
    }
}

fn since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct User {
    http: reqwest::Client,
    url: String,
    edge: String,
    app: sample::App,
    began: Instant,
}

impl User {
    async fn ask(self, shared: Arc<Mutex<Shared>>) {
        loop {
            let sent = since(self.began);
            let by = self.once().await;
            lock(&shared).asks.push(Ask {
                passive: self.app.passive,
                edge: self.edge.clone(),
                sent,
                ended: since(self.began),
                by,
            });
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn once(&self) -> Option<String> {
        let answer = self.http.get(&self.url).header(HOST, self.app.host).send().await.ok()?;
        let answer = answer.error_for_status().ok()?;
        Some(answer.json::<Answer>().await.ok()?.cluster)
    }
}

async fn observe(cluster: Cluster, began: Instant, shared: Arc<Mutex<Shared>>) {
    loop {
        if let Ok(Some((_, status))) = cluster.status(sample::PASSIVE).await
            && let Some(active) = status.active
        {
            let (at, cluster) = (since(began), cluster.name.clone());
            lock(&shared).seen.push(Seen { at, cluster, active });
        }
        tokio::time::sleep(EVERY).await;
    }
}
