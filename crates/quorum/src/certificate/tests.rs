use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::etcd::{Config, Etcd, Tls};
use crate::{Store as _, Txn};

type Years = (i32, i32);

const NOW: i64 = 1_767_225_600; // 2026-01-01 00:00 UTC
const LONG: Years = (2000, 2200);
const OVER: Years = (2000, 2001);

fn params(name: &str, (from, until): Years) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(years: Years) -> Authority {
    let mut params = params("authority", years);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(authority: &Authority, name: &str, years: Years) -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let certificate = params(name, years).signed_by(&key, authority).unwrap();
    (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
}

fn tls(authority: &Authority, identity: Option<(Vec<u8>, Vec<u8>)>) -> Tls {
    Tls {
        ca: authority.pem().into_bytes(),
        identity,
    }
}

fn one(whose: Whose, days: i64) -> Certificate {
    Certificate {
        whose,
        subject: "CN=west".into(),
        from: NOW - DAY,
        until: NOW + days * DAY,
    }
}

#[test]
fn a_certificate_is_warned_of_thirty_days_before_its_end_and_is_over_at_it() {
    let warned = one(Whose::Client, 30);
    assert_eq!(warned.trouble(NOW), None);
    let soon = warned.trouble(NOW + 1).unwrap();
    assert!(matches!(soon, Trouble::Soon(_)), "{soon:?}");
    assert!(
        soon.text()
            .starts_with("this agent's certificate for the quorum (CN=west) ends in 29 days, on 2026-01-31 00:00 UTC: from then on no member"),
        "{soon:?}"
    );
    assert!(
        matches!(warned.trouble(warned.until - 1), Some(Trouble::Soon(text)) if text.contains("in less than a day"))
    );
    let over = warned.trouble(warned.until).unwrap();
    assert!(
        matches!(&over, Trouble::Over(text) if text.contains("has ended on 2026-01-31 00:00 UTC") && text.contains("write a new")),
        "{over:?}"
    );
    let early = warned.trouble(warned.from - 1).unwrap();
    assert!(
        matches!(&early, Trouble::Over(text) if text.contains("counts only from 2025-12-31 00:00 UTC on") && text.contains("clocks")),
        "{early:?}"
    );
    assert_eq!(warned.trouble(warned.from), None);
}

#[test]
fn each_certificate_has_its_own_remedy_and_term() {
    for (whose, advice) in [
        (Whose::Authority, "quorum.etcd.ca"),
        (Whose::Client, "quorum.etcd.cert"),
        (Whose::Member("https://10.0.0.1:2379".into()), "--cert-file"),
    ] {
        let trouble = one(whose.clone(), 0).trouble(NOW).unwrap();
        let text = trouble.text();
        assert!(text.contains(advice) && text.contains(&whose.to_string()), "{text}");
    }
    let certificate = one(Whose::Client, 2);
    assert_eq!(certificate.term(NOW), "until 2026-01-03 00:00 UTC, 2 days left");
    assert_eq!(certificate.term(NOW + DAY), "until 2026-01-03 00:00 UTC, 1 day left");
    assert_eq!(certificate.term(NOW + 2 * DAY), "ended on 2026-01-03 00:00 UTC");
    assert_eq!(certificate.term(NOW - 2 * DAY), "not before 2025-12-31 00:00 UTC");
}

#[test]
fn of_authorities_the_last_and_of_a_chain_the_first_end_counts() {
    let (old, new) = (authority((2000, 2030)), authority((2020, 2050)));
    let (leaf, key) = issue(&new, "west", (2020, 2040));
    let pem = |parts: &[&[u8]]| parts.concat();
    let tls = Tls {
        ca: pem(&[old.pem().as_bytes(), new.pem().as_bytes()]),
        identity: Some((pem(&[&leaf, new.pem().as_bytes()]), key)),
    };
    let found = of_files(&tls).unwrap();
    let years: Vec<_> = found
        .iter()
        .map(|one| (one.whose.clone(), one.subject.as_str(), one.term(NOW)[..10].to_owned()))
        .collect();
    let expected = [
        (Whose::Authority, "CN=authority", "until 2050".to_owned()),
        (Whose::Client, "CN=west", "until 2040".to_owned()),
    ];
    assert_eq!(years, expected);
}

#[test]
fn what_holds_no_certificate_is_named() {
    let good = authority(LONG);
    for (ca, identity, whose) in [
        (b"nothing".to_vec(), None, Whose::Authority),
        (
            good.pem().into_bytes(),
            Some((vec![], issue(&good, "west", LONG).1)),
            Whose::Client,
        ),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
            None,
            Whose::Authority,
        ),
    ] {
        let error = of_files(&Tls { ca, identity }).unwrap_err();
        assert!(matches!(&error, Error::Unreadable(of, _) if *of == whose), "{error:?}");
        assert!(error.to_string().contains("write one in PEM"), "{error}");
    }
}

/// A server that asks for certificates of this authority and shows this one.
async fn member(authority: &Authority, (certificate, key): (Vec<u8>, Vec<u8>)) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&certificate)
        .map(Result::unwrap)
        .collect();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(&key).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.read_to_end(&mut vec![]).await;
                }
            });
        }
    });
    address
}

fn config(address: SocketAddr, tls: Tls) -> Config {
    Config {
        endpoints: vec![format!("https://{address}")],
        tls: Some(tls),
        login: None,
        prefix: "leeward/".into(),
        timeout: Duration::from_secs(20),
        cluster: 0,
        revision: 0,
    }
}

#[tokio::test]
async fn what_a_member_shows_is_read_also_after_its_end() {
    let authority = authority(LONG);
    let client = || Some(issue(&authority, "west", LONG));
    for (years, term) in [((2020, 2040), "until 2040"), (OVER, "ended on 2001")] {
        let address = member(&authority, issue(&authority, "member", years)).await;
        let all = look(&config(address, tls(&authority, client()))).await.unwrap();
        let [Ok(_), Ok(_), Ok(shown)] = &all[..] else {
            panic!("{all:?}")
        };
        assert_eq!(shown.whose, Whose::Member(format!("https://{address}")));
        assert!(
            shown.subject == "CN=member" && shown.term(NOW).starts_with(term),
            "{shown:?}"
        );
    }
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    drop(silent);
    let url = format!("https://{address}");
    let why = of_member(&url, &tls(&authority, None), Duration::from_secs(20)).await;
    assert!(why.as_ref().is_err_and(|why| why.starts_with(&url)), "{why:?}");
}

#[tokio::test]
async fn a_quorum_behind_an_ended_certificate_says_so_and_what_to_do() {
    let authority = authority(LONG);
    let client = |years| Some(issue(&authority, "west", years));
    for (member_years, client_years, says, remedy) in [
        (
            OVER,
            LONG,
            "the member's certificate, or that of its authority, has ended",
            "give it a new one",
        ),
        (
            LONG,
            OVER,
            "this agent's certificate for the quorum (CN=west) has ended on 2001-01-01 00:00 UTC: no member",
            "write a new certificate and its key",
        ),
    ] {
        let address = member(&authority, issue(&authority, "member", member_years)).await;
        let etcd = Etcd::new(config(address, tls(&authority, client(client_years)))).unwrap();
        let error = etcd.txn(Txn::default()).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(says) && text.contains(remedy), "{text}");
    }
}
