//! Takes a request apart and cleans it for its way on: which host it is for, whether it is safe to repeat, and the
//! headers that another server may see. No IO.

use std::net::SocketAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{self, Entry},
    uri::{Authority, PathAndQuery, Scheme},
};
use leeward_core::name::ClusterName;

use crate::header as own;

/// Why a request is not passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the request names no host; send one Host header")]
    NoHost,
    #[error("the request names more than one host, or one that cannot be read; send one Host header")]
    Host,
    #[error("{0} is not served here: the edge passes on requests to applications and is no open proxy")]
    Method(Method),
}

impl Malformed {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoHost | Self::Host => StatusCode::BAD_REQUEST,
            Self::Method(_) => StatusCode::NOT_IMPLEMENTED,
        }
    }
}

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// Anybody: it may go to another cluster.
    Client,
    /// Another cluster's edge: it is answered here or not at all.
    Edge,
    /// A health probe: as from an edge, and only at the probe path.
    Probe,
}

/// A request's head, cleaned.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) sender: Sender,
    /// Another replica of this edge passed it on.
    pub(super) of_replica: bool,
    pub(super) method: Method,
    pub(super) host: HeaderValue,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
}

impl Head {
    /// Reads and cleans the head of a request that came from `peer`.
    pub(super) fn read<B>(request: &mut Request<B>, peer: SocketAddr) -> Result<Self, Malformed> {
        let method = request.method().clone();
        if matches!(method, Method::CONNECT | Method::TRACE) {
            return Err(Malformed::Method(method));
        }
        let host = host(request)?;
        let path = request.uri().path_and_query().cloned();
        let mut headers = std::mem::take(request.headers_mut());
        let sender = match (headers.contains_key(own::PROBE), headers.contains_key(own::FORWARDED)) {
            (true, _) => Sender::Probe,
            (false, true) => Sender::Edge,
            (false, false) => Sender::Client,
        };
        let of_replica = headers.contains_key(own::REPLICA);
        strip_hop_by_hop(&mut headers);
        strip_own(&mut headers);
        headers.remove(header::EXPECT);
        if request.version() == Version::HTTP_2 {
            join_cookies(&mut headers);
        }
        // The edge on the way has set these already, from the client itself.
        if sender != Sender::Edge {
            describe_client(&mut headers, peer, &host);
        }
        headers.insert(header::HOST, host.clone());
        Ok(Self {
            sender,
            of_replica,
            method,
            host,
            path: path.unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers,
        })
    }

    /// Whether the method promises that a repetition does no harm (RFC 9110, section 9.2.1) and the edge repeats it.
    pub(super) fn safe_method(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// The host as text; empty when it is not ASCII, which leads nowhere.
    pub(super) fn host(&self) -> &str {
        self.host.to_str().unwrap_or_default()
    }

    /// The request for one try at an address, passed on by `from` when it goes to another edge.
    pub(super) fn request<B>(
        &self,
        to: &Authority,
        from: Option<&ClusterName>,
        body: B,
    ) -> Result<Request<B>, http::Error> {
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(to.clone())
            .path_and_query(self.path.clone())
            .build()?;
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        if let Some(cluster) = from {
            let value = HeaderValue::from_str(cluster.as_str())?;
            request.headers_mut().insert(own::FORWARDED, value);
        }
        Ok(request)
    }
}

/// The host that a request is for: the target's, where it names one, else the one Host header (RFC 9112, section 3.2).
fn host<B>(request: &Request<B>) -> Result<HeaderValue, Malformed> {
    let mut named = request.headers().get_all(header::HOST).iter();
    let first = named.next();
    if named.next().is_some() {
        return Err(Malformed::Host);
    }
    let host = match (request.uri().authority(), first) {
        (Some(target), _) => HeaderValue::from_str(target.as_str()).map_err(|_| Malformed::Host)?,
        (None, Some(header)) => header.clone(),
        (None, None) => return Err(Malformed::NoHost),
    };
    let text = host.to_str().map_err(|_| Malformed::Host)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~:[]%".contains(&b);
    match text.is_empty() || !text.bytes().all(fits) {
        true => Err(Malformed::Host),
        false => Ok(host),
    }
}

/// Removes what concerns one connection only (RFC 9110, section 7.6.1). Framing and host stay whatever Connection says.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    const ALWAYS: [HeaderName; 7] = [
        header::CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    if headers.contains_key(header::CONNECTION) {
        let listed: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
            .collect();
        for name in listed {
            headers.remove(name);
        }
    }
    for name in ALWAYS {
        headers.remove(name);
    }
}

/// Removes Leeward's own headers, so that none can be forged from outside.
pub(super) fn strip_own(headers: &mut HeaderMap) {
    for name in [
        own::FORWARDED,
        own::PROBE,
        own::REPLICA,
        own::OUTCOME,
        own::CLUSTER,
        own::EPOCH,
        own::ADMISSION,
    ] {
        headers.remove(name);
    }
}

/// HTTP/2 may send a cookie in parts; HTTP/1.1 may not (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let parts: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if parts.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// Says who asked, for whom, and gives the request an id if it has none that fits.
fn describe_client(headers: &mut HeaderMap, peer: SocketAddr, host: &HeaderValue) {
    const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
    const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

    let mut chain = Vec::with_capacity(48);
    for earlier in headers.get_all(&FOR) {
        chain.extend_from_slice(earlier.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(peer.ip().to_string().as_bytes());
    if let Ok(chain) = HeaderValue::from_bytes(&chain) {
        headers.insert(FOR, chain);
    }
    headers.insert(HOST, host.clone());
    headers.insert(PROTO, HeaderValue::from_static("http"));

    let fits = |id: &HeaderValue| (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    match headers.entry(own::REQUEST_ID) {
        Entry::Occupied(id) if fits(id.get()) => {}
        entry => {
            if let Ok(id) = HeaderValue::from_str(&format!("{:032x}", rand::random::<u128>())) {
                match entry {
                    Entry::Occupied(mut old) => drop(old.insert(id)),
                    Entry::Vacant(place) => drop(place.insert(id)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(builder: http::request::Builder) -> Result<Head, Malformed> {
        Head::read(&mut builder.body(()).unwrap(), "192.0.2.7:4000".parse().unwrap())
    }

    fn get(head: &Head, name: &str) -> Vec<String> {
        let values = head.headers.get_all(name).iter();
        values.map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_request_names_exactly_one_host() {
        let with = |hosts: &[&str]| hosts.iter().fold(Request::get("/"), |r, h| r.header("host", *h));
        assert_eq!(read(with(&[])).unwrap_err(), Malformed::NoHost);
        for bad in [
            &["a", "b"][..],
            &["a", "a"],
            &[""],
            &["a b"],
            &["a,b"],
            &["a/b"],
            &["u@a"],
        ] {
            assert_eq!(read(with(bad)).unwrap_err(), Malformed::Host, "{bad:?}");
        }
        assert_eq!(read(with(&["web.example:80"])).unwrap().host(), "web.example:80");
        let absolute = Request::get("http://web.example/x?y").header("host", "other");
        let head = read(absolute).unwrap();
        assert_eq!((head.host(), head.path.as_str()), ("web.example", "/x?y"));
        assert_eq!(get(&head, "host"), ["web.example"]);
    }

    #[test]
    fn connect_and_trace_are_not_served() {
        for method in [Method::CONNECT, Method::TRACE] {
            let request = Request::builder().method(&method).uri("/").header("host", "a");
            assert_eq!(read(request).unwrap_err(), Malformed::Method(method));
        }
    }

    #[test]
    fn what_concerns_one_connection_and_what_is_leewards_own_is_not_passed_on() {
        let head = read(
            Request::post("/")
                .header("host", "a")
                .header("connection", "close, X-Secret, content-length, host")
                .header("x-secret", "1")
                .header("keep-alive", "5")
                .header("te", "trailers")
                .header("transfer-encoding", "chunked")
                .header("upgrade", "websocket")
                .header("expect", "100-continue")
                .header("leeward-outcome", "unknown")
                .header("leeward-epoch", "9")
                .header("content-length", "3")
                .header("x-kept", "1"),
        )
        .unwrap();
        let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = [
            "content-length",
            "host",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-kept",
            "x-request-id",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_clients_address_is_added_by_the_first_edge_only() {
        let base = || {
            Request::get("/")
                .header("host", "a")
                .header("x-forwarded-for", "198.51.100.1")
        };
        let client = read(base()).unwrap();
        assert_eq!(get(&client, "x-forwarded-for"), ["198.51.100.1, 192.0.2.7"]);
        assert_eq!(client.sender, Sender::Client);
        let edge = read(base().header("leeward-forwarded", "west")).unwrap();
        assert_eq!(get(&edge, "x-forwarded-for"), ["198.51.100.1"]);
        assert_eq!(edge.sender, Sender::Edge);
    }

    #[test]
    fn a_request_id_is_kept_if_it_fits_and_made_if_not() {
        let id = |value: &str| {
            get(
                &read(Request::get("/").header("host", "a").header("x-request-id", value)).unwrap(),
                "x-request-id",
            )
        };
        assert_eq!(id("abc-1"), ["abc-1"]);
        for bad in ["", "a b", &"x".repeat(129)] {
            assert_eq!(id(bad)[0].len(), 32, "{bad:?}");
        }
    }

    #[test]
    fn cookies_that_http2_sent_in_parts_are_joined() {
        let parts = Request::get("/")
            .version(Version::HTTP_2)
            .header("host", "a")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        assert_eq!(get(&read(parts).unwrap(), "cookie"), ["a=1; b=2"]);
    }
}
