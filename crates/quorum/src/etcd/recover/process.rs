//! etcd started for a recovery alone: one member that answers on loopback, and ends with who started it.

use std::{
    fs::File,
    future::Future,
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{Error, files::fault};
use crate::Error as QuorumError;

/// How long it may take to answer, and to end, however large its log is.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);
/// How much of a log an error shows, lines.
const SHOWN: usize = 5;

/// A member that runs alone. Dropped, it is killed.
pub(super) struct Alone {
    child: Child,
    program: PathBuf,
    log: PathBuf,
    /// Where it answers.
    pub(super) url: String,
}

impl Alone {
    /// Starts it on this data; with `force` the other members that the data knows are struck out.
    pub(super) fn start(program: &Path, data: &Path, log: &Path, force: bool) -> Result<Self, Error> {
        let [clients, peers] = free().map_err(fault("find a free port for", program))?;
        let url = format!("http://127.0.0.1:{clients}");
        let mut arguments = vec![
            "--name=recovery".to_owned(),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
            // One transaction moves every role and plan.
            "--max-txn-ops=1000000".to_owned(),
            "--max-request-bytes=268435456".to_owned(),
        ];
        if force {
            arguments.push("--force-new-cluster".to_owned());
        }
        let mut command = prepared(program, &arguments, log)?;
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe, and nothing is allocated.
        unsafe { command.pre_exec(|| nix::sys::prctl::set_pdeathsig(nix::sys::signal::SIGKILL).map_err(Into::into)) };
        Ok(Self {
            child: command.spawn().map_err(fault("start", program))?,
            program: program.to_owned(),
            log: log.to_owned(),
            url,
        })
    }

    /// Asks until it is answered.
    pub(super) async fn until<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, QuorumError>>,
    {
        let begin = Instant::now();
        loop {
            match ask().await {
                Err(QuorumError::Unreachable(_)) if !self.has_ended() && begin.elapsed() < PATIENCE => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(QuorumError::Unreachable(why)) => {
                    return Err(failed(&self.program, format!("does not answer ({why})"), &self.log));
                }
                other => return Ok(other?),
            }
        }
    }

    fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        stat.map_or(true, |stat| {
            stat.rsplit(')')
                .next()
                .is_some_and(|rest| rest.trim_start().starts_with('Z'))
        })
    }

    /// Ends it in order, so that everything is in its file.
    pub(super) fn stop(mut self) -> Result<(), Error> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM)
            .map_err(|error| fault("end", &self.program)(error.into()))?;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if self
                .child
                .try_wait()
                .map_err(fault("wait for", &self.program))?
                .is_some()
            {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Err(failed(&self.program, "does not end".to_owned(), &self.log))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // One that has ended already needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end.
pub(super) fn run(program: &Path, arguments: &[String], log: &Path) -> Result<(), Error> {
    let status = prepared(program, arguments, log)?
        .status()
        .map_err(fault("start", program))?;
    match status.success() {
        true => Ok(()),
        false => Err(failed(program, format!("ended with {status}"), log)),
    }
}

/// With nothing of the environment that etcd would take for an option.
fn prepared(program: &Path, arguments: &[String], log: &Path) -> Result<Command, Error> {
    let opened = File::options().create(true).append(true).open(log);
    let out = opened.map_err(fault("write", log))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("ETCDCTL_API", "3")
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(fault("write", log))?)
        .stderr(out);
    // Without it etcd refuses to run on some processors.
    if let Some(arch) = std::env::var_os("ETCD_UNSUPPORTED_ARCH") {
        command.env("ETCD_UNSUPPORTED_ARCH", arch);
    }
    Ok(command)
}

fn failed(program: &Path, what: String, log: &Path) -> Error {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    Error::Program {
        program: program.display().to_string(),
        what,
        log: log.display().to_string(),
        end: lines[lines.len().saturating_sub(SHOWN)..].join("\n"),
    }
}

/// Two ports of loopback that nobody uses now.
fn free() -> io::Result<[u16; 2]> {
    let one = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok([one.local_addr()?.port(), other.local_addr()?.port()])
}
