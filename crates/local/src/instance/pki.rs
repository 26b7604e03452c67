//! Certificates and keys of an instance.
//!
//! Each region has a certificate authority of its own for its Kubernetes API, so that a kubeconfig of one region trusts no
//! other. One more authority, the instance's, signs what the regions and the witness show each other on the peer link: such a
//! certificate serves both ends and names `NAME.leeward` and an address. An authority's key is kept only where it may have to
//! sign again: it is dropped as soon as its certificates are made, and never written.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

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

/// An authority that signs during the making of an instance.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority under this name.
    pub fn new(name: &str) -> Result<Self, Error> {
        let fault = |source| Error {
            name: name.to_owned(),
            source,
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(fault)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(fault)?;
        Ok(Self { issuer })
    }

    /// The authority's own certificate, PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a server that is also a client of its peers, valid for these names and addresses.
    pub fn issue(&self, name: &str, dns: &[&str], addresses: &[IpAddr]) -> Result<Identity, Error> {
        let fault = |source| Error {
            name: name.to_owned(),
            source,
        };
        let names: Vec<String> = dns
            .iter()
            .map(|name| (*name).to_owned())
            .chain(addresses.iter().map(IpAddr::to_string))
            .collect();
        let mut params = CertificateParams::new(names).map_err(fault)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(fault)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(fault)?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
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
}
