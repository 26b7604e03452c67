//! Agents over a real embedded quorum and a real peer link, without any cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot set its stage may panic"
)]

#[path = "controller/points.rs"]
mod points;
#[path = "controller/replicas.rs"]
mod replicas;
#[path = "controller/rotation.rs"]
mod rotation;

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{Extension, Router, routing::get};
use leeward_controller::{
    agent::{Agent, Peer, Start, exchange, follow, lead, renew},
    holder::Holder,
    peer::{self, Credentials, PeerName},
    witness,
};
use leeward_core::{
    handover::Roles,
    lease::{Delays, Hold, Role, Timing},
    name::{Epoch, RoleKey},
    operation::{Kind, Operation},
    plan::Versioned,
};
use leeward_quorum::{Store, Txn, embedded::Embedded, key};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

struct Authority {
    signs: leeward_pki::Authority,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            signs: leeward_pki::Authority::new("leeward test").unwrap(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn issue(&self, name: &str) -> Credentials {
        self.issue_trusting(name, self)
    }

    /// A certificate of this authority for someone who trusts the peers of another one.
    fn issue_trusting(&self, name: &str, trusted: &Self) -> Credentials {
        let identity = self.signs.issue(name, &[], &[IpAddr::from([127, 0, 0, 1])]).unwrap();
        let write = |file: &str, text: &str| -> PathBuf {
            let path = self.directory.path().join(format!("{name}.{file}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        let ca = write("ca", &trusted.signs.certificate());
        let (certificate, key) = (write("crt", &identity.certificate), write("key", &identity.key));
        Credentials::read(&ca, &certificate, &key).unwrap()
    }
}

async fn serve(credentials: Credentials, router: Router, stop: &CancellationToken) -> String {
    let listener = TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let stop = stop.clone();
    tokio::spawn(async move { peer::serve_on(listener, &credentials, router, stop).await });
    url
}

fn agent(name: &str, quorum: &Arc<Embedded>, http: reqwest::Client, witness_url: &str) -> Arc<Agent> {
    let holder = Holder {
        cluster: name.into(),
        process: rand::random::<u64>().to_string(),
        began_ms: 1,
        reached: None,
    };
    agent_as(holder, quorum, http, witness_url)
}

fn agent_as(holder: Holder, quorum: &Arc<Embedded>, http: reqwest::Client, witness_url: &str) -> Arc<Agent> {
    Agent::new(Start {
        me: holder.cluster.clone(),
        holder: holder.to_string(),
        reached: holder.reached,
        timing: Timing::new(Duration::from_secs(1), Delays::WITHOUT_ELECTIONS).unwrap(),
        moves_together: 8,
        quorum: Arc::new(Arc::clone(quorum)),
        http,
        witness_url: witness_url.to_owned(),
        #[cfg(feature = "unfenced")]
        unfenced: false,
    })
}

/// One that hears of nobody but by the quorum.
fn agent_of_west(quorum: &Arc<Embedded>, authority: &Authority) -> Arc<Agent> {
    let http = authority.issue("west").client().unwrap();
    agent("west", quorum, http, "https://127.0.0.1:1")
}

fn quorum() -> (Arc<Embedded>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (Embedded::open(&directory.path().join("quorum")).unwrap(), directory)
}

/// West has the role, at epoch 4.
async fn hold(store: &Arc<Embedded>, role: &RoleKey) {
    let held = Role::held("west".into(), Epoch(4));
    let txn = Txn::default().put(key::role(role), &held).unwrap();
    store.txn(txn).await.unwrap();
}

async fn until(agent: &Agent, what: &str, holds: impl Fn(&Agent) -> bool) {
    let mut changes = agent.changes();
    let waited = async {
        while !holds(agent) {
            // Time alone changes some answers, such as who is not seen any more.
            let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_peer_is_known_by_its_certificate_and_one_of_another_installation_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let stop = CancellationToken::new();
    let who = Router::new().route(
        "/",
        get(|Extension(PeerName(name)): Extension<PeerName>| async move { name }),
    );
    let url = serve(ours.issue("west"), who, &stop).await;
    let answer = ours.issue("east").client().unwrap().get(&url).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "east");
    let stranger = theirs.issue_trusting("east", &ours).client().unwrap();
    assert!(
        stranger.get(&url).send().await.is_err(),
        "a certificate of another authority opens nothing"
    );
    let mistrusting = theirs.issue("east").client().unwrap();
    assert!(
        mistrusting.get(&url).send().await.is_err(),
        "a server of another authority is not believed"
    );
    stop.cancel();
}

#[tokio::test]
async fn nobody_reports_for_another_cluster() {
    let authority = Authority::new();
    let stop = CancellationToken::new();
    let (store, _directory) = quorum();
    let west = agent_of_west(&store, &authority);
    let url = serve(authority.issue("west"), exchange::router(west), &stop).await;
    let report = serde_json::json!({ "cluster": "east", "holder": "h", "apps": {}, "unseen": [] });
    for (name, status) in [("east", 200), ("north", 403)] {
        let http = authority.issue(name).client().unwrap();
        let answer = http
            .post(format!("{url}/v1/report"))
            .json(&report)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), status, "{name}");
    }
    stop.cancel();
}

#[tokio::test]
async fn roles_are_granted_while_the_lease_is_renewed_and_end_with_it() {
    let authority = Authority::new();
    let (store, _directory) = quorum();
    let role = "shop/web/data".parse().unwrap();
    hold(&store, &role).await;
    let west = agent_of_west(&store, &authority);
    assert_eq!(
        west.granted(std::slice::from_ref(&role), false),
        None,
        "nothing before the first renewal"
    );
    let stop = CancellationToken::new();
    let tasks = [
        tokio::spawn(follow::run(Arc::clone(&west), stop.clone())),
        tokio::spawn(renew::run(Arc::clone(&west), stop.clone())),
    ];
    let roles = vec![role.clone()];
    until(&west, "granted", |west| west.granted(&roles, true) == Some(Epoch(4))).await;
    stop.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    until(&west, "over", |west| west.granted(&roles, false).is_none()).await;
}

#[tokio::test]
async fn a_role_given_back_is_not_granted_again_by_a_renewal_that_was_under_way() {
    let authority = Authority::new();
    let (store, _directory) = quorum();
    let role: leeward_core::name::RoleKey = "shop/web/data".parse().unwrap();
    hold(&store, &role).await;
    let west = agent_of_west(&store, &authority);
    let stop = CancellationToken::new();
    let task = tokio::spawn(renew::run(Arc::clone(&west), stop.clone()));
    let roles = vec![role.clone()];
    until(&west, "granted", |west| west.granted(&roles, true).is_some()).await;
    // What a renewal reads of roles is granted; it is not taken for going with the plan that is known.
    let known_of = |west: &Agent| west.known().view.revision_of(&key::role(&role));
    assert_eq!(known_of(&west), 0);
    let follows = tokio::spawn(follow::run(Arc::clone(&west), stop.clone()));
    until(&west, "followed", |west| known_of(west) > 0).await;
    // Asked for at a later revision than the quorum's, which still says that it is held, as a renewal that was sent before would have read it.
    let known = known_of(&west);
    west.revoke(&revoking(&role, known + 1), &switchover());
    assert_eq!(west.granted(&roles, false), None);
    let sequence = |west: &Agent| {
        west.known()
            .sights
            .get(&"west".into())
            .map_or(0, |sight| sight.lease.sequence)
    };
    let before = sequence(&west);
    until(&west, "two more renewals", |west| sequence(west) >= before + 2).await;
    assert_eq!(west.granted(&roles, false), None);
    // Held again since: the switchover was called off.
    for _ in 0..2 {
        hold(&store, &role).await;
    }
    until(&west, "granted again", |west| {
        west.granted(&roles, true) == Some(Epoch(4))
    })
    .await;
    stop.cancel();
    task.await.unwrap();
    follows.await.unwrap();
}

fn revoking(role: &RoleKey, revision: u64) -> Roles {
    let value = Role {
        hold: Hold::Revoking,
        ..Role::held("west".into(), Epoch(4))
    };
    [(role.clone(), Versioned { value, revision })].into()
}

fn switchover() -> Operation {
    Operation {
        id: "o".into(),
        kind: Kind::Switchover,
        from: "west".into(),
        to: "east".into(),
        epoch: Epoch(5),
        began_ms: 0,
        decided_ms: 0,
        steps: vec![],
        accepted_loss_ms: None,
    }
}

#[tokio::test]
async fn a_restarted_agent_waits_until_its_predecessors_lease_is_over() {
    let authority = Authority::new();
    let (store, _directory) = quorum();
    let http = authority.issue("west").client().unwrap();
    let stop = CancellationToken::new();
    let first = agent("west", &store, http.clone(), "https://127.0.0.1:1");
    let task = tokio::spawn(renew::run(Arc::clone(&first), stop.clone()));
    until(&first, "held", |first| {
        first.known().sights.contains_key(&"west".into())
    })
    .await;
    stop.cancel();
    task.await.unwrap();
    let last = std::time::Instant::now();
    let second = agent("west", &store, http, "https://127.0.0.1:1");
    let stop = CancellationToken::new();
    let task = tokio::spawn(renew::run(Arc::clone(&second), stop.clone()));
    let holder = second.holder.clone();
    until(&second, "taken", |second| {
        second
            .known()
            .sights
            .get(&"west".into())
            .is_some_and(|sight| sight.lease.holder == holder)
    })
    .await;
    assert!(
        last.elapsed() >= Duration::from_secs(1),
        "taken after {:?}",
        last.elapsed()
    );
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn one_agent_leads_and_a_silent_one_is_missed_by_its_peer_and_the_witness() {
    let authority = Authority::new();
    let (store, _directory) = quorum();
    let stop = CancellationToken::new();
    let witness_url = serve(
        authority.issue("witness"),
        witness::router(Some(Arc::clone(&store))),
        &stop,
    )
    .await;
    let mut agents = vec![];
    for name in ["west", "east"] {
        let agent = agent(name, &store, authority.issue(name).client().unwrap(), &witness_url);
        let own = stop.child_token();
        let url = serve(authority.issue(name), exchange::router(Arc::clone(&agent)), &own).await;
        agents.push((agent, own, url));
    }
    for (agent, own, _) in &agents {
        let others = agents.iter().filter(|(other, ..)| other.me != agent.me);
        let peer = |(other, _, url): &(Arc<Agent>, CancellationToken, String)| Peer {
            cluster: other.me.clone(),
            url: url.clone(),
            ingress: String::new(),
        };
        agent.set_peers(others.map(peer).collect());
        tokio::spawn(follow::run(Arc::clone(agent), own.clone()));
        tokio::spawn(renew::run(Arc::clone(agent), own.clone()));
        tokio::spawn(exchange::run(Arc::clone(agent), own.clone()));
        tokio::spawn(lead::run(Arc::clone(agent), own.clone()));
    }
    let leader = |agent: &Agent| agent.known().leader.as_ref().map(|sight| sight.lease.cluster.clone());
    let (west, east) = (&agents[0], &agents[1]);
    until(&west.0, "a leader", |agent| leader(agent).is_some()).await;
    until(&west.0, "everybody seen", |agent| {
        agent.unseen().is_empty() && agent.unseen_by().is_empty()
    })
    .await;
    // The leader falls silent; the other one leads after the lease, and both other observers miss it.
    let (silent, left) = if leader(&west.0) == Some("west".into()) {
        (west, east)
    } else {
        (east, west)
    };
    silent.1.cancel();
    let (gone, here) = (silent.0.me.clone(), left.0.me.clone());
    until(&left.0, "missed by two", |agent| {
        agent.unseen_by().get(&gone).is_some_and(|votes| votes.len() == 2)
    })
    .await;
    until(&left.0, "another leader", |agent| leader(agent) == Some(here.clone())).await;
    stop.cancel();
}
