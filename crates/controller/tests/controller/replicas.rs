//! Two replicas of one region's agent: what is said to the one that does not act reaches the one that does.

use std::net::SocketAddr;

use leeward_controller::{holder::Reached, pass_on::Way};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;

struct Replica {
    agent: Arc<Agent>,
    url: String,
    gate_url: String,
    stop: CancellationToken,
}

impl Replica {
    /// Listens, and answers with its name; it does not follow the quorum yet.
    async fn open(name: &'static str, store: &Arc<Embedded>, authority: &Authority) -> Self {
        let bind = async || TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0)).await.unwrap();
        let (peer, gate) = (bind().await, bind().await);
        let (at, gate_at) = (peer.local_addr().unwrap(), gate.local_addr().unwrap());
        let holder = Holder {
            cluster: "west".into(),
            process: name.into(),
            began_ms: 1,
            reached: Some(Reached {
                ip: at.ip(),
                peer: at.port(),
                gate: Some(gate_at.port()),
                edge: 1,
            }),
        };
        let http = authority.issue("west").client().unwrap();
        let agent = agent_as(holder, store, http, "https://127.0.0.1:1");
        let stop = CancellationToken::new();
        let who = Router::new().route(
            "/",
            get(move |asks: Option<Extension<PeerName>>| async move {
                let asks = asks.map(|Extension(PeerName(name))| name).unwrap_or_default();
                format!("{name} hears {asks}")
            }),
        );
        let to_peer = Way::new(&agent, |reached: &Reached| Some(reached.peer()));
        let to_gate = Way::new(&agent, Reached::gate);
        let (credentials, stopped, router) = (authority.issue("west"), stop.clone(), who.clone());
        tokio::spawn(async move { peer::serve_acting(peer, &credentials, router, to_peer, stopped).await });
        let (credentials, stopped) = (authority.issue("west"), stop.clone());
        tokio::spawn(async move { peer::serve_all(gate, &credentials, who, to_gate, stopped).await });
        Self {
            agent,
            url: format!("https://{at}"),
            gate_url: format!("https://{gate_at}"),
            stop,
        }
    }

    fn begin(&self) {
        tokio::spawn(follow::run(Arc::clone(&self.agent), self.stop.clone()));
        tokio::spawn(renew::run(Arc::clone(&self.agent), self.stop.clone()));
    }

    fn address(&self) -> SocketAddr {
        self.url.strip_prefix("https://").unwrap().parse().unwrap()
    }
}

async fn ask(http: &reqwest::Client, url: &str) -> Option<String> {
    http.get(url).send().await.ok()?.text().await.ok()
}

/// Asks until the answer is this one: who was asked before may have been cut off, as it should be.
async fn until_answered(http: &reqwest::Client, url: &str, answer: &str) {
    let asked = async {
        while ask(http, url).await.as_deref() != Some(answer) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let asked = tokio::time::timeout(Duration::from_secs(20), asked).await;
    assert!(asked.is_ok(), "never: {answer}");
}

fn holds(agent: &Agent, holder: &str) -> bool {
    let known = agent.known();
    known
        .sights
        .get(&"west".into())
        .is_some_and(|sight| sight.lease.holder == holder)
}

/// Two replicas, of which the first one acts and the second one does not follow the quorum yet; and what they are made with.
struct Two {
    first: Replica,
    second: Replica,
    authority: Authority,
    store: Arc<Embedded>,
    _directory: tempfile::TempDir,
}

impl Two {
    async fn open() -> Self {
        let authority = Authority::new();
        let (store, directory) = quorum();
        let first = Replica::open("first", &store, &authority).await;
        let second = Replica::open("second", &store, &authority).await;
        first.begin();
        until(&first.agent, "the first one acts", Agent::acts).await;
        Self {
            first,
            second,
            authority,
            store,
            _directory: directory,
        }
    }
}

/// The lease of west, as that one signs it.
async fn give_lease(store: &Arc<Embedded>, holder: &str, sequence: u64) {
    let lease = leeward_core::lease::Lease {
        cluster: "west".into(),
        holder: holder.to_owned(),
        sequence,
        sealed: false,
    };
    let txn = Txn::default().put(key::lease(&"west".into()), &lease).unwrap();
    store.txn(txn).await.unwrap();
}

#[tokio::test]
async fn peers_and_gates_reach_the_replica_that_acts_whomever_they_ask() {
    let two = Two::open().await;
    let (first, second, authority) = (&two.first, &two.second, &two.authority);
    second.begin();
    until(&second.agent, "the first one is known", |second| {
        holds(second, &first.agent.holder)
    })
    .await;
    assert!(!second.agent.acts());
    let east = authority.issue("east").client().unwrap();
    for url in [&first.url, &second.url] {
        assert_eq!(ask(&east, url).await.as_deref(), Some("first hears east"), "{url}");
    }
    // Gates show no certificate.
    let gate = reqwest::Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .no_proxy()
        .build()
        .unwrap();
    for url in [&first.gate_url, &second.gate_url] {
        assert_eq!(ask(&gate, url).await.as_deref(), Some("first hears "), "{url}");
    }
    // It is killed: the other one acts before the lease is over, so that the region is heard of, and has it then.
    first.stop.cancel();
    let began = std::time::Instant::now();
    until(&second.agent, "the second one acts", Agent::acts).await;
    assert!(began.elapsed() < first.agent.timing.ttl, "after {:?}", began.elapsed());
    assert!(!holds(&second.agent, &second.agent.holder));
    until_answered(&east, &second.url, "second hears east").await;
    until_answered(&gate, &second.gate_url, "second hears ").await;
    until(&second.agent, "the second one holds", |second| {
        holds(second, &second.holder)
    })
    .await;
    assert!(
        began.elapsed() < 2 * first.agent.timing.ttl,
        "after {:?}",
        began.elapsed()
    );
    second.stop.cancel();
}

#[tokio::test]
async fn whoever_lost_the_lease_passes_on_and_cuts_off_what_it_had_taken() {
    let two = Two::open().await;
    let (first, second) = (&two.first, &two.second);
    let east = two.authority.issue("east").client().unwrap();
    assert_eq!(ask(&east, &first.url).await.as_deref(), Some("first hears east"));
    // As if it had stood still for longer than its lease: the second one has it.
    give_lease(&two.store, &second.agent.holder, 900).await;
    second.begin();
    until(&second.agent, "the second one acts", Agent::acts).await;
    until(&first.agent, "the first one knows", |first| !first.acts()).await;
    // By the same client, whose connection was open.
    until_answered(&east, &first.url, "second hears east").await;
    first.stop.cancel();
    second.stop.cancel();
}

#[tokio::test]
async fn a_connection_is_passed_on_once_and_to_nobody_that_is_not_known() {
    let authority = Authority::new();
    let (store, _directory) = quorum();
    let second = Replica::open("second", &store, &authority).await;
    let east = authority.issue("east").client().unwrap();
    assert_eq!(ask(&east, &second.url).await, None, "nobody acts yet");
    // The lease names one that hears everything, and says nothing.
    let hears = TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0)).await.unwrap();
    let at = hears.local_addr().unwrap();
    let other = Holder {
        cluster: "west".into(),
        process: "other".into(),
        began_ms: 2,
        reached: Some(Reached {
            ip: at.ip(),
            peer: at.port(),
            gate: None,
            edge: 1,
        }),
    };
    give_lease(&store, &other.to_string(), 800).await;
    second.begin();
    until(&second.agent, "it is known", |second| holds(second, &other.to_string())).await;
    let mut once = TcpStream::connect(second.address()).await.unwrap();
    once.write_all(b"\x16said").await.unwrap();
    let (mut passed, _) = hears.accept().await.unwrap();
    let mut heard = [0; 25];
    passed.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"LEEWARD/1 passed on\n\x16said");
    // What the other one might pass on in turn.
    let mut again = TcpStream::connect(second.address()).await.unwrap();
    again.write_all(&heard).await.unwrap();
    let mut answer = vec![];
    let ended = tokio::time::timeout(Duration::from_secs(10), again.read_to_end(&mut answer)).await;
    let in_turn = hears
        .into_std()
        .unwrap()
        .accept()
        .map(drop)
        .map_err(|error| error.kind());
    assert_eq!(
        (ended.is_ok(), in_turn),
        (true, Err(std::io::ErrorKind::WouldBlock)),
        "passed on again"
    );
    assert!(answer.is_empty(), "{answer:?}");
    // One that has the lease and says nowhere where it is: an older version, for example.
    give_lease(&store, "west-1-1700", 900).await;
    until(&second.agent, "another one is known", |second| {
        holds(second, "west-1-1700")
    })
    .await;
    assert_eq!(ask(&east, &second.url).await, None);
    second.stop.cancel();
}
