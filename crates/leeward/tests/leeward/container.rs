//! The process that keeps a container, driven as a node drives it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use leeward_local::container::{Action, Isolation, Mount, Process, Report, Run, Spec};

struct Keeper {
    child: Child,
    control: BufReader<UnixStream>,
    dir: tempfile::TempDir,
}

/// An image root that is the machine's own programs, seen through symlinks that lead nowhere else inside.
fn start(isolation: Isolation, script: &str) -> Keeper {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("image");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    for program in ["sh", "sleep", "cat"] {
        std::fs::copy(format!("/bin/{program}"), root.join("bin").join(program)).unwrap();
    }
    if isolation == Isolation::Namespaces {
        libraries(&root);
    }
    let volume = dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let scratch = dir.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let mount = Mount {
        source: volume,
        sub_path: None,
        target: "/data".into(),
        read_only: false,
    };
    let run = Run {
        isolation,
        image_root: root,
        scratch,
        hostname: "box".into(),
        mounts: vec![mount],
        process: Process {
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec![("PATH".into(), "/bin".into())],
            cwd: "/".into(),
            uid: 0,
            gid: 0,
        },
        read_only_root: false,
    };
    let spec = Spec {
        node_pid: std::process::id() as i32,
        action: Action::Run(run),
    };
    let file = dir.path().join("spec.json");
    std::fs::write(&file, serde_json::to_vec(&spec).unwrap()).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_leeward"))
        .args(["local", "container"])
        .arg(&file)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Keeper {
        child,
        control: BufReader::new(ours),
        dir,
    }
}

fn libraries(root: &Path) {
    for program in ["/bin/sh", "/bin/sleep", "/bin/cat"] {
        for entry in leeward_images::pack::executable(Path::new(program), program).unwrap() {
            if let leeward_images::pack::Source::File(from) = &entry.source {
                let to = root.join(entry.path.trim_start_matches('/'));
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(from, to).unwrap();
            }
        }
    }
    let _ = symlink("bin", root.join("sbin"));
}

impl Keeper {
    fn report(&mut self) -> Report {
        let mut line = String::new();
        self.control.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn pid(&mut self) -> i32 {
        match self.report() {
            Report::Started { pid } => pid,
            other => panic!("{other:?}"),
        }
    }

    fn output(&mut self) -> String {
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

fn gone(pid: i32) {
    let begin = Instant::now();
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(begin.elapsed() < Duration::from_secs(5), "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn signals_reach_the_application_and_its_end_is_reported() {
    let mut keeper = start(
        Isolation::Namespaces,
        "trap 'echo asked; exit 7' TERM; echo up; while :; do sleep 0.02; done",
    );
    keeper.pid();
    let mut stdout = BufReader::new(keeper.child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    keeper.control.get_mut().write_all(&[15]).unwrap();
    assert_eq!(keeper.report(), Report::Exited { code: 7, signal: None });
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "up\nasked\n");
    assert_eq!(keeper.child.wait().unwrap().code(), Some(7));
}

#[test]
fn everything_dies_when_the_node_lets_go_or_the_keeper_is_killed() {
    for kill in [false, true] {
        let mut keeper = start(Isolation::Namespaces, "sleep 60 & sleep 60");
        let pid = keeper.pid();
        if kill {
            keeper.child.kill().unwrap();
        } else {
            keeper.control.get_mut().shutdown(std::net::Shutdown::Both).unwrap();
        }
        keeper.child.wait().unwrap();
        gone(pid);
    }
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let mut keeper = start(Isolation::Namespaces, "true");
    keeper.pid();
    assert_eq!(keeper.report(), Report::Exited { code: 0, signal: None });
    let spec = keeper.dir.path().join("spec.json");
    let text = std::fs::read_to_string(&spec).unwrap().replace("\"sh\"", "\"missing\"");
    std::fs::write(&spec, text).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_leeward"))
        .args(["local", "container"])
        .arg(&spec)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(ours).read_line(&mut line).unwrap();
    child.wait().unwrap();
    match serde_json::from_str(&line).unwrap() {
        Report::Failed { message, exec } => assert!(exec && message.contains("missing"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plain_process_finds_its_volumes_and_leaves_nothing_behind() {
    let script = "echo hello > $LEEWARD_MOUNT_0/file; cat mounts/0/file; echo $LEEWARD_MOUNTS; sleep 60 & echo $!";
    let mut keeper = start(Isolation::Plain, script);
    keeper.pid();
    let text = keeper.output();
    assert_eq!(keeper.report(), Report::Exited { code: 0, signal: None });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "hello");
    assert!(
        lines[1].starts_with("/data=/") && lines[1].ends_with("/scratch/mounts/0"),
        "{text}"
    );
    gone(lines[2].parse().unwrap());
    assert_eq!(
        std::fs::read_to_string(keeper.dir.path().join("volume/file")).unwrap(),
        "hello\n"
    );
    keeper.child.wait().unwrap();
}
