//! One connection at a time to one of several members.
//!
//! A member that cannot be reached, or that answers that it cannot answer, is left for the next one with the next request.
//! A request that was sent is never sent again by itself: whether it was applied is not known, and only who asked can tell
//! whether asking again is safe. The one exception is an answer that says that nothing was done: a login that is over.
//!
//! Every answer carries the identity and the revision of the cluster that gave it. Another cluster's is refused, and so is a
//! revision below one that was seen before the question was sent: that store was restored from a backup or made anew, and
//! epochs in it may be lower than some that were given out.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::uri::PathAndQuery;
use prost::Message;
use rustls::CertificateError;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{
    Login,
    wire::{AuthenticateRequest, AuthenticateResponse, ResponseHeader},
};
use crate::{
    Error,
    certificate::{Certificate, Trouble},
};

const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// An answer that says which cluster gave it.
pub(super) trait Answer: Message + Default + Send + Sync + 'static {
    /// Not every version of etcd gives every answer a header. Only where nothing rests on the answer may it be without one.
    const MAY_BE_ANONYMOUS: bool = false;

    fn header(&self) -> Option<ResponseHeader>;
}

macro_rules! answers {
    ($($name:ident),*) => { $(impl Answer for super::wire::$name {
        fn header(&self) -> Option<ResponseHeader> {
            self.header
        }
    })* };
}
answers!(
    RangeResponse,
    TxnResponse,
    CompactionResponse,
    WatchResponse,
    AuthenticateResponse,
    StatusResponse,
    MemberListResponse
);

impl Answer for super::wire::AlarmResponse {
    const MAY_BE_ANONYMOUS: bool = true;

    fn header(&self) -> Option<ResponseHeader> {
        self.header
    }
}

/// A member that answers.
#[derive(Clone)]
struct Open {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    /// Which of the endpoints.
    index: usize,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// The endpoint to begin with.
    next: usize,
}

/// How members are reached.
struct Reach {
    endpoints: Vec<Endpoint>,
    login: Option<Login>,
    /// What this side shows and trusts.
    certificates: Vec<Certificate>,
}

pub(super) struct Connection {
    /// For connections that are still to be made.
    reach: Mutex<Arc<Reach>>,
    timeout: Duration,
    state: Mutex<State>,
    /// The cluster's identity, zero while it is not known.
    cluster: AtomicU64,
    /// The highest revision of any answer.
    seen: AtomicU64,
}

impl Connection {
    /// `known` is what must answer: the cluster's identity, zero where any will do, and a revision that it has reached.
    pub(super) fn new(endpoints: Vec<Endpoint>, login: Option<Login>, timeout: Duration, known: (u64, u64)) -> Self {
        let reach = Reach {
            endpoints,
            login,
            certificates: Vec::new(),
        };
        Self {
            reach: Mutex::new(Arc::new(reach)),
            timeout,
            state: Mutex::default(),
            cluster: AtomicU64::new(known.0),
            seen: AtomicU64::new(known.1),
        }
    }

    /// Makes every connection from now on to these endpoints and with this login; the one that is open stays. Says with each failure whether
    /// one of these certificates is behind it: a member that is shown one which has ended only hangs up.
    pub(super) fn renew(&self, endpoints: Vec<Endpoint>, login: Option<Login>, certificates: Vec<Certificate>) {
        let reach = Reach {
            endpoints,
            login,
            certificates,
        };
        // It is replaced as a whole.
        *self.reach.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(reach);
    }

    fn reach(&self) -> Arc<Reach> {
        Arc::clone(&self.reach.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn explain(&self, error: Error) -> Error {
        let Error::Unreachable(why) = error else { return error };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let reach = self.reach();
        let mut troubles = reach.certificates.iter().filter_map(|one| one.trouble(now));
        let over = troubles.find(|trouble| matches!(trouble, Trouble::Over(_)));
        Error::Unreachable(match over {
            Some(over) => format!("{why}; {}", over.text()),
            None => why,
        })
    }

    /// The identity of the cluster that answered, zero while none did.
    pub(super) fn cluster(&self) -> u64 {
        self.cluster.load(Ordering::Relaxed)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Each field is replaced as a whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a question and gives its answer.
    pub(super) async fn ask<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Answer,
    {
        let mut fresh_login = false;
        loop {
            let open = self.open().await?;
            let floor = self.seen.load(Ordering::Acquire);
            let sent = tokio::time::timeout(self.timeout, unary(&open, path, question.clone()));
            let status = match sent.await {
                Ok(Ok(answer)) => {
                    // A member of an earlier incarnation may have come back beside those of this one.
                    self.judge(&answer, floor).inspect_err(|_| self.leave(&open, true))?;
                    return Ok(answer);
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {:?}", self.timeout)),
            };
            if is_over(&status) && self.reach().login.is_some() && !fresh_login {
                fresh_login = true;
                self.leave(&open, false);
                continue;
            }
            return Err(self.failed(&open, &status));
        }
    }

    /// Opens a stream of answers to one question.
    pub(super) async fn follow<Q, A>(&self, path: &'static str, question: Q) -> Result<Stream<'_, A>, Error>
    where
        Q: Message + Clone + 'static,
        A: Answer,
    {
        let open = self.open().await?;
        // etcd tells those who watch of a change an instant before it counts it: a watch that is opened in between begins one below.
        let floor = self.seen.load(Ordering::Acquire).saturating_sub(1);
        match tokio::time::timeout(self.timeout, streaming(&open, path, question)).await {
            Ok(Ok(answers)) => Ok(Stream {
                connection: self,
                open,
                answers,
                floor,
            }),
            Ok(Err(status)) => Err(self.failed(&open, &status)),
            Err(_) => {
                let status = Status::deadline_exceeded(format!("no answer within {:?}", self.timeout));
                Err(self.failed(&open, &status))
            }
        }
    }

    /// The member in use, or the first one from the next on that can be reached.
    async fn open(&self) -> Result<Open, Error> {
        let first = {
            let state = self.state();
            if let Some(open) = &state.open {
                return Ok(open.clone());
            }
            state.next
        };
        let mut wrong = Vec::new();
        let reach = self.reach();
        for step in 0..reach.endpoints.len() {
            let index = (first + step) % reach.endpoints.len();
            let endpoint = &reach.endpoints[index];
            match self.connect(endpoint, reach.login.as_ref(), index).await {
                Ok(open) => {
                    self.state().open = Some(open.clone());
                    return Ok(open);
                }
                // What is wrong with a login is wrong at every member.
                Err(error @ Error::Refused(_)) => return Err(error),
                Err(Error::Unreachable(why)) => wrong.push(format!("{}: {why}", endpoint.uri())),
                Err(error) => wrong.push(format!("{}: {error}", endpoint.uri())),
            }
        }
        Err(self.explain(Error::Unreachable(wrong.join("; "))))
    }

    async fn connect(&self, endpoint: &Endpoint, login: Option<&Login>, index: usize) -> Result<Open, Error> {
        let unreachable = |why: String| Error::Unreachable(why);
        let connecting = tokio::time::timeout(self.timeout, endpoint.connect());
        let channel = connecting
            .await
            .map_err(|_| unreachable(format!("no connection within {:?}", self.timeout)))?
            .map_err(|error| unreachable(causes(&error)))?;
        let mut open = Open {
            channel,
            token: None,
            index,
        };
        if let Some(login) = login {
            let question = AuthenticateRequest {
                name: login.user.clone(),
                password: login.password.clone(),
            };
            let asked = tokio::time::timeout(self.timeout, unary(&open, AUTHENTICATE, question));
            let answer: AuthenticateResponse = asked
                .await
                .map_err(|_| unreachable(format!("no login within {:?}", self.timeout)))?
                .map_err(|status| error_of(&status))?;
            let token = answer.token.parse();
            open.token = Some(token.map_err(|_| Error::Refused("etcd gave a login that is no text".into()))?);
        }
        Ok(open)
    }

    /// Checks where an answer comes from.
    fn judge<A: Answer>(&self, answer: &A, floor: u64) -> Result<(), Error> {
        let Some(header) = answer.header() else {
            if A::MAY_BE_ANONYMOUS {
                return Ok(());
            }
            return Err(Error::Refused("an answer of etcd has no header".into()));
        };
        let known = self
            .cluster
            .compare_exchange(0, header.cluster_id, Ordering::Relaxed, Ordering::Relaxed);
        if let Err(known) = known
            && known != header.cluster_id
        {
            return Err(Error::Replaced(format!(
                "cluster {:x} answers in the place of {known:x}",
                header.cluster_id
            )));
        }
        let revision = u64::try_from(header.revision).unwrap_or(0);
        // Logins carry no revision in every version.
        if revision != 0 && revision < floor {
            return Err(Error::Replaced(format!(
                "it is at revision {revision} and was at {floor} before"
            )));
        }
        self.seen.fetch_max(revision, Ordering::AcqRel);
        Ok(())
    }

    fn failed(&self, open: &Open, status: &Status) -> Error {
        let error = error_of(status);
        if error.is_transient() {
            self.leave(open, true);
        }
        self.explain(error)
    }

    /// Stops using a member, and begins with the one after it where that member is to blame.
    fn leave(&self, open: &Open, blame: bool) {
        let mut state = self.state();
        if state.open.as_ref().is_some_and(|current| current.index == open.index) {
            state.open = None;
            state.next = open.index + usize::from(blame);
        }
    }
}

/// Answers that come one after another.
pub(super) struct Stream<'c, A> {
    connection: &'c Connection,
    open: Open,
    answers: Streaming<A>,
    floor: u64,
}

impl<A: Answer> Stream<'_, A> {
    /// The next answer.
    pub(super) async fn next(&mut self) -> Result<A, Error> {
        match self.answers.message().await {
            Ok(Some(answer)) => {
                let judged = self.connection.judge(&answer, self.floor);
                judged.inspect_err(|_| self.connection.leave(&self.open, true))?;
                Ok(answer)
            }
            Ok(None) => Err(self
                .connection
                .failed(&self.open, &Status::unavailable("the stream ended"))),
            Err(status) => Err(self.connection.failed(&self.open, &status)),
        }
    }
}

fn request<T>(open: &Open, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = &open.token {
        request.metadata_mut().insert("token", token.clone());
    }
    // A member without a leader says so, in place of waiting.
    request
        .metadata_mut()
        .insert("hasleader", MetadataValue::from_static("true"));
    request
}

/// The longest answer that is read, bytes. Who follows from the beginning is given everything at once: some 1 KiB for each application.
const LONGEST_ANSWER: usize = 256 << 20;

async fn ready(open: &Open) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(open.channel.clone()).max_decoding_message_size(LONGEST_ANSWER);
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(grpc)
}

async fn unary<Q, A>(open: &Open, path: &'static str, question: Q) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = ready(open).await?;
    let codec = ProstCodec::<Q, A>::default();
    let answer = grpc.unary(request(open, question), PathAndQuery::from_static(path), codec);
    Ok(answer.await?.into_inner())
}

async fn streaming<Q, A>(open: &Open, path: &'static str, question: Q) -> Result<Streaming<A>, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    use futures::StreamExt as _;
    let mut grpc = ready(open).await?;
    let codec = ProstCodec::<Q, A>::default();
    // The side that asks stays open: its end would end the answers.
    let questions = futures::stream::iter([question]).chain(futures::stream::pending());
    let answers = grpc.streaming(request(open, questions), PathAndQuery::from_static(path), codec);
    Ok(answers.await?.into_inner())
}

/// Whether etcd did nothing because the login is over.
fn is_over(status: &Status) -> bool {
    status.code() == Code::Unauthenticated
        || (status.code() == Code::InvalidArgument && status.message().contains("auth token"))
}

/// What an answer that is an error means for who asked.
fn error_of(status: &Status) -> Error {
    let said = format!("etcd says {:?}: {}", status.code(), status.message());
    match status.code() {
        Code::ResourceExhausted if status.message().contains("space exceeded") => Error::Refused(format!(
            "{said}; every write waits until space is made: compact and defragment its members, then disarm the alarm \
             (`etcdctl compact`, `etcdctl defrag`, `etcdctl alarm disarm`)"
        )),
        Code::PermissionDenied => {
            Error::Refused(format!("{said}; give this cluster's user the role that its keys need"))
        }
        Code::Unauthenticated => Error::Refused(format!("{said}; check user and password")),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::Unimplemented | Code::NotFound => {
            Error::Refused(said)
        }
        _ => Error::Unreachable(said),
    }
}

/// What to do about a certificate that does not count now, where that is what is behind an error.
fn over(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error tells the source of what it wraps, and not the wrapped one itself.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let wrapped = wrapped.and_then(|error| error.downcast_ref::<rustls::Error>());
        match wrapped.or_else(|| error.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            )) => {
                return Some(
                    "the member's certificate, or that of its authority, has ended or has not begun: give it a new one; \
                     `leeward quorum status` shows when each ends",
                );
            }
            _ => next = error.source(),
        }
    }
    None
}

/// An error with what caused it: the outermost says little.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let over = over(error);
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error.to_string();
        if !text.ends_with(&inner) {
            text = format!("{text}: {inner}");
        }
        source = error.source();
    }
    match over {
        Some(what) => format!("{text}: {what}"),
        None => text,
    }
}
