//! What a node knows about one of its pods, and the Kubernetes status that follows from it. Pure.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The end of one run of a container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Terminated {
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) started: Option<Timestamp>,
    pub(super) finished: Timestamp,
}

/// Where a container is at the moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Current {
    Waiting { reason: String, message: String },
    Running { since: Timestamp },
    Terminated(Terminated),
}

/// One container of a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ContainerState {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) image_id: String,
    pub(super) container_id: String,
    pub(super) current: Current,
    pub(super) last: Option<Terminated>,
    pub(super) restarts: i32,
    /// The startup probe, if any, has succeeded.
    pub(super) started: bool,
    /// The readiness probe says so; meaningful only while running.
    pub(super) ready: bool,
    /// An init container that goes on running beside the others.
    pub(super) sidecar: bool,
}

/// One pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PodState {
    pub(super) ip: Ipv4Addr,
    pub(super) start: Timestamp,
    pub(super) init: Vec<ContainerState>,
    pub(super) main: Vec<ContainerState>,
    /// Set when the pod as a whole failed, such as by its deadline.
    pub(super) failure: Option<(String, String)>,
}

/// What a pod's spec says about containers that end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// Of a pod; Always when it does not say.
    pub(super) fn of(pod: &Pod) -> Self {
        match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// Whether a container that ended with `code` is started again. An init container that succeeded never is.
    pub(super) fn restarts(self, code: i32, init: bool) -> bool {
        match self {
            Self::Always => !init || code != 0,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

impl PodState {
    /// What a node knows when it first sees `pod`. What an earlier process of this node reported as running died with it.
    pub(super) fn adopt(pod: &Pod, ip: Ipv4Addr, now: Timestamp) -> Self {
        let status = pod.status.as_ref();
        let seen = |list: Option<&Vec<ContainerStatus>>, name: &str| {
            list.and_then(|list| list.iter().find(|status| status.name == name))
                .cloned()
        };
        let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        let mains = pod.spec.iter().flat_map(|spec| &spec.containers);
        Self {
            ip,
            start: status
                .and_then(|status| status.start_time.as_ref())
                .map_or(now, |time| time.0),
            init: inits
                .map(|container| {
                    let list = status.and_then(|status| status.init_container_statuses.as_ref());
                    ContainerState::adopt(container, seen(list, &container.name), now)
                })
                .collect(),
            main: mains
                .map(|container| {
                    let list = status.and_then(|status| status.container_statuses.as_ref());
                    ContainerState::adopt(container, seen(list, &container.name), now)
                })
                .collect(),
            failure: None,
        }
    }

    /// The phase that follows from the containers.
    pub(super) fn phase(&self, policy: RestartPolicy) -> &'static str {
        if self.failure.is_some() {
            return "Failed";
        }
        let ended = |container: &ContainerState, init: bool| match &container.current {
            Current::Terminated(end) if !policy.restarts(end.code, init) => Some(end.code),
            _ => None,
        };
        let failed =
            |container: &ContainerState| !container.sidecar && ended(container, true).is_some_and(|code| code != 0);
        if self.init.iter().any(failed) {
            return "Failed";
        }
        if !self.initialized() {
            return "Pending";
        }
        let codes: Vec<_> = self.main.iter().map(|container| ended(container, false)).collect();
        if codes.iter().all(Option::is_some) {
            return if codes.iter().all(|code| *code == Some(0)) {
                "Succeeded"
            } else {
                "Failed"
            };
        }
        let began = |container: &ContainerState| {
            !matches!(container.current, Current::Waiting { .. }) || container.last.is_some()
        };
        if self.main.iter().all(began) {
            "Running"
        } else {
            "Pending"
        }
    }

    fn initialized(&self) -> bool {
        self.init.iter().all(|container| match &container.current {
            Current::Terminated(end) => end.code == 0 || container.sidecar,
            Current::Running { .. } => container.sidecar && container.started,
            Current::Waiting { .. } => container.sidecar && container.last.is_some(),
        })
    }

    /// The whole status. `previous` gives the transition times of conditions that did not change.
    pub(super) fn status(&self, pod: &Pod, host_ip: Ipv4Addr, previous: &PodStatus, now: Timestamp) -> PodStatus {
        let policy = RestartPolicy::of(pod);
        let phase = self.phase(policy);
        let unready: Vec<&str> = self
            .main
            .iter()
            .filter(|container| !container.is_ready())
            .map(|container| container.name.as_str())
            .collect();
        let completed = phase == "Succeeded";
        let initialized = self.initialized();
        let gates_open = readiness_gates_open(pod, previous);
        let not_ready = || {
            (
                "ContainersNotReady",
                format!("containers with unready status: [{}]", unready.join(" ")),
            )
        };
        let mut conditions = Conditions {
            previous,
            now,
            list: Vec::new(),
        };
        let ended = matches!(phase, "Succeeded" | "Failed");
        conditions.push("PodReadyToStartContainers", !ended, None);
        conditions.push(
            "Initialized",
            initialized,
            Some(("ContainersNotInitialized", String::new())),
        );
        let why = if completed {
            ("PodCompleted", String::new())
        } else {
            not_ready()
        };
        let containers_ready = initialized && unready.is_empty() && !completed;
        conditions.push("Ready", containers_ready && gates_open, Some(why.clone()));
        conditions.push("ContainersReady", containers_ready, Some(why));
        conditions.push("PodScheduled", true, None);
        conditions.keep_others();
        PodStatus {
            phase: Some(phase.to_owned()),
            conditions: Some(conditions.list),
            pod_ip: Some(self.ip.to_string()),
            pod_ips: Some(vec![PodIP {
                ip: self.ip.to_string(),
            }]),
            host_ip: Some(host_ip.to_string()),
            host_ips: Some(vec![HostIP {
                ip: host_ip.to_string(),
            }]),
            start_time: Some(Time(self.start)),
            init_container_statuses: (!self.init.is_empty())
                .then(|| self.init.iter().map(|c| c.status(true)).collect()),
            container_statuses: Some(self.main.iter().map(|container| container.status(false)).collect()),
            qos_class: Some(qos_class(pod).to_owned()),
            reason: self.failure.as_ref().map(|(reason, _)| reason.clone()),
            message: self.failure.as_ref().map(|(_, message)| message.clone()),
            ..PodStatus::default()
        }
    }
}

impl ContainerState {
    /// Which start's log is asked for, `newest` being the number of the newest; or why there is none, as kubelets say it.
    pub(super) fn log_of(&self, pod: &str, newest: i32, previous: bool) -> Result<i32, String> {
        let name = &self.name;
        match (&self.current, &self.last) {
            // The one that ended last is the newest as long as the next has not begun.
            (Current::Waiting { .. }, Some(_)) => Ok(newest),
            (_, Some(_)) if previous => Ok(newest - 1),
            (_, None) if previous => Err(format!(
                "previous terminated container \"{name}\" in pod \"{pod}\" not found"
            )),
            (Current::Waiting { reason, .. }, None) => {
                let why = match reason.as_str() {
                    "ErrImagePull" => "image can't be pulled",
                    "ImagePullBackOff" => "trying and failing to pull image",
                    reason => reason,
                };
                Err(format!(
                    "container \"{name}\" in pod \"{pod}\" is waiting to start: {why}"
                ))
            }
            _ => Ok(newest),
        }
    }

    fn adopt(container: &Container, seen: Option<ContainerStatus>, now: Timestamp) -> Self {
        let mut state = Self {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            image_id: String::new(),
            container_id: String::new(),
            current: Current::Waiting {
                reason: "ContainerCreating".to_owned(),
                message: String::new(),
            },
            last: None,
            restarts: 0,
            started: false,
            ready: false,
            sidecar: container.restart_policy.as_deref() == Some("Always"),
        };
        let Some(seen) = seen else { return state };
        state.restarts = seen.restart_count;
        state.last = seen
            .last_state
            .and_then(|last| last.terminated)
            .map(|end| Terminated::from_api(&end, now));
        match seen.state.unwrap_or_default() {
            ApiState {
                running: Some(running), ..
            } => {
                state.restarts += 1;
                state.last = Some(Terminated {
                    code: 137,
                    signal: Some(libc::SIGKILL),
                    reason: "NodeRestarted".to_owned(),
                    message: "the container ended with the process of its node".to_owned(),
                    started: running.started_at.map(|time| time.0),
                    finished: now,
                });
            }
            ApiState {
                terminated: Some(end), ..
            } => {
                state.current = Current::Terminated(Terminated::from_api(&end, now));
                state.image_id = seen.image_id;
            }
            _ => {}
        }
        state
    }

    /// Whether it counts for the pod's readiness.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.current, Current::Running { .. }) && self.started && self.ready
    }

    fn status(&self, init: bool) -> ContainerStatus {
        let state = match &self.current {
            Current::Waiting { reason, message } => ApiState {
                waiting: Some(ContainerStateWaiting {
                    reason: Some(reason.clone()),
                    message: Some(message.clone()).filter(|message| !message.is_empty()),
                }),
                ..ApiState::default()
            },
            Current::Running { since } => ApiState {
                running: Some(ContainerStateRunning {
                    started_at: Some(Time(*since)),
                }),
                ..ApiState::default()
            },
            Current::Terminated(end) => ApiState {
                terminated: Some(end.to_api(&self.container_id)),
                ..ApiState::default()
            },
        };
        let succeeded = matches!(&self.current, Current::Terminated(end) if end.code == 0);
        ContainerStatus {
            name: self.name.clone(),
            image: self.image.clone(),
            image_id: self.image_id.clone(),
            container_id: Some(self.container_id.clone()).filter(|id| !id.is_empty()),
            state: Some(state),
            last_state: Some(ApiState {
                terminated: self.last.as_ref().map(|end| end.to_api("")),
                ..ApiState::default()
            }),
            ready: if init && !self.sidecar {
                succeeded
            } else {
                self.is_ready()
            },
            started: Some(matches!(self.current, Current::Running { .. }) && self.started),
            restart_count: self.restarts,
            ..ContainerStatus::default()
        }
    }
}

impl Terminated {
    fn to_api(&self, container_id: &str) -> ContainerStateTerminated {
        ContainerStateTerminated {
            exit_code: self.code,
            signal: self.signal,
            reason: Some(self.reason.clone()),
            message: Some(self.message.clone()).filter(|message| !message.is_empty()),
            started_at: self.started.map(Time),
            finished_at: Some(Time(self.finished)),
            container_id: Some(container_id.to_owned()).filter(|id| !id.is_empty()),
        }
    }

    fn from_api(end: &ContainerStateTerminated, now: Timestamp) -> Self {
        Self {
            code: end.exit_code,
            signal: end.signal,
            reason: end.reason.clone().unwrap_or_default(),
            message: end.message.clone().unwrap_or_default(),
            started: end.started_at.as_ref().map(|time| time.0),
            finished: end.finished_at.as_ref().map_or(now, |time| time.0),
        }
    }
}

struct Conditions<'a> {
    previous: &'a PodStatus,
    now: Timestamp,
    list: Vec<PodCondition>,
}

impl Conditions<'_> {
    fn push(&mut self, kind: &str, holds: bool, why: Option<(&str, String)>) {
        let status = if holds { "True" } else { "False" };
        let before = self
            .previous
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == kind);
        let since = before
            .filter(|condition| condition.status == status)
            .and_then(|condition| condition.last_transition_time.clone())
            .unwrap_or(Time(self.now));
        let why = why.filter(|_| !holds);
        self.list.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(since),
            reason: why.as_ref().map(|(reason, _)| (*reason).to_owned()),
            message: why.map(|(_, message)| message).filter(|message| !message.is_empty()),
            ..PodCondition::default()
        });
    }

    /// Conditions that others wrote, such as those of readiness gates.
    fn keep_others(&mut self) {
        for condition in self.previous.conditions.iter().flatten() {
            if !self.list.iter().any(|mine| mine.type_ == condition.type_) {
                self.list.push(condition.clone());
            }
        }
    }
}

fn readiness_gates_open(pod: &Pod, previous: &PodStatus) -> bool {
    let holds = |kind: &str| {
        previous
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    gates.into_iter().all(|gate| holds(&gate.condition_type))
}

fn qos_class(pod: &Pod) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
    {
        let resources = container.resources.clone().unwrap_or_default();
        let (limits, requests) = (
            resources.limits.unwrap_or_default(),
            resources.requests.unwrap_or_default(),
        );
        any |= !limits.is_empty() || !requests.is_empty();
        guaranteed &= ["cpu", "memory"].iter().all(|name| {
            limits
                .get(*name)
                .is_some_and(|limit| requests.get(*name).is_none_or(|request| request == limit))
        });
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Why a run ended, as Kubernetes names it.
pub(super) fn end_reason(code: i32) -> &'static str {
    if code == 0 { "Completed" } else { "Error" }
}

/// What to tell about an end that the log explains: an address that is in use.
pub(super) fn address_hint(log: &str, ip: Ipv4Addr) -> Option<String> {
    let lower = log.to_ascii_lowercase();
    let hints = ["address already in use", "address in use", "eaddrinuse", "addrinuse"];
    hints.iter().any(|hint| lower.contains(hint)).then(|| {
        format!(
            "the application could not bind its address because it is in use. In a local region the network is the \
             machine's and each pod has a loopback address of its own: bind POD_IP (here {ip}), not every address"
        )
    })
}

#[cfg(test)]
mod tests;
