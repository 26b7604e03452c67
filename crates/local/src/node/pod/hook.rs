//! Runs commands inside a container and asks its probes.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Probe};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::Life;
use super::container::Slot;
use crate::container::{Action, Isolation, Join, Process};
use crate::node::probe::{self, Series, Settings, Target, Verdict};
use crate::node::spawn::{Error, Running};

/// How much of a command's output goes into a message.
const OUTPUT_BYTES: u64 = 512;

/// A container that runs, with what is needed to run more in it.
pub(super) struct Inside {
    pub(super) running: Arc<Running>,
    pub(super) isolation: Isolation,
    pub(super) image_root: std::path::PathBuf,
    /// The container's own process; its arguments are replaced.
    pub(super) process: Process,
}

/// Runs `command` inside; an error says how it failed.
pub(super) async fn exec(life: &Life, inside: &Inside, command: &[String], timeout: Duration) -> Result<(), String> {
    let (sender, receiver) = pipe::pipe().map_err(|error| error.to_string())?;
    let output: OwnedFd = sender.into_blocking_fd().map_err(|error| error.to_string())?;
    let copy = output.try_clone().map_err(|error| error.to_string())?;
    let action = Action::Join(Join {
        pid: inside.running.pid,
        isolation: inside.isolation,
        image_root: inside.image_root.clone(),
        process: Process {
            args: command.to_vec(),
            ..inside.process.clone()
        },
    });
    let file = life.shared.dir.join(format!("exec-{}.json", uuid::Uuid::new_v4()));
    let launched = life.node.spawner.launch(action, &file, (output, copy), |_| {}).await;
    let _ = std::fs::remove_file(&file);
    let process = match launched {
        Ok(process) => process,
        Err(Error::Spawn(error)) => return Err(error.to_string()),
        Err(Error::Refused { message, .. }) => return Err(message),
    };
    let mut text = Vec::new();
    let ended = async {
        let _ = receiver.take(OUTPUT_BYTES).read_to_end(&mut text).await;
        process.ended().await
    };
    match tokio::time::timeout(timeout, ended).await {
        Ok(exit) if exit.code == 0 => Ok(()),
        Ok(exit) => Err(format!(
            "command exited with {}: {}",
            exit.code,
            String::from_utf8_lossy(&text).trim_end()
        )),
        Err(_) => {
            process.signal(libc::SIGKILL).await;
            process.ended().await;
            Err(format!("command did not end within {timeout:?}"))
        }
    }
}

/// Runs a lifecycle hook.
pub(super) async fn handle(
    life: &Life,
    inside: &Inside,
    container: &Container,
    hook: &LifecycleHandler,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0)).min(timeout)).await;
        return Ok(());
    }
    let probe = Probe {
        exec: hook.exec.clone(),
        http_get: hook.http_get.clone(),
        tcp_socket: hook.tcp_socket.clone(),
        ..Probe::default()
    };
    match Target::of(&probe, container, life.shared.ip.into()) {
        Some(target) => ask(life, inside, &target, timeout).await,
        None => Ok(()),
    }
}

async fn ask(life: &Life, inside: &Inside, target: &Target, timeout: Duration) -> Result<(), String> {
    match target {
        Target::Exec(command) => exec(life, inside, command, timeout).await,
        target => probe::check(target, timeout).await,
    }
}

/// Asks all probes of a container; returns only when it is to be killed, and why.
pub(super) async fn probes(life: &Life, inside: &Inside, container: &Container, slot: Slot) -> String {
    if let Some(startup) = &container.startup_probe {
        let verdict = watch(life, inside, container, startup, ("Startup", true), |_| {}, true).await;
        if let Some(why) = verdict {
            return why;
        }
    }
    life.shared.update(|state| {
        let state = slot.of(state);
        state.started = true;
        state.ready = container.readiness_probe.is_none();
    });
    let liveness = async {
        match &container.liveness_probe {
            Some(probe) => watch(life, inside, container, probe, ("Liveness", false), |_| {}, false).await,
            None => None,
        }
    };
    let readiness = async {
        if let Some(probe) = &container.readiness_probe {
            let set = |ready| life.shared.update(|state| slot.of(state).ready = ready);
            watch(life, inside, container, probe, ("Readiness", true), set, false).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(readiness);
    tokio::select! {
        why = liveness => match why {
            Some(why) => why,
            None => { readiness.await; String::new() }
        },
        () = &mut readiness => String::new(),
    }
}

/// Asks one probe again and again. Returns nothing on success when `once`, and a reason when a liveness or startup probe
/// came to fail; a readiness probe (which `tell`s) goes on for ever.
async fn watch(
    life: &Life,
    inside: &Inside,
    container: &Container,
    probe: &Probe,
    (kind, eager): (&str, bool),
    tell: impl Fn(bool),
    once: bool,
) -> Option<String> {
    let settings = Settings::of(probe, eager);
    let target = Target::of(probe, container, life.shared.ip.into())?;
    tokio::time::sleep(settings.initial_delay).await;
    let mut series = Series::new(settings);
    let mut before = Verdict::Unknown;
    loop {
        let answer = ask(life, inside, &target, settings.timeout).await;
        let (verdict, wait) = series.add(answer.is_ok());
        // The first refusals of an application that is starting are no news.
        let news = before != Verdict::Unknown || verdict == Verdict::Failing;
        if let Err(message) = answer
            && news
        {
            let text = format!("{kind} probe failed: {message}");
            life.node
                .events
                .warning(&life.pod(), Some(&container.name), "Unhealthy", text);
        }
        if verdict != before {
            tell(verdict == Verdict::Passing);
        }
        before = verdict;
        match verdict {
            Verdict::Passing if once => return None,
            Verdict::Failing if kind != "Readiness" => {
                return Some(format!(
                    "Container {} failed {} probe, will be restarted",
                    container.name,
                    kind.to_lowercase()
                ));
            }
            _ => tokio::time::sleep(wait).await,
        }
    }
}
