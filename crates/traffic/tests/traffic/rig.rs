//! Regions to test with: an edge each, applications that behave as told, and a client that shows the raw answer.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use leeward_core::{
    name::{AppKey, Epoch, Generation},
    routing::{Endpoint, Probe, Profile, Table, Timing, Writer},
};
use leeward_traffic::{Admission, Backends, Edge, Limits, Shared, Verdict};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub(crate) const HOST: &str = "web.example";

pub(crate) fn app() -> AppKey {
    AppKey::new("shop", "web")
}

/// Longer than any answer takes; a test that waits for it has failed.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), what)
        .await
        .expect("it should have ended long ago")
}

/// An admission that a test can change.
pub(crate) struct Switch(Mutex<Verdict>);

impl Switch {
    pub(crate) fn grant(&self, epoch: u64) {
        *self.0.lock().unwrap() = Verdict::Granted { epoch: Epoch(epoch) };
    }

    pub(crate) fn refuse(&self) {
        *self.0.lock().unwrap() = Verdict::Refused {
            reason: "the lease has ended".into(),
        };
    }
}

impl Admission for Switch {
    fn admit(&self, _: &AppKey) -> Verdict {
        self.0.lock().unwrap().clone()
    }
}

/// A region: its edge, serving.
pub(crate) struct Region {
    pub(crate) name: &'static str,
    pub(crate) shared: Arc<Shared>,
    pub(crate) switch: Arc<Switch>,
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<()>,
}

impl Region {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::start_with(name, None, Limits::default()).await
    }

    pub(crate) async fn start_with(name: &'static str, kept: Option<PathBuf>, limits: Limits) -> Self {
        let switch = Arc::new(Switch(Mutex::new(Verdict::Free)));
        let shared = Arc::new(Shared::open(name.into(), kept, switch.clone()));
        let edge = Edge::bind("127.0.0.1:0".parse().unwrap(), limits, shared.clone())
            .await
            .unwrap();
        let (address, stop) = (edge.address(), CancellationToken::new());
        let served = tokio::spawn(edge.serve(stop.clone()));
        Self {
            name,
            shared,
            switch,
            address,
            stop,
            served,
        }
    }

    pub(crate) fn pods(&self, pods: &[SocketAddr]) {
        self.shared.set_backends(Backends::new([(app(), pods.to_vec())]));
    }

    pub(crate) fn endpoint(&self, priority: u8) -> Endpoint {
        endpoint(self.name, self.address, priority)
    }
}

pub(crate) fn endpoint(cluster: &str, address: SocketAddr, priority: u8) -> Endpoint {
    Endpoint {
        cluster: cluster.into(),
        address,
        priority,
        weight: 100,
        enabled: true,
    }
}

pub(crate) fn table(generation: u64, writer: Option<(&str, u64)>, endpoints: Vec<Endpoint>) -> Table {
    let profile = Profile {
        app: app(),
        hosts: vec![HOST.to_owned()],
        writer: writer.map(|(cluster, epoch)| Writer {
            cluster: cluster.into(),
            epoch: Epoch(epoch),
        }),
        endpoints,
        prefer_local: false,
        probe: Probe {
            path: "/healthz".to_owned(),
            ..Probe::default()
        },
        timing: Timing {
            try_ms: 150,
            safe_ms: 2_000,
            unsafe_ms: 1_000,
        },
    };
    Table {
        generation: Generation(generation),
        profiles: vec![profile],
    }
}

/// How an application treats each request.
#[derive(Clone, Copy)]
pub(crate) enum Manner {
    /// Answers 200 with its name and what it was sent.
    Answers,
    /// Answers this status.
    Status(u16),
    /// Reads the request and closes.
    Breaks,
    /// Reads the request and waits; see [`Pod::go_on`]. Then answers 200.
    Waits,
    /// Sends the head and a first part, waits, sends the rest.
    WaitsHalfway,
}

/// An application that counts what was delivered to it.
pub(crate) struct Pod {
    pub(crate) address: SocketAddr,
    delivered: Arc<AtomicUsize>,
    arrivals: mpsc::UnboundedReceiver<String>,
    go_on: Arc<tokio::sync::Semaphore>,
}

impl Pod {
    pub(crate) async fn start(name: &'static str, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let delivered = Arc::new(AtomicUsize::new(0));
        let go_on = Arc::new(tokio::sync::Semaphore::new(0));
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let (counter, gate) = (delivered.clone(), go_on.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(
                    stream,
                    name,
                    manner,
                    counter.clone(),
                    arrived.clone(),
                    gate.clone(),
                ));
            }
        });
        Self {
            address,
            delivered,
            arrivals,
            go_on,
        }
    }

    pub(crate) fn delivered(&self) -> usize {
        self.delivered.load(Ordering::SeqCst)
    }

    /// The next request that arrives, as text.
    pub(crate) async fn arrival(&mut self) -> String {
        soon(self.arrivals.recv()).await.unwrap()
    }

    /// Lets one waiting request go on.
    pub(crate) fn go_on(&self) {
        self.go_on.add_permits(1);
    }
}

async fn serve(
    mut stream: TcpStream,
    name: &'static str,
    manner: Manner,
    delivered: Arc<AtomicUsize>,
    arrived: mpsc::UnboundedSender<String>,
    gate: Arc<tokio::sync::Semaphore>,
) {
    while let Some(request) = read_request(&mut stream).await {
        delivered.fetch_add(1, Ordering::SeqCst);
        let _ = arrived.send(request.clone());
        let answer = |status: u16, body: &str| {
            let length = body.len();
            format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nleeward-outcome: not-delivered\r\n\r\n{body}")
        };
        let written = match manner {
            Manner::Answers => {
                stream
                    .write_all(answer(200, &format!("{name} got {request}")).as_bytes())
                    .await
            }
            Manner::Status(status) => stream.write_all(answer(status, name).as_bytes()).await,
            Manner::Breaks => return,
            Manner::Waits => {
                gate.acquire().await.unwrap().forget();
                stream.write_all(answer(200, name).as_bytes()).await
            }
            Manner::WaitsHalfway => {
                let head = "HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nfirst";
                stream.write_all(head.as_bytes()).await.unwrap();
                gate.acquire().await.unwrap().forget();
                stream.write_all(b"later").await
            }
        };
        if written.is_err() {
            return;
        }
    }
}

/// Reads one request with its body, which must have a Content-Length.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let (mut text, mut byte) = (Vec::new(), [0u8]);
    while !text.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await.ok()?;
        text.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&text).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "))
        .map_or(0, |v| v.parse().unwrap());
    let mut body = vec![0u8; length];
    stream.read_exact(&mut body).await.ok()?;
    text.extend(body);
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// An address that refuses connections.
pub(crate) async fn dead() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A process that is frozen: the kernel accepts for it and nobody answers.
pub(crate) async fn frozen() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), listener)
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Self {
            status,
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Sends text and reads to the end of the connection.
pub(crate) async fn raw(address: SocketAddr, text: &str) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    Reply::parse(&String::from_utf8_lossy(&answer))
}

pub(crate) fn text(method: &str, path: &str, extra: &str, body: &str) -> String {
    let length = match body {
        "" => String::new(),
        body => format!("Content-Length: {}\r\n", body.len()),
    };
    format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{length}{extra}\r\n{body}")
}

pub(crate) async fn get(region: &Region) -> Reply {
    raw(region.address, &text("GET", "/", "", "")).await
}

pub(crate) async fn post(region: &Region, body: &str) -> Reply {
    raw(region.address, &text("POST", "/", "", body)).await
}

/// Two regions under one table, west first.
pub(crate) async fn two(writer: Option<(&str, u64)>) -> (Region, Region) {
    let (west, east) = (Region::start("west").await, Region::start("east").await);
    let table = table(1, writer, vec![west.endpoint(1), east.endpoint(2)]);
    west.shared.install(table.clone()).unwrap();
    east.shared.install(table).unwrap();
    (west, east)
}
