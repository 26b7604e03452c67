//! An installation of a test's own: `leeward join` run as a program, what it renders, and processes that run on it.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use leeward_pki::{About, Pair};
use serde_json::Value;

/// The longest that anything takes here, however loaded the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Where a test's installation is.
pub(crate) struct Desk(pub(crate) tempfile::TempDir);

impl Desk {
    pub(crate) fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leeward"));
        command.arg("join").args(arguments).current_dir(self.0.path());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn expect(&self, code: i32, arguments: &[&str]) -> (String, String) {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
        (out, err)
    }

    pub(crate) fn init(&self, witness: &str) {
        let west = ["init", "--witness", witness, "--cluster", "west=127.0.0.1"];
        self.expect(0, &[&west[..], &["--cluster", "east=127.0.0.1"]].concat());
    }

    /// Runs the witness on what is written for it. Only this machine reaches it, and its data are the test's.
    pub(crate) fn witness(&self, address: SocketAddr) -> Running {
        let out = self.path("witness");
        self.expect(0, &["witness", "--out", "witness", "--at", out.to_str().unwrap()]);
        let config = self.path("witness.json");
        let mut value: Value = serde_json::from_slice(&fs::read(out.join("witness.json")).unwrap()).unwrap();
        value["address"] = address.to_string().into();
        value["metrics_address"] = Value::Null;
        value["data_dir"] = self.path("data").to_str().unwrap().into();
        fs::write(&config, value.to_string()).unwrap();
        Running::witness(&config)
    }

    /// Everything in the installation's directory.
    pub(crate) fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut left = vec![self.path("leeward-installation")];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => left.push(path),
                    false => drop(all.insert(path.clone(), fs::read(&path).unwrap())),
                }
            }
        }
        all
    }

    /// What a cluster is given, by key of its Secret.
    pub(crate) fn identity(&self, cluster: &str) -> BTreeMap<String, String> {
        identity(&self.expect(0, &["render", cluster]).0)
    }
}

pub(crate) fn documents(rendered: &str) -> Vec<Value> {
    let all = rendered.split("---\n").skip(1);
    all.map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

pub(crate) fn identity(rendered: &str) -> BTreeMap<String, String> {
    let secret = documents(rendered).swap_remove(0);
    let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_value(secret).unwrap();
    let data = secret.data.unwrap().into_iter();
    data.map(|(key, value)| (key, text(&value.0))).collect()
}

pub(crate) fn about(identity: &BTreeMap<String, String>) -> About {
    let pair = Pair::read(identity["tls.crt"].as_bytes(), identity["tls.key"].as_bytes()).unwrap();
    let roots = leeward_pki::roots(identity["ca.crt"].as_bytes()).unwrap();
    assert_eq!(pair.check(&roots, now()), Ok(()));
    pair.about().unwrap()
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A witness or an agent that runs, and what it logs.
pub(crate) struct Running {
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Running {
    fn witness(config: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leeward"));
        Self::start(command.args(["witness", "--config"]).arg(config))
    }

    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (send, log) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, log }
    }

    pub(crate) fn until(&self, says: &str) {
        let mut seen = vec![];
        while let Ok(line) = self.log.recv_timeout(PATIENCE) {
            seen.push(line);
            if seen.last().unwrap().contains(says) {
                return;
            }
        }
        panic!("never {says:?}: {seen:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
