//! The controllers and the scheduler of a local region.
//!
//! One task holds what the watches have told ([`region::Region`]), lets every controller plan on it ([`plan::plan`]: pure), carries out what
//! they want ([`execute`]) and takes in what that returned, until nothing is left to do. A change is acted on after a few milliseconds, in
//! which others that belong to it arrive; between changes the task sleeps.

pub mod action;
mod backoff;
pub mod claims;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod execute;
pub mod job;
mod life;
pub mod namespaces;
pub mod node_life;
pub mod object;
pub mod plan;
pub mod quantity;
pub mod region;
pub mod replica_set;
pub mod revision;
#[cfg(test)]
mod samples;
pub mod scheduler;
pub mod stateful_set;
pub mod taint;
mod watch;

use std::{
    future::Future,
    path::PathBuf,
    pin::pin,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, stream::SelectAll};
use jiff::Timestamp;
use kube::Client;

use self::{
    action::Action,
    backoff::Backoff,
    life::Life,
    plan::Facts,
    region::Region,
    watch::{Change, Effect},
};

/// How long a change waits for others that belong to it.
const GATHER: Duration = Duration::from_millis(10);
/// How often everything is looked at though nothing changed.
const RESYNC: Duration = Duration::from_secs(30);
/// First wait after a failure.
const RETRY: Duration = Duration::from_millis(500);
/// First wait after an action that an outdated view led to; the watch is about to show what it missed.
const REFRESH: Duration = Duration::from_millis(50);
/// Actions in flight at once.
const PARALLEL: usize = 8;
/// Plans in a row before the watches are looked at again.
const ROUNDS: usize = 16;

/// What the controllers need to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the directories of volumes are made.
    pub volumes_dir: PathBuf,
}

/// The controllers cannot go on; start them again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every watch has ended: the API is shutting down.
    #[error("the watches of the region's API have ended")]
    Ended,
}

/// Runs the controllers until `shutdown`.
pub async fn run(client: Client, config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let mut shutdown = pin!(shutdown);
    let mut controllers = Controllers {
        changes: watch::all(&client),
        region: Region::default(),
        life: Life::new(Instant::now()),
        client,
        config,
        backoff: Backoff::default(),
        seed: rand::random(),
        news: Vec::new(),
        next: None,
        look_again: None,
    };
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            () = controllers.turn() => {}
        }
        if controllers.changes.is_empty() {
            return Err(Error::Ended);
        }
    }
}

struct Controllers {
    client: Client,
    config: Config,
    changes: SelectAll<watch::Changes>,
    region: Region,
    life: Life,
    backoff: Backoff,
    seed: u64,
    // What is to be told about what has been done.
    news: Vec<Action>,
    // When to plan next because of a change; and though nothing changed.
    next: Option<Instant>,
    look_again: Option<Instant>,
}

impl Controllers {
    // Waits for something to do, and does it. May be dropped at any await: the next plan does what is left.
    async fn turn(&mut self) {
        let wake = [self.next, self.look_again, self.life.next_look()]
            .into_iter()
            .flatten()
            .min();
        let wake = wake.unwrap_or_else(|| Instant::now() + RESYNC);
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(wake.into()) => {}
            change = self.changes.next() => {
                if let Some(change) = change {
                    self.take_in(change);
                }
                self.drain();
            }
        }
        self.life.observe(&self.region, Instant::now());
        let now = Instant::now();
        let due = self.life.is_alarmed() || [self.next, self.look_again].into_iter().flatten().any(|at| at <= now);
        if due && self.region.is_synced() {
            self.settle().await;
        } else if due {
            self.next = Some(now + REFRESH);
        }
    }

    fn take_in(&mut self, change: Change) {
        if change(&mut self.region) == Effect::Changed && self.next.is_none() {
            self.next = Some(Instant::now() + GATHER);
        }
    }

    fn drain(&mut self) {
        while let Some(Some(change)) = self.changes.next().now_or_never() {
            self.take_in(change);
        }
    }

    async fn settle(&mut self) {
        self.next = None;
        for _ in 0..ROUNDS {
            self.region.forget_unseen(Instant::now());
            self.life.look(&self.region).await;
            self.seed = self.seed.wrapping_add(1);
            let now = Timestamp::now();
            let facts = Facts {
                signs: self.life.signs(),
                volumes: &self.config.volumes_dir,
                now,
                seed: self.seed,
            };
            let (later, actions): (Vec<Action>, Vec<Action>) = plan::plan(&self.region, &facts)
                .into_iter()
                .partition(|action| matches!(action, Action::LookAgain(_)));
            let instant = Instant::now();
            let actions = self.allowed(actions, instant);
            let retry = self.backoff.next(instant).unwrap_or(instant + RESYNC);
            self.look_again = Some(retry.min(instant + wait(&later, now)));
            if actions.is_empty() {
                self.tell().await;
                return;
            }
            self.carry_out(actions, now).await;
            self.drain();
        }
        self.tell().await;
        self.next = Some(Instant::now() + GATHER);
    }

    // Without those that wait after a failure, and without what would be told about them.
    fn allowed(&self, actions: Vec<Action>, now: Instant) -> Vec<Action> {
        let mut last = true;
        let mut allowed = Vec::with_capacity(actions.len());
        for action in actions {
            last = match action {
                Action::Tell { once_done: true, .. } => last,
                _ => self.backoff.allows(&action, now),
            };
            if last {
                allowed.push(action);
            }
        }
        allowed
    }

    async fn carry_out(&mut self, actions: Vec<Action>, now: Timestamp) {
        let mut deeds = Vec::new();
        let mut told = Vec::new();
        for action in actions {
            match action {
                Action::Tell { once_done: true, .. } => told.push((deeds.len(), action)),
                _ => deeds.push(action),
            }
        }
        let done = self.carry_out_all(deeds, now).await;
        let succeeded = |after: usize| after.checked_sub(1).is_some_and(|index| done.get(index) == Some(&true));
        let told = told.into_iter().filter(|(after, _)| succeeded(*after));
        self.news.extend(told.map(|(_, action)| action));
    }

    // Comes after everything that is done: nobody waits for an event.
    async fn tell(&mut self) {
        let news = std::mem::take(&mut self.news);
        self.carry_out_all(news, Timestamp::now()).await;
    }

    // Says which of them succeeded.
    async fn carry_out_all(&mut self, actions: Vec<Action>, now: Timestamp) -> Vec<bool> {
        let client = &self.client;
        let outcomes: Vec<_> = futures::stream::iter(actions)
            .map(|action| async move { (execute::execute(client, action.clone(), now).await, action) })
            .buffered(PARALLEL)
            .collect()
            .await;
        let mut done = Vec::with_capacity(outcomes.len());
        for (outcome, action) in outcomes {
            done.push(outcome.is_ok());
            match outcome {
                Ok(outcome) => {
                    outcome.enter(&mut self.region, Instant::now());
                    self.backoff.succeeded(&action);
                }
                Err(error) if error.is_outdated() => {
                    tracing::debug!(%error, "an outdated view");
                    self.backoff.failed(&action, REFRESH, Instant::now());
                }
                Err(error) => {
                    tracing::warn!(%error, "a controller's action failed and is tried again");
                    self.backoff.failed(&action, RETRY, Instant::now());
                }
            }
        }
        done
    }
}

fn wait(later: &[Action], now: Timestamp) -> Duration {
    let times = later.iter().filter_map(|action| match action {
        Action::LookAgain(at) => Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)),
        _ => None,
    });
    // A little later, so that what is waited for has come for certain.
    times
        .min()
        .map_or(RESYNC, |wait| (wait + Duration::from_millis(1)).min(RESYNC))
}
