//! What a gate cannot hold in a pod. Each of these is refused: a pod that looks as if it were behind a gate would be taken for one that is.
//!
//! What cannot be seen in a pod is in `docs/reference/gate-annotations.md`: a writer that listens on other addresses than it is said to, what is
//! run in its container by hand, and containers that are added to the running pod.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, PodSpec, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Error, wanted::Wanted};

/// Refuses what cannot be held. Returns the ports of the gate at which the kubelet asks whether the writer is alive, over HTTP.
pub(super) fn check(spec: &PodSpec, writer: &Container, wanted: &Wanted) -> Result<BTreeSet<u16>, Error> {
    if spec.host_network == Some(true) {
        return Err(Error::HostNetwork);
    }
    for (set, name) in [
        (spec.share_process_namespace, "shareProcessNamespace"),
        (spec.host_pid, "hostPID"),
    ] {
        if set == Some(true) {
            return Err(Error::SharedProcesses(name));
        }
    }
    if let Some(os) = spec.os.as_ref().filter(|os| os.name != "linux") {
        return Err(Error::System(os.name.clone()));
    }
    let hooks = writer.lifecycle.as_ref();
    if hooks.is_some_and(|hooks| hooks.post_start.is_some()) {
        return Err(Error::PostStart(writer.name.clone()));
    }
    for container in &spec.containers {
        ports(container, container.name == writer.name, wanted)?;
    }
    let before = spec.init_containers.iter().flatten();
    // One that goes on beside the others.
    for container in before.clone().filter(|c| c.restart_policy.as_deref() == Some("Always")) {
        ports(container, false, wanted)?;
    }
    for container in spec.containers.iter().chain(before) {
        if container.name != writer.name && !wanted.leaves(&container.name) {
            volumes(spec, writer, container)?;
        }
    }
    probes(writer, wanted)
}

fn ports(container: &Container, is_writer: bool, wanted: &Wanted) -> Result<(), Error> {
    if !is_writer && wanted.leaves(&container.name) {
        return Ok(());
    }
    let left = |port: &&ContainerPort| !wanted.leaves(port.container_port);
    for port in container.ports.iter().flatten().filter(left) {
        let (container, number) = (container.name.clone(), port.container_port);
        match port.protocol.as_deref() {
            None | Some("TCP") if is_writer && wanted.listens_at(number) => {}
            None | Some("TCP") => {
                return Err(Error::PortAround {
                    container,
                    port: number,
                });
            }
            Some(protocol) => {
                return Err(Error::Datagrams {
                    container,
                    port: number,
                    protocol: protocol.to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// Refuses another container that writes what the writer does.
fn volumes(spec: &PodSpec, writer: &Container, other: &Container) -> Result<(), Error> {
    let is_data = |name: &str| {
        let mut all = spec.volumes.iter().flatten();
        // In the template of a StatefulSet the claims' volumes are not among them.
        all.find(|volume| volume.name == name).is_none_or(|volume| {
            let of_pod = volume.empty_dir.is_some() || volume.downward_api.is_some() || volume.image.is_some();
            !of_pod && volume.config_map.is_none() && volume.secret.is_none() && volume.projected.is_none()
        })
    };
    let mounted = |container: &Container| -> BTreeSet<String> {
        let mounts = container.volume_mounts.iter().flatten();
        let written = mounts
            .filter(|mount| mount.read_only != Some(true))
            .map(|mount| &mount.name);
        let devices = container.volume_devices.iter().flatten().map(|device| &device.name);
        written.chain(devices).filter(|name| is_data(name)).cloned().collect()
    };
    match mounted(writer).intersection(&mounted(other)).next() {
        Some(volume) => Err(Error::SharedVolume {
            container: other.name.clone(),
            volume: volume.clone(),
        }),
        None => Ok(()),
    }
}

fn probes(writer: &Container, wanted: &Wanted) -> Result<BTreeSet<u16>, Error> {
    let mut asked = BTreeSet::new();
    let both = [
        ("livenessProbe", &writer.liveness_probe),
        ("startupProbe", &writer.startup_probe),
    ];
    for (name, probe) in both {
        let Some(probe) = probe else { continue };
        let found = alive(writer, probe, wanted).map_err(|why| Error::Probe {
            container: writer.name.clone(),
            probe: name,
            why,
        })?;
        asked.extend(found);
    }
    let ready = writer
        .readiness_probe
        .as_ref()
        .and_then(|probe| probe.tcp_socket.as_ref());
    let ready = ready.and_then(|socket| number(writer, &socket.port));
    match ready.is_some_and(|port| wanted.listens_at(port)) {
        true => Err(Error::ReadyTcp(writer.name.clone())),
        false => Ok(asked),
    }
}

/// The port of the gate at which this probe asks, over HTTP.
fn alive(writer: &Container, probe: &Probe, wanted: &Wanted) -> Result<Option<u16>, String> {
    let gate = |port: &IntOrString| {
        let found = number(writer, port).filter(|port| wanted.listens_at(*port));
        let found = found.and_then(|port| u16::try_from(port).ok());
        found.ok_or_else(|| match port {
            IntOrString::Int(port) => format!("port {port} is not of the gate"),
            IntOrString::String(port) => format!("port {port} is not of the gate"),
        })
    };
    if probe.exec.is_some() {
        return Err("exec needs a writer that runs".into());
    }
    if probe.grpc.is_some() {
        return Err("grpc needs a writer that answers".into());
    }
    if let Some(http) = &probe.http_get {
        return match (&http.host, http.scheme.as_deref()) {
            // Somebody else is asked.
            (Some(host), _) if !host.is_empty() => Ok(None),
            (_, Some("HTTPS")) => {
                Err("the gate cannot answer httpGet with scheme HTTPS for a writer that is held".into())
            }
            _ => gate(&http.port).map(Some),
        };
    }
    match &probe.tcp_socket {
        Some(socket) if socket.host.as_deref().unwrap_or_default().is_empty() => gate(&socket.port).map(|_| None),
        _ => Ok(None),
    }
}

/// The number of a port that a probe names.
pub(super) fn number(container: &Container, port: &IntOrString) -> Option<i32> {
    match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port)
        }
    }
}
