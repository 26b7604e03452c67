//! The processes of an instance: starting them, finding them again, and ending them and all that they started.
//!
//! A process is known by its id **and** its start time and the machine's boot, so that a later command never ends another
//! process that was given the same id. Each one leads a session of its own. What a process started is found in three ways,
//! since a container may have left its parent or its session: by parentage, by session, and by the variable [`MARK`] in its
//! environment.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// The environment variable by which a process shows which instance it belongs to: the instance's directory.
pub const MARK: &str = "LEEWARD_INSTANCE";

/// What a process of an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The Kubernetes API of a region with its controllers.
    Api,
    /// One node of a region.
    Node,
    /// Leeward's agent in a region.
    Serve,
    /// The witness, with the embedded quorum where there is no other.
    Witness,
    /// A member of the quorum on etcd.
    Quorum,
}

/// A process that was started, as it is written down for later commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name within the instance, such as `west-node-0`.
    pub name: String,
    /// The region that it belongs to; none for the witness.
    pub region: Option<String>,
    /// What it does.
    pub role: Role,
    /// Its process id.
    pub pid: i32,
    /// Its start time in clock ticks since the machine's boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
    /// The boot of the machine that it was started in.
    pub boot: String,
}

impl Record {
    /// Whether this very process still runs. One that has ended and only waits to be reaped does not.
    pub fn is_alive(&self) -> bool {
        self.boot == boot_id()
            && Stat::read(self.pid).is_some_and(|stat| stat.start_time == self.start_time && !stat.ended)
    }

    /// Sends a signal to this very process; false when it is gone.
    pub fn signal(&self, signal: i32) -> bool {
        self.boot == boot_id() && signal_process(self.pid, self.start_time, signal)
    }
}

/// What starts one process.
#[derive(Debug)]
pub struct Start {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where its standard output and error are appended.
    pub log: PathBuf,
    /// The directory of the instance, given to it as [`MARK`].
    pub instance: PathBuf,
    /// Whether it dies together with this program, even when this one is killed.
    pub dies_with_owner: bool,
    /// The network namespace that it runs in; none for that of this program.
    pub network: Option<OwnedFd>,
}

/// For glibc's allocator: what a large request or answer took is given back when it is freed. Left to itself it keeps, after the first
/// large one, all that comes later for itself.
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];

type Answer = mpsc::SyncSender<io::Result<Child>>;

/// Starts a process. It is forked by one thread that lives as long as this program, because a process that dies with its owner
/// in truth dies with the thread that forked it.
pub fn start(start: Start) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<(Start, Answer)>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<(Start, Answer)>();
        std::thread::spawn(move || {
            for (start, answer) in inbox {
                // The asker may have gone away; the process is then found by its mark.
                let _ = answer.send(spawn(&start));
            }
        });
        requests
    });
    let (answer, result) = mpsc::sync_channel(1);
    let gone = || io::Error::other("the thread that starts processes has ended");
    spawner.send((start, answer)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

fn spawn(start: &Start) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(&start.log)?;
    let mut command = Command::new(&start.program);
    command
        .args(&start.arguments)
        .env(MARK, &start.instance)
        .envs(ALLOCATOR)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let owner = std::process::id();
    let dies_with_owner = start.dies_with_owner;
    let network = start.network.as_ref().map(AsRawFd::as_raw_fd);
    let prepare = move || {
        nix::unistd::setsid()?;
        if let Some(network) = network {
            nix::errno::Errno::result(enter(network))?;
        }
        if dies_with_owner {
            nix::errno::Errno::result(prctl_death_signal())?;
            if nix::unistd::getppid().as_raw() as u32 != owner {
                return Err(io::Error::other("the owner has ended"));
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe system calls are made (setsid, setns, prctl, getppid), and nothing is
    // allocated on the way that succeeds.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}

fn enter(network: i32) -> libc::c_int {
    // SAFETY: setns takes a descriptor and flags and touches no memory of ours; `start` holds the descriptor open until after the fork.
    unsafe { libc::setns(network, libc::CLONE_NEWNET) }
}

fn prctl_death_signal() -> libc::c_int {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) }
}

/// The id of the machine's present boot; empty where the kernel does not say.
pub fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|id| id.trim().to_owned())
            .unwrap_or_default()
    })
}

/// One process as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Process id.
    pub pid: i32,
    /// Parent's id.
    pub parent: i32,
    /// The id of the session that it belongs to.
    pub session: i32,
    /// Start time in clock ticks since the boot.
    pub start_time: u64,
    /// Processor time used so far, in clock ticks.
    pub cpu_ticks: u64,
    /// It has ended and waits to be reaped.
    pub ended: bool,
}

impl Stat {
    /// Reads one process; none when there is none of this id.
    pub fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads every process that can be seen.
    pub fn read_all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(Self::read)
            .collect()
    }

    // proc(5): `pid (comm) state ppid pgrp session ...`; comm may itself hold spaces and parentheses.
    fn parse(line: &str) -> Option<Self> {
        let pid = line.split(' ').next()?.parse().ok()?;
        let fields: Vec<&str> = line.get(line.rfind(')')? + 2..)?.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start_time: number(22)?,
            cpu_ticks: number(14)? + number(15)?,
            ended: matches!(fields.first(), Some(&("Z" | "X"))),
        })
    }
}

/// The processes among `all` that `roots` started, directly or not, or that are in a session that one of them leads; the roots
/// themselves are not among them.
pub fn descendants(all: &[Stat], roots: &[i32]) -> Vec<Stat> {
    let mut family: HashSet<i32> = roots.iter().copied().collect();
    loop {
        let before = family.len();
        for stat in all {
            if family.contains(&stat.parent) || roots.contains(&stat.session) {
                family.insert(stat.pid);
            }
        }
        if family.len() == before {
            break;
        }
    }
    all.iter()
        .filter(|stat| family.contains(&stat.pid) && !roots.contains(&stat.pid))
        .cloned()
        .collect()
}

/// The processes among `all` that carry the mark of this instance in their environment, this program excepted. One that is just
/// starting its program shows no environment: look more than once.
pub fn marked(all: &[Stat], instance: &Path) -> Vec<Stat> {
    let mark = format!("{MARK}={}", instance.display());
    let own = std::process::id() as i32;
    all.iter()
        .filter(|stat| stat.pid != own)
        .filter(|stat| {
            fs::read(format!("/proc/{}/environ", stat.pid)).is_ok_and(|environment| {
                environment
                    .split(|byte| *byte == 0)
                    .any(|entry| entry == mark.as_bytes())
            })
        })
        .cloned()
        .collect()
}

/// Signals the process with this id and start time; false when it is gone. The process is held by a descriptor while its start
/// time is compared, so that its id cannot pass to another one in between.
pub fn signal_process(pid: i32, start_time: u64, signal: i32) -> bool {
    // SAFETY: pidfd_open takes a process id and flags and returns a new descriptor or an error.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let Ok(descriptor) = i32::try_from(opened) else {
        return false;
    };
    if descriptor < 0 {
        return false;
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    let process = unsafe { OwnedFd::from_raw_fd(descriptor) };
    if !Stat::read(pid).is_some_and(|stat| stat.start_time == start_time && !stat.ended) {
        return false;
    }
    // SAFETY: the descriptor is open, and a null siginfo is allowed.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    sent == 0
}

/// Whether the process with this id and start time runs.
pub fn is_running(stat: &Stat) -> bool {
    Stat::read(stat.pid).is_some_and(|now| now.start_time == stat.start_time && !now.ended)
}

/// Waits until `gone` holds or `limit` has passed; says whether it held.
pub fn wait_until(limit: Duration, mut gone: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if gone() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Memory and processor time that processes use.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Resident memory in MiB, pages shared between processes counted in each of them.
    pub rss_mib: f64,
    /// Resident memory in MiB, a shared page counted in parts; equal to `rss_mib` where the kernel does not tell.
    pub pss_mib: f64,
    /// Processor time since each process's start.
    pub cpu: Duration,
}

/// What these processes use now, summed; one that is gone counts nothing.
pub fn usage(processes: &[Record]) -> Usage {
    let mut sum = Usage::default();
    for record in processes.iter().filter(|record| record.is_alive()) {
        let rss = kib_field(&format!("/proc/{}/status", record.pid), "VmRSS:").unwrap_or(0) as f64 / 1024.0;
        let pss = kib_field(&format!("/proc/{}/smaps_rollup", record.pid), "Pss:").map(|kib| kib as f64 / 1024.0);
        let ticks = Stat::read(record.pid).map_or(0, |stat| stat.cpu_ticks);
        sum.rss_mib += rss;
        sum.pss_mib += pss.unwrap_or(rss);
        sum.cpu += Duration::from_secs_f64(ticks as f64 / ticks_per_second());
    }
    sum
}

fn kib_field(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn ticks_per_second() -> f64 {
    match nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK) {
        Ok(Some(ticks)) if ticks > 0 => ticks as f64,
        _ => 100.0,
    }
}

/// The share of one core, in percent, that was used between two readings `elapsed` apart.
pub fn cpu_percent(before: Usage, after: Usage, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        return 0.0;
    }
    after.cpu.saturating_sub(before.cpu).as_secs_f64() / elapsed.as_secs_f64() * 100.0
}

/// Children of this program that have not been waited for, by name.
#[derive(Debug, Default)]
pub struct Children(BTreeMap<String, Vec<Child>>);

impl Children {
    /// Keeps a child so that it can be reaped.
    pub fn keep(&mut self, name: &str, child: Child) {
        self.0.entry(name.to_owned()).or_default().push(child);
    }

    /// Reaps those that have ended.
    pub fn reap(&mut self) {
        for children in self.0.values_mut() {
            children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        }
        self.0.retain(|_, children| !children.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, parent: i32, session: i32) -> Stat {
        Stat {
            pid,
            parent,
            session,
            start_time: 1,
            cpu_ticks: 0,
            ended: false,
        }
    }

    #[test]
    fn a_program_name_with_spaces_and_parentheses_is_read() {
        let line = "42 (a) b (c) S 7 42 41 0 -1 4194560 1 2 3 4 50 60 0 0 20 0 9 0 123456 1 2";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.session), (42, 7, 41));
        assert_eq!((stat.start_time, stat.cpu_ticks, stat.ended), (123_456, 110, false));
        assert_eq!(Stat::parse("42 (x"), None);
        assert_eq!(Stat::parse("42 (x) S 7"), None);
    }

    #[test]
    fn descendants_are_found_by_parentage_and_by_session() {
        let all = [
            stat(10, 1, 10),
            stat(13, 12, 13),
            stat(12, 10, 10),
            stat(14, 1, 10),
            stat(20, 1, 20),
        ];
        let found: Vec<i32> = descendants(&all, &[10]).iter().map(|stat| stat.pid).collect();
        assert_eq!(found, [13, 12, 14]);
    }

    fn sleeper(dir: &Path, script: &str) -> Child {
        start(Start {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            log: dir.join("log"),
            instance: dir.to_owned(),
            dies_with_owner: true,
            network: None,
        })
        .unwrap()
    }

    #[test]
    fn a_recycled_id_is_never_signalled() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = sleeper(dir.path(), "exec sleep 100");
        let pid = child.id() as i32;
        let stat = Stat::read(pid).unwrap();
        assert_eq!(stat.session, pid, "it leads a session of its own");
        let mut record = Record {
            name: "x".to_owned(),
            region: None,
            role: Role::Api,
            pid,
            start_time: stat.start_time + 1,
            boot: boot_id().to_owned(),
        };
        assert!(!record.signal(libc::SIGKILL) && !record.is_alive());
        assert!(is_running(&stat));
        record.start_time -= 1;
        assert!(record.is_alive() && record.signal(libc::SIGKILL));
        child.wait().unwrap();
        assert!(!record.is_alive());
    }

    #[test]
    fn what_left_its_session_is_found_by_its_mark() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = sleeper(dir.path(), "setsid sleep 100 & exec sleep 100");
        let pid = child.id() as i32;
        assert!(wait_until(Duration::from_secs(5), || marked(
            &Stat::read_all(),
            dir.path()
        )
        .len()
            == 2));
        // One that is just starting its program shows no environment, so a single look may miss it.
        assert!(wait_until(Duration::from_secs(5), || {
            let found = marked(&Stat::read_all(), dir.path());
            for stat in &found {
                signal_process(stat.pid, stat.start_time, libc::SIGKILL);
            }
            found.is_empty()
        }));
        child.wait().unwrap();
        assert!(Stat::read(pid).is_none());
    }

    #[test]
    fn usage_of_this_program_is_more_than_nothing() {
        let stat = Stat::read(std::process::id() as i32).unwrap();
        let own = Record {
            name: "x".to_owned(),
            region: None,
            role: Role::Api,
            pid: stat.pid,
            start_time: stat.start_time,
            boot: boot_id().to_owned(),
        };
        let usage = usage(&[own]);
        assert!(usage.rss_mib > 1.0 && usage.pss_mib > 0.0, "{usage:?}");
        let later = Usage {
            cpu: usage.cpu + Duration::from_millis(500),
            ..usage
        };
        assert!((cpu_percent(usage, later, Duration::from_secs(5)) - 10.0).abs() < 1e-9);
    }
}
