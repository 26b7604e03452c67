//! Runs a gate: asks, opens and closes, starts and ends the writer.
//!
//! Flow: one task asks (`Asker`), one question at a time; this one takes the answers in, owns the writer, and tells the connections
//! through [`Door`]. Whatever wakes it, it first looks at the clock.

use std::{ffi::OsString, io, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use leeward_core::lease::Moment;
use nix::sys::signal::Signal;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    ask::{self, Link},
    hold::{Heard, Hold},
    install, now,
    relay::{self, Door},
    settings::Arguments,
    wire::{Answer, Ask, Closed},
    writer::{self, Exit, Writer},
};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// When to ask again after a question that was not answered.
const RETRY: Duration = Duration::from_millis(200);
/// The least and the most time between two questions, whatever the agent says.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(10));

/// Why a gate cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; it has to be this pod's own, and free")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The process cannot be set up.
    #[error("the gate cannot be set up: {0}")]
    Setup(#[from] io::Error),
    /// The writer cannot be executed.
    #[error("the writer {} cannot be executed: {source}", command.display())]
    Execute {
        /// The command.
        command: OsString,
        /// Why.
        source: io::Error,
    },
    /// The program cannot be brought to another image.
    #[error(transparent)]
    Install(#[from] install::Error),
    /// The command line makes no sense as a whole.
    #[error("{0}")]
    Arguments(&'static str),
}

impl Error {
    /// What the process ends with: 127 where the writer cannot be executed, as a shell does it.
    pub fn code(&self) -> ExitCode {
        match self {
            Self::Execute { .. } => ExitCode::from(127),
            Self::Arguments(_) => ExitCode::from(2),
            Self::Listen { .. } | Self::Setup(_) | Self::Install(_) => ExitCode::FAILURE,
        }
    }
}

/// Runs a gate until its writer has ended by itself or it is asked to end. `program` is what comes between this program's name and the
/// gate's own arguments.
///
/// # Errors
/// When it cannot begin.
pub fn run(arguments: Arguments, program: &[&str]) -> Result<ExitCode, Error> {
    if let Some(parent) = arguments.become_writer {
        let source = writer::become_writer(parent, &arguments.command);
        let command = arguments.command.into_iter().next().unwrap_or_default();
        return Err(Error::Execute { command, source });
    }
    if let Some(directory) = arguments.install {
        install::run(&directory)?;
        return Ok(ExitCode::SUCCESS);
    }
    arguments.check().map_err(Error::Arguments)?;
    // One thread: it is the one that starts the writer, which ends with it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut gate = Gate::new(&arguments, program);
        let door = Arc::clone(&gate.door);
        for port in &arguments.ports {
            // `check` found one for each.
            let Some(address) = port.listen.at(arguments.ip) else {
                continue;
            };
            let listener = TcpListener::bind(address)
                .await
                .map_err(|source| Error::Listen { address, source })?;
            tokio::spawn(relay::serve(listener, port.writer, port.protocol, Arc::clone(&door)));
        }
        writer::adopt_orphans()?;
        gate.run(Asker::start(Link::new(&arguments.directory))).await
    })
}

struct Gate {
    hold: Hold,
    door: Arc<Door>,
    writer: Option<Writer>,
    become_writer: Vec<OsString>,
    command: Vec<OsString>,
    /// No writer is started any more.
    stopping: bool,
    /// What was logged last of why the gate is closed.
    trouble: Option<String>,
}

impl Gate {
    fn new(arguments: &Arguments, program: &[&str]) -> Self {
        let pod = arguments.pod.clone().unwrap_or_default();
        Self {
            hold: Hold::new(pod, nonce(), arguments.roles.iter().cloned().collect()),
            door: Arc::default(),
            writer: None,
            become_writer: program.iter().chain(&["--become-writer"]).map(OsString::from).collect(),
            command: arguments.command.clone(),
            stopping: false,
            trouble: None,
        }
    }

    async fn run(&mut self, mut asker: Asker) -> Result<ExitCode, Error> {
        let mut ended = signal(SignalKind::child())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut ask_at = Some(now());
        loop {
            self.keep_deadline(&asker).await;
            let deadline = self.deadline();
            tokio::select! {
                biased;
                () = until(deadline) => {}
                () = until(ask_at) => {
                    ask_at = None;
                    asker.ask(self.hold.ask(nonce(), now()));
                }
                answer = asker.answer() => {
                    let again = self.take_in(answer, &asker).await;
                    ask_at = Some(now().after(again.clamp(AGAIN.0, AGAIN.1)));
                }
                _ = ended.recv() => {
                    if let Some(exit) = self.writer.as_ref().and_then(Writer::reap) {
                        tracing::info!(code = exit.code, "the writer ended");
                        return Ok(self.end(asker, exit).await);
                    }
                }
                _ = terminate.recv() => if self.stop(Signal::SIGTERM) { return Ok(self.end(asker, Exit { code: 0 }).await) },
                _ = interrupt.recv() => if self.stop(Signal::SIGINT) { return Ok(self.end(asker, Exit { code: 0 }).await) },
            }
        }
    }

    /// When the writer has to be ended, while there is one.
    fn deadline(&self) -> Option<Moment> {
        let open = self.hold.open(now()).map(|open| open.answer_until);
        self.writer.as_ref().map(|_| open.unwrap_or_default())
    }

    async fn keep_deadline(&mut self, asker: &Asker) {
        if self.writer.is_some() && self.hold.open(now()).is_none() {
            self.tell("the grant ended, and the agent did not renew it".into());
            self.close(asker).await;
        }
    }

    /// Nothing leaves any more, then nothing runs any more, and then the agent hears of it.
    async fn close(&mut self, asker: &Asker) {
        let closed = self.hold.close();
        self.end_writer().await;
        asker.closed(closed);
    }

    async fn end_writer(&mut self) {
        self.door.set(None);
        writer::end_all().await;
        if self.writer.take().is_some() {
            tracing::info!("the writer was ended");
        }
    }

    async fn take_in(&mut self, answer: Result<Answer, ask::Error>, asker: &Asker) -> Duration {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.tell(error.to_string());
                return RETRY;
            }
        };
        let again = match &answer {
            Answer::Granted(grant) => grant.again_ms,
            Answer::Refused(refusal) => refusal.again_ms,
        };
        match self.hold.hear(answer) {
            Err(fault) => {
                self.tell(fault.to_string());
                return RETRY;
            }
            Ok(Heard::Closed(refusal)) => {
                self.tell(refusal.text);
                if self.writer.is_some() {
                    self.close(asker).await;
                }
            }
            Ok(heard) => {
                if heard == Heard::Anew && self.writer.is_some() {
                    self.end_writer().await;
                }
                self.open();
            }
        }
        Duration::from_millis(again)
    }

    fn open(&mut self) {
        // It took a while to end what ran before: the clock decides.
        let Some(open) = self.hold.open(now()).cloned() else {
            return;
        };
        if self.writer.is_none() && !self.stopping {
            match Writer::start(&self.become_writer, &self.command, &open) {
                Ok(writer) => {
                    self.writer = Some(writer);
                    self.trouble = None;
                    tracing::info!(cluster = %open.cluster, epoch = %open.epoch(), "the writer was started");
                }
                Err(error) => self.tell(format!("the writer could not be started: {error}")),
            }
        }
        self.door.set(Some(open));
    }

    /// Whether there is nothing to wait for.
    fn stop(&mut self, signal: Signal) -> bool {
        self.stopping = true;
        match &self.writer {
            Some(writer) => writer.signal(signal),
            None => return true,
        }
        false
    }

    async fn end(&mut self, asker: Asker, exit: Exit) -> ExitCode {
        self.close(&asker).await;
        asker.finish().await;
        exit.into()
    }

    fn tell(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(reason = trouble, "the gate was not granted");
            self.trouble = Some(trouble);
        }
    }
}

fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

async fn until(moment: Option<Moment>) {
    match moment {
        Some(moment) => tokio::time::sleep(moment.since(now())).await,
        None => std::future::pending().await,
    }
}

enum Say {
    Ask(Ask),
    Closed(Closed),
}

/// The task that talks to the agent.
struct Asker {
    says: mpsc::UnboundedSender<Say>,
    answers: mpsc::UnboundedReceiver<Result<Answer, ask::Error>>,
    task: tokio::task::JoinHandle<()>,
}

impl Asker {
    fn start(mut link: Link) -> Self {
        let (says, mut to_say) = mpsc::unbounded_channel();
        let (answered, answers) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Some(say) = to_say.recv().await {
                match say {
                    Say::Ask(ask) => {
                        let _ = answered.send(link.ask(&ask, PATIENCE).await);
                    }
                    Say::Closed(closed) => {
                        if let Err(error) = link.closed(&closed, PATIENCE).await {
                            tracing::debug!(%error, "the agent was not told that the writer ended");
                        }
                    }
                }
            }
        });
        Self { says, answers, task }
    }

    fn ask(&self, ask: Ask) {
        // The task lives as long as this does.
        let _ = self.says.send(Say::Ask(ask));
    }

    fn closed(&self, closed: Closed) {
        let _ = self.says.send(Say::Closed(closed));
    }

    async fn answer(&mut self) -> Result<Answer, ask::Error> {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// Waits until everything is said.
    async fn finish(self) {
        drop(self.says);
        let _ = self.task.await;
    }
}
