//! Brings the gate into writer pods: a pure transformation of a pod, or of the template of a Deployment's or StatefulSet's.
//!
//! What is wanted stands in annotations ([`leeward_api::gate`]), so that `leeward inject` ([`manifest`]) and the webhook ([`webhook`]) do the
//! same. Flow: [`wanted`] reads the annotations; `held` refuses what a gate cannot hold, so that nobody believes in a gate that is none;
//! `place` makes the pod that runs the writer behind it.
//!
//! Invariants:
//! - a pod comes out whole or with an error that says what to write, never with half of a gate;
//! - one that has its gate comes out as it went in, so that being brought in twice is being brought in once;
//! - nothing is asked for besides what the writer asks for: the init container has the writer's requests and limits, and needs no rights.

pub mod error;
mod held;
pub mod manifest;
mod place;
pub mod wanted;
pub mod webhook;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use leeward_gate::install::PROGRAM;
use leeward_images::entry::Entry;
use serde_json::Value;

pub use error::Error;
use wanted::Wanted;

/// What a pod is brought behind its gate with.
pub struct With<'a> {
    /// Leeward's image, as the nodes pull it. Its entry point is `leeward`, or `leeward-gate`.
    pub image: &'a str,
    /// What an image runs where a container names no command; none where nobody knows.
    pub entry: &'a dyn Fn(&str) -> Option<Entry>,
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Nobody asked for a gate.
    NotWanted,
    /// Its writer is started by a gate already.
    Already,
    /// This is the pod behind its gate.
    Behind(Value),
}

/// A pod, or the template of one, behind its gate.
///
/// # Errors
/// When what is wanted cannot be read, or cannot be held.
pub fn behind(template: &Value, with: &With<'_>) -> Result<Outcome, Error> {
    let annotations: Option<BTreeMap<String, String>> = read(&template["metadata"]["annotations"], "annotations")?;
    let Some(wanted) = Wanted::read(&annotations.unwrap_or_default())? else {
        return Ok(Outcome::NotWanted);
    };
    let spec: PodSpec = read(&template["spec"], "spec")?.ok_or(Error::NotAPod("it has no spec".into()))?;
    if spec.containers.iter().any(is_gate) {
        return Ok(Outcome::Already);
    }
    let writer = wanted.writer(&spec)?;
    let probed = held::check(&spec, writer, &wanted)?;
    let command = command(writer, with)?;
    place::place(template, &spec, writer, &wanted, &probed, command, with.image).map(Outcome::Behind)
}

fn read<T: serde::de::DeserializeOwned>(value: &Value, what: &str) -> Result<Option<T>, Error> {
    serde_json::from_value(value.clone()).map_err(|error| Error::NotAPod(format!("its {what}: {error}")))
}

/// Whether a container is started by a gate, brought in here or written by hand.
fn is_gate(container: &Container) -> bool {
    let command = container.command.as_deref().unwrap_or_default();
    let name = |program: &str| program.rsplit('/').next().unwrap_or_default().to_owned();
    match command {
        [program, ..] if name(program) == PROGRAM => true,
        [program, first, ..] => name(program) == "leeward" && first == "gate",
        _ => false,
    }
}

/// What the writer's container would run: its command and arguments, or those of its image where they are not set.
fn command(writer: &Container, with: &With<'_>) -> Result<Vec<String>, Error> {
    let own = writer.command.clone().unwrap_or_default();
    let arguments = writer.args.clone().unwrap_or_default();
    if !own.is_empty() {
        return Ok([own, arguments].concat());
    }
    let image = writer.image.as_deref().unwrap_or_default();
    let missing = || Error::NoCommand {
        container: writer.name.clone(),
        image: image.to_owned(),
    };
    let entry = (with.entry)(image).ok_or_else(missing)?;
    // Kubernetes replaces $(NAME) in what a pod says, and not in what an image says.
    let plain = |words: Vec<String>| words.into_iter().map(|word| word.replace('$', "$$"));
    let mut command: Vec<String> = plain(entry.entrypoint).collect();
    match arguments.is_empty() {
        true => command.extend(plain(entry.cmd)),
        false => command.extend(arguments),
    }
    match command.is_empty() {
        true => Err(missing()),
        false => Ok(command),
    }
}

#[cfg(test)]
mod tests;
