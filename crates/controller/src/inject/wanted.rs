//! What is wanted, as annotations say it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec};
use leeward_api::gate::{ANNOTATIONS, APP, AROUND, CONTAINER, PORTS, PREFIX, ROLES};
use leeward_gate::settings::{Listen, Port};

use super::Error;

/// What is wanted of a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The application.
    pub app: String,
    /// Its roles that the writer writes in.
    pub roles: Vec<String>,
    /// The ports: which of the pod's, and what the gate is told.
    pub ports: Vec<(u16, Port, String)>,
    /// The writer's container.
    pub container: Option<String>,
    /// Numbers of ports and names of containers that are left alone.
    pub around: BTreeSet<String>,
}

impl Wanted {
    /// Reads them; none where no annotation is of a gate.
    ///
    /// # Errors
    /// When something is missing, misspelt or makes no sense.
    pub fn read(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, Error> {
        let ours: BTreeMap<&str, &str> = annotations
            .iter()
            .filter(|(key, _)| key.starts_with(PREFIX))
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        if ours.is_empty() {
            return Ok(None);
        }
        if let Some(unknown) = ours.keys().find(|key| !ANNOTATIONS.contains(key)) {
            return Err(Error::Unknown((*unknown).to_owned()));
        }
        let app = ours.get(APP).ok_or(Error::NO_APP)?.trim();
        Ok(Some(Self {
            app: name(APP, app)?,
            roles: list(ROLES, ours.get(ROLES).ok_or(Error::NO_ROLES)?, name)?,
            ports: ports(ours.get(PORTS).ok_or(Error::NO_PORTS)?)?,
            container: ours
                .get(CONTAINER)
                .map(|text| name(CONTAINER, text.trim()))
                .transpose()?,
            around: match ours.get(AROUND) {
                Some(text) => list(AROUND, text, name)?.into_iter().collect(),
                None => BTreeSet::new(),
            },
        }))
    }

    /// The writer's container.
    ///
    /// # Errors
    /// When it is not there, or it is not said which one it is.
    pub fn writer<'a>(&self, spec: &'a PodSpec) -> Result<&'a Container, Error> {
        match (&self.container, &spec.containers[..]) {
            (Some(name), all) => {
                let mut all = all.iter();
                let found = all.find(|container| container.name == *name);
                found.ok_or_else(|| Error::NoContainer(name.clone()))
            }
            (None, [only]) => Ok(only),
            (None, all) => Err(Error::WhichContainer(
                all.iter().map(|container| container.name.clone()).collect(),
            )),
        }
    }

    /// Whether the gate listens at this port.
    pub(super) fn listens_at(&self, port: i32) -> bool {
        self.ports.iter().any(|(listen, ..)| i32::from(*listen) == port)
    }

    /// Whether a port or a container is left alone.
    pub(super) fn leaves(&self, name: impl ToString) -> bool {
        self.around.contains(&name.to_string())
    }
}

/// A name as Kubernetes has them; with it nothing can be said to the gate but a name.
fn name(annotation: &'static str, text: &str) -> Result<String, Error> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    match !text.is_empty() && text.len() <= 253 && text.chars().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err(Error::Value {
            annotation,
            value: text.to_owned(),
            expected: "a name: small letters, digits, hyphens and dots",
        }),
    }
}

/// The parts between commas, each once.
fn list<T>(
    annotation: &'static str,
    text: &str,
    read: impl Fn(&'static str, &str) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut seen = BTreeSet::new();
    let each = text.split(',').map(str::trim).map(|part| {
        if !part.is_empty() && !seen.insert(part) {
            let value = part.to_owned();
            return Err(Error::Twice { annotation, value });
        }
        read(annotation, part)
    });
    each.collect()
}

fn ports(text: &str) -> Result<Vec<(u16, Port, String)>, Error> {
    let found = list(PORTS, text, |annotation, part| {
        let wrong = || Error::Value {
            annotation,
            value: part.to_owned(),
            expected: "[http|tcp:]PORT=WRITER, such as http:8080=8081: the port that users reach, and the one of 127.0.0.1 that the writer has",
        };
        let port: Port = part.parse().map_err(|_| wrong())?;
        let Listen::Pod(listen) = port.listen else {
            return Err(wrong());
        };
        match port.writer.ip().is_loopback() {
            true => Ok((listen.get(), port, part.to_owned())),
            false => Err(Error::Reachable(port.writer.to_string())),
        }
    })?;
    let mut seen = BTreeSet::new();
    match found.iter().find(|(listen, ..)| !seen.insert(*listen)) {
        Some((listen, ..)) => Err(Error::Twice {
            annotation: PORTS,
            value: format!("port {listen}"),
        }),
        None => Ok(found),
    }
}
