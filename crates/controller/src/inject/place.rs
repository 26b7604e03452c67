//! The pod with the gate in it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec};
use leeward_gate::install::PROGRAM;
use serde_json::{Map, Value, json};

use super::{Error, held, wanted::Wanted};

/// The init container that brings the program, and the volume with the Secret.
const GATE: &str = "leeward-gate";
/// The volume that the program is brought in.
const BROUGHT: &str = "leeward-gate-program";
/// Where that is mounted.
const DIRECTORY: &str = "/var/run/leeward/bin";
/// Where the Secret is mounted: the gate's own default.
const SECRET: &str = "/var/run/leeward/gate";
/// The environment that the gate reads, and its arguments name.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("POD_IP", "status.podIP"),
    ("POD_UID", "metadata.uid"),
    ("POD_NAMESPACE", "metadata.namespace"),
];
/// Where ports for liveness probes are looked for.
const PROBES: u16 = 17_445;
/// Whom the init container runs as where the pod says root.
const NOBODY: i64 = 65_532;

/// A pod's template with the gate as the parent of `command` in the writer's container. At the ports `probed` the kubelet asks whether it is alive.
pub(super) fn place(
    template: &Value,
    spec: &PodSpec,
    writer: &Container,
    wanted: &Wanted,
    probed: &BTreeSet<u16>,
    command: Vec<String>,
    image: &str,
) -> Result<Value, Error> {
    free(spec, writer)?;
    let alive = probe_ports(spec, wanted, probed);
    let mut placed = template.clone();
    let pod = object(&mut placed["spec"])?;
    let volumes = list(pod, "volumes")?;
    volumes.push(
        json!({ "name": GATE, "secret": { "secretName": leeward_api::gate_secret(&wanted.app), "optional": false } }),
    );
    volumes.push(json!({ "name": BROUGHT, "emptyDir": {} }));
    list(pod, "initContainers")?.insert(0, init(spec, writer, image));
    let container = list(pod, "containers")?
        .iter_mut()
        .find(|container| container["name"] == writer.name.as_str());
    let container = object(container.ok_or_else(|| Error::NoContainer(writer.name.clone()))?)?;
    container.insert("command".into(), json!([format!("{DIRECTORY}/{PROGRAM}")]));
    container.insert("args".into(), arguments(wanted, &alive, command).into());
    let environment = list(container, "env")?;
    for (name, path) in ENVIRONMENT {
        if !environment.iter().any(|variable| variable["name"] == name) {
            environment.push(json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } }));
        }
    }
    let mounts = list(container, "volumeMounts")?;
    mounts.push(json!({ "name": GATE, "mountPath": SECRET, "readOnly": true }));
    mounts.push(json!({ "name": BROUGHT, "mountPath": DIRECTORY, "readOnly": true }));
    for name in ["livenessProbe", "startupProbe"] {
        let Some(http) = container.get_mut(name).and_then(|probe| probe.get_mut("httpGet")) else {
            continue;
        };
        let port = serde_json::from_value(http["port"].clone()).ok();
        let port = port.and_then(|port| held::number(writer, &port));
        let port = port.and_then(|port| alive.get(&u16::try_from(port).ok()?));
        if let Some((own, _)) = port.filter(|_| http["host"].as_str().unwrap_or_default().is_empty()) {
            http["port"] = json!(own);
        }
    }
    Ok(placed)
}

/// Refuses names that are somebody else's.
fn free(spec: &PodSpec, writer: &Container) -> Result<(), Error> {
    let taken = |what, name: &str| {
        let name = name.to_owned();
        Err(Error::Taken { what, name })
    };
    let before = spec.init_containers.iter().flatten();
    if before.chain(&spec.containers).any(|container| container.name == GATE) {
        return taken("a container", GATE);
    }
    for name in [GATE, BROUGHT] {
        if spec.volumes.iter().flatten().any(|volume| volume.name == name) {
            return taken("a volume", name);
        }
    }
    for path in [SECRET, DIRECTORY] {
        let mut mounts = writer.volume_mounts.iter().flatten();
        if mounts.any(|mount| mount.mount_path.trim_end_matches('/') == path) {
            return taken("a mount at", path);
        }
    }
    for (name, path) in ENVIRONMENT {
        let mut variables = writer.env.iter().flatten().filter(|variable| variable.name == name);
        let field = |variable: &k8s_openapi::api::core::v1::EnvVar| {
            let field = variable.value_from.as_ref()?.field_ref.as_ref()?;
            Some(field.field_path.clone())
        };
        if !variables.all(|variable| field(variable).as_deref() == Some(path)) {
            return taken("an environment variable", name);
        }
    }
    Ok(())
}

/// For each port of the gate at which the kubelet asks whether the writer is alive: the port at which it is to ask instead, and what the gate is
/// told of it.
fn probe_ports(spec: &PodSpec, wanted: &Wanted, probed: &BTreeSet<u16>) -> BTreeMap<u16, (u16, String)> {
    let before = spec.init_containers.iter().flatten();
    let declared = spec
        .containers
        .iter()
        .chain(before)
        .flat_map(|container| container.ports.iter().flatten());
    let declared = declared.map(|port| port.container_port);
    let used: BTreeSet<i32> = wanted
        .ports
        .iter()
        .flat_map(|(listen, port, _)| [i32::from(*listen), i32::from(port.writer.port())])
        .chain(declared)
        .collect();
    let mut free = (PROBES..).filter(|port| !used.contains(&i32::from(*port)));
    let asked = wanted.ports.iter().filter(|(listen, ..)| probed.contains(listen));
    asked
        .filter_map(|(listen, port, _)| {
            let own = free.next()?;
            Some((*listen, (own, format!("live:{own}={}", port.writer))))
        })
        .collect()
}

/// What the gate is told, and then what the writer is.
fn arguments(wanted: &Wanted, alive: &BTreeMap<u16, (u16, String)>, command: Vec<String>) -> Vec<String> {
    let mut arguments = vec![];
    for role in &wanted.roles {
        // The namespace is the pod's, which a template need not say.
        arguments.extend(["--role".to_owned(), format!("$(POD_NAMESPACE)/{}/{role}", wanted.app)]);
    }
    let ports = wanted.ports.iter().map(|(.., text)| text);
    for port in ports.chain(alive.values().map(|(_, text)| text)) {
        arguments.extend(["--port".to_owned(), port.clone()]);
    }
    arguments.push("--".to_owned());
    arguments.extend(command);
    arguments
}

/// The init container. It runs before the writer, and so adds nothing to what the pod asks for while it asks for no more than that.
fn init(spec: &PodSpec, writer: &Container, image: &str) -> Value {
    let mut security = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    let user = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    if user == Some(0) {
        security["runAsUser"] = json!(NOBODY);
    }
    let mut container = json!({
        "name": GATE,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["gate", "--install", DIRECTORY],
        "securityContext": security,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{ "name": BROUGHT, "mountPath": DIRECTORY }],
    });
    let asked = writer.resources.as_ref();
    for (name, amounts) in [
        ("limits", asked.and_then(|asked| asked.limits.as_ref())),
        ("requests", asked.and_then(|asked| asked.requests.as_ref())),
    ] {
        let own = |name: &String| ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str());
        let amounts: BTreeMap<_, _> = amounts.into_iter().flatten().filter(|(name, _)| own(name)).collect();
        if !amounts.is_empty() {
            container["resources"][name] = json!(amounts);
        }
    }
    container
}

fn object(value: &mut Value) -> Result<&mut Map<String, Value>, Error> {
    value
        .as_object_mut()
        .ok_or_else(|| Error::NotAPod("an object is expected".into()))
}

/// A list in an object, made where there is none.
fn list<'a>(object: &'a mut Map<String, Value>, name: &str) -> Result<&'a mut Vec<Value>, Error> {
    let list = object.entry(name).or_insert(Value::Null);
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut()
        .ok_or_else(|| Error::NotAPod(format!("{name} is no list")))
}
