//! Stops every process of some pods for a moment, so that what is on their volumes is the state of one instant.
//!
//! SIGSTOP comes from the parent PID namespace, so it reaches process 1 of a container too. A process may fork while it is
//! being stopped, so the tree is walked again until a whole pass finds every thread stopped. A freeze ends by itself: nobody
//! has to come back for the pods to go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The longest time for which pods may be stopped.
pub(super) const MAX: Duration = Duration::from_secs(10);
/// How long stopping may take; a process in the middle of a write to a slow disk stops only after it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why pods could not be stopped; they run on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// They are stopped already.
    #[error("a pod of this freeze is frozen already; thaw it first")]
    Frozen,
    /// Something did not stop in time.
    #[error("process {0} did not stop within {PATIENCE:?}; everything runs again")]
    Stuck(i32),
    /// A signal was refused.
    #[error("cannot stop process {pid}: {errno}")]
    Signal {
        /// The process.
        pid: i32,
        /// The kernel's answer.
        errno: nix::errno::Errno,
    },
}

/// The freezes of a node.
#[derive(Clone, Default)]
pub(super) struct Freezer {
    held: Arc<Mutex<BTreeMap<String, Held>>>,
}

struct Held {
    /// The init of each container.
    roots: Vec<i32>,
    timer: tokio::task::AbortHandle,
}

impl Freezer {
    /// Stops all processes below `roots` (each included) for at most `time`, and returns the token that thaws them.
    pub(super) async fn freeze(&self, roots: Vec<i32>, time: Duration) -> Result<String, Error> {
        if self.holds_any(&roots) {
            return Err(Error::Frozen);
        }
        let begin = Instant::now();
        let stopping = roots.clone();
        let stopped = tokio::task::spawn_blocking(move || stop_all(&stopping)).await;
        if let Ok(Err(error)) = stopped {
            resume_all(&roots);
            return Err(error);
        }
        let token = uuid::Uuid::new_v4().to_string();
        let (freezer, name) = (self.clone(), token.clone());
        let left = time.min(MAX).saturating_sub(begin.elapsed());
        let timer = tokio::spawn(async move {
            tokio::time::sleep(left).await;
            freezer.thaw(&name);
        });
        let held = Held {
            roots,
            timer: timer.abort_handle(),
        };
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(token.clone(), held);
        Ok(token)
    }

    /// Lets the processes go on. False when they already do: what was read in between is not of one instant.
    pub(super) fn thaw(&self, token: &str) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
        let Some(held) = held else { return false };
        resume_all(&held.roots);
        held.timer.abort();
        true
    }

    fn holds_any(&self, roots: &[i32]) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.values()
            .any(|held| held.roots.iter().any(|root| roots.contains(root)))
    }
}

fn stop_all(roots: &[i32]) -> Result<(), Error> {
    let begin = Instant::now();
    let mut told = BTreeSet::new();
    loop {
        let mut moving = None;
        for pid in tree(roots) {
            if told.insert(pid) {
                match kill(Pid::from_raw(pid), Signal::SIGSTOP) {
                    Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                    Err(errno) => return Err(Error::Signal { pid, errno }),
                }
            }
            if !is_stopped(pid) {
                moving = Some(pid);
            }
        }
        let Some(pid) = moving else { return Ok(()) };
        if begin.elapsed() > PATIENCE {
            return Err(Error::Stuck(pid));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn resume_all(roots: &[i32]) {
    for pid in tree(roots) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
    }
}

/// All processes below `roots`, these first.
fn tree(roots: &[i32]) -> Vec<i32> {
    let mut found: Vec<i32> = roots.to_vec();
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|child| child.parse::<i32>().ok()),
            );
        }
    }
    found
}

/// Whether every thread of the process is stopped, or the process is gone.
fn is_stopped(pid: i32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // `PID (NAME) STATE ...`, and NAME may hold anything.
        let state = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.trim_start().chars().next());
        matches!(state, None | Some('T' | 't' | 'Z' | 'X'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper() -> Child {
        Command::new("/bin/sh")
            .args(["-c", "sleep 60 & sleep 60 & wait"])
            .spawn()
            .unwrap()
    }

    fn end(mut child: Child) {
        for pid in tree(&[i32::try_from(child.id()).unwrap()]) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_freeze_stops_the_whole_tree_until_it_is_thawed() {
        let child = sleeper();
        let root = i32::try_from(child.id()).unwrap();
        let freezer = Freezer::default();
        let token = freezer.freeze(vec![root], MAX).await.unwrap();
        assert!(tree(&[root]).into_iter().all(is_stopped));
        assert!(matches!(freezer.freeze(vec![root], MAX).await, Err(Error::Frozen)));
        assert!(freezer.thaw(&token));
        assert!(!freezer.thaw(&token));
        end(child);
    }

    #[tokio::test]
    async fn a_freeze_ends_by_itself_and_says_so() {
        let child = sleeper();
        let root = i32::try_from(child.id()).unwrap();
        let freezer = Freezer::default();
        let token = freezer.freeze(vec![root], Duration::from_millis(20)).await.unwrap();
        while freezer.holds_any(&[root]) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!freezer.thaw(&token));
        end(child);
    }
}
