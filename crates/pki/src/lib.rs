//! Certificates: an [`Authority`] that signs them, and a [`Pair`] of certificate and key as it is read and checked before it is used.
//!
//! What regions and the witness show each other on the peer link is signed by one authority of their installation: such a certificate
//! serves both ends, and its common name is who shows it. Local regions have one more authority each for their Kubernetes API, so that a
//! kubeconfig of one region trusts no other; their authorities' keys are dropped as soon as the certificates are made, and never written.
//! Those of an installation are kept by `leeward join`.

mod judge;
mod pair;

use std::{net::IpAddr, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

pub use judge::{Judged, Judges};
pub use pair::{About, Flaw, Pair, abouts, roots};

/// A certificate could not be made: a fault of this program or of the names it was given, no use to try again.
#[derive(Debug, thiserror::Error)]
#[error("making the certificate of {name}: {source}")]
pub struct Error {
    name: String,
    source: rcgen::Error,
}

/// A certificate and its key, both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key: to be written with mode 0600 only.
    pub key: String,
}

/// From when and until when a certificate counts, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// The first second.
    pub from: u64,
    /// The last one.
    pub until: u64,
}

/// An authority: its certificate, and its key, with which it signs.
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority under this name, without an end.
    ///
    /// # Errors
    /// The name cannot stand in a certificate.
    pub fn new(name: &str) -> Result<Self, Error> {
        Self::made(name, None)
    }

    /// A new authority under this name for a time.
    ///
    /// # Errors
    /// The name cannot stand in a certificate.
    pub fn lasting(name: &str, term: Term) -> Result<Self, Error> {
        Self::made(name, Some(term))
    }

    fn made(name: &str, term: Option<Term>) -> Result<Self, Error> {
        let fault = fault(name);
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        limit(&mut params, term);
        let key = KeyPair::generate().map_err(&fault)?;
        let certificate = params.self_signed(&key).map_err(&fault)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { certificate, issuer })
    }

    /// An authority that was made before, from what [`Authority::pem`] gave.
    ///
    /// # Errors
    /// It is something else.
    pub fn read(pem: &str) -> Result<Self, Error> {
        let fault = fault("an authority");
        let key = KeyPair::from_pem(&part(pem, "PRIVATE KEY")).map_err(&fault)?;
        let certificate = part(pem, "CERTIFICATE");
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(&fault)?;
        Ok(Self { certificate, issuer })
    }

    /// Certificate and key, PEM: to be written with mode 0600 only.
    pub fn pem(&self) -> String {
        format!("{}{}", self.certificate, self.issuer.key().serialize_pem())
    }

    /// The authority's own certificate, PEM.
    pub fn certificate(&self) -> String {
        self.certificate.clone()
    }

    /// A certificate for a server that is also a client of its peers, valid for these names and addresses, without an end.
    ///
    /// # Errors
    /// A name cannot stand in a certificate.
    pub fn issue(&self, name: &str, dns: &[&str], addresses: &[IpAddr]) -> Result<Identity, Error> {
        let dns = dns.iter().map(|name| (*name).to_owned());
        let hosts = dns.chain(addresses.iter().map(IpAddr::to_string)).collect();
        self.signed(name, hosts, None)
    }

    /// The same for a time. Each host is a name or an address.
    ///
    /// # Errors
    /// A name cannot stand in a certificate.
    pub fn issue_lasting(&self, name: &str, hosts: Vec<String>, term: Term) -> Result<Identity, Error> {
        self.signed(name, hosts, Some(term))
    }

    fn signed(&self, name: &str, hosts: Vec<String>, term: Option<Term>) -> Result<Identity, Error> {
        let fault = fault(name);
        let mut params = CertificateParams::new(hosts).map_err(&fault)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        limit(&mut params, term);
        let key = KeyPair::generate().map_err(&fault)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(&fault)?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn fault(name: &str) -> impl Fn(rcgen::Error) -> Error {
    move |source| Error {
        name: name.to_owned(),
        source,
    }
}

fn limit(params: &mut CertificateParams, term: Option<Term>) {
    let Some(term) = term else { return };
    let at = |seconds| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = at(term.from);
    params.not_after = at(term.until);
}

/// The first block with this label of a PEM text; nothing where there is none.
fn part(pem: &str, label: &str) -> String {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let from = pem.find(&begin);
    let found = from.and_then(|from| pem[from..].find(&end).map(|to| &pem[from..from + to + end.len()]));
    found.map(|text| format!("{text}\n")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::*;

    use super::*;

    #[test]
    fn an_issued_certificate_is_signed_by_its_authority_and_names_its_owner() {
        let authority = Authority::new("leeward instance").unwrap();
        let issued = authority
            .issue("west", &["west.leeward"], &["127.9.16.4".parse().unwrap()])
            .unwrap();
        let (_, ca) = parse_x509_pem(authority.certificate().as_bytes()).unwrap();
        let (_, pem) = parse_x509_pem(issued.certificate.as_bytes()).unwrap();
        let ca = ca.parse_x509().unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert_eq!(certificate.issuer(), ca.subject());
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert!(
            names
                .value
                .general_names
                .contains(&GeneralName::DNSName("west.leeward"))
        );
        assert!(
            names
                .value
                .general_names
                .contains(&GeneralName::IPAddress(&[127, 9, 16, 4]))
        );
        assert!(certificate.extended_key_usage().unwrap().unwrap().value.client_auth);
        assert!(!certificate.is_ca());
    }

    #[test]
    fn an_authority_that_was_kept_signs_as_before() {
        let term = Term {
            from: 1_700_000_000,
            until: 4_000_000_000,
        };
        let kept = Authority::lasting("leeward authority 1", term).unwrap().pem();
        let authority = Authority::read(&kept).unwrap();
        assert_eq!(authority.pem(), kept);
        let end = Term {
            from: 1_700_000_000,
            until: 1_800_000_000,
        };
        let hosts = vec!["west.example".to_owned(), "10.0.0.7".to_owned()];
        let issued = authority.issue_lasting("west", hosts, end).unwrap();
        let pair = Pair::read(issued.certificate.as_bytes(), issued.key.as_bytes()).unwrap();
        let about = pair.about().unwrap();
        assert_eq!((about.from, about.until), (end.from, end.until));
        let roots = roots(authority.certificate().as_bytes()).unwrap();
        assert_eq!(pair.check(&roots, 1_750_000_000), Ok(()));
        assert!(Authority::read("nothing").is_err());
        assert!(Authority::read(&authority.certificate()).is_err());
    }
}
