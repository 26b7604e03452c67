//! Why a pod is not brought behind a gate: what is wrong, what it would mean, and what to write.

use leeward_api::gate::{ANNOTATIONS, APP, AROUND, CONTAINER, PORTS, ROLES};

/// Why a pod is not brought behind a gate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The object is not what it says.
    #[error("this is no pod, and no template of one: {0}")]
    NotAPod(String),
    /// A misspelt annotation.
    #[error("there is no annotation {0}: there are {list}", list = ANNOTATIONS.join(", "))]
    Unknown(String),
    /// An annotation that is needed is missing.
    #[error("annotation {annotation} is missing: {meaning}")]
    Missing {
        /// The annotation.
        annotation: &'static str,
        /// What it says, with an example.
        meaning: &'static str,
    },
    /// An annotation's value cannot be read.
    #[error("annotation {annotation}: {value:?} is not {expected}")]
    Value {
        /// The annotation.
        annotation: &'static str,
        /// The part that cannot be read.
        value: String,
        /// What is expected.
        expected: &'static str,
    },
    /// Something is said twice.
    #[error("annotation {annotation}: {value} is there twice")]
    Twice {
        /// The annotation.
        annotation: &'static str,
        /// The value.
        value: String,
    },
    /// The writer would be reached around the gate.
    #[error(
        "annotation {PORTS}: {0} is no address of loopback, so that users would reach the writer around its gate: have it listen on 127.0.0.1, and \
         write the port alone"
    )]
    Reachable(String),
    /// Which container the writer is, is not said.
    #[error("the pod has several containers ({list}): name the writer's in annotation {CONTAINER}", list = .0.join(", "))]
    WhichContainer(Vec<String>),
    /// The named container is not there.
    #[error("annotation {CONTAINER}: the pod has no container {0}")]
    NoContainer(String),
    /// Nobody knows what the gate is to start.
    #[error(
        "container {container} has no command, and what image {image:?} runs is not known here: set command (and args) to what its image has as \
         Entrypoint (and Cmd)"
    )]
    NoCommand {
        /// The container.
        container: String,
        /// Its image.
        image: String,
    },
    /// The pod uses its node's network.
    #[error(
        "the pod has hostNetwork: everything on its node reaches the writer around its gate; leave hostNetwork out"
    )]
    HostNetwork,
    /// The gate would not be the first process.
    #[error("the pod has {0}: what the writer starts would live on when its gate is killed; leave {0} out")]
    SharedProcesses(&'static str),
    /// Not Linux.
    #[error("the pod is for {0}: the gate is a program for linux")]
    System(String),
    /// A port around the gate.
    #[error(
        "port {port} of container {container} is around the gate: users would be answered there without the right to. Add it to annotation {PORTS}, \
         or where it answers nothing that the writer wrote, such as metrics, to {AROUND}"
    )]
    PortAround {
        /// The container.
        container: String,
        /// The port.
        port: i32,
    },
    /// A port that no gate can hold.
    #[error(
        "port {port} of container {container} is for {protocol}, and a gate holds TCP only: leave it out, or where it answers nothing that the writer \
         wrote add {port} to annotation {AROUND}"
    )]
    Datagrams {
        /// The container.
        container: String,
        /// The port.
        port: i32,
        /// What it speaks.
        protocol: String,
    },
    /// Another container writes the same data.
    #[error(
        "container {container} mounts volume {volume} of the writer, and no gate ends it: mount it with readOnly: true, or where what it writes is \
         not the application's data add {container} to annotation {AROUND}"
    )]
    SharedVolume {
        /// The container.
        container: String,
        /// The volume.
        volume: String,
    },
    /// A hook runs outside of the gate.
    #[error(
        "container {0} has lifecycle.postStart, which runs before the gate lets the writer start: do it in the writer's own command, or in an init \
         container"
    )]
    PostStart(String),
    /// A probe would end a gate that waits.
    #[error(
        "{probe} of container {container}: {why}. While its region may not write there is no writer, and the kubelet would start the container anew \
         over and over, more and more slowly: use httpGet on a port of annotation {PORTS}, which is answered for a writer that is held, or tcpSocket, \
         or leave the probe out"
    )]
    Probe {
        /// The container.
        container: String,
        /// Which probe.
        probe: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A probe would find a gate that waits ready.
    #[error(
        "readinessProbe of container {0}: tcpSocket finds a gate ready that lets nobody in; use httpGet on the same port, which is answered 503 then, \
         or exec, which fails while there is no writer"
    )]
    ReadyTcp(String),
    /// A name that the gate needs is somebody else's.
    #[error(
        "the pod has {what} {name} of its own, which the gate needs: give it another name. If it is of a gate, bring that in from what it was made of"
    )]
    Taken {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A rollout would wait for ever.
    #[error(
        "its new pod would wait for the old one's gate, and the old one for the new one to be ready: set strategy.type to Recreate, or \
         strategy.rollingUpdate.maxSurge to 0"
    )]
    Surge,
    /// An object that Leeward does not move.
    #[error(
        "a {0} is not moved to other regions, and so has no gate: write a Deployment, a StatefulSet or a Pod, or take the annotations away"
    )]
    Kind(String),
    /// The annotations are not where they are looked at.
    #[error(
        "the annotations are on the {0} itself: write them under spec.template.metadata.annotations, where its pods get them"
    )]
    Misplaced(String),
}

impl Error {
    pub(super) const NO_APP: Self = Self::Missing {
        annotation: APP,
        meaning: "the name of the ProtectedApp, such as shop",
    };
    pub(super) const NO_ROLES: Self = Self::Missing {
        annotation: ROLES,
        meaning: "the roles that the writer writes in, such as data",
    };
    pub(super) const NO_PORTS: Self = Self::Missing {
        annotation: PORTS,
        meaning: "the ports that users reach, and where the writer listens, such as http:8080=8081",
    };
}
