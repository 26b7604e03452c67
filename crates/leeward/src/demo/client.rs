//! The demo's client: reads and numbered writes at a rate, from outside, as a user's program would send them.
//!
//! Open loop: each request has an instant at which it is due, and is sent then whatever became of the earlier ones, so that an
//! outage is felt by every request that it met. At rate N there are N reads and N writes a second, in turn.
//!
//! The client knows every edge's address, as it would from DNS. Requests begin at the edges in turn; one that did not answer is
//! asked last for the next second.
//! - A read that fails, gets a 5xx or has no answer within [`READ_TRY`] is tried at the next edge; it has failed after [`READ_LIMIT`].
//! - A write goes to one edge at a time and to the next only when the connection was refused, so that nothing was delivered. It is
//!   `acknowledged` by a 2xx that names its number, epoch and cluster; `refused` when it is certain that it was not stored; else
//!   `unknown`. A number is never sent again.
//!
//! Times are microseconds on the monotonic clock since the client began.

mod attempt;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use attempt::{Answer, Http};

/// How long one edge has to answer a read.
pub(crate) const READ_TRY: Duration = Duration::from_millis(500);
/// How long all edges together have to answer a read.
pub(crate) const READ_LIMIT: Duration = Duration::from_secs(2);
/// How long an edge has to answer a write.
pub(crate) const WRITE_LIMIT: Duration = Duration::from_secs(2);
/// How long a read waits before it goes round the edges again after none of them had an answer.
const ROUND: Duration = Duration::from_millis(250);
/// How long an edge that did not answer is asked last.
const SUSPECT: Duration = Duration::from_secs(1);

/// What to send, and where.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The edges, at least one.
    pub(crate) edges: Vec<SocketAddr>,
    /// The `Host` header: the application's name in the edges' tables.
    pub(crate) host: String,
    /// The client's name in the application's log.
    pub(crate) name: String,
    /// Reads a second, and as many writes a second. At least 1.
    pub(crate) rate: u32,
    /// False when the application has no writer: then only reads are sent.
    pub(crate) writes: bool,
}

/// A read that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    /// When it was sent.
    pub(crate) sent_at: u64,
    /// When its answer was there, or when it was given up.
    pub(crate) ended_at: u64,
    /// Whether an edge answered it.
    pub(crate) ok: bool,
    /// The cluster that answered, as far as its answer said.
    pub(crate) cluster: Option<String>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The application said that it is durable.
    Acknowledged {
        /// The epoch that the application wrote in.
        epoch: u64,
        /// The cluster that it wrote in.
        cluster: String,
        /// Where the record begins in the application's log, bytes.
        offset: Option<u64>,
    },
    /// It is certain that it was not stored.
    Refused,
    /// It may or may not have been stored.
    Unknown,
}

/// A write that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// Its number, from 1.
    pub(crate) n: u64,
    /// When it was sent (to the edge that gave the outcome).
    pub(crate) sent_at: u64,
    /// When the outcome was known.
    pub(crate) answered_at: u64,
    /// What became of it.
    pub(crate) outcome: Outcome,
}

/// Everything that ended so far, in the order in which it ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    /// The reads.
    pub(crate) reads: Vec<Read>,
    /// The writes.
    pub(crate) writes: Vec<Write>,
}

/// Numbers for a live picture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// Reads that were answered.
    pub(crate) reads_ok: u64,
    /// Reads that failed.
    pub(crate) reads_failed: u64,
    /// Writes by outcome.
    pub(crate) acknowledged: u64,
    /// See [`Outcome::Refused`].
    pub(crate) refused: u64,
    /// See [`Outcome::Unknown`].
    pub(crate) unknown: u64,
    /// Requests that have no outcome yet.
    pub(crate) in_flight: u64,
    /// The cluster that answered the newest read.
    pub(crate) read_from: Option<String>,
    /// The newest acknowledged write.
    pub(crate) newest: Option<Write>,
}

struct Shared {
    settings: Settings,
    http: Http,
    began: Instant,
    /// For each edge, until when it is asked last.
    suspect: Vec<AtomicU64>,
    records: Mutex<Records>,
    live: watch::Sender<Live>,
}

/// A client that is sending.
pub(crate) struct Client {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    sending: tokio::task::JoinHandle<()>,
}

impl Client {
    /// Begins to send. Must be called within a tokio runtime.
    pub(crate) fn start(settings: Settings) -> Self {
        let suspect = settings.edges.iter().map(|_| AtomicU64::new(0)).collect();
        let (http, began, records) = (Http::new(&settings.host), Instant::now(), Mutex::default());
        let shared = Arc::new(Shared {
            settings,
            http,
            began,
            suspect,
            records,
            live: watch::Sender::new(Live::default()),
        });
        let (stop, stopped) = watch::channel(false);
        let sending = tokio::spawn(send(Arc::clone(&shared), stopped));
        Self { shared, stop, sending }
    }

    /// Now, on the client's clock.
    pub(crate) fn now(&self) -> u64 {
        self.shared.now()
    }

    /// An instant on the client's clock; 0 for one before it began.
    pub(crate) fn at(&self, instant: Instant) -> u64 {
        self.shared.at(instant)
    }

    /// When its clock began.
    #[cfg(feature = "unfenced")]
    pub(crate) fn began(&self) -> Instant {
        self.shared.began
    }

    /// The writes that have ended so far.
    #[cfg(feature = "unfenced")]
    pub(crate) fn writes(&self) -> Vec<Write> {
        self.shared.records().writes.clone()
    }

    /// Numbers for a live picture; the receiver sees every change.
    pub(crate) fn live(&self) -> watch::Receiver<Live> {
        self.shared.live.subscribe()
    }

    /// Waits for the acknowledgement of a write that was sent at `instant` (client's clock) or later, in an epoch of at least
    /// `epoch`. Never returns when there is none: give it a time limit.
    pub(crate) async fn acknowledged_since(&self, instant: u64, epoch: u64) -> Write {
        let fits = |write: &Write| {
            write.sent_at >= instant && matches!(&write.outcome, Outcome::Acknowledged { epoch: e, .. } if *e >= epoch)
        };
        let mut live = self.live();
        loop {
            if let Some(write) = live.borrow_and_update().newest.clone().filter(|write| fits(write)) {
                return write;
            }
            if live.changed().await.is_err() {
                // The sender lives in `self`, so this is not reached; waiting keeps the promise.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops sending, waits for what is in flight (at most [`READ_LIMIT`]), and gives everything.
    pub(crate) async fn stop(self) -> Records {
        let _ = self.stop.send(true);
        let _ = self.sending.await;
        std::mem::take(&mut *self.shared.records())
    }
}

impl Shared {
    fn at(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The edges in the order in which request `index` asks them.
    fn order(&self, index: u64) -> Vec<usize> {
        let now = self.now();
        let suspect: Vec<bool> = self
            .suspect
            .iter()
            .map(|until| until.load(Ordering::Relaxed) > now)
            .collect();
        order(&suspect, index)
    }

    fn suspect(&self, edge: usize) {
        self.suspect[edge].store(self.at(Instant::now() + SUSPECT), Ordering::Relaxed);
    }
}

/// The edges from `index` on in turn, those that did not answer lately last.
fn order(suspect: &[bool], index: u64) -> Vec<usize> {
    let count = suspect.len().max(1);
    let first = usize::try_from(index % count as u64).unwrap_or(0);
    let mut order: Vec<usize> = (0..suspect.len()).map(|step| (first + step) % count).collect();
    order.sort_by_key(|edge| suspect[*edge]);
    order
}

async fn send(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut flying = JoinSet::new();
    let kinds = if shared.settings.writes { 2 } else { 1 };
    let period = Duration::from_secs(1) / shared.settings.rate.max(1) / kinds;
    for index in 0_u32.. {
        let due = shared.began + period * index;
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            _ = stopped.wait_for(|stop| *stop) => break,
        }
        while flying.try_join_next().is_some() {}
        shared.live.send_modify(|live| live.in_flight += 1);
        let number = u64::from(index / kinds) + 1;
        let shared = Arc::clone(&shared);
        if index % kinds == 0 {
            flying.spawn(async move {
                let read = read(&shared, number).await;
                shared.live.send_modify(|live| live.see_read(&read));
                shared.records().reads.push(read);
            });
        } else {
            flying.spawn(async move {
                let write = write(&shared, number).await;
                shared.live.send_modify(|live| live.see_write(&write));
                shared.records().writes.push(write);
            });
        }
    }
    while flying.join_next().await.is_some() {}
}

impl Live {
    fn see_read(&mut self, read: &Read) {
        self.in_flight -= 1;
        if read.ok {
            self.reads_ok += 1;
            self.read_from.clone_from(&read.cluster);
        } else {
            self.reads_failed += 1;
        }
    }

    fn see_write(&mut self, write: &Write) {
        self.in_flight -= 1;
        match write.outcome {
            Outcome::Acknowledged { .. } => {
                self.acknowledged += 1;
                if self.newest.as_ref().is_none_or(|newest| newest.sent_at < write.sent_at) {
                    self.newest = Some(write.clone());
                }
            }
            Outcome::Refused => self.refused += 1,
            Outcome::Unknown => self.unknown += 1,
        }
    }
}

async fn read(shared: &Shared, number: u64) -> Read {
    let sent_at = shared.now();
    let tries = async {
        loop {
            for edge in shared.order(number) {
                let answer = tokio::time::timeout(READ_TRY, shared.http.read(shared.settings.edges[edge])).await;
                match answer {
                    Ok(Some(cluster)) => return cluster,
                    Ok(None) => {}
                    Err(_) => shared.suspect(edge),
                }
            }
            tokio::time::sleep(ROUND).await;
        }
    };
    let answer = tokio::time::timeout(READ_LIMIT, tries).await;
    let ended_at = shared.now();
    Read {
        sent_at,
        ended_at,
        ok: answer.is_ok(),
        cluster: answer.ok().flatten(),
    }
}

async fn write(shared: &Shared, n: u64) -> Write {
    let mut sent_at = shared.now();
    let mut outcome = Outcome::Refused;
    for edge in shared.order(n) {
        sent_at = shared.now();
        let request = shared.http.write(shared.settings.edges[edge], &shared.settings.name, n);
        match tokio::time::timeout(WRITE_LIMIT, request).await {
            // Nothing was delivered there: the next edge may have it.
            Ok(Answer::Unreachable) => continue,
            Ok(Answer::Outcome(known)) => outcome = known,
            Err(_) => {
                shared.suspect(edge);
                outcome = Outcome::Unknown;
            }
        }
        break;
    }
    Write {
        n,
        sent_at,
        answered_at: shared.now(),
        outcome,
    }
}

#[cfg(test)]
mod tests;
