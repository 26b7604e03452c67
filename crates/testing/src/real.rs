//! A real kube-apiserver with etcd, on addresses of loopback that nobody else has.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, discovery::ApiResource};
use leeward_api::access::RULES;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::access::{self, ADMIN, AGENT};
use crate::process::Process;

/// A busy machine may need this long to start it.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a start is tried again, when somebody else took a port meanwhile.
const TRIES: usize = 3;

/// Where the programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// etcd
    pub etcd: PathBuf,
    /// kube-apiserver
    pub api: PathBuf,
}

impl Programs {
    /// What to say where they are not found.
    pub const MISSING: &str =
        "no etcd and kube-apiserver in KUBEBUILDER_ASSETS, or without it in /usr/local/kubebuilder/bin";

    /// Looks where envtest looks: in the directory `KUBEBUILDER_ASSETS`, else in `/usr/local/kubebuilder/bin`.
    #[must_use]
    pub fn find() -> Option<Self> {
        // cargo xtask test says beforehand whether they are there: xtask/src/test.rs looks in the same places.
        let directory = std::env::var_os("KUBEBUILDER_ASSETS").filter(|set| !set.is_empty());
        Self::of(Path::new(&directory.unwrap_or("/usr/local/kubebuilder/bin".into())))
    }

    fn of(directory: &Path) -> Option<Self> {
        let (etcd, api) = (directory.join("etcd"), directory.join("kube-apiserver"));
        (etcd.is_file() && api.is_file()).then_some(Self { etcd, api })
    }
}

/// A running kube-apiserver, which ends with this.
pub struct Real {
    // In the order in which they end.
    _api: Process,
    _etcd: Process,
    directory: TempDir,
}

impl Real {
    /// Starts both and waits until the API is ready.
    ///
    /// # Errors
    /// One of them ends or is not ready in time; the end of its log says why.
    pub async fn start(programs: &Programs) -> Result<Self> {
        let mut tried = 1;
        loop {
            match Self::try_start(programs).await {
                Err(error) if tried < TRIES && error.to_string().contains("address already in use") => tried += 1,
                result => return result,
            }
        }
    }

    async fn try_start(programs: &Programs) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let [clients, peers, secure] = free()?;
        let etcd = Process::start(
            "etcd",
            &programs.etcd,
            [
                "--name=test".to_owned(),
                format!("--data-dir={}", directory.path().join("etcd").display()),
                format!("--listen-client-urls=http://{clients}"),
                format!("--advertise-client-urls=http://{clients}"),
                format!("--listen-peer-urls=http://{peers}"),
                format!("--initial-advertise-peer-urls=http://{peers}"),
                format!("--initial-cluster=test=http://{peers}"),
                // What is lost with the machine is no loss here.
                "--unsafe-no-fsync=true".to_owned(),
            ],
            directory.path(),
        )?;
        let files = access::write(directory.path(), secure)?;
        let tokens: Vec<String> = files
            .tokens
            .iter()
            .map(|(user, group, token)| format!("{token},{user},{user},\"{group}\"\n"))
            .collect();
        std::fs::write(files.directory.join("tokens.csv"), tokens.concat())?;
        let api = Process::start(
            "kube-apiserver",
            &programs.api,
            flags(clients, secure),
            directory.path(),
        )?;
        let real = Self {
            _api: api,
            _etcd: etcd,
            directory,
        };
        real.wait().await?;
        real.allow().await?;
        Ok(real)
    }

    async fn wait(&self) -> Result<()> {
        let client = crate::client(&access::kubeconfig(self.directory(), ADMIN)).await?;
        let end = Instant::now() + PATIENCE;
        loop {
            let request = http_get("/readyz");
            if client.request_text(request).await.is_ok_and(|text| text == "ok") {
                return Ok(());
            }
            let log = std::fs::read_to_string(self.directory().join("kube-apiserver.log")).unwrap_or_default();
            if Instant::now() > end || log.contains("command failed") || log.contains("address already in use") {
                return self._api.failed("is not ready");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Allows the agent what an agent does.
    async fn allow(&self) -> Result<()> {
        let client = crate::client(&access::kubeconfig(self.directory(), ADMIN)).await?;
        let rules: Vec<Value> = RULES
            .iter()
            .map(|rule| json!({"apiGroups": [rule.group], "resources": rule.resources, "verbs": rule.verbs}))
            .collect();
        apply(&client, "ClusterRole", json!({"rules": rules})).await?;
        let binding = json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": AGENT},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": AGENT}],
        });
        apply(&client, "ClusterRoleBinding", binding).await
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

async fn apply(client: &Client, kind: &str, content: Value) -> Result<()> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", kind));
    let mut object = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": AGENT},
    });
    if let (Some(object), Value::Object(content)) = (object.as_object_mut(), content) {
        object.extend(content);
    }
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    api.patch(AGENT, &PatchParams::apply("leeward-testing"), &Patch::Apply(&object))
        .await?;
    Ok(())
}

fn flags(etcd: SocketAddr, secure: SocketAddr) -> Vec<String> {
    let mut flags: Vec<String> = [
        "--tls-cert-file=api.crt",
        "--tls-private-key-file=api.key",
        "--token-auth-file=tokens.csv",
        "--service-account-key-file=accounts.crt",
        "--service-account-signing-key-file=accounts.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        "--endpoint-reconciler-type=none",
        // Nobody makes the service account `default` of a namespace here, and without it no pod would be taken; nobody finds a new node
        // ready either, and would take the taint away that it is given.
        "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
        "--cert-dir=.",
    ]
    .map(str::to_owned)
    .into();
    flags.extend([
        format!("--etcd-servers=http://{etcd}"),
        format!("--bind-address={}", secure.ip()),
        format!("--advertise-address={}", secure.ip()),
        format!("--secure-port={}", secure.port()),
    ]);
    flags
}

/// Free ports of an address of loopback that is drawn for this call alone, for what cannot be given a listening socket.
///
/// # Errors
/// There are none.
pub fn free<const N: usize>() -> Result<[SocketAddr; N]> {
    let [_, a, b, c] = rand::random::<u32>().to_be_bytes();
    let address = Ipv4Addr::new(127, a | 0x80, b, c.clamp(1, 254));
    let listeners: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind((address, 0)))
        .collect::<Result<_, _>>()?;
    let mut found = [SocketAddr::from((address, 0)); N];
    for (slot, listener) in found.iter_mut().zip(&listeners) {
        *slot = listener.local_addr()?;
    }
    Ok(found)
}

fn http_get(path: &str) -> http::Request<Vec<u8>> {
    let mut request = http::Request::new(Vec::new());
    if let Ok(uri) = path.parse() {
        *request.uri_mut() = uri;
    }
    request
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot set its stage may panic")]

    use super::*;
    use crate::Cluster;

    fn alive(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    /// The processes whose command line names a directory.
    fn of(directory: &Path) -> Vec<u32> {
        let all = std::fs::read_dir("/proc").unwrap();
        all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|path| path == directory))
            .collect()
    }

    #[tokio::test]
    async fn what_was_started_ends_with_it_even_when_a_test_panics() {
        let Some(cluster) = Cluster::real().await.unwrap() else {
            return;
        };
        let kubeconfig = cluster.kubeconfig(ADMIN);
        let pids = of(kubeconfig.parent().unwrap());
        assert_eq!(pids.len(), 4, "etcd, kube-apiserver, and who keeps them");
        let ended = tokio::spawn(async move {
            let _cluster = cluster;
            panic!("on purpose");
        })
        .await;
        assert!(ended.is_err());
        assert!(pids.into_iter().all(|pid| !alive(pid)));
    }

    #[test]
    fn both_programs_are_needed() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Programs::of(directory.path()), None);
        std::fs::write(directory.path().join("etcd"), "").unwrap();
        assert_eq!(Programs::of(directory.path()), None);
        std::fs::write(directory.path().join("kube-apiserver"), "").unwrap();
        assert!(Programs::of(directory.path()).is_some());
    }
}
