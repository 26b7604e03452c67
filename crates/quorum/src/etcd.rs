//! The quorum on etcd: one member in each failure domain, spoken to in its v3 API.
//!
//! The store's keys live under a prefix, its revisions are etcd's own. A transaction becomes one etcd transaction: the
//! comparisons are of `mod_revision`, and what is to be read is read in both branches, after the writes. Changes are read
//! by a watch from the revision after the one that is known; where that was compacted, everything is read anew.
//!
//! Building it needs nothing but Rust: the few messages are written out in `wire`, see
//! `docs/decisions/0007-etcd-client.md`.

mod connection;
pub mod recover;
pub mod status;
mod wire;

use std::{collections::BTreeMap, time::Duration};

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::{Answer, Changes, Entry, Error, Outcome, Store, Txn, certificate};
use connection::Connection;
use wire::{
    CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, Event, KeyValue, PutRequest, RangeRequest,
    RangeResponse, Request, RequestOp, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};

const TXN: &str = "/etcdserverpb.KV/Txn";
const RANGE: &str = "/etcdserverpb.KV/Range";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// How often an idle connection is tried, so that a member that froze is noticed. etcd closes the connection of who asks more often than every 5 s
/// (its `grpc-keepalive-min-time`).
const KEEP_ALIVE: Duration = Duration::from_secs(7);

/// A user of etcd's own authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

/// Certificates, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    /// The authority that signed the members' certificates.
    pub ca: Vec<u8>,
    /// This client's certificate and key; none where members ask for none.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// How etcd is reached.
#[derive(Clone)]
pub struct Config {
    /// `https://HOST:PORT` or `http://HOST:PORT` of each member; this region's own first.
    pub endpoints: Vec<String>,
    /// For `https`.
    pub tls: Option<Tls>,
    /// Where etcd asks for one.
    pub login: Option<Login>,
    /// What every key of this installation begins with; it ends with a slash.
    pub prefix: String,
    /// A transaction that is not answered within this has an unknown outcome.
    pub timeout: Duration,
    /// The identity that the etcd cluster must have; zero takes the first one that answers.
    pub cluster: u64,
    /// The revision that it must have reached: an answer from before it is refused.
    pub revision: u64,
}

/// The store on etcd.
pub struct Etcd {
    connection: Connection,
    prefix: String,
}

impl Etcd {
    /// A client of the members. Nothing is connected yet.
    ///
    /// # Errors
    /// An endpoint is no URL, there is none, or a certificate cannot be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        if config.endpoints.is_empty() {
            return Err(Error::Refused("no endpoint of etcd is given".into()));
        }
        let endpoints = config.endpoints.iter().map(|url| endpoint(url, &config));
        Ok(Self {
            connection: connection(endpoints.collect::<Result<_, _>>()?, &config, config.revision),
            prefix: config.prefix,
        })
    }

    /// The identity of the etcd cluster that answered, zero while none did.
    pub fn cluster(&self) -> u64 {
        self.connection.cluster()
    }

    /// Shows and trusts these certificates, and logs in so, at every connection from now on. What is open stays open, and what is known of the
    /// cluster stays known.
    ///
    /// # Errors
    /// One of them cannot be used; then all is as before.
    pub(crate) fn renew(&self, config: &Config) -> Result<(), Error> {
        let endpoints = config.endpoints.iter().map(|url| endpoint(url, config));
        let endpoints = endpoints.collect::<Result<_, _>>()?;
        self.connection
            .renew(endpoints, config.login.clone(), certificates(config));
        Ok(())
    }

    /// Forgets what was before a revision. Who follows from before it is given everything.
    ///
    /// # Errors
    /// etcd does not answer, or has compacted it already.
    pub async fn compact(&self, before: u64) -> Result<(), Error> {
        let question = CompactionRequest {
            revision: i64::try_from(before).unwrap_or(i64::MAX),
        };
        let _: CompactionResponse = self.connection.ask(COMPACT, question).await?;
        Ok(())
    }

    fn key(&self, key: &str) -> Vec<u8> {
        format!("{}{key}", self.prefix).into_bytes()
    }

    fn range(&self, prefix: &str) -> RangeRequest {
        let key = self.key(prefix);
        RangeRequest {
            range_end: end_of(&key),
            key,
            count_only: false,
        }
    }

    fn entry(&self, kv: KeyValue) -> Result<Entry, Error> {
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).map_err(|error| {
                let key = String::from_utf8_lossy(error.as_bytes()).into_owned();
                Error::Refused(format!("etcd has {key:?} under {:?}, which is no text", self.prefix))
            })
        };
        let key = text(kv.key)?;
        Ok(Entry {
            key: key.strip_prefix(&self.prefix).unwrap_or(&key).to_owned(),
            value: Some(text(kv.value)?),
            revision: revision(kv.mod_revision),
        })
    }

    async fn run(&self, txn: Txn) -> Result<Outcome, Error> {
        let reads: Vec<RequestOp> = txn
            .read_prefixes
            .iter()
            .map(|prefix| operation(Request::Range(self.range(prefix))))
            .collect();
        let writes = txn.writes.iter().map(|write| {
            let key = self.key(&write.key);
            operation(match &write.value {
                Some(value) => Request::Put(PutRequest {
                    key,
                    value: value.clone().into_bytes(),
                }),
                None => Request::DeleteRange(DeleteRangeRequest { key }),
            })
        });
        let compare = txn.compares.iter().map(|compare| Compare {
            target: Compare::MOD,
            key: self.key(&compare.key),
            mod_revision: Some(i64::try_from(compare.revision).unwrap_or(i64::MAX)),
        });
        let question = TxnRequest {
            compare: compare.collect(),
            success: writes.chain(reads.iter().cloned()).collect(),
            failure: reads,
        };
        let answer: TxnResponse = self.connection.ask(TXN, question).await?;
        let newest = answer.header.map_or(0, |header| revision(header.revision));
        let mut entries = BTreeMap::new();
        let read = answer.responses.into_iter().filter_map(|response| response.range);
        for kv in read.flat_map(|range| range.kvs) {
            let entry = self.entry(kv)?;
            entries.insert(entry.key.clone(), entry);
        }
        if answer.succeeded {
            // What this very transaction deleted is told as the other store tells it.
            let read = |key: &str| txn.read_prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()));
            for write in txn.writes.iter().filter(|w| w.value.is_none() && read(&w.key)) {
                let gone = Entry {
                    key: write.key.clone(),
                    value: None,
                    revision: newest,
                };
                entries.insert(write.key.clone(), gone);
            }
        }
        Ok(Outcome {
            applied: answer.succeeded,
            revision: newest,
            entries: entries.into_values().collect(),
        })
    }

    async fn everything(&self) -> Result<Changes, Error> {
        let answer: RangeResponse = self.connection.ask(RANGE, self.range("")).await?;
        let entries = answer.kvs.into_iter().map(|kv| self.entry(kv));
        let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(|entry| entry.revision);
        Ok(Changes {
            revision: answer.header.map_or(0, |header| revision(header.revision)),
            entries,
            whole: true,
        })
    }

    async fn since(&self, after: u64, wait: Duration) -> Result<Changes, Error> {
        let range = self.range("");
        let question = WatchRequest {
            create: Some(WatchCreateRequest {
                key: range.key,
                range_end: range.range_end,
                start_revision: i64::try_from(after + 1).unwrap_or(i64::MAX),
            }),
        };
        let mut answers = self.connection.follow::<_, WatchResponse>(WATCH, question).await?;
        let end = tokio::time::Instant::now() + wait;
        loop {
            let Ok(answer) = tokio::time::timeout_at(end, answers.next()).await else {
                return self.nothing(after).await;
            };
            let answer = answer?;
            if answer.compact_revision > 0 {
                return self.everything().await;
            }
            if answer.canceled {
                return Err(Error::Unreachable(format!(
                    "etcd ended the watch: {}",
                    answer.cancel_reason
                )));
            }
            if !answer.events.is_empty() {
                return self.news(answer.events);
            }
        }
    }

    /// The newest state of each key that events speak of.
    fn news(&self, events: Vec<Event>) -> Result<Changes, Error> {
        let mut newest = BTreeMap::new();
        for event in events {
            let gone = event.kind == Event::DELETE;
            let Some(kv) = event.kv else { continue };
            let mut entry = self.entry(kv)?;
            if gone {
                entry.value = None;
            }
            newest.insert(entry.key.clone(), entry);
        }
        let mut entries: Vec<Entry> = newest.into_values().collect();
        entries.sort_by_key(|entry| entry.revision);
        Ok(Changes {
            // A watch never divides the events of one revision.
            revision: entries.last().map_or(0, |entry| entry.revision),
            entries,
            whole: false,
        })
    }

    /// Nothing was heard. A watch from a revision that a restored store has yet to reach is silent too, so it is asked.
    async fn nothing(&self, after: u64) -> Result<Changes, Error> {
        let question = RangeRequest {
            count_only: true,
            ..self.range("")
        };
        let answer: RangeResponse = self.connection.ask(RANGE, question).await?;
        let newest = answer.header.map_or(0, |header| revision(header.revision));
        Ok(Changes {
            revision: after.min(newest),
            entries: Vec::new(),
            whole: false,
        })
    }
}

impl Store for Etcd {
    fn txn(&self, txn: Txn) -> Answer<'_, Outcome> {
        Box::pin(self.run(txn))
    }

    fn changes(&self, after: u64, wait: Duration) -> Answer<'_, Changes> {
        Box::pin(async move {
            match after {
                0 => self.everything().await,
                _ => self.since(after, wait).await,
            }
        })
    }
}

/// A connection to one of these members, which have reached this revision.
fn connection(endpoints: Vec<Endpoint>, config: &Config, revision: u64) -> Connection {
    let known = (config.cluster, revision);
    let connection = Connection::new(endpoints.clone(), config.login.clone(), config.timeout, known);
    connection.renew(endpoints, config.login.clone(), certificates(config));
    connection
}

/// What this side shows and trusts. One that cannot be read is refused where it is used.
fn certificates(config: &Config) -> Vec<certificate::Certificate> {
    let read = config.tls.as_ref().and_then(|tls| certificate::of_files(tls).ok());
    read.unwrap_or_default()
}

fn endpoint(url: &str, config: &Config) -> Result<Endpoint, Error> {
    let refused = |why: String| Error::Refused(format!("endpoint {url:?} of etcd: {why}"));
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| refused(error.to_string()))?;
    let scheme = endpoint.uri().scheme_str().unwrap_or_default().to_owned();
    let mut endpoint = endpoint
        .connect_timeout(config.timeout)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(config.timeout)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    match (scheme.as_str(), &config.tls) {
        ("http", None) => {}
        ("https", Some(tls)) => {
            let mut settings = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
            if let Some((certificate, key)) = &tls.identity {
                settings = settings.identity(Identity::from_pem(certificate, key));
            }
            endpoint = endpoint
                .tls_config(settings)
                .map_err(|error| refused(format!("its certificates cannot be used: {error}")))?;
        }
        ("https", None) => return Err(refused("https needs the authority that signed its certificate".into())),
        ("http", Some(_)) => return Err(refused("certificates are given, so it must be https".into())),
        _ => return Err(refused("it must begin with https:// or http://".into())),
    }
    Ok(endpoint)
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn revision(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

/// The first key after all that begin with a prefix; `\0` stands for the end of all keys.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Config {
        Config {
            endpoints: vec![url.into()],
            tls: None,
            login: None,
            prefix: "leeward/".into(),
            timeout: Duration::from_secs(1),
            cluster: 0,
            revision: 0,
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_after_every_key_that_begins_with_it() {
        for (prefix, end) in [
            (&b"a/"[..], &b"a0"[..]),
            (b"a\xff", b"b"),
            (b"\xff\xff", b"\0"),
            (b"", b"\0"),
        ] {
            assert_eq!(end_of(prefix), end, "{prefix:?}");
        }
    }

    #[test]
    fn an_endpoint_that_cannot_work_is_refused_with_what_to_do() {
        for (url, says) in [
            ("10.0.0.1:2379", "https://"),
            ("ftp://x:1", "https://"),
            ("https://x:1", "authority"),
            ("not a url", "not a url"),
        ] {
            let error = Etcd::new(config(url)).err().unwrap().to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
        let none = Config {
            endpoints: vec![],
            ..config("")
        };
        assert!(Etcd::new(none).is_err());
    }
}
