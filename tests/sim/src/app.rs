//! The application of a region and its volume: a log of numbers, mirrored to the other region as complete points.

use std::rc::Rc;

use leeward_core::{
    execute::Mode,
    name::Epoch,
    report::{AppReport, PointReport, RoleReport},
};

use crate::{fault::Time, world::MS};

/// A number in a log, with the epoch at which it was written.
pub(crate) type Line = (u64, u64);

/// A complete copy of a log at one instant.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    /// When it was taken, in real time: for who looks at the run alone.
    pub(crate) taken: Time,
    pub(crate) log: Rc<Vec<Line>>,
}

/// What survives every crash.
#[derive(Debug, Clone, Default)]
pub(crate) struct Volume {
    pub(crate) log: Vec<Line>,
    /// The highest epoch of any data here; lower ones are refused.
    pub(crate) epoch: u64,
    /// The newest point that was received.
    pub(crate) point: Option<Point>,
    /// What only this region had when it followed another writer, in the order of its numbers.
    pub(crate) aside: Vec<Line>,
    /// Of the points that were sent, the newest that was confirmed, with its epoch.
    pub(crate) confirmed: (u64, usize),
    pub(crate) sent: u64,
    /// What the last promotion put in the volume's place, for a mutant that does it again.
    pub(crate) promoted: Option<Rc<Vec<Line>>>,
}

impl Volume {
    /// Takes in a point, unless its writer is of an older epoch than what is known here. The first one of another writer takes the volume's
    /// place: what it lacks is put aside before.
    pub(crate) fn receive(&mut self, point: Point, any_epoch: bool) -> bool {
        if point.epoch < self.epoch && !any_epoch {
            return false;
        }
        let newest = self.point.as_ref().map_or((0, 0), |old| (old.epoch, old.sequence));
        if (point.epoch, point.sequence) > newest || any_epoch {
            self.epoch = self.epoch.max(point.epoch);
            self.put_aside(&point.log);
            self.point = Some(point);
        }
        true
    }

    /// Puts aside what the volume has and another log lacks. The numbers of both grow.
    fn put_aside(&mut self, other: &[Line]) {
        let mut others = other.iter().peekable();
        let log = std::mem::take(&mut self.log);
        self.aside.extend(log.into_iter().filter(|(n, epoch)| {
            while others.next_if(|(other, _)| other < n).is_some() {}
            others.peek() != Some(&&(*n, *epoch))
        }));
        self.aside.sort_unstable();
    }

    /// The newest point becomes the volume; once for each epoch.
    pub(crate) fn promote(&mut self, epoch: u64) {
        if self.epoch >= epoch {
            return;
        }
        if let Some(point) = self.point.take() {
            self.log = point.log.to_vec();
        }
        self.epoch = epoch;
    }

    /// What [`Self::promote`] must not do: run again, the point becomes the volume again.
    pub(crate) fn promote_anew(&mut self, epoch: u64) {
        self.promoted = self.point.take().map(|point| point.log).or(self.promoted.take());
        if let Some(log) = &self.promoted {
            self.log = log.to_vec();
        }
        self.epoch = self.epoch.max(epoch);
    }

    /// A writer begins at an epoch: what it has is the truth from here on.
    pub(crate) fn begin(&mut self, epoch: u64) {
        if epoch > self.epoch {
            self.epoch = epoch;
        }
        self.point = None;
    }

    pub(crate) fn take_point(&mut self, epoch: u64, now: Time) -> Point {
        self.sent += 1;
        Point {
            epoch,
            sequence: self.sent,
            taken: now,
            log: Rc::new(self.log.clone()),
        }
    }
}

/// The application's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    Stopped,
    /// It starts, and runs from then on.
    Starting {
        epoch: u64,
        until: Time,
    },
    Running {
        epoch: u64,
    },
}

/// The process as its mode wants it: started in a moment, stopped at once.
pub(crate) fn process(process: Process, mode: Mode, now: Time) -> Process {
    // Without roles there is no epoch.
    let number = |epoch: Option<Epoch>| epoch.unwrap_or_default().0;
    match (process, mode) {
        (Process::Stopped, Mode::Serve { epoch }) => Process::Starting {
            epoch: number(epoch),
            until: now + 200 * MS,
        },
        (Process::Starting { epoch, .. } | Process::Running { epoch }, Mode::Serve { epoch: wanted })
            if epoch != number(wanted) =>
        {
            Process::Stopped
        }
        (Process::Starting { epoch, until }, Mode::Serve { .. }) if now >= until => Process::Running { epoch },
        (process, Mode::Serve { .. } | Mode::Unmanaged) => process,
        (_, Mode::Standby) => Process::Stopped,
    }
}

/// What an agent says of the application.
pub(crate) fn report(volume: &Volume, process: Process, missing: Vec<String>, role: &str) -> AppReport {
    let running = u32::from(matches!(process, Process::Running { .. }));
    let point = volume.point.as_ref().map(|point| PointReport {
        epoch: Epoch(point.epoch),
        sequence: point.sequence,
        source_ms: 0,
    });
    let of_role = RoleReport {
        point,
        ..RoleReport::default()
    };
    AppReport {
        missing,
        short: vec![],
        unknown: vec![],
        backends: running,
        pods: u32::from(process != Process::Stopped),
        roles: [(role.to_owned(), of_role)].into(),
    }
}
