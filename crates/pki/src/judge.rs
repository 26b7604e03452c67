//! Judging the servers that are connected to, as rustls has it done, by roots that may be others at each handshake.

use std::{fmt, sync::Arc};

use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// Who says by which roots a server is judged.
pub trait Judges: fmt::Debug + Send + Sync {
    /// The judge of this handshake: a certificate and what is signed with it are looked at by its roots.
    fn judge(&self) -> Arc<WebPkiServerVerifier>;

    /// A server shows this certificate, whatever the judgement will be.
    fn is_shown(&self, _certificate: &CertificateDer<'_>) {}
}

/// What rustls asks: it passes everything on to the judge of the moment, and takes nothing that this one does not take.
#[derive(Debug)]
pub struct Judged<J>(pub Arc<J>);

impl<J: Judges> ServerCertVerifier for Judged<J> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.is_shown(end_entity);
        let judge = self.0.judge();
        judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.judge().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.judge().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.judge().supported_verify_schemes()
    }
}
