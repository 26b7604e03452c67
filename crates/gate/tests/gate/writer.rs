//! The writer: this test program itself, told so by its environment. It answers each line with the epoch that it was started at, and
//! has started a process in a session of its own, whose ID it says first.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    process::Command,
};

/// Where the writer listens.
pub(crate) const LISTEN: &str = "GATE_TEST_WRITER";

#[test]
fn writer() {
    let Ok(listen) = std::env::var(LISTEN) else { return };
    let mut child = Command::new("sleep");
    child.arg("3600").process_group(0);
    let child = child.spawn().unwrap().id();
    let epoch = std::env::var("LEEWARD_EPOCH").unwrap();
    let listener = TcpListener::bind(listen).unwrap();
    for stream in listener.incoming() {
        let (mut stream, epoch) = (stream.unwrap(), epoch.clone());
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while let Some(Ok(line)) = lines.next() {
                if let Some(code) = line.strip_prefix("exit ") {
                    std::process::exit(code.parse().unwrap());
                }
                let _ = writeln!(stream, "{epoch} {} {child} {line}", std::process::id());
            }
        });
    }
}
