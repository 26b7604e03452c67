//! Which functions a program and its children run: a breakpoint on each, taken away the first time that it is met.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

/// `int3`.
const BREAKPOINT: u8 = 0xcc;

/// What a process is in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Api,
    Node,
    Serve,
    Other,
}

impl Role {
    /// From its command line, with zero bytes between the arguments.
    fn of(command_line: &str) -> Self {
        let mut arguments = command_line.split('\0').skip(1);
        match (arguments.next(), arguments.next()) {
            (Some("local"), Some("api")) => Self::Api,
            (Some("local"), Some("node")) => Self::Node,
            (Some("serve"), _) => Self::Serve,
            _ => Self::Other,
        }
    }
}

/// A function of the program.
#[derive(Debug)]
pub(super) struct Function {
    /// From where the program is loaded, in bytes.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) size: u64,
    /// As the linker knows it.
    pub(super) name: String,
}

/// The program's file.
pub(super) struct Image {
    program: PathBuf,
    /// Where its code begins, from where it is loaded.
    start: u64,
    code: Vec<u8>,
    /// The code with the breakpoints in it.
    planted: Vec<u8>,
    pub(super) functions: Vec<Function>,
}

impl Image {
    /// Reads the program's symbols and code.
    pub(super) fn read(program: &Path) -> Result<Self> {
        ensure!(
            cfg!(target_arch = "x86_64"),
            "breakpoints are known for x86_64 alone; make the list there"
        );
        let program = fs::canonicalize(program).with_context(|| program.display().to_string())?;
        let bytes = fs::read(&program)?;
        let file = object::File::parse(&*bytes)?;
        let text = file.section_by_name(".text").context("no code")?;
        let hot = file.section_by_name(".text.ordered");
        let start = hot.map_or(text.address(), |hot| hot.address().min(text.address()));
        let end = text.address() + text.size();
        let mut code = vec![0; usize::try_from(end - start)?];
        for section in file.sections() {
            if section.address() >= start && section.address() + section.size() <= end {
                let at = usize::try_from(section.address() - start)?;
                let data = section.data()?;
                code[at..at + data.len()].copy_from_slice(data);
            }
        }
        let mut functions = Vec::new();
        let mut planted = code.clone();
        for symbol in file.symbols() {
            let (offset, size) = (symbol.address(), symbol.size());
            if symbol.kind() != SymbolKind::Text || !(start..end).contains(&offset) || size == 0 {
                continue;
            }
            planted[usize::try_from(offset - start)?] = BREAKPOINT;
            let name = symbol.name()?.to_owned();
            functions.push(Function { offset, size, name });
        }
        ensure!(!functions.is_empty(), "{} has no symbols", program.display());
        Ok(Self {
            program,
            start,
            code,
            planted,
            functions,
        })
    }
}

/// The functions that were run, by what ran them: their offsets.
pub(super) type Seen = BTreeMap<Role, BTreeSet<u64>>;

/// A process of the program.
#[derive(Clone, Copy)]
struct Traced {
    role: Role,
    /// Where the program is loaded.
    base: u64,
}

/// Runs the program with these arguments and this home; `then` is run by another thread once the program itself has ended. Returns when all
/// that came of it has ended.
pub(super) fn run(
    image: &Image,
    arguments: &[&str],
    home: &Path,
    then: impl FnOnce() -> Result<()> + Send,
) -> Result<Seen> {
    let mut command = Command::new(&image.program);
    command.args(arguments).env("LEEWARD_HOME", home).stdout(Stdio::null());
    // SAFETY: one system call between fork and exec, which takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(|| ptrace::traceme().map_err(std::io::Error::from));
    }
    let (ended, end) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let user = scope.spawn(move || {
            // An error is a tracer that failed.
            if end.recv().is_err() {
                return Ok(());
            }
            then()
        });
        let seen = (|| {
            let child = command.spawn().context("the program cannot be started")?;
            let root = Pid::from_raw(i32::try_from(child.id())?);
            Tracer {
                image,
                root,
                ended: Some(ended),
                processes: HashMap::new(),
                threads: HashMap::new(),
                seen: Seen::new(),
            }
            .follow()
        })();
        match user.join() {
            Ok(used) => used.and(seen),
            Err(_) => bail!("the thread that uses the region panicked"),
        }
    })
}

struct Tracer<'a> {
    image: &'a Image,
    root: Pid,
    /// Dropped or told when the root ended.
    ended: Option<mpsc::Sender<()>>,
    /// Those that run the program. Forks have the breakpoints of their parents.
    processes: HashMap<i32, Traced>,
    /// Threads that were met, and their processes.
    threads: HashMap<i32, i32>,
    seen: Seen,
}

impl Tracer<'_> {
    fn follow(mut self) -> Result<Seen> {
        // The first stop is the exec of the root.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        waitpid(self.root, Some(flags))?;
        ptrace::setoptions(
            self.root,
            Options::PTRACE_O_TRACECLONE
                | Options::PTRACE_O_TRACEFORK
                | Options::PTRACE_O_TRACEVFORK
                | Options::PTRACE_O_TRACEEXEC
                | Options::PTRACE_O_EXITKILL,
        )?;
        self.threads.insert(self.root.as_raw(), self.root.as_raw());
        self.plant(self.root)?;
        ptrace::cont(self.root, None)?;
        loop {
            let (thread, signal) = match waitpid(None, Some(flags)) {
                Ok(WaitStatus::PtraceEvent(thread, _, event)) => {
                    if event == nix::libc::PTRACE_EVENT_EXEC {
                        self.plant(thread)?;
                    }
                    (thread, None)
                }
                Ok(WaitStatus::Stopped(thread, signal)) => (thread, self.stopped(thread, signal)?),
                Ok(WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, _, _)) => {
                    self.threads.remove(&thread.as_raw());
                    self.processes.remove(&thread.as_raw());
                    if thread == self.root
                        && let Some(ended) = self.ended.take()
                    {
                        let _ = ended.send(());
                    }
                    continue;
                }
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(Errno::ECHILD) => return Ok(self.seen),
                Err(error) => return Err(error.into()),
            };
            match ptrace::cont(thread, signal) {
                // Killed meanwhile.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What a thread that stopped for a signal goes on with.
    fn stopped(&mut self, thread: Pid, signal: Signal) -> Result<Option<Signal>> {
        let id = thread.as_raw();
        if !self.threads.contains_key(&id) {
            self.meet(id);
            // Every new one begins so.
            if signal == Signal::SIGSTOP {
                return Ok(None);
            }
        }
        if signal == Signal::SIGTRAP && self.met(thread)? {
            return Ok(None);
        }
        Ok(Some(signal))
    }

    /// Learns what a new thread, or a fork, belongs to.
    fn meet(&mut self, id: i32) {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let field = |name: &str| -> Option<i32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        let process = field("Tgid:").unwrap_or(id);
        self.threads.insert(id, process);
        let parent = field("PPid:").and_then(|parent| self.processes.get(&parent).copied());
        if let (false, Some(parent)) = (self.processes.contains_key(&process), parent) {
            self.processes.insert(process, parent);
        }
    }

    /// Puts the breakpoints into a process that has just become the program, or forgets one that became another.
    fn plant(&mut self, process: Pid) -> Result<()> {
        let id = process.as_raw();
        self.threads.insert(id, id);
        self.processes.remove(&id);
        if fs::read_link(format!("/proc/{id}/exe")).ok().as_ref() != Some(&self.image.program) {
            return Ok(());
        }
        let maps = fs::read_to_string(format!("/proc/{id}/maps"))?;
        let program = self.image.program.display().to_string();
        let first = maps.lines().find(|line| line.ends_with(&program));
        let base = first.and_then(|line| u64::from_str_radix(line.split('-').next()?, 16).ok());
        let base = base.context("the program is not in its own memory")?;
        memory(id)?.write_all_at(&self.image.planted, base + self.image.start)?;
        let role = Role::of(&fs::read_to_string(format!("/proc/{id}/cmdline"))?);
        self.processes.insert(id, Traced { role, base });
        Ok(())
    }

    /// Whether the thread stands behind a breakpoint, which is then taken away and was the function's beginning.
    #[cfg(target_arch = "x86_64")]
    fn met(&mut self, thread: Pid) -> Result<bool> {
        let id = thread.as_raw();
        let process = self.threads.get(&id).copied().unwrap_or(id);
        let Some(traced) = self.processes.get(&process).copied() else {
            return Ok(false);
        };
        let mut registers = ptrace::getregs(thread)?;
        let offset = (registers.rip - 1).wrapping_sub(traced.base);
        let at = offset.wrapping_sub(self.image.start) as usize;
        if self.image.planted.get(at) != Some(&BREAKPOINT) || self.image.code[at] == BREAKPOINT {
            return Ok(false);
        }
        memory(id)?.write_all_at(&self.image.code[at..=at], registers.rip - 1)?;
        registers.rip -= 1;
        ptrace::setregs(thread, registers)?;
        self.seen.entry(traced.role).or_default().insert(offset);
        Ok(true)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn met(&mut self, _: Pid) -> Result<bool> {
        Ok(false)
    }
}

fn memory(process: i32) -> std::io::Result<File> {
    OpenOptions::new().write(true).open(format!("/proc/{process}/mem"))
}

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn a_process_is_known_by_its_command_line() {
        assert_eq!(Role::of("/proc/self/exe\0local\0api\0--config\0a.json\0"), Role::Api);
        assert_eq!(Role::of("/proc/self/exe\0local\0node\0"), Role::Node);
        assert_eq!(Role::of("leeward\0serve\0--config\0serve.json\0"), Role::Serve);
        assert_eq!(Role::of("leeward\0up\0"), Role::Other);
        assert_eq!(Role::of(""), Role::Other);
    }
}
