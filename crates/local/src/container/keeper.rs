//! The keeper: the process between node and application.
//!
//! Order matters. The parent-death signal is set after the user namespace is entered (a change of credentials clears it) and
//! the parent is looked at again afterwards, so no moment exists in which the node can die unnoticed. The init holds the
//! read end of a pipe whose write end only the keeper has; that is how it notices a keeper that died before the init had
//! its own parent-death signal (across PID namespaces `getppid` says nothing).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, dup2_stdin, fork, getegid, geteuid, getppid, pipe2, setsid};

use super::{Action, Context, Error, Isolation, Report, Spec, init, join, plain};

/// What the init sends when it cannot become the application; nothing arrives when it could.
#[derive(serde::Deserialize, serde::Serialize)]
pub(super) enum InitReport {
    Note(String),
    Failed { message: String, exec: bool },
}

/// The init's ends of the pipes to its keeper.
pub(super) struct Ties {
    /// Readable (end of file) when the keeper is dead.
    keeper: OwnedFd,
    /// Where [`InitReport`]s go; closed by a successful execve.
    reports: File,
}

impl Ties {
    /// Asks for SIGKILL at the keeper's death and makes sure that it has not happened yet.
    pub(super) fn die_with_keeper(&self) -> Result<(), Error> {
        prctl::set_pdeathsig(Signal::SIGKILL).context(|| "cannot set the parent-death signal".to_owned())?;
        let mut fds = [PollFd::new(self.keeper.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(0) => Ok(()),
            _ => Err(Error::Orphan),
        }
    }

    /// Tells the node of something that works less well than it should.
    pub(super) fn note(&mut self, text: String) {
        self.send(&InitReport::Note(text));
    }

    fn send(&mut self, report: &InitReport) {
        if let Ok(mut line) = serde_json::to_vec(report) {
            line.push(b'\n');
            // Nobody is left to tell when this fails.
            let _ = self.reports.write_all(&line);
        }
    }
}

/// Runs what `spec` says to its end and returns the exit code of the application.
pub(super) fn run(spec: Spec) -> Result<i32, Error> {
    let mut control = take_control()?;
    // A Ctrl-C in the terminal reaches the node, which ends its containers in order.
    let _ = setsid();
    let outcome = start(&spec, &mut control).and_then(|pid| supervise(pid, &mut control, &spec));
    match outcome {
        Ok(code) => Ok(code),
        Err(error) => {
            send(
                &mut control,
                &Report::Failed {
                    message: error.to_string(),
                    exec: matches!(error, Error::Exec(_)),
                },
            );
            Ok(125)
        }
    }
}

/// Moves the control channel away from standard input, which the application gets as /dev/null.
fn take_control() -> Result<UnixStream, Error> {
    let channel = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context(|| "cannot keep the control channel".to_owned())?;
    let null = File::open("/dev/null").context(|| "cannot open /dev/null".to_owned())?;
    dup2_stdin(&null).context(|| "cannot redirect standard input".to_owned())?;
    Ok(UnixStream::from(channel))
}

fn start(spec: &Spec, control: &mut UnixStream) -> Result<Pid, Error> {
    die_with_node(spec)?;
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGPIPE,
    ] {
        signals.add(signal);
    }
    signals.thread_block().context(|| "cannot block signals".to_owned())?;
    match &spec.action {
        Action::Run(run) if run.isolation == Isolation::Namespaces => {
            // Read before: inside the new namespace an id that is not mapped yet reads as the overflow id.
            let outer = (geteuid(), getegid());
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID)
                .context(|| "the kernel refuses a user namespace".to_owned())?;
            map_ids((run.process.uid, run.process.gid), outer)?;
        }
        Action::Run(_) => plain::adopt_orphans()?,
        Action::Join(target) => join::enter(target)?,
    }
    die_with_node(spec)?;

    let (keeper_read, keeper_write) = pipe2(OFlag::O_CLOEXEC).context(|| "cannot make a pipe".to_owned())?;
    let (reports_read, reports_write) = pipe2(OFlag::O_CLOEXEC).context(|| "cannot make a pipe".to_owned())?;
    // SAFETY: this process has one thread (the contract of `container::main`), so the child may use everything.
    match unsafe { fork() }.context(|| "cannot fork the container's init".to_owned())? {
        ForkResult::Child => {
            drop((keeper_write, reports_read));
            let mut ties = Ties {
                keeper: keeper_read,
                reports: File::from(reports_write),
            };
            let error = match &spec.action {
                Action::Run(run) if run.isolation == Isolation::Namespaces => init::become_application(run, &mut ties),
                Action::Run(run) => plain::become_application(run, &mut ties),
                Action::Join(target) => join::become_process(target, &mut ties),
            };
            ties.send(&InitReport::Failed {
                message: error.to_string(),
                exec: matches!(error, Error::Exec(_)),
            });
            std::process::exit(125);
        }
        ForkResult::Parent { child } => {
            drop((keeper_read, reports_write));
            // Open for as long as this process lives: the init watches the other end.
            std::mem::forget(keeper_write);
            await_start(child, File::from(reports_read), control)
        }
    }
}

/// Reads what the init has to say until it became the application.
fn await_start(child: Pid, mut reports: File, control: &mut UnixStream) -> Result<Pid, Error> {
    let mut text = String::new();
    reports
        .read_to_string(&mut text)
        .context(|| "cannot read from the container's init".to_owned())?;
    for line in text.lines() {
        match serde_json::from_str(line) {
            Ok(InitReport::Note(note)) => send(control, &Report::Note(note)),
            Ok(InitReport::Failed { message, exec }) => {
                let _ = waitpid(child, None);
                return Err(if exec {
                    Error::Exec(message)
                } else {
                    Error::Setup(message)
                });
            }
            Err(_) => {}
        }
    }
    send(control, &Report::Started { pid: child.as_raw() });
    Ok(child)
}

/// Passes signals on and waits for the end. Returns only when no process of the container is left.
fn supervise(child: Pid, control: &mut UnixStream, spec: &Spec) -> Result<i32, Error> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    let ended = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context(|| "cannot watch for the application's end".to_owned())?;
    let mut connected = true;
    loop {
        if let Some((code, signal)) = reap(child)? {
            plain::end_orphans();
            send(control, &Report::Exited { code, signal });
            return Ok(code);
        }
        let control_events = if connected {
            PollFlags::POLLIN
        } else {
            PollFlags::empty()
        };
        let mut fds = [
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.as_fd(), control_events),
        ];
        let watched = if connected { 2 } else { 1 };
        match poll(&mut fds[..watched], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(|| "cannot wait for the application".to_owned()),
        }
        while let Ok(Some(_)) = ended.read_signal() {}
        let asked = fds[watched - 1].revents().is_some_and(|events| !events.is_empty());
        if connected && asked {
            connected = obey(child, control, spec);
        }
    }
}

/// Delivers the signals that the node asks for. Without a node the application ends at once.
fn obey(child: Pid, control: &mut UnixStream, spec: &Spec) -> bool {
    let mut bytes = [0; 16];
    let count = control.read(&mut bytes).unwrap_or(0);
    if count == 0 {
        signal(child, libc::SIGKILL, spec);
        return false;
    }
    for byte in &bytes[..count] {
        signal(child, i32::from(*byte), spec);
    }
    true
}

fn signal(child: Pid, number: i32, spec: &Spec) {
    let Ok(number) = Signal::try_from(number) else { return };
    // The child is not reaped yet, so its id cannot belong to another process.
    let _ = kill(child, number);
    if number == Signal::SIGKILL
        && let Action::Run(run) = &spec.action
        && run.isolation == Isolation::Plain
    {
        plain::end_orphans();
    }
}

/// The end of `child`, if it has come. Other children (a plain container's orphans) are reaped on the way.
fn reap(child: Pid) -> Result<Option<(i32, Option<i32>)>, Error> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return Ok(Some((code, None))),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                return Ok(Some((128 + signal as i32, Some(signal as i32))));
            }
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(|| "cannot wait for the application".to_owned()),
        }
    }
}

fn die_with_node(spec: &Spec) -> Result<(), Error> {
    prctl::set_pdeathsig(Signal::SIGKILL).context(|| "cannot set the parent-death signal".to_owned())?;
    // Zero: the parent lies outside this process's PID namespace, so it cannot have died before us unnoticed.
    let parent = getppid().as_raw();
    if parent == spec.node_pid || parent == 0 {
        Ok(())
    } else {
        Err(Error::Orphan)
    }
}

/// Maps exactly one user and one group, the only mapping that needs no privilege (user_namespaces(7)).
fn map_ids(inner: (u32, u32), outer: (Uid, Gid)) -> Result<(), Error> {
    write_map("/proc/self/setgroups", "deny")?;
    write_map("/proc/self/uid_map", &format!("{} {} 1", inner.0, outer.0))?;
    write_map("/proc/self/gid_map", &format!("{} {} 1", inner.1, outer.1))
}

fn write_map(path: &str, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).context(|| format!("the kernel refuses the id mapping ({path})"))
}

fn send(control: &mut UnixStream, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = control.write_all(&line);
    }
}

/// What a probing child does: everything that a container needs and a kernel may refuse.
pub(super) fn probe() -> Result<(), Error> {
    let outer = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS)
        .context(|| "the kernel refuses a user namespace".to_owned())?;
    map_ids((0, 0), outer)?;
    super::mounts::make_private()
}
