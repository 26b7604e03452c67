//! What a person types: `up`, `status`, `explain`, `switchover`, `failover`, `doctor`, `down`, each run as a program.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use leeward_images::pack::{self, Config, Entry, push};
use leeward_local::instance::Instance;
use serde_json::Value;

/// The longest that anything takes here, however loaded the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory for local regions; what runs in it ends with the test, however that ends.
pub(crate) struct Home(pub(crate) tempfile::TempDir);

impl Drop for Home {
    fn drop(&mut self) {
        let down = self.run(&["down"]);
        if !down.status.success() && !std::thread::panicking() {
            panic!("down: {}", text(&down.stderr));
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Home {
    pub(crate) fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self(tempfile::tempdir().unwrap())
    }

    fn dir(&self) -> std::path::PathBuf {
        self.0.path().join("home")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_leeward"))
            .args(arguments)
            .env("LEEWARD_HOME", self.dir())
            .output()
            .unwrap()
    }

    /// Runs a command, checks its exit code, and gives what it wrote to standard output and to standard error.
    pub(crate) fn expect(&self, code: i32, arguments: &[&str]) -> (String, String) {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
        assert!(!out.contains('\u{1b}'), "colours without a terminal: {out:?}");
        (out, err)
    }

    /// Waits until the command writes what is wanted.
    pub(crate) fn until(&self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let output = self.run(arguments);
            let out = text(&output.stdout);
            if wanted(&out) {
                return out;
            }
            let err = text(&output.stderr);
            assert!(
                begin.elapsed() < PATIENCE,
                "{arguments:?} never wrote it:\n{out}\n{err}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs a command until it ends with a code, as somebody would who is told to try again.
    pub(crate) fn until_code(&self, code: i32, arguments: &[&str]) -> (String, String) {
        let begin = Instant::now();
        loop {
            let output = self.run(arguments);
            let said = (text(&output.stdout), text(&output.stderr));
            if output.status.code() == Some(code) {
                return said;
            }
            assert!(begin.elapsed() < PATIENCE, "{arguments:?}: {}\n{}", said.0, said.1);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn instance(&self) -> Instance {
        Instance::open(&self.dir()).unwrap()
    }
}

pub(crate) const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: shop, labels: {app: shop}}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: shop, labels: {app: shop}}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: shop
        image: leeward/shell:1
        command: [/bin/sh, -c, "trap 'exit 0' TERM; while true; do echo x >> /data/log; sleep 0.2; done"]
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: leeward.dev/v1alpha1
kind: ProtectedApp
metadata: {name: shop, namespace: shop}
spec:
  selector: {matchLabels: {app: shop}}
  model: ActivePassive
  placements: [{cluster: west}, {cluster: east}]
  objectives: {rpo: 10s, rto: 60s}
  roles: [{name: data, claims: [data], interval: 1s}]
"#;

/// Packs a shell and pushes it to a region's registry.
pub(crate) fn push_shell(registry: std::net::SocketAddr) {
    let mut entries = vec![Entry::directory("/data", 0o777), Entry::directory("/tmp", 0o1777)];
    for program in ["/bin/sh", "/bin/sleep"] {
        entries.extend(pack::executable(std::path::Path::new(program), program).unwrap());
    }
    let image = pack::image(vec![entries], &Config::default()).unwrap();
    let reference = leeward_images::reference::Reference::parse("leeward/shell:1").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let url = format!("http://{registry}");
        push(&reqwest::Client::new(), &url, &reference, &image).await.unwrap();
    });
}

#[test]
fn an_application_is_moved_and_explained_while_a_region_is_lost() {
    let home = Home::new();
    home.expect(0, &["up", "--ttl", "5", "--nodes", "1"]);
    let (out, _) = home.expect(0, &["status"]);
    assert!(out.contains("No application is protected yet"), "{out}");
    let (_, err) = home.expect(1, &["status", "shop"]);
    assert!(
        err.contains("there is no ProtectedApp shop; no application is protected yet"),
        "{err}"
    );

    push_shell(home.instance().addresses("west").unwrap().registry());
    let manifest = home.0.path().join("shop.yaml");
    std::fs::write(&manifest, SHOP).unwrap();
    home.expect(0, &["apply", "-f", manifest.to_str().unwrap()]);
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));

    let (out, err) = home.expect(0, &["switchover", "shop", "--to", "east"]);
    for part in [
        "Quiesce in west: done in ",
        "Start in east: done in ",
        "east is active, epoch 2",
    ] {
        assert!(out.contains(part), "{part:?} is not in {out}{err}");
    }
    let (out, _) = home.expect(1, &["switchover", "shop", "--to", "east"]);
    assert!(out.contains("refused: east is already the active cluster"), "{out}");
    let (out, _) = home.expect(1, &["failover", "shop", "--to", "west"]);
    assert!(out.contains("refused: east is alive"), "{out}");
    let (_, err) = home.expect(1, &["failover", "shop", "--to", "north"]);
    assert!(err.contains("there is no Cluster north; known are east, west"), "{err}");

    home.instance().kill_region("west").unwrap();
    home.until(&["status", "shop", "-o", "json"], |out| {
        let app: Value = serde_json::from_str(out).unwrap_or_default();
        app["status"]["active"] == "east"
    });
    let (_, err) = home.expect(0, &["status", "shop", "-o", "json"]);
    assert!(err.contains("west does not answer: "), "{err}");
    home.until(&["explain", "shop"], |out| out.contains("west is not heard of"));
    let (_, err) = home.expect(1, &["switchover", "shop", "--to", "west"]);
    assert!(err.contains("west does not answer"), "{err}");
    let (out, _) = home.expect(1, &["doctor"]);
    assert!(out.contains("west-api") && out.contains("-> `leeward up`"), "{out}");
    home.expect(0, &["up", "--ttl", "5", "--nodes", "1"]);
    home.expect(0, &["doctor"]);
}

#[test]
fn without_local_regions_each_command_says_so() {
    let home = Home::new();
    for arguments in [
        &["status"][..],
        &["explain", "shop"],
        &["failover", "shop", "--to", "east"],
        &["kubeconfig", "west"],
    ] {
        let (out, err) = home.expect(1, arguments);
        assert!(err.contains("`leeward up` makes some"), "{arguments:?}: {err}");
        assert_eq!(out, "");
    }
    let (out, _) = home.expect(0, &["doctor"]);
    assert!(out.contains("none in "), "{out}");
    home.expect(2, &["switchover", "shop"]);
}

#[test]
fn up_again_changes_nothing_and_a_damaged_directory_is_told_with_what_to_do() {
    let home = Home::new();
    home.expect(0, &["up", "--regions", "west", "--nodes", "1"]);
    for other in [["--regions", "west,east"], ["--nodes", "2"], ["--ttl", "7"]] {
        let (_, err) = home.expect(1, &["up", other[0], other[1]]);
        assert!(err.contains("--regions west --nodes 1 --ttl 15"), "{other:?}: {err}");
    }
    home.expect(0, &["up"]);
    let state = home.dir().join("instance.json");
    let good = std::fs::read(&state).unwrap();
    std::fs::write(&state, &good[..good.len() / 2]).unwrap();
    let (_, err) = home.expect(1, &["status"]);
    assert!(err.contains("is damaged") && err.contains("`leeward down`"), "{err}");
    let (out, _) = home.expect(1, &["doctor"]);
    assert!(
        out.contains("is damaged") && out.contains("-> leeward down --home "),
        "{out}"
    );
    home.expect(0, &["down"]);
    assert!(!home.dir().exists());
}

#[test]
fn a_command_line_that_makes_no_sense_as_a_whole_ends_with_2() {
    let home = Home::new();
    for (arguments, why) in [
        (&["up", "--regions", ""][..], "region"),
        (&["up", "--regions", "West"], "West"),
        (&["up", "--regions", "west,west"], "west"),
        (&["up", "--quorum", "etcd", "--ttl", "1"], "lease"),
        (&["demo", "--quorum", "etcd", "--ttl", "1"], "lease"),
        (&["demo", "--fault", "witness"], "needs --quorum etcd"),
        (&["explain", ""], "a name is empty"),
        (&["status", "shop/"], "a name is empty"),
        (&["failover", "shop", "--to", ""], "a name is empty"),
        (&["drain", ""], "a name is empty"),
        (&["kubeconfig", ""], "a name is empty"),
        (&["apply", "-f", "x", "-n", ""], "a name is empty"),
        (
            &["quorum", "recover", "--region", "west", "--lost", ""],
            "a name is empty",
        ),
        (&["drain", "west", "--timeout", "-5s"], "write it as 90s, 10m or 1h30m"),
        (
            &["drain", "west", "--timeout", "1 min"],
            "write it as 90s, 10m or 1h30m",
        ),
        (
            &["failover", "shop", "--to", "east", "--accept-data-loss", "-5s"],
            "write it as 90s, 10m or 1h30m",
        ),
        (&["quorum", "auth", "--regions", "west,west"], "west is named twice"),
        (&["quorum", "auth", "--regions", "root"], "may do everything"),
        (
            &["switchover", "shop"],
            "Usage: leeward switchover --to <CLUSTER> <APP>",
        ),
        (&["status", "--kubeconfig", ""], "no name"),
    ] {
        let (_, err) = home.expect(2, arguments);
        assert!(err.contains(why), "{arguments:?}: {err}");
        assert!(!err.contains("tip:"), "{arguments:?}: {err}");
        assert!(!home.dir().exists(), "{arguments:?} made something");
    }
}

#[test]
fn a_kubeconfig_that_cannot_be_used_is_named_once_with_the_reason() {
    let home = Home::new();
    let missing = home.0.path().join("missing");
    let (_, err) = home.expect(1, &["status", "--kubeconfig", missing.to_str().unwrap()]);
    assert_eq!(
        err,
        format!(
            "error: kubeconfig {}: No such file or directory (os error 2)\n",
            missing.display()
        )
    );
}

#[test]
fn what_was_not_applied_after_a_failure_is_named() {
    let home = Home::new();
    home.expect(0, &["up", "--regions", "west", "--nodes", "1"]);
    let manifest = home.0.path().join("three.yaml");
    let one = |name: &str, kind: &str| format!("{{apiVersion: v1, kind: {kind}, metadata: {{name: {name}}}}}\n---\n");
    let three = one("a", "ConfigMap") + &one("b", "Nonsense") + &one("c", "ConfigMap");
    std::fs::write(&manifest, three).unwrap();
    let (out, err) = home.expect(1, &["apply", "-f", manifest.to_str().unwrap()]);
    assert_eq!(out, "configmaps/a applied\n");
    assert!(
        err.contains("no kind Nonsense") && err.contains("not tried: ConfigMap c."),
        "{err}"
    );
    home.expect(0, &["down"]);
}

/// East's agent stands still, so west commits it out and goes on; then west is lost.
#[test]
fn nothing_fails_over_to_a_standby_that_fell_behind_until_a_person_accepts_the_loss() {
    let home = Home::new();
    home.expect(0, &["up", "--ttl", "3", "--nodes", "1"]);
    let instance = home.instance();
    push_shell(instance.addresses("west").unwrap().registry());
    let manifest = home.0.path().join("shop.yaml");
    std::fs::write(&manifest, SHOP).unwrap();
    home.expect(0, &["apply", "-f", manifest.to_str().unwrap()]);
    home.until(&["explain", "shop"], |out| out.contains("It is protected"));

    let agent = instance.processes().unwrap();
    let agent = agent.into_iter().find(|process| process.name == "east-serve").unwrap();
    assert!(agent.signal(libc::SIGSTOP));
    let in_sync = |out: &str| -> Option<bool> {
        let app: Value = serde_json::from_str(out).ok()?;
        let placements = app["status"]["placements"].as_array()?;
        placements.iter().find(|placement| placement["cluster"] == "east")?["inSync"].as_bool()
    };
    home.until(&["status", "shop", "-o", "json"], |out| in_sync(out) == Some(false));
    instance.kill_region("west").unwrap();
    assert!(agent.signal(libc::SIGCONT));

    let out = home.until(&["explain", "shop"], |out| out.contains("no standby is in sync"));
    assert!(
        out.contains("east is not in sync: it could take over only if a person accepts"),
        "{out}"
    );
    assert!(out.contains("nothing would fail over by itself"), "{out}");
    // What was lost is some ten seconds, not one.
    let refused = home.until(
        &["failover", "shop", "--to", "east", "--accept-data-loss", "1s"],
        |out| out.contains("refused: east is not in sync (role data)"),
    );
    assert!(refused.contains("--accept-data-loss "), "{refused}");
    let (out, err) = home.expect(0, &["failover", "shop", "--to", "east", "--accept-data-loss", "10m"]);
    assert!(out.contains("east is active, epoch 2"), "{out}{err}");
}
