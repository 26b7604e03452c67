//! Passes bytes between users and the writer while the gate is open, and looks at the clock before each byte that leaves.
//!
//! What comes in is passed on while new requests are let in, what goes out while answers are, at the epoch at which the connection
//! began. Otherwise the connection is reset, so that nobody takes a part of an answer for the whole. This goes for every protocol on
//! TCP. A user of HTTP who comes while the gate stays closed is told so ([`Protocol::Http`]); on TCP the connection is reset. Who asks whether
//! the writer is alive is told at once that there is none to be alive ([`Protocol::Live`]): a gate that waits is not to be started anew.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use leeward_core::name::{Epoch, RoleKey};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

use crate::hold::Open;

/// The most that is on its way in one direction of a connection.
const BUFFER: usize = 16 << 10;
/// How long a user who comes too early waits for the gate to open and for the writer to listen. Less than a probe of Kubernetes waits, so
/// that the first one finds out: the next one may come only seconds later.
const EARLY: Duration = Duration::from_millis(800);
/// Why nobody is let in.
const CLOSED: &str = "this region may not write now";
/// How long to wait before the writer is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes.
    Tcp,
    /// HTTP/1.
    Http,
    /// HTTP/1, for a liveness probe: answered 200 while the gate is closed.
    Live,
}

/// What the connections look at.
#[derive(Debug, Default)]
pub struct Door {
    open: ArcSwapOption<Open>,
    turned: watch::Sender<u64>,
}

impl Door {
    /// What may be done from now on.
    pub fn set(&self, open: Option<Open>) {
        self.open.store(open.map(Arc::new));
        self.turned.send_modify(|count| *count += 1);
    }

    fn admits(&self) -> Option<Arc<Open>> {
        self.open.load_full().filter(|open| crate::now() < open.admit_until)
    }

    fn answers(&self, at: &Roles) -> bool {
        let open = self.open.load();
        open.as_ref()
            .is_some_and(|open| crate::now() < open.answer_until && open.roles == *at)
    }

    fn admits_at(&self, at: &Roles) -> bool {
        self.admits().is_some_and(|open| open.roles == *at)
    }

    /// Ready once the gate is open.
    async fn opens(&self) -> Arc<Open> {
        let mut turned = self.turned.subscribe();
        loop {
            if let Some(open) = self.admits() {
                return open;
            }
            // The sender is this.
            let _ = turned.changed().await;
        }
    }

    /// Ready once nothing leaves at these epochs any more.
    async fn closes(&self, at: &Roles) {
        let mut turned = self.turned.subscribe();
        while self.answers(at) {
            let left = self
                .open
                .load()
                .as_ref()
                .map_or(Duration::ZERO, |open| open.answer_until.since(crate::now()));
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                _ = turned.changed() => {}
            }
        }
    }
}

type Roles = std::collections::BTreeMap<RoleKey, Epoch>;

/// Accepts for ever.
pub async fn serve(listener: TcpListener, writer: SocketAddr, protocol: Protocol, door: Arc<Door>) {
    loop {
        match listener.accept().await {
            Ok((user, _)) => {
                let door = Arc::clone(&door);
                tokio::spawn(async move { connection(user, writer, protocol, &door).await });
            }
            Err(error) => {
                // Out of file descriptors, as a rule: others will be closed.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(mut user: TcpStream, writer: SocketAddr, protocol: Protocol, door: &Door) {
    let _ = user.set_nodelay(true);
    if protocol == Protocol::Live && door.admits().is_none() {
        return answer(user, "200 OK", json!({ "held": CLOSED })).await;
    }
    let early = tokio::time::sleep(EARLY);
    let mut early = std::pin::pin!(early);
    let open = tokio::select! {
        open = door.opens() => open,
        () = &mut early => return refuse(user, protocol, CLOSED).await,
    };
    let mut writer = tokio::select! {
        writer = connect(writer) => writer,
        () = &mut early => return refuse(user, protocol, "the writer does not accept connections").await,
    };
    let _ = writer.set_nodelay(true);
    let at = &open.roles;
    let whole = {
        let (mut from_user, to_user) = user.split();
        let (from_writer, mut to_writer) = writer.split();
        tokio::select! {
            biased;
            () = door.closes(at) => false,
            whole = async {
                let (inward, outward) = tokio::join!(
                    bring_in(&mut from_user, &mut to_writer, || door.admits_at(at)),
                    let_out(from_writer, to_user, || door.answers(at)),
                );
                inward.is_ok() && outward.is_ok()
            } => whole,
        }
    };
    if !whole {
        reset(&user);
        reset(&writer);
    }
}

async fn connect(writer: SocketAddr) -> TcpStream {
    loop {
        match TcpStream::connect(writer).await {
            Ok(stream) => return stream,
            // It was started a moment ago.
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

// A reset says that what came before is not all there is.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

async fn bring_in(user: &mut ReadHalf<'_>, writer: &mut WriteHalf<'_>, may: impl Fn() -> bool) -> io::Result<()> {
    let mut buffer = [0; BUFFER];
    loop {
        let read = user.read(&mut buffer).await?;
        if read == 0 {
            return writer.shutdown().await;
        }
        if !may() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        writer.write_all(&buffer[..read]).await?;
    }
}

async fn let_out(mut writer: ReadHalf<'_>, mut user: WriteHalf<'_>, may: impl Fn() -> bool) -> io::Result<()> {
    let mut buffer = [0; BUFFER];
    loop {
        let read = writer.read(&mut buffer).await?;
        if read == 0 {
            return user.shutdown().await;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            user.ready(Interest::WRITABLE).await?;
            // The last look before the bytes leave.
            if !may() {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            match user.try_write(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn refuse(user: TcpStream, protocol: Protocol, why: &str) {
    match protocol {
        Protocol::Tcp => reset(&user),
        Protocol::Http | Protocol::Live => answer(user, "503 Service Unavailable", json!({ "error": why })).await,
    }
}

async fn answer(mut user: TcpStream, status: &str, body: Value) {
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close");
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let told = async {
        user.write_all(answer.as_bytes()).await?;
        user.shutdown().await?;
        // What the user is still sending would turn the end of the connection into a reset, and the answer could be lost.
        let mut rest = [0; 1024];
        while user.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Whoever is not there any more need not be told.
    let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
}
