//! A real etcd of several members, each a process on an address of loopback that nobody else has.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::process::Process;
use crate::real::free;

/// How long members may take to answer, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Members that end with this.
pub struct Etcd {
    program: PathBuf,
    directory: TempDir,
    members: Vec<Member>,
    scheme: &'static str,
    flags: Vec<String>,
}

struct Member {
    name: String,
    clients: SocketAddr,
    peers: SocketAddr,
    process: Option<Process>,
}

impl Etcd {
    /// Starts members, with flags that all of them get besides; `None` where no directory of `PATH` has etcd.
    /// `{dir}` in a flag stands for the directory of [`Etcd::directory`], into which `prepare` may write what they name,
    /// for the addresses at which clients will be served.
    /// With `--cert-file` among them clients are served by TLS.
    ///
    /// # Errors
    /// One of them ends, or they do not answer in time.
    pub async fn start(
        count: usize,
        flags: &[&str],
        prepare: impl FnOnce(&Path, &[SocketAddr]) -> Result<()>,
    ) -> Result<Option<Self>> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|directory| directory.join("etcd"));
        let Some(program) = found.into_iter().find(|file| file.is_file()) else {
            println!("skipped: no directory of PATH has etcd; cargo xtask test gets it");
            return Ok(None);
        };
        let directory = tempfile::tempdir()?;
        let text = directory.path().display().to_string();
        let mut etcd = Self {
            program,
            members: Vec::new(),
            scheme: if flags.iter().any(|flag| flag.starts_with("--cert-file")) {
                "https"
            } else {
                "http"
            },
            flags: flags.iter().map(|flag| flag.replace("{dir}", &text)).collect(),
            directory,
        };
        for index in 0..count {
            let [clients, peers] = free()?;
            etcd.members.push(Member {
                name: format!("m{index}"),
                clients,
                peers,
                process: None,
            });
        }
        let clients: Vec<SocketAddr> = etcd.members.iter().map(|member| member.clients).collect();
        prepare(etcd.directory(), &clients)?;
        for index in 0..count {
            etcd.run(index)?;
        }
        etcd.wait().await?;
        Ok(Some(etcd))
    }

    /// Where the members keep their data and logs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where a member keeps its data.
    pub fn data(&self, index: usize) -> PathBuf {
        self.directory().join(&self.members[index].name)
    }

    /// Where clients reach each member.
    pub fn endpoints(&self) -> Vec<String> {
        let url = |member: &Member| format!("{}://{}", self.scheme, member.clients);
        self.members.iter().map(url).collect()
    }

    /// Starts a member that was stopped, with the data that it has.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&mut self, index: usize) -> Result<()> {
        let (scheme, directory) = (self.scheme, self.directory.path().to_owned());
        let all: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}=http://{}", member.name, member.peers))
            .collect();
        let member = &mut self.members[index];
        let mut arguments = vec![
            format!("--name={}", member.name),
            format!("--data-dir={}", directory.join(&member.name).display()),
            format!("--listen-client-urls={scheme}://{}", member.clients),
            format!("--advertise-client-urls={scheme}://{}", member.clients),
            format!("--listen-peer-urls=http://{}", member.peers),
            format!("--initial-advertise-peer-urls=http://{}", member.peers),
            format!("--initial-cluster={}", all.join(",")),
            "--heartbeat-interval=50".to_owned(),
            "--election-timeout=500".to_owned(),
        ];
        arguments.extend(self.flags.iter().cloned());
        let log = member.name.clone();
        member.process = Some(Process::start(log, &self.program, arguments, &directory)?);
        Ok(())
    }

    /// Kills a member; its data stays.
    pub fn kill(&mut self, index: usize) {
        self.members[index].process = None;
    }

    /// Ends a member in order.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn stop(&mut self, index: usize) -> Result<()> {
        self.members[index].process.take().map_or(Ok(()), Process::stop)
    }

    /// Makes a member stand still, some moment after this returns.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn freeze(&mut self, index: usize) -> Result<()> {
        self.signal(index, "STOP")
    }

    /// Lets a member that stands still go on.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn thaw(&mut self, index: usize) -> Result<()> {
        self.signal(index, "CONT")
    }

    fn signal(&mut self, index: usize, name: &str) -> Result<()> {
        let process = self.members[index].process.as_mut();
        process.context("the member does not run")?.signal(name)
    }

    /// Waits until every running member says that it serves.
    ///
    /// # Errors
    /// They do not in time; the end of a log says why.
    pub async fn wait(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        for member in &self.members {
            let Some(process) = &member.process else { continue };
            let log = self.directory().join(format!("{}.log", member.name));
            let serves = || -> Result<bool> {
                let text = std::fs::read_to_string(&log).context("its log")?;
                Ok(text.contains("ready to serve client requests"))
            };
            while !serves()? {
                if Instant::now() > end {
                    return process.failed("does not serve");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        ensure!(!self.members.is_empty(), "no member");
        Ok(())
    }
}
