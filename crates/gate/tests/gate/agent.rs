//! An agent that answers each question as it is told to.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, extract::State, http::HeaderMap, routing::post};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use leeward_core::name::Epoch;
use leeward_gate::wire::{Answer, Ask, Closed, Grant, Reason, Refusal, VERSION};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{net::TcpListener, sync::watch};

/// What a question is answered with.
#[derive(Clone)]
pub(crate) enum Does {
    Grants {
        epoch: u64,
        ms: u64,
    },
    Refuses,
    /// Never.
    NotAnswer,
    /// Says this again.
    Repeats(Answer),
}

/// What was heard.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) asks: Vec<Ask>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) closed: Vec<Closed>,
}

pub(crate) struct Agent {
    does: watch::Sender<Does>,
    heard: Arc<Mutex<Heard>>,
}

impl Agent {
    /// Starts one that answers only on TLS, and writes what a gate needs to know into `directory`.
    pub(crate) async fn start(directory: &Path, does: Does) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
        write("agent", format!("{}\n", listener.local_addr().unwrap()));
        write("ca.crt", made.cert.pem());
        write("token", "a-token\n".into());
        let (does, doing) = watch::channel(does);
        let heard = Arc::new(Mutex::new(Heard::default()));
        let router = Router::new()
            .route("/v1/grant", post(grant))
            .route("/v1/closed", post(closed))
            .with_state((doing, Arc::clone(&heard)));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = TowerToHyperService::new(router);
                    let _ = Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { does, heard }
    }

    pub(crate) fn does(&self, does: Does) {
        self.does.send_replace(does);
    }

    pub(crate) fn heard<T>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        look(&self.heard.lock().unwrap())
    }
}

type Shared = State<(watch::Receiver<Does>, Arc<Mutex<Heard>>)>;

async fn grant(State((doing, heard)): Shared, headers: HeaderMap, Json(ask): Json<Ask>) -> Json<Answer> {
    assert_eq!(headers["authorization"], "Bearer a-token");
    heard.lock().unwrap().asks.push(ask.clone());
    let does = doing.borrow().clone();
    let answer = match does {
        Does::NotAnswer => std::future::pending().await,
        Does::Repeats(answer) => answer,
        Does::Refuses => Answer::Refused(Refusal {
            version: VERSION,
            nonce: ask.nonce,
            reason: Reason::NotHeld,
            text: "this region does not hold the role".into(),
            again_ms: 20,
        }),
        Does::Grants { epoch, ms } => Answer::Granted(Grant {
            version: VERSION,
            cluster: "west".into(),
            pod: ask.pod,
            nonce: ask.nonce,
            roles: ask.roles.into_iter().map(|role| (role, Epoch(epoch))).collect(),
            admit_ms: ms,
            answer_ms: ms,
            again_ms: 50,
        }),
    };
    heard.lock().unwrap().answers.push(answer.clone());
    Json(answer)
}

async fn closed(State((_, heard)): Shared, Json(closed): Json<Closed>) {
    heard.lock().unwrap().closed.push(closed);
}

/// Looks again and again until it is so; fails after a time that no machine needs.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(20), looking).await.is_ok(),
        "not within 20 s: {what}"
    );
}
