//! A gate between users and a writer.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use crate::{
    agent::{Agent, Does, eventually},
    writer::LISTEN,
};

pub(crate) const ROLE: &str = "shop/web/data";

pub(crate) struct Stage {
    pub(crate) agent: Agent,
    pub(crate) gate: Child,
    directory: TempDir,
    listen: SocketAddr,
    writer: SocketAddr,
}

/// What a writer says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) epoch: u64,
    pub(crate) pid: i32,
    pub(crate) child: i32,
}

impl Stage {
    pub(crate) async fn new(protocol: &str, does: Does) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let agent = Agent::start(directory.path(), does).await;
        // Each of these is free now, and nobody else of this machine asks for that address.
        let host = format!(
            "127.{}.{}.{}",
            100 + rand::random::<u8>() % 100,
            rand::random::<u8>(),
            1 + rand::random::<u8>() % 250
        );
        let free = || TcpListener::bind((host.as_str(), 0)).unwrap().local_addr().unwrap();
        let (listen, writer) = (free(), free());
        let port = format!("{protocol}:{listen}={writer}");
        let gate = start(directory.path(), &port, writer);
        Self {
            agent,
            gate,
            directory,
            listen,
            writer,
        }
    }

    /// Starts another gate in the place of the first one, which has ended.
    pub(crate) fn restart(&mut self) {
        let port = format!("tcp:{}={}", self.listen, self.writer);
        self.gate = start(self.directory.path(), &port, self.writer);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.gate.id().unwrap();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    pub(crate) async fn connect(&self) -> User {
        let mut stream = None;
        eventually("the gate listens", async || {
            stream = TcpStream::connect(self.listen).await.ok();
            stream.is_some()
        })
        .await;
        User(BufReader::new(stream.unwrap()))
    }

    /// A connection over which the writer has answered, and what it said.
    pub(crate) async fn open(&self) -> (User, Said) {
        let mut open = None;
        eventually("the writer answers", async || {
            let mut user = self.connect().await;
            open = user.say("hello").await.map(|said| (user, said));
            open.is_some()
        })
        .await;
        open.unwrap()
    }
}

impl Drop for Stage {
    /// A gate that ends in order leaves nothing behind.
    fn drop(&mut self) {
        let Some(gate) = self.gate.id().and_then(|pid| i32::try_from(pid).ok()) else {
            return;
        };
        // With its writer gone there is nothing that could ignore the signal.
        self.signal(Signal::SIGTERM);
        let begun = std::time::Instant::now();
        while is_alive(gate) && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn start(directory: &Path, port: &str, writer: SocketAddr) -> Child {
    Command::new(env!("CARGO_BIN_EXE_leeward-gate"))
        .args(["--role", ROLE, "--pod", "pod-1", "--port", port, "--directory"])
        .arg(directory)
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["writer::writer", "--exact", "--nocapture"])
        .env(LISTEN, writer.to_string())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

pub(crate) struct User(BufReader<TcpStream>);

impl User {
    pub(crate) async fn send(&mut self, line: &str) -> std::io::Result<()> {
        self.0.write_all(format!("{line}\n").as_bytes()).await
    }

    /// Sends a line; none when the connection ends instead of an answer.
    pub(crate) async fn say(&mut self, line: &str) -> Option<Said> {
        self.send(line).await.ok()?;
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(20), self.0.read_line(&mut answer))
            .await
            .unwrap();
        read.ok().filter(|read| *read > 0)?;
        let mut words = answer.split(' ');
        let mut number = || words.next()?.parse::<i64>().ok();
        Some(Said {
            epoch: u64::try_from(number()?).unwrap(),
            pid: i32::try_from(number()?).unwrap(),
            child: i32::try_from(number()?).unwrap(),
        })
    }

    /// Everything until the end of the connection, and whether that was a reset.
    pub(crate) async fn rest(mut self) -> (String, bool) {
        let mut bytes = vec![];
        let end = tokio::time::timeout(Duration::from_secs(20), self.0.read_to_end(&mut bytes))
            .await
            .unwrap();
        (String::from_utf8_lossy(&bytes).into_owned(), end.is_err())
    }
}

pub(crate) fn is_alive(pid: i32) -> bool {
    // A process that has ended and was not waited for yet does nothing any more.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
