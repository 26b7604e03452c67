//! The process: this very program, told by its environment to be an API.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use leeward_local::process::{self, ApiConfig};
use tokio::process::{Child, Command};

use crate::region::Region;

const CONFIG: &str = "LEEWARD_TEST_API";

/// What the process does.
pub(super) fn run() {
    if let Some(config) = std::env::var_os(CONFIG) {
        process::api(std::path::Path::new(&config)).unwrap();
    }
}

pub(super) struct ApiProcess {
    region: Region,
    wrapper: Vec<String>,
    child: Option<Child>,
    client: Option<kube::Client>,
}

impl ApiProcess {
    /// `wrapper` is a program, with its arguments, that runs what follows.
    pub(super) fn new(wrapper: &[&str]) -> Self {
        let region = Region::new();
        // An address that nobody else has, free again at once so that the process can have it each time.
        let own = Ipv4Addr::new(
            127,
            rand::random_range(64..255),
            rand::random(),
            rand::random_range(1..255),
        );
        let address: SocketAddr = TcpListener::bind((own, 0)).unwrap().local_addr().unwrap();
        region.write_kubeconfig(address);
        let mut server = region.config();
        server.address = address;
        let config = ApiConfig {
            server,
            volumes_dir: region.path("volumes"),
        };
        std::fs::write(region.path("api.json"), serde_json::to_string(&config).unwrap()).unwrap();
        Self {
            region,
            wrapper: wrapper.iter().map(|word| (*word).to_owned()).collect(),
            child: None,
            client: None,
        }
    }

    pub(super) async fn client(&mut self) -> kube::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let read = Kubeconfig::read_from(self.region.path("kubeconfig")).unwrap();
        let options = KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(read, &options).await.unwrap();
        // A request is sent once: whether it was carried out is what the tests are about.
        config.default_retry = false;
        let client = kube::Client::try_from(config).unwrap();
        self.client = Some(client.clone());
        client
    }

    pub(super) async fn start(&mut self) {
        let program = std::env::current_exe().unwrap();
        let arguments = ["crash::api_process", "--exact", "--ignored", "--nocapture"];
        let mut words: Vec<std::ffi::OsString> = self.wrapper.iter().map(Into::into).collect();
        words.push(program.into());
        words.extend(arguments.map(Into::into));
        let log = std::fs::File::create(self.region.path("api.log")).unwrap();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .env(CONFIG, self.region.path("api.json"))
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let end = Instant::now() + Duration::from_secs(60);
        let client = self.client.clone().unwrap();
        while client.apiserver_version().await.is_err() {
            let log = || std::fs::read_to_string(self.region.path("api.log")).unwrap();
            assert!(Instant::now() < end, "the API does not come up: {}", log());
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the API ended by itself: {}", log());
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id().unwrap()
    }

    /// SIGKILL, and waits until it is gone.
    pub(super) async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }
}
