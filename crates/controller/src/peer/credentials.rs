//! What one end of the peer link proves itself with and trusts, as it stands in its files: also after they were replaced.
//!
//! Flow: [`Credentials::follow`] looks at the files every [`LOOK`]. What has changed is read twice, so that no half of one state is taken
//! with a half of the next (a mounted Secret changes by one link); it is checked, and from then on every new connection uses it, on either
//! side. What is open stays open.
//!
//! Invariants: what no peer would take is not taken: it is said once, and what was there goes on. The name in the certificate never
//! changes while a process runs. No connection is resumed from an earlier one, so each new one proves both ends anew.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use leeward_pki::{About, Flaw, Judged, Judges, Pair, roots};
use leeward_quorum::certificate::{Certificate, Trouble, Whose};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption, WebPkiServerVerifier},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;

use super::PeerError;
use crate::clock;

/// How often the files are looked at.
pub const LOOK: Duration = Duration::from_secs(2);
/// How often it is looked when the certificates end.
const TERMS: Duration = Duration::from_secs(3600);

/// What one end needs to prove itself and to know the others. A copy follows the same files.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    files: Files,
    current: ArcSwap<Current>,
}

struct Files {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

/// The files' bytes.
#[derive(Clone, PartialEq, Eq)]
struct Content {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// What the files said when they were last good.
struct Current {
    content: Content,
    about: About,
    roots: Arc<RootCertStore>,
    certified: Arc<CertifiedKey>,
    /// Judges the servers that are connected to.
    judge: Arc<WebPkiServerVerifier>,
    /// For those who show a certificate.
    mutual: Arc<ServerConfig>,
    /// For those who show none.
    open: Arc<ServerConfig>,
}

/// What a look at the files gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Nothing new.
    Same,
    /// They are in use from now on.
    Taken,
    /// They cannot be used, for this reason; what was there goes on.
    Refused(String),
}

impl Files {
    fn read(&self) -> Result<Content, PeerError> {
        let read = |file: &Path| std::fs::read(file).map_err(|error| fault(file, error));
        Ok(Content {
            ca: read(&self.ca)?,
            cert: read(&self.cert)?,
            key: read(&self.key)?,
        })
    }

    fn understand(&self, content: Content) -> Result<Current, PeerError> {
        let roots = roots(&content.ca).map_err(|flaw| fault(&self.ca, flaw))?;
        let pair = Pair::read(&content.cert, &content.key).map_err(|flaw| match flaw {
            Flaw::Unreadable { what: "the key", .. } => fault(&self.key, flaw),
            flaw => fault(&self.cert, flaw),
        })?;
        let about = pair.about().map_err(|flaw| fault(&self.cert, flaw))?;
        let of_cert = |error: rustls::Error| fault(&self.cert, error);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
        let clients = clients.map_err(|error| fault(&self.ca, error))?;
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider).build();
        let judge = judge.map_err(|error| fault(&self.ca, error))?;
        let mut mutual = ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(pair.chain().to_vec(), pair.key())
            .map_err(of_cert)?;
        mutual.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        mutual.session_storage = Arc::new(NoServerSessionStorage {});
        mutual.send_tls13_tickets = 0;
        let mut open = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(pair.chain().to_vec(), pair.key())
            .map_err(of_cert)?;
        open.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Current {
            content,
            about,
            roots,
            certified: Arc::clone(pair.certified()),
            judge,
            mutual: Arc::new(mutual),
            open: Arc::new(open),
        })
    }
}

impl Current {
    /// Whether a peer that trusts what stands beside it would take it, and knows who shows it.
    fn check(&self, before: &Self, now: u64) -> Result<(), String> {
        let pair = Pair::read(&self.content.cert, &self.content.key);
        let checked = pair.and_then(|pair| pair.check(&self.roots, now));
        checked.map_err(|flaw| flaw.to_string())?;
        if self.about.common_name != before.about.common_name {
            let name = |about: &About| about.common_name.clone().unwrap_or_default();
            return Err(format!(
                "the certificate is of {:?}, and this is {:?}",
                name(&self.about),
                name(&before.about)
            ));
        }
        Ok(())
    }

    /// What is wrong with the certificates at this time, Unix seconds, or will soon be.
    fn troubles(&self, now: u64) -> Vec<Trouble> {
        let certificate = |whose: Whose, about: &About| Certificate {
            whose,
            subject: about.subject.clone(),
            from: seconds(about.from),
            until: seconds(about.until).saturating_add(1),
        };
        let own = certificate(Whose::Own, &self.about);
        let authorities = leeward_pki::abouts(&self.content.ca).unwrap_or_default();
        // The one that ends last is left when the others end.
        let last = authorities.iter().max_by_key(|about| about.until);
        let authority = last.map(|about| certificate(Whose::Peers, about));
        let all = [Some(own), authority];
        all.iter()
            .flatten()
            .filter_map(|one| one.trouble(seconds(now)))
            .collect()
    }
}

fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

impl Credentials {
    /// Reads them from PEM files.
    ///
    /// # Errors
    /// When a file cannot be read or does not hold what it should, or certificate and key do not belong together.
    pub fn read(ca: &Path, cert: &Path, key: &Path) -> Result<Self, PeerError> {
        let files = Files {
            ca: ca.to_owned(),
            cert: cert.to_owned(),
            key: key.to_owned(),
        };
        let current = files.understand(files.read()?)?;
        Ok(Self(Arc::new(Inner {
            files,
            current: ArcSwap::from_pointee(current),
        })))
    }

    /// Looks at the files once, and uses what they say from then on where it is good. Blocks for as long as reading them takes.
    pub fn look(&self) -> Look {
        let Inner { files, current } = &*self.0;
        let (first, second) = (files.read(), files.read());
        let content = match (first, second) {
            (Ok(first), Ok(second)) if first == second => first,
            // It changes at this moment; the next look is soon.
            (Ok(_), Ok(_)) => return Look::Same,
            (_, Err(error)) | (Err(error), _) => return Look::Refused(error.to_string()),
        };
        let before = current.load();
        if content == before.content {
            return Look::Same;
        }
        let understood = files.understand(content).map_err(|error| error.to_string());
        let checked = understood.and_then(|next| match next.check(&before, clock::wall_ms() / 1000) {
            Ok(()) => Ok(next),
            Err(why) => Err(format!("{}: {why}", files.cert.display())),
        });
        match checked {
            Ok(next) => {
                current.store(Arc::new(next));
                Look::Taken
            }
            // What only counts later may be taken later.
            Err(why) => Look::Refused(why),
        }
    }

    /// Looks at the files every [`LOOK`], and says what became of it and when they end, until `stop`.
    pub async fn follow(self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK);
        let mut terms = tokio::time::interval(TERMS);
        let mut refused = None;
        let mut told: Vec<String> = vec![];
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = terms.tick() => {
                    let troubles = self.troubles();
                    for trouble in troubles.iter().filter(|trouble| !told.iter().any(|said| said == trouble.text())) {
                        say(trouble);
                    }
                    told = troubles.iter().map(|trouble| trouble.text().to_owned()).collect();
                }
                _ = looks.tick() => {
                    let files = self.clone();
                    // Only a runtime that ends does not give an answer.
                    let Ok(look) = tokio::task::spawn_blocking(move || files.look()).await else { return };
                    match look {
                        Look::Same => refused = None,
                        Look::Taken => {
                            refused = None;
                            let about = self.about();
                            tracing::info!(subject = about.subject, until = about.until, "the new certificates are in use for every new connection");
                            terms.reset_immediately();
                        }
                        Look::Refused(why) => {
                            if refused.as_ref() != Some(&why) {
                                tracing::warn!("the new certificates are refused, and those from before go on: {why}");
                            }
                            refused = Some(why);
                        }
                    }
                }
            }
        }
    }

    /// What is wrong with the certificates in use now, or will soon be.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.0.current.load().troubles(clock::wall_ms() / 1000)
    }

    /// What stands in the certificate in use.
    pub fn about(&self) -> About {
        self.0.current.load().about.clone()
    }

    /// The authorities that are trusted, PEM.
    pub fn authorities(&self) -> String {
        String::from_utf8_lossy(&self.0.current.load().content.ca).into_owned()
    }

    /// How to serve those who show a certificate, from now on.
    pub(super) fn mutual(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.current.load().mutual)
    }

    /// How to serve whoever asks, from now on.
    pub(super) fn open(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.current.load().open)
    }

    /// A client that shows this certificate and trusts only peers of the same authority.
    ///
    /// # Errors
    /// When it cannot be set up.
    pub fn client(&self) -> Result<reqwest::Client, PeerError> {
        let mut config = ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Judged(Arc::new(self.clone()))))
            .with_client_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .connect_timeout(Duration::from_millis(500))
            .pool_idle_timeout(Duration::from_secs(60))
            .no_proxy()
            .build()
            .map_err(|error| fault(&self.0.files.cert, error))
    }
}

fn fault(file: &Path, why: impl fmt::Display) -> PeerError {
    PeerError::Credentials {
        file: file.display().to_string(),
        reason: why.to_string(),
    }
}

fn say(trouble: &Trouble) {
    match trouble {
        Trouble::Soon(text) => tracing::warn!("{text}"),
        Trouble::Over(text) => tracing::error!("{text}"),
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is nobody's business.
        write!(f, "Credentials({})", self.0.files.cert.display())
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current.load().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Judges for Credentials {
    fn judge(&self) -> Arc<WebPkiServerVerifier> {
        Arc::clone(&self.0.current.load().judge)
    }
}
