//! What somebody types in the first ten minutes with kubectl, played against two clusters.
//!
//! A session is a YAML file of commands that a person can read. Each is played in a namespace of its own; what is random in
//! the output gets a name ([`text`]), and what a real cluster printed is kept beside the sessions, so that a local region
//! is held to it where there is no real one.

pub mod compare;
pub mod play;
pub mod text;

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Commands that follow each other.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// What it is about: the file's name.
    #[serde(skip)]
    pub name: String,
    /// It needs pods that run, so a cluster with nodes that has the image.
    #[serde(default)]
    pub pods: bool,
    /// The commands.
    pub steps: Vec<Step>,
}

/// One command.
///
/// `{ns}` is the session's namespace, which kubectl uses by itself; `{id}` a word of the session's own for names outside
/// namespaces; `{image}` the image, whose entry point is a shell's `-c`; `{node}` a node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The line, for `sh -c`, in an empty directory that the steps of a session share.
    pub run: String,
    /// What it reads.
    #[serde(default)]
    pub input: String,
    /// A file to write first: its name; `input` is its content then.
    pub file: Option<String>,
    /// The command is repeated until its output, as it is compared, contains this, for a minute at most.
    pub until: Option<String>,
    /// The lines come in no particular order.
    #[serde(default)]
    pub sort: bool,
    /// Lines that are not compared: those that contain one of these.
    #[serde(default)]
    pub without: Vec<String>,
    /// Only lines that contain one of these are compared.
    #[serde(default)]
    pub only: Vec<String>,
    /// Descriptions (lines set in by four spaces that name no type) are compared by their hashes, so that no sentence of
    /// Kubernetes' documentation is kept.
    #[serde(default)]
    pub hashed: bool,
    /// What it prints is not compared, only whether it succeeds.
    #[serde(default)]
    pub quiet: bool,
    /// Why a local region prints something else: an accepted difference.
    pub accepted: Option<String>,
}

/// What a command printed, as it is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The command.
    pub run: String,
    /// The exit code.
    pub code: i32,
    /// The lines on standard output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub out: Vec<String>,
    /// The lines on standard error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub err: Vec<String>,
}

/// Reads every session of a directory, by name.
///
/// # Errors
/// A file cannot be read, or is no session.
pub fn read(directory: &Path) -> Result<Vec<Session>> {
    let mut sessions = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let mut session: Session = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
        session.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        sessions.push(session);
    }
    sessions.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(sessions)
}

/// Reads what a real cluster printed; none where it was not recorded.
///
/// # Errors
/// The file is there and cannot be read.
pub fn recorded(directory: &Path, name: &str) -> Result<Option<Vec<Output>>> {
    let path = directory.join(format!("{name}.json"));
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(
            serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?,
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Keeps what a real cluster printed.
///
/// # Errors
/// The file cannot be written.
pub fn record(directory: &Path, name: &str, outputs: &[Output]) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let text = serde_json::to_string_pretty(outputs)? + "\n";
    Ok(std::fs::write(directory.join(format!("{name}.json")), text)?)
}
