//! Mirrors a role to one target, point after point, and knows what the target confirmed.
//!
//! A round starts from what the target is known to have. Whatever goes wrong, the next round asks the target for its head: it
//! is what was known, or the point whose answer got lost, or something else, in which case the target's manifest says from
//! what to start, and only what differs travels.

use std::{sync::Arc, time::Duration};

use leeward_core::lease::Moment;
use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    Point,
    link::{Link, LinkError},
    manifest::Manifest,
    source::{Source, SourceError, Taken},
    target::http::Reason,
};

/// Why a round confirmed no point.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// No point could be taken.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The point could not be confirmed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The target knows a higher epoch: this region writes no longer.
    #[error("the standby region is at epoch {highest}, this region at {epoch}: another region writes now")]
    Superseded {
        /// This source's epoch.
        epoch: leeward_core::name::Epoch,
        /// The target's.
        highest: leeward_core::name::Epoch,
    },
    /// The target was the writer itself and follows nobody yet.
    #[error("the standby region has not been told to follow yet")]
    NotFollowing,
}

impl MirrorError {
    /// Whether the target does not know yet that this region writes.
    pub fn is_not_known(&self) -> bool {
        matches!(self, Self::Link(error) if error.reason() == Some(Reason::NotKnown))
    }
}

/// What a mirror has done since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Points that the target confirmed.
    pub points: u64,
    /// Bytes of all bodies that were sent, those that failed included.
    pub bytes_sent: u64,
    /// Bytes of manifests that were fetched to start anew.
    pub bytes_fetched: u64,
    /// The longest time that the pods stood still.
    pub pause_max: Duration,
    /// The last such time.
    pub pause_last: Duration,
    /// Sockets, pipes and devices in the last point, which are not mirrored.
    pub skipped: usize,
}

/// Where a mirror stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The last point that the target confirmed as durable.
    pub confirmed: Option<Point>,
    /// When the taking of that point began, on this process's clock: everything that was written before is in it. None for a point that
    /// an earlier process sent.
    pub begun: Option<Moment>,
    /// What was done so far.
    pub stats: Stats,
    /// Why the last round failed; `None` when it did not.
    pub error: Option<String>,
}

impl Status {
    /// How far the target is behind at `now_ms` (Unix milliseconds), in milliseconds.
    pub fn lag_ms(&self, now_ms: u64) -> Option<u64> {
        let confirmed = self.confirmed.as_ref()?;
        Some(now_ms.saturating_sub(confirmed.source_time_ms))
    }
}

/// What the target is known to have.
struct Known {
    point: Option<Point>,
    manifest: Arc<Manifest>,
}

/// How soon a target is asked again that does not know yet who writes; each time the wait doubles, up to the longest one.
const SOON: Duration = Duration::from_millis(50);
const NOT_SO_SOON: Duration = Duration::from_secs(1);

/// How long a round may go on after the mirror was told to stop.
const GRACE: Duration = Duration::from_secs(1);

/// Mirrors one role to one target.
pub struct Mirror {
    source: Source,
    link: Link,
    known: Option<Known>,
    /// A point whose answer did not come, and what the target had before it.
    unanswered: Option<(Point, Arc<Manifest>, Moment)>,
    before: Option<Known>,
    status: watch::Sender<Status>,
    clock: fn() -> Moment,
}

impl Mirror {
    /// A mirror, and where its status can be watched. `clock` is monotonic and goes on while the machine sleeps.
    pub fn new(source: Source, link: Link, clock: fn() -> Moment) -> (Self, watch::Receiver<Status>) {
        let (status, watch) = watch::channel(Status::default());
        let mirror = Self {
            source,
            link,
            known: None,
            unanswered: None,
            before: None,
            status,
            clock,
        };
        (mirror, watch)
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The source, to give it another freezer.
    pub fn source_mut(&mut self) -> &mut Source {
        &mut self.source
    }

    /// Takes and sends a point at each interval until it is told to stop, and hands itself back: a switchover then stops the
    /// pods and takes the last point with [`Self::round`]. A round that was begun may end within a second; then it is given
    /// up, so that a region that does not answer holds nothing up. The next round finds out what the target has.
    pub async fn run(mut self, interval: Duration, stop: CancellationToken) -> Self {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut soon = SOON;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return self,
                _ = ticks.tick() => {}
            }
            let late = async {
                stop.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            let done = tokio::select! {
                biased;
                done = self.round() => done,
                () = late => return self,
            };
            match done {
                // It has not heard yet what was decided: a question is all that it costs, no pod stands still for it.
                Err(e) if e.is_not_known() => {
                    ticks.reset_after(soon.min(interval));
                    soon = (soon * 2).min(NOT_SO_SOON);
                }
                Err(e) => tracing::debug!(role = %self.source.role(), "no point was confirmed: {e}"),
                Ok(_) => soon = SOON,
            }
        }
    }

    /// Takes one point and waits until the target has it. Once again at once, where the target had something else than
    /// was known.
    pub async fn round(&mut self) -> Result<Point, MirrorError> {
        let mut done = self.attempt().await;
        if let Err(MirrorError::Link(e)) = &done
            && e.reason() == Some(Reason::OutOfOrder)
        {
            done = self.attempt().await;
        }
        self.status
            .send_modify(|s| s.error = done.as_ref().err().map(ToString::to_string));
        done
    }

    async fn attempt(&mut self) -> Result<Point, MirrorError> {
        let Known { point, manifest } = match self.known.take() {
            Some(known) => known,
            None => self.find_out().await?,
        };
        let parent = point.clone();
        let begun = (self.clock)();
        let taken = match self.source.take(manifest.clone(), parent.as_ref()).await {
            Ok(taken) => taken,
            Err(e) => {
                self.known = Some(Known { point, manifest });
                return Err(e.into());
            }
        };
        let Taken {
            length, pause, skipped, ..
        } = taken;
        self.status.send_modify(|s| {
            s.stats.bytes_sent += length;
            s.stats.pause_max = s.stats.pause_max.max(pause);
            s.stats.pause_last = pause;
            s.stats.skipped = skipped;
        });
        match self.link.put(&taken).await {
            Ok(()) => Ok(self.confirm(taken.point, taken.manifest, begun)),
            Err(e) if e.reason() == Some(Reason::StaleEpoch) => Err(self.failed(e)),
            Err(e) => {
                self.unanswered = Some((taken.point, taken.manifest, begun));
                // What the target had before, should it not have this one.
                self.before = Some(Known { point, manifest });
                Err(e.into())
            }
        }
    }

    fn confirm(&mut self, point: Point, manifest: Arc<Manifest>, begun: Moment) -> Point {
        (self.before, self.unanswered) = (None, None);
        self.status.send_modify(|s| {
            s.stats.points += 1;
            s.confirmed = Some(point.clone());
            s.begun = Some(begun);
        });
        self.known = Some(Known {
            point: Some(point.clone()),
            manifest,
        });
        point
    }

    fn failed(&self, error: LinkError) -> MirrorError {
        match error {
            LinkError::Refused(refusal) if refusal.reason == Reason::StaleEpoch => {
                self.superseded(refusal.head.map_or(self.source.epoch(), |h| h.epoch))
            }
            other => other.into(),
        }
    }

    fn superseded(&self, highest: leeward_core::name::Epoch) -> MirrorError {
        MirrorError::Superseded {
            epoch: self.source.epoch(),
            highest,
        }
    }

    /// Asks the target what it has.
    async fn find_out(&mut self) -> Result<Known, MirrorError> {
        let head = self.link.head(self.source.epoch()).await.map_err(|e| self.failed(e))?;
        if head.epoch > self.source.epoch() {
            return Err(self.superseded(head.epoch));
        }
        if !head.accepts {
            return Err(MirrorError::NotFollowing);
        }
        let id = head.point.as_ref().map(|p| p.id);
        if let Some((point, manifest, begun)) = self.unanswered.take_if(|(point, ..)| Some(point.id) == id) {
            self.confirm(point, manifest, begun);
        } else if let Some(before) = self
            .before
            .take_if(|k| k.point.is_some() && k.point.as_ref().map(|p| p.id) == id)
        {
            self.known = Some(before);
        }
        if let Some(known) = self.known.take() {
            return Ok(known);
        }
        let (manifest, point, length) = self.link.manifest().await?;
        self.status.send_modify(|s| s.stats.bytes_fetched += length);
        if point.is_some() {
            self.status.send_modify(|s| {
                s.confirmed.clone_from(&point);
                s.begun = None;
            });
        }
        let manifest = Arc::new(manifest);
        Ok(Known { point, manifest })
    }
}
