//! What is said to a replica that does not act goes on to the one that does: the bytes of the connection, below TLS, so that both ends still
//! prove themselves to each other.
//!
//! A Service balances over all replicas, and only the one that acts hears and answers for the region. A connection that was passed on begins with
//! `PREFACE`, and is never passed on again: two replicas that each take the other one for the one that acts refuse it. It ends when the one
//! that it leads to does not act any more, and so does one that was taken here: who asks again finds the right one.
//!
//! Limits: so many at a time, a time to connect, and keep-alive on both sides.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use crate::{
    agent::{Agent, Whither},
    holder::Reached,
};

/// What a connection begins with that a replica passes on. TLS begins with 22.
const PREFACE: &[u8] = b"LEEWARD/1 passed on\n";
/// The most that are passed on at a time, for each port.
const MOST: usize = 256;
/// The longest time for a connection to the other replica.
const CONNECT: Duration = Duration::from_secs(1);
/// How long nothing may have been heard of one side before it is asked whether it is there.
const IDLE_S: u32 = 30;
/// How often it is asked, and after how many times in vain the connection ends.
const ASK_S: u32 = 10;
const ASKS: u32 = 3;

/// How a listener finds the replica that acts.
#[derive(Clone)]
pub struct Way {
    agent: Arc<Agent>,
    port: fn(&Reached) -> Option<SocketAddr>,
    places: Arc<Semaphore>,
}

/// Why a connection is neither taken nor passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("another replica took this one for the one that acts, and it does not")]
    Again,
    #[error("the replica that acts is not known, or not where it is reached: give every replica POD_NAME and POD_IP")]
    Unknown,
    #[error("{MOST} connections are passed on already")]
    Full,
    #[error("the connection broke off: {0}")]
    Broken(#[from] io::Error),
    #[error("nothing was said in time")]
    Late,
}

impl Way {
    /// To the replica that acts, at the port that `port` chooses.
    pub fn new(agent: &Arc<Agent>, port: fn(&Reached) -> Option<SocketAddr>) -> Self {
        Self {
            agent: Arc::clone(agent),
            port,
            places: Arc::new(Semaphore::new(MOST)),
        }
    }

    /// Gives the connection back where it belongs here. Otherwise it is passed on, until it ends, and none is left.
    ///
    /// # Errors
    /// Why neither can be done.
    pub(crate) async fn take(&self, mut stream: TcpStream, patience: Duration) -> Result<Option<TcpStream>, Refused> {
        if self.agent.reached.is_none() {
            return Ok(Some(stream));
        }
        let passed_on = timeout(patience, is_passed_on(&mut stream));
        let passed_on = passed_on.await.map_err(|_| Refused::Late)??;
        match self.agent.whither() {
            Whither::Here => Ok(Some(stream)),
            _ if passed_on => Err(Refused::Again),
            Whither::Nowhere => Err(Refused::Unknown),
            Whither::There(reached) => {
                let to = (self.port)(&reached).ok_or(Refused::Unknown)?;
                let _place = self.places.try_acquire().map_err(|_| Refused::Full)?;
                tokio::select! {
                    passed = pass_on(stream, to) => passed?,
                    () = self.ends(Whither::There(reached)) => {}
                }
                Ok(None)
            }
        }
    }

    /// Ends once connections do not belong here any more.
    pub(crate) async fn moved_away(&self) {
        self.ends(Whither::Here).await;
    }

    async fn ends(&self, whither: Whither) {
        let mut changes = self.agent.changes();
        // Time alone does not change it: whoever steps in has been told so by the quorum.
        while self.agent.whither() == whither && changes.changed().await.is_ok() {}
    }
}

/// Whether another replica passes this connection on; what says so is taken off.
async fn is_passed_on(stream: &mut TcpStream) -> io::Result<bool> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 || first[0] != PREFACE[0] {
        return Ok(false);
    }
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).await?;
    match preface == *PREFACE {
        true => Ok(true),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn pass_on(mut from: TcpStream, to: SocketAddr) -> Result<(), Refused> {
    let connected = timeout(CONNECT, TcpStream::connect(to)).await;
    let mut to = connected.map_err(|_| Refused::Late)??;
    to.set_nodelay(true)?;
    stay_awake(&from)?;
    stay_awake(&to)?;
    to.write_all(PREFACE).await?;
    copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}

/// The system notices when the other end is gone without a word.
fn stay_awake(stream: &TcpStream) -> io::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &IDLE_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &ASK_S)?;
    setsockopt(stream, sockopt::TcpKeepCount, &ASKS)?;
    Ok(())
}
