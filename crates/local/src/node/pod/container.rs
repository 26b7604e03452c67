//! One container of a pod: image, configuration, start, probes, end, and again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::hook::{self, Inside};
use super::{Life, RECHECK, termination_grace};
use crate::container::{Action, Mount, Run};
use crate::node::backoff::{self, Restarts};
use crate::node::image::{self, Image, Policy, Reference};
use crate::node::log::{self, Log};
use crate::node::plan::{self, Planned, Volume, hostname};
use crate::node::spawn::{Error, Exit, Running};
use crate::node::state::{ContainerState, Current, PodState, RestartPolicy, Terminated, address_hint, end_reason};

/// Which container of its pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) init: bool,
    pub(super) index: usize,
    /// An init container that goes on running beside the others.
    pub(super) sidecar: bool,
}

impl Slot {
    /// Its state. A slot is only made for a container that the state was made from.
    pub(super) fn of(self, state: &mut PodState) -> &mut ContainerState {
        if self.init {
            &mut state.init[self.index]
        } else {
            &mut state.main[self.index]
        }
    }

    fn declared(self, pod: &Pod) -> Option<Container> {
        let spec = pod.spec.as_ref()?;
        if self.init {
            spec.init_containers.as_ref()?.get(self.index)
        } else {
            spec.containers.get(self.index)
        }
        .cloned()
    }
}

/// Whether an init container is one that keeps running.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Waits until a sidecar has started, or the pod is to stop.
pub(super) async fn until_started(life: &Life, slot: Slot) {
    while !slot.of(&mut life.shared.state()).started && life.sleep(Duration::from_millis(20)).await {}
}

/// Runs the container until it is not to be started again; true when its last run succeeded.
pub(super) async fn run(life: Arc<Life>, slot: Slot, volumes: Arc<BTreeMap<String, Volume>>) -> bool {
    let policy = if slot.sidecar {
        RestartPolicy::Always
    } else {
        RestartPolicy::of(&life.pod())
    };
    let once = slot.init && !slot.sidecar;
    let mut restarts = Restarts::default();
    let mut first = true;
    // What an earlier process of this node saw end: it is final, or this is the next start of it.
    if let Current::Terminated(end) = slot.of(&mut life.shared.state()).current.clone() {
        if !slot.init && !policy.restarts(end.code, false) {
            return end.code == 0;
        }
        wait_state(&life, slot, "ContainerCreating", "");
        life.shared.update(|state| slot.of(state).restarts += 1);
    }
    loop {
        if life.stopping() {
            return false;
        }
        let began = Timestamp::now();
        let Some(end) = once_through(&life, slot, &volumes, first).await else {
            return false;
        };
        first = false;
        let code = end.code;
        finish(&life, slot, end);
        if life.stopping() || !policy.restarts(code, once) {
            return code == 0;
        }
        let ran = Duration::try_from(Timestamp::now().duration_since(began)).unwrap_or_default();
        let wait = restarts.after(ran);
        if !wait.is_zero() {
            back_off(&life, slot, wait);
            if !life.sleep(wait).await {
                return false;
            }
        }
        life.shared.update(|state| {
            let state = slot.of(state);
            if let Current::Terminated(end) = &state.current {
                state.last = Some(end.clone());
            }
            state.restarts += 1;
        });
    }
}

/// The end of a run, or nothing when the pod stopped before the container ran.
async fn once_through(
    life: &Arc<Life>,
    slot: Slot,
    volumes: &BTreeMap<String, Volume>,
    first: bool,
) -> Option<Terminated> {
    let container = slot.declared(&life.pod())?;
    let image = image(life, slot, &container).await?;
    let planned = configuration(life, slot, &container, &image, volumes).await?;
    let attempt = slot.of(&mut life.shared.state()).restarts;
    match start(life, slot, &container, &image, planned, attempt).await {
        Ok((inside, log)) => Some(supervise(life, slot, &container, inside, log, attempt).await),
        Err((reason, message)) => {
            let text = format!("Error: {message}");
            life.node
                .events
                .warning(&life.pod(), Some(&container.name), "Failed", text);
            if first {
                tracing::debug!(pod = %life.shared.name, container = %container.name, %message, "not started");
            }
            let code = if reason == "ContainerCannotRun" { 127 } else { 128 };
            let now = Timestamp::now();
            Some(Terminated {
                code,
                signal: None,
                reason,
                message,
                started: Some(now),
                finished: now,
            })
        }
    }
}

/// Records the end of a run.
fn finish(life: &Life, slot: Slot, end: Terminated) {
    life.shared
        .running
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&slot.of(&mut life.shared.state()).name);
    life.shared.update(|state| {
        let state = slot.of(state);
        state.ready = false;
        state.started = false;
        state.current = Current::Terminated(end);
    });
}

fn wait_state(life: &Life, slot: Slot, reason: &str, message: &str) {
    life.shared.update(|state| {
        let state = slot.of(state);
        if let Current::Terminated(end) = &state.current {
            state.last = Some(end.clone());
        }
        state.current = Current::Waiting {
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
    });
}

fn back_off(life: &Life, slot: Slot, wait: Duration) {
    let name = slot.of(&mut life.shared.state()).name.clone();
    let message = format!(
        "back-off {}s restarting failed container={name} pod={}",
        wait.as_secs(),
        life.shared.name
    );
    wait_state(life, slot, "CrashLoopBackOff", &message);
    let text = format!(
        "Back-off restarting failed container {name} in pod {}",
        life.shared.name
    );
    life.node.events.warning(&life.pod(), Some(&name), "BackOff", text);
}

/// The image, as soon as it can be had; nothing when the pod is to stop before.
async fn image(life: &Life, slot: Slot, container: &Container) -> Option<Image> {
    let declared = container.image.clone().unwrap_or_default();
    let name = container.name.as_str();
    let mut failures = 0;
    loop {
        let pod = life.pod();
        let attempt = match Reference::parse(&declared) {
            Ok(reference) => {
                let policy = Policy::of(container.image_pull_policy.as_deref(), &reference);
                if let Some(image) = life.node.images.present(&reference, policy) {
                    let text = format!(
                        "Container image \"{declared}\" already present on machine and can be accessed by the pod"
                    );
                    life.node.events.normal(&pod, Some(name), "Pulled", text);
                    return Some(image);
                }
                if policy != Policy::Never {
                    life.node
                        .events
                        .normal(&pod, Some(name), "Pulling", format!("Pulling image \"{declared}\""));
                }
                tokio::select! {
                    pulled = life.node.images.pull(&reference, policy) => pulled,
                    () = life.stopped() => return None,
                }
            }
            Err(error) => Err(error),
        };
        let error = match attempt {
            Ok(image) => {
                let text = format!("Successfully pulled image \"{declared}\"");
                life.node.events.normal(&pod, Some(name), "Pulled", text);
                return Some(image);
            }
            Err(error) => error,
        };
        let (now, later) = match error {
            image::Error::Invalid { .. } => ("InvalidImageName", "InvalidImageName"),
            image::Error::NeverPull(_) => ("ErrImageNeverPull", "ErrImageNeverPull"),
            _ => ("ErrImagePull", "ImagePullBackOff"),
        };
        wait_state(life, slot, now, &error.to_string());
        let text = format!("Failed to pull image \"{declared}\": {error}");
        life.node.events.warning(&pod, Some(name), "Failed", text);
        // Long enough that who watches sees the reason before the back-off replaces it.
        if !life.sleep(RECHECK).await {
            return None;
        }
        wait_state(
            life,
            slot,
            later,
            &format!("Back-off pulling image \"{declared}\": {error}"),
        );
        if !life.sleep(backoff::after_pull(failures)).await {
            return None;
        }
        failures += 1;
    }
}

/// What to run, as soon as everything that it refers to exists; nothing when the pod is to stop before.
async fn configuration(
    life: &Life,
    slot: Slot,
    container: &Container,
    image: &Image,
    volumes: &BTreeMap<String, Volume>,
) -> Option<Planned> {
    let read = |name: &str| {
        let path = crate::container::path::resolve(&image.root, name.as_ref(), crate::container::path::Last::Follow);
        path.ok()
            .and_then(|path| std::fs::read_to_string(path).ok())
            .unwrap_or_default()
    };
    let (passwd, group) = (read("etc/passwd"), read("etc/group"));
    let mut told = String::new();
    loop {
        let pod = life.pod();
        let attempt = match life.sources().await {
            Ok(sources) => plan::plan(&plan::Inputs {
                pod: &pod,
                container,
                image: &image.config,
                passwd: &passwd,
                group: &group,
                sources: &sources,
                volumes,
                place: &life.place,
            })
            .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match attempt {
            Ok(planned) => return Some(planned),
            Err(message) if message != told => {
                wait_state(life, slot, "CreateContainerConfigError", &message);
                life.node
                    .events
                    .warning(&pod, Some(&container.name), "Failed", format!("Error: {message}"));
                told = message;
            }
            Err(_) => {}
        }
        if !life.sleep(RECHECK).await {
            return None;
        }
    }
}

/// Starts the process. The error is a reason and a message.
async fn start(
    life: &Life,
    slot: Slot,
    container: &Container,
    image: &Image,
    planned: Planned,
    attempt: i32,
) -> Result<(Inside, Arc<Log>), (String, String)> {
    let io = |error: std::io::Error| ("StartError".to_owned(), error.to_string());
    let isolation = life
        .node
        .isolation(image)
        .map_err(|message| ("ContainerCannotRun".to_owned(), message))?;
    let base = life.shared.dir.join("containers").join(&container.name);
    let _ = crate::container::path::remove_tree(&base);
    let scratch = base.join(attempt.to_string());
    std::fs::create_dir_all(&scratch).map_err(io)?;
    let mut mounts = surroundings(life, container, &scratch).map_err(io)?;
    mounts.extend(planned.mounts);
    let run = Run {
        isolation,
        image_root: image.root.clone(),
        scratch: scratch.clone(),
        hostname: hostname(&life.pod()),
        mounts,
        process: planned.process.clone(),
        read_only_root: planned.read_only_root,
    };
    let log = Log::create(&life.shared.dir, &container.name, attempt)
        .await
        .map_err(io)?;
    let output = log.pipes().map_err(io)?;
    life.shared
        .logs
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(container.name.clone(), (attempt, Arc::downgrade(&log)));
    let pod = life.pod();
    life.node
        .events
        .normal(&pod, Some(&container.name), "Created", "Container created".to_owned());
    let name = container.name.clone();
    let note = |text: String| tracing::info!(pod = %life.shared.name, container = %name, "{text}");
    let launched = life
        .node
        .spawner
        .launch(Action::Run(run), &scratch.join("spec.json"), output, note)
        .await;
    let running = launched.map_err(|error| match error {
        Error::Refused { message, exec: true } => ("ContainerCannotRun".to_owned(), message),
        other => ("StartError".to_owned(), other.to_string()),
    })?;
    life.shared
        .running
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(container.name.clone(), Arc::clone(&running));
    life.node
        .events
        .normal(&pod, Some(&container.name), "Started", "Container started".to_owned());
    life.shared.update(|state| {
        let state = slot.of(state);
        state.image_id.clone_from(&image.id);
        state.container_id = format!("leeward://{}-{}-{attempt}", life.shared.uid, container.name);
        state.current = Current::Running {
            since: Timestamp::now(),
        };
        // Both are the probes' to say; a container without any is ready as soon as it runs.
        state.started = container.startup_probe.is_none();
        state.ready = state.started && container.readiness_probe.is_none();
    });
    let process = planned.process;
    Ok((
        Inside {
            running,
            isolation,
            image_root: image.root.clone(),
            process,
        },
        log,
    ))
}

/// Files that every container gets: names, resolver, and where it may leave a last message.
fn surroundings(life: &Life, container: &Container, scratch: &std::path::Path) -> std::io::Result<Vec<Mount>> {
    let host = hostname(&life.pod());
    let hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n{}\t{host}\n", life.shared.ip);
    let resolver = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    let files: [(&str, &str, Vec<u8>); 4] = [
        ("hosts", "/etc/hosts", hosts.into_bytes()),
        ("hostname", "/etc/hostname", format!("{host}\n").into_bytes()),
        ("resolv.conf", "/etc/resolv.conf", resolver),
        (
            "message",
            container
                .termination_message_path
                .as_deref()
                .unwrap_or("/dev/termination-log"),
            Vec::new(),
        ),
    ];
    let mut mounts = Vec::new();
    for (name, target, content) in files {
        let source = scratch.join(name);
        std::fs::write(&source, content)?;
        mounts.push(Mount {
            source,
            sub_path: None,
            target: PathBuf::from(target),
            read_only: false,
        });
    }
    Ok(mounts)
}

/// Follows a running container to its end.
async fn supervise(
    life: &Arc<Life>,
    slot: Slot,
    container: &Container,
    inside: Inside,
    log: Arc<Log>,
    attempt: i32,
) -> Terminated {
    let started = Timestamp::now();
    let running = Arc::clone(&inside.running);
    let grace = termination_grace(&life.pod());
    let mut why = String::new();
    let hooks = container.lifecycle.clone().unwrap_or_default();
    let watch = async {
        if let Some(hook) = &hooks.post_start
            && let Err(message) = hook::handle(life, &inside, container, hook, grace).await
        {
            return format!("PostStartHook failed: {message}");
        }
        hook::probes(life, &inside, container, slot).await
    };
    let exit = tokio::select! {
        exit = running.ended() => exit,
        reason = watch => {
            life.node.events.normal(&life.pod(), Some(&container.name), "Killing", reason.clone());
            why = reason;
            terminate(life, &inside, container, grace).await
        }
        () = life.stopped() => {
            let text = format!("Stopping container {}", container.name);
            life.node.events.normal(&life.pod(), Some(&container.name), "Killing", text);
            let grace = life.stop.borrow().unwrap_or(grace);
            terminate(life, &inside, container, grace).await
        }
    };
    settle(log).await;
    let message = message(life, container, exit, attempt, why);
    Terminated {
        code: exit.code,
        signal: exit.signal,
        reason: end_reason(exit.code).to_owned(),
        message,
        started: Some(started),
        finished: Timestamp::now(),
    }
}

/// Asks the container to end, and ends it when the grace period, or a shorter one that is given later, is over.
async fn terminate(life: &Life, inside: &Inside, container: &Container, grace: Duration) -> Exit {
    let running: &Running = &inside.running;
    let begin = tokio::time::Instant::now();
    let hook = container.lifecycle.as_ref().and_then(|hooks| hooks.pre_stop.as_ref());
    if let Some(hook) = hook.filter(|_| !grace.is_zero()) {
        tokio::select! {
            exit = running.ended() => return exit,
            result = hook::handle(life, inside, container, hook, grace) => if let Err(message) = result {
                life.node.events.warning(&life.pod(), Some(&container.name), "FailedPreStopHook", message);
            }
        }
    }
    let mut stop = life.stop.clone();
    let mut deadline = begin + grace;
    if !grace.is_zero() {
        running.signal(libc::SIGTERM).await;
    }
    loop {
        tokio::select! {
            exit = running.ended() => return exit,
            () = tokio::time::sleep_until(deadline) => {
                running.signal(libc::SIGKILL).await;
                return running.ended().await;
            }
            changed = stop.changed() => match changed {
                Ok(()) => {
                    let shorter = stop.borrow_and_update().unwrap_or(grace);
                    deadline = deadline.min(tokio::time::Instant::now() + shorter);
                }
                // Nobody can shorten it any more.
                Err(_) => std::future::pending::<()>().await,
            }
        }
    }
}

/// Lets the last lines arrive in the log.
async fn settle(log: Arc<Log>) {
    let mut changes = log.changes();
    drop(log);
    let rest = async { while changes.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(Duration::from_millis(500), rest).await;
}

fn message(life: &Life, container: &Container, exit: Exit, attempt: i32, why: String) -> String {
    let scratch = life
        .shared
        .dir
        .join("containers")
        .join(&container.name)
        .join(attempt.to_string());
    let own = std::fs::read(scratch.join("message")).unwrap_or_default();
    let own = String::from_utf8_lossy(&own[..own.len().min(4096)])
        .trim_end()
        .to_owned();
    if !own.is_empty() || exit.code == 0 {
        return own;
    }
    let tail = log::tail_message(&log::path(&life.shared.dir, &container.name, attempt));
    if let Some(hint) = address_hint(&tail, life.shared.ip) {
        return hint;
    }
    let fallback = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if fallback { tail } else { why }
}
