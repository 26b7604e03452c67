//! The answers of a real API server, kept beside the cases, so that a local region is held to them everywhere.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::case::{Case, Step};
use crate::difference::compared;
use crate::play::Answer;

/// One answer, with what is random named and what is not compared left out.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// The HTTP status code.
    pub status: u16,
    /// The texts of the `Warning` headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What the step compares of the body.
    pub body: Value,
}

impl Recorded {
    fn of(step: &Step, answer: &Answer) -> Self {
        Self {
            status: answer.status,
            warnings: answer.warnings.clone(),
            body: compared(step, &answer.body),
        }
    }
}

/// The answers to the cases of one file, by the cases' names.
pub type File = BTreeMap<String, Vec<Recorded>>;

/// What is kept of a case's answers.
#[must_use]
pub fn record(case: &Case, answers: &[Answer]) -> Vec<Recorded> {
    case.steps
        .iter()
        .zip(answers)
        .map(|(step, answer)| Recorded::of(step, answer))
        .collect()
}

/// Reads the answers to the cases of the file `stem`; none where none were recorded.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read(directory: &Path, stem: &str) -> Result<File> {
    let path = directory.join(format!("{stem}.json"));
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(File::new()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Writes them, one answer a line.
///
/// # Errors
/// The file cannot be written.
pub fn write(directory: &Path, stem: &str, file: &File) -> Result<()> {
    let mut text = String::from("{\n");
    for (index, (case, answers)) in file.iter().enumerate() {
        let answers: Vec<String> = answers.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let end = if index + 1 == file.len() { "" } else { "," };
        text += &format!(
            "{}: [\n  {}\n]{end}\n",
            serde_json::to_string(case)?,
            answers.join(",\n  ")
        );
    }
    text += "}\n";
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!("{stem}.json"));
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}
