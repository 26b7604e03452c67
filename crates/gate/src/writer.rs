//! The writer as a process, with everything that it starts.
//!
//! The gate takes in every orphan among its descendants, so whatever the writer started, in whatever session, is found and ended. When the
//! gate itself is killed, the kernel ends the writer's own process, and all the others where the gate is the first process of its container,
//! as it should be. One thread starts and waits for processes: the kernel's
//! parent-death signal goes by the thread.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpid, getppid},
};

use crate::hold::Open;

/// How long to wait before it is looked again whether all have ended.
const AGAIN: Duration = Duration::from_millis(2);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 + signal after a signal.
    pub code: u8,
}

/// A running writer.
#[derive(Debug)]
pub struct Writer {
    pid: Pid,
}

/// Has orphans among the descendants become children of this process. To be called once, before a writer is started.
///
/// # Errors
/// When the kernel refuses.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// What the process that is to become the writer does first: it arranges to end with its parent, and becomes the writer. Returns only
/// when that failed.
pub fn become_writer(parent: i32, command: &[OsString]) -> io::Error {
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGKILL) {
        return error.into();
    }
    // The gate may have died before the kernel was told.
    if getppid() != Pid::from_raw(parent) {
        return io::Error::other("the gate has ended");
    }
    match command {
        [program, arguments @ ..] => Command::new(program).args(arguments).exec(),
        [] => io::ErrorKind::InvalidInput.into(),
    }
}

impl Writer {
    /// Starts the writer. `become_writer` are the arguments with which this program calls [`become_writer`]; the command follows them.
    ///
    /// # Errors
    /// When no process can be had. A command that cannot be executed ends the process with 127.
    pub fn start(become_writer: &[OsString], command: &[OsString], open: &Open) -> io::Result<Self> {
        let child = Command::new("/proc/self/exe")
            .args(become_writer)
            .arg(getpid().to_string())
            .arg("--")
            .args(command)
            .env("LEEWARD_EPOCH", open.epoch().to_string())
            .env("LEEWARD_CLUSTER", open.cluster.as_str())
            .spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        // It is waited for with all others: see `reap`.
        drop(child);
        Ok(Self {
            pid: Pid::from_raw(pid),
        })
    }

    /// Passes a signal on.
    pub fn signal(&self, signal: Signal) {
        // It may have ended meanwhile.
        let _ = kill(self.pid, signal);
    }

    /// Takes in the processes that have ended; how the writer ended, if it is among them.
    pub fn reap(&self) -> Option<Exit> {
        let mut exit = None;
        while let Some((pid, code)) = next_ended() {
            if pid == self.pid {
                exit = Some(Exit { code });
            }
        }
        exit
    }
}

/// Takes in one process that has ended: which, and its code.
fn next_ended() -> Option<(Pid, u8)> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => return Some((pid, u8::try_from(code & 0xff).unwrap_or(1))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                return Some((pid, u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
            Err(Errno::EINTR) | Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// Ends every descendant of this process, and returns once none is left. What cannot end, since it waits for a disk, is waited for.
pub async fn end_all() {
    loop {
        let left = descendants();
        // One that starts another between the two is found with it in the next round.
        for pid in &left {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        while next_ended().is_some() {}
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// All processes whose ancestor this one is.
fn descendants() -> Vec<Pid> {
    let processes: Vec<(i32, i32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, parent(&stat)?))
        })
        .collect();
    let mut found = vec![getpid().as_raw()];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(processes.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.into_iter().skip(1).map(Pid::from_raw).collect()
}

/// The parent in a line of `/proc/PID/stat`: the name before it may hold anything but its last parenthesis.
fn parent(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// The code as what a process returns.
impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code.into()
    }
}

#[cfg(test)]
mod tests {
    use super::parent;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_hide_the_parent() {
        assert_eq!(parent("71 (a) R 9 (b)) S 42 71 71"), Some(42));
        assert_eq!(parent("71 (sh) S 1 71"), Some(1));
        assert_eq!(parent(""), None);
    }
}
