//! A certificate and its key as they are read from PEM, and whether they can be used.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use rustls::{
    CertificateError, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
};
use x509_parser::extensions::GeneralName;

/// Why a certificate cannot be used. What is read from a file that is being written may be whole a moment later; the others stay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// There is nothing that could be read, or it is damaged.
    #[error("{what} cannot be read: {why}")]
    Unreadable {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key are of two pairs.
    #[error("certificate and key do not belong together")]
    Mismatch,
    /// It has ended.
    #[error("the certificate has ended")]
    Ended,
    /// It has not begun.
    #[error("the certificate counts only later: look whether the clocks are right")]
    NotYet,
    /// Another authority signed it.
    #[error("the certificate is not signed by an authority that is trusted beside it")]
    Untrusted,
    /// It is for something else.
    #[error("the certificate is not one for peers: {0}")]
    Unfit(String),
}

/// What stands in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Who shows it.
    pub common_name: Option<String>,
    /// Its subject as a whole.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// From when it counts, Unix seconds.
    pub from: u64,
    /// Its last second.
    pub until: u64,
    /// The names and addresses that it is valid for.
    pub hosts: BTreeSet<String>,
}

impl About {
    /// What stands in this one.
    ///
    /// # Errors
    /// It is no certificate.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, Flaw> {
        let unreadable = |why: String| Flaw::Unreadable {
            what: "the certificate",
            why,
        };
        let (_, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|error| unreadable(error.to_string()))?;
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        let names = certificate.subject_alternative_name();
        let names = names.map_err(|error| unreadable(error.to_string()))?;
        let hosts = names
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(host);
        let common_name = certificate.subject().iter_common_name().next();
        Ok(Self {
            common_name: common_name.and_then(|name| name.as_str().ok()).map(str::to_owned),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            from: seconds(certificate.validity().not_before),
            until: seconds(certificate.validity().not_after),
            hosts: hosts.collect(),
        })
    }
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// A certificate, what leads from it to its authority, and its key, which belong together.
#[derive(Debug, Clone)]
pub struct Pair {
    certified: Arc<CertifiedKey>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl Pair {
    /// Reads them from PEM.
    ///
    /// # Errors
    /// One is damaged, or they do not belong together.
    pub fn read(certificate: &[u8], key: &[u8]) -> Result<Self, Flaw> {
        let chain = certificates("the certificate", certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| Flaw::Unreadable {
            what: "the key",
            why: error.to_string(),
        })?;
        let certified = CertifiedKey::from_der(chain, key.clone_key(), &ring::default_provider());
        let certified = certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Flaw::Mismatch,
            error => Flaw::Unreadable {
                what: "the certificate or its key",
                why: error.to_string(),
            },
        })?;
        Ok(Self {
            certified: Arc::new(certified),
            key: Arc::new(key),
        })
    }

    /// As rustls has them.
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// The certificate and what leads from it to its authority.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// Its key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// What stands in the certificate.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn about(&self) -> Result<About, Flaw> {
        let first = self.chain().first().ok_or_else(|| none("the certificate"))?;
        About::read(first)
    }

    /// Whether a peer that trusts these roots would take it at this time, Unix seconds.
    ///
    /// # Errors
    /// Why it would not.
    pub fn check(&self, roots: &Arc<RootCertStore>, now: u64) -> Result<(), Flaw> {
        let unfit = |why: String| Flaw::Unfit(why);
        let provider = Arc::new(ring::default_provider());
        let judge = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider).build();
        let judge = judge.map_err(|error| unfit(error.to_string()))?;
        let (first, rest) = self.chain().split_first().ok_or_else(|| none("the certificate"))?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        match judge.verify_client_cert(first, rest, now) {
            Ok(_) => Ok(()),
            Err(rustls::Error::InvalidCertificate(error)) => Err(match error {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Flaw::Ended,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Flaw::NotYet,
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Flaw::Untrusted,
                error => unfit(rustls::Error::InvalidCertificate(error).to_string()),
            }),
            Err(error) => Err(unfit(error.to_string())),
        }
    }
}

/// The authorities of a PEM text, as what is trusted.
///
/// # Errors
/// There is none, or one is damaged.
pub fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, Flaw> {
    const WHAT: &str = "the authorities' certificate";
    let mut roots = RootCertStore::empty();
    for root in certificates(WHAT, pem)? {
        roots.add(root).map_err(|error| Flaw::Unreadable {
            what: WHAT,
            why: error.to_string(),
        })?;
    }
    Ok(Arc::new(roots))
}

/// What stands in each authority's certificate of a PEM text.
///
/// # Errors
/// There is none, or one is damaged.
pub fn abouts(pem: &[u8]) -> Result<Vec<About>, Flaw> {
    let all = certificates("the authorities' certificate", pem)?;
    all.iter().map(About::read).collect()
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| Flaw::Unreadable {
        what,
        why: error.to_string(),
    })?;
    match all.is_empty() {
        true => Err(none(what)),
        false => Ok(all),
    }
}

fn none(what: &'static str) -> Flaw {
    Flaw::Unreadable {
        what,
        why: "there is none in it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, Term};

    const NOW: u64 = 1_800_000_000;

    fn term(from: u64, until: u64) -> Term {
        Term { from, until }
    }

    fn pair(authority: &Authority, term: Term) -> Pair {
        let issued = authority
            .issue_lasting("west", vec!["west.example".into()], term)
            .unwrap();
        Pair::read(issued.certificate.as_bytes(), issued.key.as_bytes()).unwrap()
    }

    #[test]
    fn what_no_peer_would_take_is_told_with_its_reason() {
        let authority = Authority::new("one").unwrap();
        let other = Authority::new("one").unwrap();
        let ours = roots(authority.certificate().as_bytes()).unwrap();
        let good = pair(&authority, term(NOW - 10, NOW + 10));
        assert_eq!(good.check(&ours, NOW), Ok(()));
        for (pair, flaw) in [
            (pair(&authority, term(NOW - 10, NOW - 1)), Flaw::Ended),
            (pair(&authority, term(NOW + 1, NOW + 10)), Flaw::NotYet),
            (pair(&other, term(NOW - 10, NOW + 10)), Flaw::Untrusted),
        ] {
            assert_eq!(pair.check(&ours, NOW), Err(flaw));
        }
        let both = authority.certificate() + &other.certificate();
        let both = roots(both.as_bytes()).unwrap();
        assert_eq!(pair(&other, term(NOW - 10, NOW + 10)).check(&both, NOW), Ok(()));
    }

    #[test]
    fn halves_of_two_pairs_and_damaged_ones_are_no_pair() {
        let authority = Authority::new("one").unwrap();
        let (one, two) = (
            authority.issue("west", &[], &[]).unwrap(),
            authority.issue("west", &[], &[]).unwrap(),
        );
        let read = |certificate: &str, key: &str| Pair::read(certificate.as_bytes(), key.as_bytes()).map(drop);
        assert_eq!(read(&one.certificate, &one.key), Ok(()));
        assert_eq!(read(&one.certificate, &two.key), Err(Flaw::Mismatch));
        for (certificate, key) in [
            ("", one.key.as_str()),
            (&one.certificate, ""),
            (&one.certificate[..200], &one.key),
            (&one.certificate, &one.key[..60]),
        ] {
            assert!(
                matches!(read(certificate, key), Err(Flaw::Unreadable { .. })),
                "{certificate}{key}"
            );
        }
        assert!(roots(b"").is_err());
    }
}
