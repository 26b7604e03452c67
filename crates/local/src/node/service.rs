//! Carries TCP from a Service's address to its ready pods: what kube-proxy is for a real node.
//!
//! Every node listens on every Service's address with SO_REUSEPORT, and the kernel spreads connections among the nodes that
//! live. A Service without a ready endpoint has no listener, so a client is refused at once, as by kube-proxy.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::select;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{Node, Patience};

/// How long a pod may take to accept.
const CONNECT: Duration = Duration::from_secs(1);
/// The queue of connections that are not accepted yet.
const BACKLOG: u32 = 1024;

/// Where each Service's address leads.
type Table = BTreeMap<SocketAddr, Vec<SocketAddr>>;

/// Objects by namespace and name.
type Objects<T> = BTreeMap<(String, String), T>;

struct Listener {
    targets: Arc<RwLock<Vec<SocketAddr>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

enum Change {
    Service(Box<watcher::Event<Service>>),
    Slice(Box<watcher::Event<EndpointSlice>>),
}

/// Follows Services and their endpoints for as long as the node lives.
pub(super) async fn forward(node: Arc<Node>) {
    let config = watcher::Config::default;
    let services = watcher(Api::<Service>::all(node.client.clone()), config())
        .backoff(Patience::default())
        .modify(|service| service.metadata.managed_fields = None);
    let slices = watcher(Api::<EndpointSlice>::all(node.client.clone()), config())
        .backoff(Patience::default())
        .modify(|slice| slice.metadata.managed_fields = None);
    let services = services
        .filter_map(|event| async { event.ok().map(|event| Change::Service(Box::new(event))) })
        .boxed();
    let slices = slices
        .filter_map(|event| async { event.ok().map(|event| Change::Slice(Box::new(event))) })
        .boxed();
    let mut changes = select(services, slices);
    let (mut services, mut slices) = (Seen::default(), Seen::default());
    let mut listeners: BTreeMap<SocketAddr, Listener> = BTreeMap::new();
    let mut unbound: BTreeMap<SocketAddr, String> = BTreeMap::new();
    while let Some(change) = changes.next().await {
        let settled = match change {
            Change::Service(event) => services.take(*event),
            Change::Slice(event) => slices.take(*event),
        };
        if settled {
            apply(table(&services.objects, &slices.objects), &mut listeners, &mut unbound);
        }
    }
}

/// What a watch has shown so far.
struct Seen<T> {
    objects: Objects<T>,
    fresh: Option<Objects<T>>,
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self {
            objects: Objects::new(),
            fresh: None,
        }
    }
}

impl<T: kube::Resource> Seen<T> {
    /// Takes an event in; true when the objects are a complete picture again.
    fn take(&mut self, event: watcher::Event<T>) -> bool {
        let key = |object: &T| {
            let meta = object.meta();
            (
                meta.namespace.clone().unwrap_or_default(),
                meta.name.clone().unwrap_or_default(),
            )
        };
        match event {
            watcher::Event::Apply(object) => drop(self.objects.insert(key(&object), object)),
            watcher::Event::Delete(object) => drop(self.objects.remove(&key(&object))),
            watcher::Event::Init => self.fresh = Some(Objects::new()),
            watcher::Event::InitApply(object) => {
                self.fresh.get_or_insert_default().insert(key(&object), object);
            }
            watcher::Event::InitDone => self.objects = self.fresh.take().unwrap_or_default(),
        }
        self.fresh.is_none()
    }
}

/// Where every Service's TCP ports lead, those without a ready endpoint left out.
fn table(services: &Objects<Service>, slices: &Objects<EndpointSlice>) -> Table {
    let mut table = Table::new();
    for ((namespace, name), service) in services {
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()) else {
            continue;
        };
        let own = slices.iter().filter(|((space, _), slice)| {
            let labels = slice.metadata.labels.as_ref();
            space == namespace && labels.and_then(|labels| labels.get("kubernetes.io/service-name")) == Some(name)
        });
        let own: Vec<&EndpointSlice> = own.map(|(_, slice)| slice).collect();
        for port in spec.ports.iter().flatten() {
            let tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
            let Some(number) = u16::try_from(port.port).ok().filter(|_| tcp) else {
                continue;
            };
            let wanted = port.name.as_deref().unwrap_or_default();
            let mut targets: Vec<SocketAddr> = own.iter().flat_map(|slice| ready(slice, wanted)).collect();
            targets.sort();
            targets.dedup();
            if !targets.is_empty() {
                table.insert(SocketAddr::new(ip, number), targets);
            }
        }
    }
    table
}

fn ready(slice: &EndpointSlice, port: &str) -> Vec<SocketAddr> {
    let named = slice
        .ports
        .iter()
        .flatten()
        .find(|candidate| candidate.name.as_deref().unwrap_or_default() == port);
    let Some(number) = named.and_then(|port| u16::try_from(port.port?).ok()) else {
        return Vec::new();
    };
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
        endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready)
            .unwrap_or(true)
    });
    ready
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|address| Some(SocketAddr::new(address.parse().ok()?, number)))
        .collect()
}

/// Makes the listeners those of `table`. `unbound` remembers what could not be listened on, to say it once.
fn apply(table: Table, listeners: &mut BTreeMap<SocketAddr, Listener>, unbound: &mut BTreeMap<SocketAddr, String>) {
    listeners.retain(|address, _| table.contains_key(address));
    unbound.retain(|address, _| table.contains_key(address));
    for (address, targets) in table {
        if let Some(listener) = listeners.get(&address) {
            *listener.targets.write().unwrap_or_else(PoisonError::into_inner) = targets;
            continue;
        }
        match listen(address) {
            Ok(socket) => {
                unbound.remove(&address);
                let targets = Arc::new(RwLock::new(targets));
                let task = tokio::spawn(accept(socket, Arc::clone(&targets)));
                listeners.insert(address, Listener { targets, task });
            }
            Err(error) => {
                let text = error.to_string();
                if unbound.insert(address, text.clone()).as_ref() != Some(&text) {
                    tracing::warn!(%address, error = text, "cannot listen for a Service");
                }
            }
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, targets: Arc<RwLock<Vec<SocketAddr>>>) {
    let turn = AtomicUsize::new(0);
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let targets = targets.read().unwrap_or_else(PoisonError::into_inner).clone();
                let first = turn.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(carry(client, targets, first));
            }
            // Too many open files, most likely: others will be closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Tries the targets in turn and then carries both directions until one side is done.
async fn carry(mut client: TcpStream, targets: Vec<SocketAddr>, first: usize) {
    for step in 0..targets.len() {
        let target = targets[(first + step) % targets.len()];
        if let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT, TcpStream::connect(target)).await {
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
    // Nobody took it: a reset tells the client more than an orderly end.
    let _ = client.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn service(spec: Value) -> Objects<Service> {
        let service = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
        Objects::from([(("shop".into(), "web".into()), serde_json::from_value(service).unwrap())])
    }

    fn slice(namespace: &str, endpoints: Value) -> Objects<EndpointSlice> {
        let slice = json!({"metadata": {"name": "web-1", "namespace": namespace,
            "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints});
        Objects::from([(
            (namespace.into(), "web-1".into()),
            serde_json::from_value(slice).unwrap(),
        )])
    }

    #[test]
    fn only_ready_endpoints_of_the_service_count() {
        let endpoints = json!([
            {"addresses": ["127.1.17.2"], "conditions": {"ready": true}},
            {"addresses": ["127.1.17.1"]},
            {"addresses": ["127.1.17.3"], "conditions": {"ready": false}}]);
        let ports = json!([{"name": "http", "port": 80}, {"name": "other", "port": 81},
            {"name": "dns", "port": 53, "protocol": "UDP"}]);
        let services = service(json!({"clusterIP": "127.1.24.9", "ports": ports}));
        let found = table(&services, &slice("shop", endpoints.clone()));
        let to = |text: &str| text.parse::<SocketAddr>().unwrap();
        let wanted = Table::from([(to("127.1.24.9:80"), vec![to("127.1.17.1:8080"), to("127.1.17.2:8080")])]);
        assert_eq!(found, wanted);
        assert_eq!(table(&services, &slice("other", endpoints.clone())), Table::new());
        let headless = service(json!({"clusterIP": "None", "ports": ports}));
        assert_eq!(table(&headless, &slice("shop", endpoints)), Table::new());
    }

    #[tokio::test]
    async fn a_connection_goes_to_a_pod_that_takes_it() {
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = dead.local_addr().unwrap();
        drop(dead);
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                let _ = stream.write_all(b"hello").await;
            }
        });
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, Arc::new(RwLock::new(vec![refused, target]))));
        for _ in 0..2 {
            let mut text = String::new();
            TcpStream::connect(address)
                .await
                .unwrap()
                .read_to_string(&mut text)
                .await
                .unwrap();
            assert_eq!(text, "hello");
        }
    }

    #[tokio::test]
    async fn a_service_without_endpoints_refuses() {
        let address = {
            let probe = TcpListener::bind("127.0.0.1:0").await.unwrap();
            probe.local_addr().unwrap()
        };
        let (mut listeners, mut unbound) = (BTreeMap::new(), BTreeMap::new());
        apply(Table::from([(address, vec![address])]), &mut listeners, &mut unbound);
        assert!(TcpStream::connect(address).await.is_ok());
        let task = listeners
            .values()
            .next()
            .map(|listener| listener.task.abort_handle())
            .unwrap();
        apply(Table::new(), &mut listeners, &mut unbound);
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(TcpStream::connect(address).await.is_err());
    }
}
