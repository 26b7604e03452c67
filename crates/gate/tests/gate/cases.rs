//! What a gate lets through, and when its writer lives.

use std::time::{Duration, Instant};

use leeward_gate::wire::Answer;
use nix::sys::signal::Signal;

use crate::{
    agent::{Does, eventually},
    stage::{ROLE, Stage, is_alive},
};

const LONG: Does = Does::Grants { epoch: 7, ms: 60_000 };

#[tokio::test]
async fn the_writer_is_not_started_before_the_gate_is_granted() {
    let stage = Stage::new("http", Does::Refuses).await;
    let mut user = stage.connect().await;
    user.send("GET / HTTP/1.1\r\n\r").await.unwrap();
    let (answer, _) = user.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("may not write now"),
        "{answer}"
    );
    stage.agent.does(LONG);
    let (_, said) = stage.open().await;
    assert_eq!(said.epoch, 7);
    let first = stage.agent.heard(|heard| heard.asks[0].clone());
    assert_eq!((first.pod.as_str(), first.version), ("pod-1", 1));
    assert_eq!(first.roles.iter().map(ToString::to_string).collect::<Vec<_>>(), [ROLE]);
}

#[tokio::test]
async fn a_liveness_probe_finds_nothing_wrong_with_a_gate_that_waits_and_asks_the_writer_once_it_is_open() {
    let stage = Stage::new("live", Does::Refuses).await;
    let begun = Instant::now();
    let mut probe = stage.connect().await;
    probe.send("GET / HTTP/1.1\r\n\r").await.unwrap();
    let (answer, _) = probe.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("may not write now"),
        "{answer}"
    );
    // The kubelet waits for one second, if nothing else is said.
    assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
    stage.agent.does(LONG);
    assert_eq!(stage.open().await.1.epoch, 7);
}

#[tokio::test]
async fn on_tcp_a_closed_gate_resets_the_connection() {
    let stage = Stage::new("tcp", Does::Refuses).await;
    let (answer, reset) = stage.connect().await.rest().await;
    assert_eq!((answer.as_str(), reset), ("", true));
}

#[tokio::test]
async fn when_the_agent_is_silent_the_writer_ends_at_the_deadline_with_all_that_it_started() {
    let stage = Stage::new("tcp", Does::Grants { epoch: 7, ms: 2000 }).await;
    let (user, said) = stage.open().await;
    assert!(is_alive(said.pid) && is_alive(said.child));
    stage.agent.does(Does::NotAnswer);
    let (rest, reset) = user.rest().await;
    assert_eq!((rest.as_str(), reset), ("", true));
    eventually("the writer ends", async || !is_alive(said.pid) && !is_alive(said.child)).await;
}

#[tokio::test]
async fn a_refusal_ends_the_writer_at_once_and_the_agent_is_told() {
    let stage = Stage::new("tcp", LONG).await;
    let (user, said) = stage.open().await;
    stage.agent.does(Does::Refuses);
    assert!(user.rest().await.1);
    eventually("the agent is told", async || {
        stage.agent.heard(|heard| !heard.closed.is_empty())
    })
    .await;
    assert!(!is_alive(said.pid) && !is_alive(said.child));
    let (closed, asked) = stage.agent.heard(|heard| (heard.closed[0].clone(), heard.asks.clone()));
    assert!(asked.iter().any(|ask| ask.nonce == closed.nonce));
}

#[tokio::test]
async fn a_gate_that_stood_still_past_its_grant_lets_nothing_out() {
    let length = Duration::from_millis(1500);
    let stage = Stage::new("tcp", Does::Grants { epoch: 7, ms: 1500 }).await;
    let (mut user, said) = stage.open().await;
    stage.signal(Signal::SIGSTOP);
    let frozen = Instant::now();
    // The gate's socket takes it, and so does the writer's answer the way back.
    user.send("while frozen").await.unwrap();
    tokio::time::sleep_until((frozen + length).into()).await;
    assert!(is_alive(said.pid));
    stage.agent.does(Does::NotAnswer);
    stage.signal(Signal::SIGCONT);
    assert_eq!(user.rest().await, (String::new(), true));
    eventually("the writer ends", async || !is_alive(said.pid)).await;
}

#[tokio::test]
async fn a_gate_that_is_killed_takes_its_writer_with_it_and_one_started_anew_is_closed() {
    let mut stage = Stage::new("tcp", LONG).await;
    let (user, said) = stage.open().await;
    stage.agent.does(Does::Refuses);
    stage.gate.kill().await.unwrap();
    let (rest, _) = user.rest().await;
    assert_eq!(rest, "");
    eventually("the writer ends", async || !is_alive(said.pid)).await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(said.child), Signal::SIGKILL).unwrap();
    stage.restart();
    assert!(stage.connect().await.rest().await.1);
    stage.agent.does(LONG);
    assert_ne!(stage.open().await.1.pid, said.pid);
}

#[tokio::test]
async fn at_another_epoch_the_writer_is_started_anew() {
    let stage = Stage::new("tcp", LONG).await;
    let (user, said) = stage.open().await;
    stage.agent.does(Does::Grants { epoch: 8, ms: 60_000 });
    assert!(user.rest().await.1);
    let (_, next) = stage.open().await;
    assert_eq!((said.epoch, next.epoch), (7, 8));
    assert!(!is_alive(said.pid) && !is_alive(said.child));
}

#[tokio::test]
async fn a_grant_that_is_repeated_lengthens_nothing() {
    let stage = Stage::new("tcp", Does::Grants { epoch: 7, ms: 2000 }).await;
    let (user, said) = stage.open().await;
    let granted = stage.agent.heard(|heard| heard.answers.last().cloned().unwrap());
    assert!(matches!(granted, Answer::Granted(_)));
    stage.agent.does(Does::Repeats(granted));
    assert_eq!(user.rest().await, (String::new(), true));
    eventually("the writer ends", async || !is_alive(said.pid)).await;
}

#[tokio::test]
async fn a_writer_that_ends_by_itself_ends_the_gate_with_its_code() {
    let mut stage = Stage::new("tcp", LONG).await;
    let (mut user, said) = stage.open().await;
    user.send("exit 3").await.unwrap();
    assert_eq!(stage.gate.wait().await.unwrap().code(), Some(3));
    assert!(!is_alive(said.child));
    assert_eq!(stage.agent.heard(|heard| heard.closed.len()), 1);
}

#[tokio::test]
async fn a_gate_that_is_asked_to_end_asks_its_writer_and_tells_the_agent() {
    let mut stage = Stage::new("tcp", LONG).await;
    let (_user, said) = stage.open().await;
    stage.signal(Signal::SIGTERM);
    assert_eq!(stage.gate.wait().await.unwrap().code(), Some(128 + 15));
    assert!(!is_alive(said.pid) && !is_alive(said.child));
    assert_eq!(stage.agent.heard(|heard| heard.closed.len()), 1);
}

#[test]
fn the_program_answers_to_the_words_that_an_init_container_says_whichever_program_its_image_has() {
    let directory = tempfile::tempdir().unwrap();
    for words in [&["gate", "--install"][..], &["--install"]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_leeward-gate"));
        let output = command.args(words).arg(directory.path()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        // A static build is copied, another one refused; neither is a wrong command line.
        let refused = output.status.code() == Some(1) && error.contains("static build");
        assert!(output.status.success() || refused, "{words:?}: {error}");
    }
}
