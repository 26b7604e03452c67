//! Starts keepers (see [`crate::container`]) and follows what they report.
//!
//! Every keeper is spawned by one dedicated thread: the kernel's parent-death signal goes by the *thread* that spawned a
//! process, so that thread has to live exactly as long as the node.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, oneshot, watch};

use crate::container::{Action, Report, Spec};

/// Why a container did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The node could not start a process for it.
    #[error("cannot start a process for the container: {0}")]
    Spawn(#[from] std::io::Error),
    /// The container's own preparation or program failed.
    #[error("{message}")]
    Refused {
        /// What went wrong.
        message: String,
        /// Whether it was the program that could not be executed.
        exec: bool,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Exit {
    /// The exit code; 128 + signal after a signal.
    pub(super) code: i32,
    /// The signal that ended it.
    pub(super) signal: Option<i32>,
}

/// Where the keepers come from.
#[derive(Clone)]
pub(super) struct Spawner {
    requests: mpsc::Sender<Request>,
    closed: Arc<AtomicBool>,
}

struct Request {
    spec: PathBuf,
    control: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    answer: oneshot::Sender<std::io::Result<Child>>,
}

/// A container, or a process in one, that was started.
pub(super) struct Running {
    /// The init as the node sees it.
    pub(super) pid: i32,
    control: Mutex<OwnedWriteHalf>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Spawner {
    /// Starts the spawning thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let (requests, inbox) = mpsc::channel::<Request>();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                while let Ok(request) = inbox.recv() {
                    let Request {
                        spec,
                        control,
                        stdout,
                        stderr,
                        answer,
                    } = request;
                    let child = Command::new("/proc/self/exe")
                        .args(["local", "container"])
                        .arg(spec)
                        .stdin(Stdio::from(control))
                        .stdout(Stdio::from(stdout))
                        .stderr(Stdio::from(stderr))
                        .current_dir("/")
                        .spawn();
                    // When nobody waits any more the control channel closes with the answer and the keeper ends by itself.
                    let _ = answer.send(child);
                }
            })?;
        Ok(Self {
            requests,
            closed: Arc::default(),
        })
    }

    /// Nothing is started from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Starts what `action` says and waits until its program runs. `notes` hears what worked less well than it should.
    ///
    /// Must not be cancelled by dropping when the end of the process matters: it would end, but unobserved.
    pub(super) async fn launch(
        &self,
        action: Action,
        spec_file: &Path,
        output: (OwnedFd, OwnedFd),
        mut notes: impl FnMut(String) + Send,
    ) -> Result<Arc<Running>, Error> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("the node is shutting down").into());
        }
        let node_pid = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
        write_private(
            spec_file,
            &serde_json::to_vec(&Spec { node_pid, action }).map_err(std::io::Error::other)?,
        )?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (answer, answered) = oneshot::channel();
        let request = Request {
            spec: spec_file.to_path_buf(),
            control: theirs.into(),
            stdout: output.0,
            stderr: output.1,
            answer,
        };
        self.requests
            .send(request)
            .map_err(|_| std::io::Error::other("the spawning thread is gone"))?;
        let child = answered
            .await
            .map_err(|_| std::io::Error::other("the spawning thread is gone"))??;
        let (reader, writer) = UnixStream::from_std(ours)?.into_split();
        let mut reports = BufReader::new(reader);
        loop {
            match next(&mut reports).await {
                Some(Report::Note(text)) => notes(text),
                Some(Report::Started { pid }) => {
                    let (ended, exit) = watch::channel(None);
                    tokio::spawn(follow(reports, child, ended));
                    return Ok(Arc::new(Running {
                        pid,
                        control: Mutex::new(writer),
                        exit,
                    }));
                }
                Some(Report::Failed { message, exec }) => {
                    reap(child).await;
                    return Err(Error::Refused { message, exec });
                }
                Some(Report::Exited { .. }) | None => {
                    reap(child).await;
                    let message = "the process that keeps the container ended before it started".to_owned();
                    return Err(Error::Refused { message, exec: false });
                }
            }
        }
    }
}

impl Running {
    /// Sends a signal to the init; nothing happens when it has ended.
    pub(super) async fn signal(&self, number: i32) {
        if let Ok(byte) = u8::try_from(number) {
            let _ = self.control.lock().await.write_all(&[byte]).await;
        }
    }

    /// Waits until no process of it is left.
    pub(super) async fn ended(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        ended.unwrap_or(Exit {
            code: 137,
            signal: Some(libc::SIGKILL),
        })
    }

    /// Whether it still runs.
    pub(super) fn is_alive(&self) -> bool {
        self.exit.borrow().is_none()
    }
}

async fn next(reports: &mut BufReader<OwnedReadHalf>) -> Option<Report> {
    let mut line = String::new();
    loop {
        line.clear();
        if reports.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if let Ok(report) = serde_json::from_str(&line) {
            return Some(report);
        }
    }
}

/// Waits for the end of the keeper, whether it could say how the application ended or was killed itself.
async fn follow(mut reports: BufReader<OwnedReadHalf>, child: Child, ended: watch::Sender<Option<Exit>>) {
    let mut exit = Exit {
        code: 137,
        signal: Some(libc::SIGKILL),
    };
    while let Some(report) = next(&mut reports).await {
        if let Report::Exited { code, signal } = report {
            exit = Exit { code, signal };
        }
    }
    reap(child).await;
    let _ = ended.send(Some(exit));
}

async fn reap(mut child: Child) {
    let _ = tokio::task::spawn_blocking(move || child.wait()).await;
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file: File = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}
