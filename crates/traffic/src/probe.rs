//! Health probes: asks every endpoint of every profile, through its edge and along the whole path to a pod, at the
//! profile's interval.
//!
//! Each probe is due at its own jittered time, so that regions do not ask in step, and at most `AT_ONCE` run at once.
//! A probe uses a connection of its own: a pooled one would not notice an address that takes no new ones.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header::HOST, uri::Scheme};
use http_body_util::Empty;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use leeward_core::{
    name::{AppKey, ClusterName},
    routing::{Probe, health::Sample},
};
use rand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{Shared, backends::authority, counters::count, edge::causes, header};

/// Probes in flight at once.
const AT_ONCE: usize = 64;
/// The first probe of an endpoint comes within this.
const FIRST: Duration = Duration::from_millis(200);

type Prober = Client<HttpConnector, Empty<Bytes>>;

type Name = (AppKey, ClusterName);

/// What to probe.
#[derive(Debug, Clone)]
struct Target {
    app: AppKey,
    cluster: ClusterName,
    address: SocketAddr,
    host: String,
    probe: Probe,
}

impl Target {
    fn name(&self) -> Name {
        (self.app.clone(), self.cluster.clone())
    }
}

/// Probes until `stop`.
pub async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let client = client();
    let mut due: HashMap<Name, Instant> = HashMap::new();
    let mut flying: JoinSet<()> = JoinSet::new();
    loop {
        // Begins to listen before the table is read, so that no change is missed.
        let mut changed = std::pin::pin!(shared.table_changed());
        let mut plan = plan(&shared, &due);
        loop {
            let now = Instant::now();
            let mut next = now + Duration::from_secs(3600);
            for (target, at) in &mut plan {
                if *at <= now && flying.len() < AT_ONCE {
                    *at = now + jittered(target.probe.interval_ms);
                    flying.spawn(probe(shared.clone(), client.clone(), target.clone()));
                }
                next = next.min(*at);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed.as_mut() => break,
                Some(_) = flying.join_next() => {}
                () = sleep_until(next), if flying.len() < AT_ONCE => {}
            }
        }
        due = plan.into_iter().map(|(target, at)| (target.name(), at)).collect();
    }
}

/// Every target and when it is due: as before if it was known, and soon if it is new.
fn plan(shared: &Shared, due: &HashMap<Name, Instant>) -> Vec<(Target, Instant)> {
    let now = Instant::now();
    let soon = || now + rand::rng().random_range(Duration::ZERO..FIRST);
    let with_due = |target: Target| {
        let at = due.get(&target.name()).copied().unwrap_or_else(soon);
        (target, at)
    };
    targets(shared).into_iter().map(with_due).collect()
}

fn client() -> Prober {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_max_idle_per_host(0)
        .build(connector)
}

fn targets(shared: &Shared) -> Vec<Target> {
    let index = shared.index();
    let mut targets = Vec::new();
    for profile in index.profiles() {
        let Some(host) = profile.hosts.first() else { continue };
        for endpoint in profile.endpoints.iter().filter(|e| e.enabled) {
            targets.push(Target {
                app: profile.app.clone(),
                cluster: endpoint.cluster.clone(),
                address: endpoint.address,
                host: host.clone(),
                probe: profile.probe.clone(),
            });
        }
    }
    targets
}

/// The interval, more or less a tenth.
fn jittered(interval_ms: u64) -> Duration {
    Duration::from_millis(interval_ms).mul_f64(rand::rng().random_range(0.9..1.1))
}

async fn probe(shared: Arc<Shared>, client: Prober, target: Target) {
    let start = Instant::now();
    let limit = Duration::from_millis(target.probe.timeout_ms);
    let sample = match timeout(limit, ask(&client, &target)).await {
        Ok(Ok(())) => Sample::Success {
            rtt_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        },
        Ok(Err(error)) => Sample::Failure(error),
        Err(_) => Sample::Failure(format!("no answer within {} ms", limit.as_millis())),
    };
    let known = |shared: &Shared| {
        shared
            .index()
            .profile_of(&target.app)?
            .endpoint(&target.cluster)
            .map(|_| ())
    };
    if known(&shared).is_none() {
        return; // It left the table meanwhile.
    }
    let counters = shared.counters();
    count(match &sample {
        Sample::Success { .. } => &counters.probes_healthy,
        Sample::Failure(_) => &counters.probes_unhealthy,
    });
    shared
        .health()
        .observe(&target.cluster, &target.app, sample, &target.probe);
}

async fn ask(client: &Prober, target: &Target) -> Result<(), String> {
    let request = request(target).ok_or("the probe's path is not one")?;
    let response = client.request(request).await.map_err(|error| causes(&error))?;
    let status = response.status();
    if (200..400).contains(&status.as_u16()) {
        return Ok(());
    }
    match response.headers().contains_key(header::OUTCOME) {
        true => Err(format!("its edge answered {status}: no pod could be asked")),
        false => Err(format!("the application answered {status}")),
    }
}

fn request(target: &Target) -> Option<Request<Empty<Bytes>>> {
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(authority(target.address)?)
        .path_and_query(target.probe.path.as_str())
        .build()
        .ok()?;
    let mut request = Request::get(uri).body(Empty::new()).ok()?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(&target.host).ok()?);
    headers.insert(header::PROBE, HeaderValue::from_static("1"));
    Some(request)
}
