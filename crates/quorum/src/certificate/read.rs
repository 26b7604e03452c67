//! Reads certificates: those that the agent was given, and those that members show.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leeward_pki::{Judged, Judges};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Certificate, Error, Whose};
use crate::etcd::{Config, Tls};

/// Everything that connections to these members rest on, and why a member showed nothing. Nothing where there is no TLS.
///
/// # Errors
/// What the agent was given cannot be read.
pub async fn look(config: &Config) -> Result<Vec<Result<Certificate, String>>, Error> {
    let Some(tls) = &config.tls else { return Ok(vec![]) };
    let mut all: Vec<_> = of_files(tls)?.into_iter().map(Ok).collect();
    let members = config.endpoints.iter().map(|url| of_member(url, tls, config.timeout));
    all.extend(futures::future::join_all(members).await);
    Ok(all)
}

/// The authority and this agent's own. Of several authorities the one that ends last counts, since it is left when the others end; of a chain
/// the one that ends first.
///
/// # Errors
/// One of them is no certificate.
pub fn of_files(tls: &Tls) -> Result<Vec<Certificate>, Error> {
    let all = |whose: Whose, pem: &[u8]| {
        let unreadable = |why: String| Error::Unreadable(whose.clone(), why);
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let read = read.map_err(|error| unreadable(error.to_string()))?;
        let each = read.iter().map(|der| parse(whose.clone(), der).map_err(unreadable));
        each.collect::<Result<Vec<Certificate>, Error>>()
    };
    let none = |whose| move || Error::Unreadable(whose, "there is no certificate in it".to_owned());
    let authorities = all(Whose::Authority, &tls.ca)?.into_iter();
    let authority = authorities.max_by_key(|certificate| certificate.until);
    let mut found = vec![authority.ok_or_else(none(Whose::Authority))?];
    if let Some((chain, _)) = &tls.identity {
        let chain = all(Whose::Client, chain)?.into_iter();
        let first = chain.min_by_key(|certificate| certificate.until);
        found.push(first.ok_or_else(none(Whose::Client))?);
    }
    Ok(found)
}

/// What the member at an endpoint shows, also where the handshake then fails because of it.
///
/// # Errors
/// Why it shows nothing: it does not answer, or something else is wrong with the connection.
pub async fn of_member(endpoint: &str, tls: &Tls, timeout: Duration) -> Result<Certificate, String> {
    let url: http::Uri = endpoint
        .parse()
        .map_err(|error| format!("{endpoint} is no URL: {error}"))?;
    let host = url.host().ok_or_else(|| format!("{endpoint} has no host"))?.to_owned();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|error| format!("{endpoint}: {error}"))?;
    let (config, shown) = client(tls).map_err(|why| format!("{endpoint}: {why}"))?;
    let shaken = tokio::time::timeout(timeout, async {
        let stream = TcpStream::connect((host.as_str(), url.port_u16().unwrap_or(2379))).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    });
    let failed = match shaken.await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {timeout:?}")),
    };
    match shown.take() {
        Some(der) => parse(Whose::Member(endpoint.to_owned()), &der),
        None => Err(failed.unwrap_or_else(|| "it shows no certificate".to_owned())),
    }
    .map_err(|why| format!("{endpoint}: {why}"))
}

fn parse(whose: Whose, der: &CertificateDer<'_>) -> Result<Certificate, String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
    let validity = certificate.validity();
    Ok(Certificate {
        whose,
        subject: certificate.subject().to_string(),
        from: validity.not_before.timestamp(),
        // It counts for the whole of its last second.
        until: validity.not_after.timestamp().saturating_add(1),
    })
}

fn client(tls: &Tls) -> Result<(ClientConfig, Arc<Shown>), String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(&tls.ca) {
        let der = der.map_err(|error| error.to_string())?;
        roots.add(der).map_err(|error| error.to_string())?;
    }
    let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let shown = Arc::new(Shown {
        judge: judge.map_err(|error| error.to_string())?,
        certificate: Mutex::default(),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Judged(Arc::clone(&shown))));
    let config = match &tls.identity {
        None => config.with_no_client_auth(),
        Some((chain, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| error.to_string())?;
            config
                .with_client_auth_cert(chain.map_err(|error| error.to_string())?, key)
                .map_err(|error| error.to_string())?
        }
    };
    Ok((config, shown))
}

/// Judges a member's certificate as every connection does, and keeps it, whatever the judgement is.
#[derive(Debug)]
struct Shown {
    judge: Arc<WebPkiServerVerifier>,
    certificate: Mutex<Option<CertificateDer<'static>>>,
}

impl Shown {
    fn take(&self) -> Option<CertificateDer<'static>> {
        self.certificate.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Judges for Shown {
    fn judge(&self) -> Arc<WebPkiServerVerifier> {
        Arc::clone(&self.judge)
    }

    fn is_shown(&self, certificate: &CertificateDer<'_>) {
        let kept = certificate.clone().into_owned();
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }
}
