//! What a container is to run, from its pod, its image and what the pod refers to. Pure.
//!
//! Order of the environment, later over earlier: the image's, `POD_IP`, `envFrom`, `env`. `$(NAME)` is expanded in `env`,
//! `command` and `args` with what came before, `$$` is a dollar, and an unknown name is left as it stands, as in Kubernetes.

mod expand;
mod field;
mod user;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, EnvVar, Pod, Secret};

use super::image;
use crate::container::{Mount, Process};

pub(super) use expand::expand;
pub(super) use field::value as field_value;

/// Why a container cannot be configured yet: `CreateContainerConfigError`, tried again until it can.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Error {
    /// An object that the pod refers to does not exist.
    #[error("{kind} {name:?} not found")]
    NoObject {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The object exists and lacks the key.
    #[error("{kind} {name:?} has no key {key:?}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The object.
        name: String,
        /// The key.
        key: String,
    },
    /// A value that is no text cannot be in the environment.
    #[error("the value of key {key:?} of {name:?} is not UTF-8, so it cannot be in the environment")]
    NotText {
        /// The object.
        name: String,
        /// The key.
        key: String,
    },
    /// A field that the downward API does not have.
    #[error("the field {0:?} is not supported by the downward API of a local region")]
    Field(String),
    /// A user that the image does not know.
    #[error("the image has no user or group {0:?}")]
    User(String),
    /// securityContext.runAsNonRoot, and the user is root.
    #[error("runAsNonRoot is set and the container would run as root; set runAsUser or an image user")]
    Root,
    /// A mount of a volume that the pod does not have.
    #[error("the pod has no volume {0:?}")]
    Volume(String),
}

/// The objects that a pod refers to; absent ones are not in the maps.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    /// By name, of the pod's namespace.
    pub(super) config_maps: BTreeMap<String, ConfigMap>,
    /// By name, of the pod's namespace.
    pub(super) secrets: BTreeMap<String, Secret>,
}

/// A volume that is ready to be mounted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Volume {
    /// On this machine.
    pub(super) path: PathBuf,
    /// Whether the volume itself may not be written to.
    pub(super) read_only: bool,
}

/// What is known about the pod's place.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) pod_ip: Ipv4Addr,
    pub(super) host_ip: Ipv4Addr,
    pub(super) node: String,
}

/// Everything that [`plan`] looks at.
pub(super) struct Inputs<'a> {
    pub(super) pod: &'a Pod,
    pub(super) container: &'a Container,
    pub(super) image: &'a image::Config,
    /// The image's /etc/passwd and /etc/group; empty where it has none.
    pub(super) passwd: &'a str,
    pub(super) group: &'a str,
    pub(super) sources: &'a Sources,
    pub(super) volumes: &'a BTreeMap<String, Volume>,
    pub(super) place: &'a Place,
}

/// What to run.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Planned {
    pub(super) process: Process,
    pub(super) mounts: Vec<Mount>,
    pub(super) read_only_root: bool,
}

/// Where programs are looked for when neither image nor pod says so.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Plans one container.
///
/// # Errors
/// What is missing; a later try may succeed.
pub(super) fn plan(inputs: &Inputs<'_>) -> Result<Planned, Error> {
    let declared = environment(inputs)?;
    let expand_all = |texts: &[String]| texts.iter().map(|text| expand(text, &declared)).collect::<Vec<_>>();
    let command = inputs.container.command.as_deref().unwrap_or_default();
    let arguments = inputs.container.args.as_deref().unwrap_or_default();
    // As in Kubernetes: a command in the pod makes the image's default arguments meaningless.
    let mut args = if command.is_empty() {
        inputs.image.entrypoint.clone()
    } else {
        expand_all(command)
    };
    match (arguments.is_empty(), command.is_empty()) {
        (false, _) => args.extend(expand_all(arguments)),
        (true, true) => args.extend(inputs.image.cmd.iter().cloned()),
        (true, false) => {}
    }
    let mut env = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
    for pair in &inputs.image.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        env.insert(name.to_owned(), value.to_owned());
    }
    let hostname = hostname(inputs.pod);
    env.insert("HOSTNAME".to_owned(), hostname);
    env.extend(declared.clone());
    let security = inputs.container.security_context.as_ref();
    let (uid, gid) = user::resolve(inputs)?;
    let cwd = match inputs.container.working_dir.as_deref().filter(|dir| !dir.is_empty()) {
        Some(dir) => dir,
        None if inputs.image.working_dir.is_empty() => "/",
        None => &inputs.image.working_dir,
    };
    Ok(Planned {
        process: Process {
            args,
            env: env.into_iter().collect(),
            cwd: cwd.to_owned(),
            uid,
            gid,
        },
        mounts: mounts(inputs, &declared)?,
        read_only_root: security
            .and_then(|context| context.read_only_root_filesystem)
            .unwrap_or(false),
    })
}

/// The host name of a pod: at most 63 characters, as a host name is.
pub(super) fn hostname(pod: &Pod) -> String {
    let declared = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.hostname.clone())
        .filter(|name| !name.is_empty());
    let name = declared.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.chars()
        .take(63)
        .collect::<String>()
        .trim_end_matches(['-', '.'])
        .to_owned()
}

fn environment(inputs: &Inputs<'_>) -> Result<BTreeMap<String, String>, Error> {
    let mut env = BTreeMap::from([("POD_IP".to_owned(), inputs.place.pod_ip.to_string())]);
    for source in inputs.container.env_from.as_deref().unwrap_or_default() {
        env.extend(from_source(source, inputs.sources)?);
    }
    for variable in inputs.container.env.as_deref().unwrap_or_default() {
        if let Some(value) = variable_value(variable, inputs, &env)? {
            env.insert(variable.name.clone(), value);
        }
    }
    Ok(env)
}

fn from_source(source: &EnvFromSource, sources: &Sources) -> Result<BTreeMap<String, String>, Error> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let (kind, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
        (Some(reference), _) => ("ConfigMap", &reference.name, reference.optional),
        (None, Some(reference)) => ("Secret", &reference.name, reference.optional),
        (None, None) => return Ok(BTreeMap::new()),
    };
    let Some(object) = sources.keys(kind, name) else {
        let missing = Error::NoObject {
            kind,
            name: name.clone(),
        };
        return if optional.unwrap_or(false) {
            Ok(BTreeMap::new())
        } else {
            Err(missing)
        };
    };
    // Kubernetes leaves out what cannot be a variable, rather than failing the pod.
    let fits = |key: &str| !key.is_empty() && !key.contains('=');
    Ok(object
        .into_iter()
        .filter(|(key, _)| fits(key))
        .filter_map(|(key, value)| Some((format!("{prefix}{key}"), String::from_utf8(value).ok()?)))
        .collect())
}

fn variable_value(
    variable: &EnvVar,
    inputs: &Inputs<'_>,
    before: &BTreeMap<String, String>,
) -> Result<Option<String>, Error> {
    let Some(source) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), before)));
    };
    if let Some(reference) = &source.config_map_key_ref {
        return inputs
            .sources
            .key("ConfigMap", &reference.name, &reference.key, reference.optional);
    }
    if let Some(reference) = &source.secret_key_ref {
        return inputs
            .sources
            .key("Secret", &reference.name, &reference.key, reference.optional);
    }
    if let Some(reference) = &source.field_ref {
        return field_value(&reference.field_path, inputs.pod, inputs.place).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return Ok(Some(field::resource(reference, inputs.pod, inputs.container)));
    }
    Ok(None)
}

impl Sources {
    /// All keys of an object; none when it does not exist.
    pub(super) fn keys(&self, kind: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        if kind == "Secret" {
            let data = self.secrets.get(name)?.data.clone().unwrap_or_default();
            return Some(data.into_iter().map(|(key, value)| (key, value.0)).collect());
        }
        let object = self.config_maps.get(name)?;
        let text = object
            .data
            .clone()
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, value.into_bytes()));
        let binary = object
            .binary_data
            .clone()
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, value.0));
        Some(text.chain(binary).collect())
    }

    fn key(&self, kind: &'static str, name: &str, key: &str, optional: Option<bool>) -> Result<Option<String>, Error> {
        let value = match self.keys(kind, name) {
            None => Err(Error::NoObject {
                kind,
                name: name.to_owned(),
            }),
            Some(mut keys) => keys.remove(key).ok_or_else(|| Error::NoKey {
                kind,
                name: name.to_owned(),
                key: key.to_owned(),
            }),
        };
        match value {
            Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| Error::NotText {
                name: name.to_owned(),
                key: key.to_owned(),
            }),
            Err(_) if optional.unwrap_or(false) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn mounts(inputs: &Inputs<'_>, env: &BTreeMap<String, String>) -> Result<Vec<Mount>, Error> {
    let mut mounts = Vec::new();
    for mount in inputs.container.volume_mounts.as_deref().unwrap_or_default() {
        let volume = inputs
            .volumes
            .get(&mount.name)
            .ok_or_else(|| Error::Volume(mount.name.clone()))?;
        let expanded = mount.sub_path_expr.as_deref().map(|text| expand(text, env));
        mounts.push(Mount {
            source: volume.path.clone(),
            sub_path: expanded
                .or_else(|| mount.sub_path.clone())
                .filter(|path| !path.is_empty()),
            target: PathBuf::from(&mount.mount_path),
            read_only: volume.read_only || mount.read_only.unwrap_or(false),
        });
    }
    // A mount below another has to come after it.
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

/// The names of ConfigMaps and Secrets that a pod refers to anywhere.
pub(super) fn references(pod: &Pod) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    let Some(spec) = &pod.spec else { return (maps, secrets) };
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        for source in container.env_from.iter().flatten() {
            maps.extend(source.config_map_ref.as_ref().map(|reference| reference.name.clone()));
            secrets.extend(source.secret_ref.as_ref().map(|reference| reference.name.clone()));
        }
        for source in container
            .env
            .iter()
            .flatten()
            .filter_map(|variable| variable.value_from.as_ref())
        {
            maps.extend(
                source
                    .config_map_key_ref
                    .as_ref()
                    .map(|reference| reference.name.clone()),
            );
            secrets.extend(source.secret_key_ref.as_ref().map(|reference| reference.name.clone()));
        }
    }
    for volume in spec.volumes.iter().flatten() {
        maps.extend(volume.config_map.as_ref().map(|source| source.name.clone()));
        secrets.extend(volume.secret.as_ref().and_then(|source| source.secret_name.clone()));
        for source in volume
            .projected
            .iter()
            .flat_map(|projected| projected.sources.iter().flatten())
        {
            maps.extend(source.config_map.as_ref().map(|source| source.name.clone()));
            secrets.extend(source.secret.as_ref().map(|source| source.name.clone()));
        }
    }
    for names in [&mut maps, &mut secrets] {
        names.sort();
        names.dedup();
    }
    (maps, secrets)
}

#[cfg(test)]
mod tests;
