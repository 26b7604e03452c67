//! What a command says on standard output and standard error. A reader that has gone (`| head`) is no error, and nothing panics on a full disk.

use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;

/// Writes text to standard output.
pub(crate) fn write(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output cannot be written; what was asked for is done")
        }
        _ => Ok(()),
    }
}

/// Whether a report can be written to a file, looked at before what it is of is done. The file is left as it was.
pub(crate) fn check_report(file: &Path) -> anyhow::Result<()> {
    let there = file.exists();
    let writable = std::fs::OpenOptions::new().create(true).append(true).open(file);
    writable.with_context(|| format!("the report cannot be written to {}", file.display()))?;
    if !there {
        // It was made to see whether it can be; no report is no file.
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

/// Says something to a person, on standard error. Nobody can be told when that fails.
pub(crate) fn say(text: impl Display) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// The command line is wrong in a way that only looking at it as a whole shows.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Misused(#[from] pub(crate) anyhow::Error);

/// Writes a line to standard output.
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    write(&format!("{text}\n"))
}
