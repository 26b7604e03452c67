//! Runs one container as a process in its image's root file system.
//!
//! A node writes a [`Spec`] to a file and starts `leeward local container FILE`, a fresh process with one thread, which
//! calls [`main`]. That process, the *keeper*, makes user and PID namespaces, forks the *init* (the application, process 1
//! of its PID namespace) and stays outside as its parent:
//!
//! ```text
//! node ──(a thread that lives as long as the node)── keeper ── init = the application ── its children
//! ```
//!
//! - The keeper's standard input is the *control channel*, a socket. The node sends bytes, each the number of a signal for
//!   the init; the keeper answers with one JSON [`Report`] a line. The end of the channel means that the node is gone.
//! - Everything dies with the node, even on SIGKILL: keeper and init each have a parent-death signal, and the kernel ends a
//!   PID namespace with its init. Mounts live in the init's mount namespace and end with it.
//! - No root is needed: inside the user namespace exactly one id exists, the one that the image asks for, mapped to the user
//!   who runs the node. Capabilities are dropped before the application starts, and it cannot gain new privileges.
//! - Where the kernel refuses user namespaces ([`namespaces_available`]), [`Isolation::Plain`] runs the entrypoint from the
//!   unpacked image as an ordinary process. Its volumes are symlinks in its working directory, and `LEEWARD_MOUNT_<n>`
//!   names each (counted from 0, in the order of the mounts).

pub mod path;

mod init;
mod join;
mod keeper;
mod mounts;
mod plain;
mod privileges;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What one keeper process is to run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Spec {
    /// The process id of the node; the keeper refuses to start under another parent.
    pub node_pid: i32,
    /// What to do.
    pub action: Action,
}

/// What a keeper does.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Starts a container.
    Run(Run),
    /// Runs one more process in a container that runs.
    Join(Join),
}

/// A container to start.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Run {
    /// How it is kept apart from the machine.
    pub isolation: Isolation,
    /// The unpacked image; never written to.
    pub image_root: PathBuf,
    /// A directory of this start alone: the writable layer and the place of the root file system.
    pub scratch: PathBuf,
    /// The host name inside.
    pub hostname: String,
    /// What to mount, in order.
    pub mounts: Vec<Mount>,
    /// The application.
    pub process: Process,
    /// Whether the root file system is read-only (volumes are not affected).
    pub read_only_root: bool,
}

/// A process to run inside a running container, such as an exec probe.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Join {
    /// The init of the container, as seen by the node.
    pub pid: i32,
    /// Whether the container has namespaces to join.
    pub isolation: Isolation,
    /// The unpacked image, where a plain process finds its program.
    pub image_root: PathBuf,
    /// The process.
    pub process: Process,
}

/// How a container is kept apart from the machine.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    /// User, mount, PID, UTS and IPC namespaces.
    Namespaces,
    /// None: an ordinary process, for machines that refuse user namespaces.
    Plain,
}

/// A file or directory of the machine that is visible inside.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Mount {
    /// On the machine.
    pub source: PathBuf,
    /// A path below `source`, resolved so that no symlink leads out of it.
    pub sub_path: Option<String>,
    /// Inside the container, absolute.
    pub target: PathBuf,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// A program with what it gets.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Process {
    /// The program and its arguments; a program without a slash is looked up in the PATH of `env`.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The working directory, made if it is missing.
    pub cwd: String,
    /// The user id inside.
    pub uid: u32,
    /// The group id inside.
    pub gid: u32,
}

/// What a keeper tells the node, one JSON object a line.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// Something that worked less well than it should, such as a copy in place of an overlay.
    Note(String),
    /// The application runs.
    Started {
        /// Its process id as the node sees it.
        pid: i32,
    },
    /// The application could not be started; nothing of it runs.
    Failed {
        /// What went wrong, for people.
        message: String,
        /// Whether the program itself could not be executed (and not the preparation around it).
        exec: bool,
    },
    /// The application and every process of it ended.
    Exited {
        /// The exit code; 128 + signal where a signal ended it.
        code: i32,
        /// The signal that ended it.
        signal: Option<i32>,
    },
}

/// Why a container could not be prepared or started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specification file cannot be used.
    #[error("cannot read the container's specification {path}: {reason}")]
    Spec {
        /// The file.
        path: String,
        /// The cause.
        reason: String,
    },
    /// A system call failed.
    #[error("{what}: {errno}")]
    Sys {
        /// What was being done.
        what: String,
        /// The kernel's answer.
        errno: std::io::Error,
    },
    /// A path of the specification is not acceptable.
    #[error(transparent)]
    Path(#[from] path::Error),
    /// The program cannot be executed.
    #[error("{0}")]
    Exec(String),
    /// The init failed before it came to the program.
    #[error("{0}")]
    Setup(String),
    /// The node was gone before the container started.
    #[error("the node that asked for this container is gone")]
    Orphan,
}

/// Adds what was being done to a failed system call.
trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<std::io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|errno| Error::Sys {
            what: what(),
            errno: errno.into(),
        })
    }
}

/// The entry of the keeper process: runs what the specification file in `args` says and returns the exit code.
///
/// Must be called in a process with one thread. Codes: the application's, or 125 when it could not be prepared.
pub fn main(args: &[String]) -> i32 {
    let [file] = args else {
        eprintln!("leeward local container needs exactly one argument, the file of its specification");
        return 2;
    };
    let result = if file == PROBE {
        keeper::probe().map(|()| 0)
    } else {
        read(Path::new(file)).and_then(keeper::run)
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            125
        }
    }
}

/// The argument of [`main`] that only tries the namespaces.
const PROBE: &str = "--probe";

fn read(path: &Path) -> Result<Spec, Error> {
    let fail = |reason: String| Error::Spec {
        path: path.display().to_string(),
        reason,
    };
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))
}

/// Whether this kernel lets this user make the namespaces that containers need.
///
/// Tried for real in a child process, since several settings of several distributions refuse it at different points.
///
/// # Errors
/// Says what was refused and which setting usually does that.
pub fn namespaces_available() -> Result<(), String> {
    let output = std::process::Command::new("/proc/self/exe")
        .args(["local", "container", PROBE])
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| format!("cannot start a process to try namespaces: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{reason}{}", hint(|path| std::fs::read_to_string(path).ok())))
}

/// Names the setting that most likely refuses user namespaces, given what the files under /proc say.
fn hint(read: impl Fn(&str) -> Option<String>) -> String {
    let is = |path: &str, value: &str| read(path).is_some_and(|text| text.trim() == value);
    let settings = [
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            "/proc/sys/kernel/unprivileged_userns_clone",
            "0",
            "kernel.unprivileged_userns_clone=1",
        ),
        (
            "/proc/sys/user/max_user_namespaces",
            "0",
            "user.max_user_namespaces=15000",
        ),
    ];
    settings
        .iter()
        .find(|(path, refusing, _)| is(path, refusing))
        .map(|(_, _, fix)| format!("; an administrator can allow it with: sysctl -w {fix}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_the_setting_that_refuses() {
        let apparmor = |path: &str| path.contains("apparmor").then(|| "1\n".to_owned());
        assert!(hint(apparmor).contains("apparmor_restrict_unprivileged_userns=0"));
        let none = |path: &str| path.contains("max_user").then(|| "0\n".to_owned());
        assert!(hint(none).contains("max_user_namespaces"));
        assert_eq!(hint(|_| None), "");
    }
}
