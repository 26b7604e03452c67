//! etcd that asks who speaks to it: by certificate, and by user and password.

use std::time::Duration;

use http::uri::PathAndQuery;
use leeward_quorum::etcd::{Config, Etcd, Login, Tls};
use leeward_quorum::{Error, Store, Txn, pin::Pinned};
use leeward_testing::Authority;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::conformance::config;

fn write() -> Txn {
    Txn::default().put("a", &1).unwrap().read("a")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_and_clients_prove_themselves_by_certificates() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (ours, theirs) = (Authority::new("ours").unwrap(), Authority::new("theirs").unwrap());
    let flags = [
        "--cert-file={dir}/server.crt",
        "--key-file={dir}/server.key",
        "--trusted-ca-file={dir}/ca.crt",
        "--client-cert-auth",
    ];
    let etcd = leeward_testing::Etcd::start(1, &flags, |directory, addresses| {
        // etcd reaches itself by the same certificate.
        let server = ours.issue("etcd", &["localhost"], &[addresses[0].ip(), [127, 0, 0, 1].into()])?;
        std::fs::write(directory.join("server.crt"), server.certificate)?;
        std::fs::write(directory.join("server.key"), server.key)?;
        Ok(std::fs::write(directory.join("ca.crt"), ours.certificate())?)
    });
    let Some(etcd) = etcd.await.unwrap() else { return };
    let with = |authority: &Authority, identity: Option<&Authority>| Config {
        tls: Some(Tls {
            ca: authority.certificate().into_bytes(),
            identity: identity.map(|authority| {
                let client = authority.issue("west", &[], &[]).unwrap();
                (client.certificate.into_bytes(), client.key.into_bytes())
            }),
        }),
        ..config(etcd.endpoints())
    };
    let good = Etcd::new(with(&ours, Some(&ours))).unwrap();
    assert!(good.txn(write()).await.unwrap().applied);
    for (what, config) in [
        ("another authority's server", with(&theirs, Some(&ours))),
        ("another authority's client", with(&ours, Some(&theirs))),
        ("no certificate", with(&ours, None)),
    ] {
        let error = Etcd::new(config).unwrap().txn(write()).await.unwrap_err();
        assert!(error.is_transient(), "{what}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_are_for_new_connections_and_what_is_open_stays_open() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (old, new) = (Authority::new("old").unwrap(), Authority::new("new").unwrap());
    let flags = [
        "--cert-file={dir}/server.crt",
        "--key-file={dir}/server.key",
        "--trusted-ca-file={dir}/ca.crt",
        "--client-cert-auth",
    ];
    let serve = |authority: &Authority, directory: &std::path::Path, address: std::net::IpAddr| {
        let server = authority.issue("etcd", &["localhost"], &[address, [127, 0, 0, 1].into()])?;
        std::fs::write(directory.join("server.crt"), server.certificate)?;
        std::fs::write(directory.join("server.key"), server.key)?;
        Ok(std::fs::write(
            directory.join("ca.crt"),
            old.certificate() + &new.certificate(),
        )?)
    };
    let mut at = None;
    let etcd = leeward_testing::Etcd::start(1, &flags, |directory, addresses| {
        at = Some((directory.to_owned(), addresses[0].ip()));
        serve(&old, directory, addresses[0].ip())
    });
    let Some(mut etcd) = etcd.await.unwrap() else { return };
    let (directory, address) = at.unwrap();
    let tls = |ca: String, authority: &Authority| {
        let client = authority.issue("west", &[], &[]).unwrap();
        Tls {
            ca: ca.into_bytes(),
            identity: Some((client.certificate.into_bytes(), client.key.into_bytes())),
        }
    };
    let kept = tempfile::tempdir().unwrap();
    let settings = Config {
        tls: Some(tls(old.certificate(), &old)),
        ..config(etcd.endpoints())
    };
    let store = Pinned::open(settings, &leeward_quorum::pin::path(kept.path())).unwrap();
    let first = store.txn(write()).await.unwrap();
    // What cannot be used is refused, and what nobody here trusts does not touch the connection that is open.
    let broken = Tls {
        ca: b"nothing".to_vec(),
        identity: Some((b"nothing".to_vec(), b"nothing".to_vec())),
    };
    assert!(store.renew(Some(broken), None).is_err());
    let stranger = Authority::new("stranger").unwrap();
    store.renew(Some(tls(stranger.certificate(), &stranger)), None).unwrap();
    assert!(store.txn(write()).await.unwrap().applied);
    // The member comes back with a certificate of the new authority.
    etcd.kill(0);
    serve(&new, &directory, address).unwrap();
    etcd.run(0).unwrap();
    let settled = async |wanted: bool| {
        for _ in 0..200 {
            if store.txn(write()).await.is_ok() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never: {wanted}");
    };
    let listens = etcd.endpoints().remove(0).replace("https://", "");
    while tokio::net::TcpStream::connect(&listens).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    settled(false).await;
    store
        .renew(Some(tls(old.certificate() + &new.certificate(), &new)), None)
        .unwrap();
    settled(true).await;
    let last = store.txn(write()).await.unwrap();
    assert!(last.revision > first.revision);
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    other: String,
}

#[derive(Clone, PartialEq, Message)]
struct Permission {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    range_end: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Grant {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    permission: Option<Permission>,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

async fn ask<Q: Message + 'static>(channel: &Channel, path: &'static str, question: Q) {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<Q, Nothing>::default();
    let path = PathAndQuery::from_static(path);
    grpc.unary(tonic::Request::new(question), path, codec).await.unwrap();
}

const READ: i32 = 0;
const READ_AND_WRITE: i32 = 2;

/// Users: `root`; `west`, who may read and write below `leeward/`; `witness`, who may read there.
async fn secure(endpoint: String) {
    let channel = Channel::from_shared(endpoint).unwrap().connect().await.unwrap();
    let named = |name: &str, other: &str| Named {
        name: name.into(),
        other: other.into(),
    };
    for (user, kind) in [("root", None), ("west", Some(READ_AND_WRITE)), ("witness", Some(READ))] {
        ask(&channel, "/etcdserverpb.Auth/UserAdd", named(user, "secret")).await;
        ask(&channel, "/etcdserverpb.Auth/RoleAdd", named(user, "")).await;
        ask(&channel, "/etcdserverpb.Auth/UserGrantRole", named(user, user)).await;
        if let Some(kind) = kind {
            let permission = Permission {
                kind,
                key: b"leeward/".to_vec(),
                range_end: b"leeward0".to_vec(),
            };
            let grant = Grant {
                name: user.into(),
                permission: Some(permission),
            };
            ask(&channel, "/etcdserverpb.Auth/RoleGrantPermission", grant).await;
        }
    }
    ask(&channel, "/etcdserverpb.Auth/AuthEnable", Nothing {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_may_do_what_their_role_allows_and_a_login_that_is_over_is_made_again() {
    let started = leeward_testing::Etcd::start(1, &[], |_, _| Ok(()));
    let Some(mut etcd) = started.await.unwrap() else { return };
    secure(etcd.endpoints().remove(0)).await;
    let endpoints = etcd.endpoints();
    let with = |user: &str, password: &str| {
        let login = Login {
            user: user.into(),
            password: password.into(),
        };
        let config = Config {
            login: Some(login),
            ..config(endpoints.clone())
        };
        Etcd::new(config).unwrap()
    };
    let (west, witness) = (with("west", "secret"), with("witness", "secret"));
    assert!(west.txn(write()).await.unwrap().applied);
    assert_eq!(witness.changes(0, Duration::ZERO).await.unwrap().entries.len(), 1);
    let error = witness.txn(write()).await.unwrap_err();
    assert!(
        matches!(error, Error::Refused(_)) && error.to_string().contains("role"),
        "{error}"
    );
    let error = with("west", "wrong").txn(write()).await.unwrap_err();
    assert!(
        matches!(error, Error::Refused(_)) && error.to_string().contains("password"),
        "{error}"
    );
    let nobody = Etcd::new(config(endpoints.clone())).unwrap();
    assert!(matches!(nobody.txn(write()).await, Err(Error::Refused(_))));
    // A member that starts again knows no login any more.
    etcd.kill(0);
    etcd.run(0).unwrap();
    loop {
        match west.txn(write()).await {
            Ok(outcome) => break assert!(outcome.applied),
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
}
