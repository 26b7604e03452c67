//! `leeward inject -f`: manifests with the gate brought into their writers.

use std::{io::Read as _, path::PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use leeward_api::gate::PREFIX;
use leeward_controller::inject::{Outcome, With, manifest};
use serde_json::Value;

use crate::output;

/// `leeward inject`
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Manifests, YAML or JSON; `-` is standard input.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filenames: Vec<PathBuf>,
    /// Leeward's image, as the clusters' nodes pull it.
    #[arg(long, value_name = "IMAGE", env = leeward_api::install::IMAGE_ENV, value_parser = crate::values::name)]
    image: String,
}

/// Prints everything, once all of it could be done.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut out = String::new();
    for file in &arguments.filenames {
        let text = match file.as_os_str() == "-" {
            true => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("standard input")?;
                text
            }
            false => std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
        };
        let done = inject(&text, &arguments.image);
        let done = done.with_context(|| format!("{}: nothing was printed", file.display()))?;
        if !out.is_empty() && !done.starts_with("---") {
            out.push_str("---\n");
        }
        out.push_str(&done);
    }
    output::write(&out)
}

/// A text of manifests with its writers behind their gates. What is not changed stays as it was written, to the letter.
fn inject(text: &str, image: &str) -> anyhow::Result<String> {
    let with = With {
        image,
        entry: &|_| None,
    };
    let mut out = String::new();
    for document in documents(text) {
        match placed(document.content, &with)? {
            Some(object) => {
                out.push_str(document.marker);
                out.push_str(&serde_saphyr::to_string(&object)?);
            }
            None => {
                out.push_str(document.marker);
                out.push_str(document.content);
            }
        }
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
    }
    Ok(out)
}

/// The object of a document behind its gate; none where it stays as it is.
fn placed(content: &str, with: &With<'_>) -> anyhow::Result<Option<Value>> {
    let mut options = serde_saphyr::Options::default();
    // As kubectl reads it: `0644` is a mode.
    options.legacy_octal_numbers = true;
    // Some definitions are long.
    options.budget = None;
    let objects: Vec<Value> = serde_saphyr::from_multiple_with_options(content, options)?;
    let [object] = &objects[..] else {
        // Nothing but comments.
        anyhow::ensure!(!content.contains(PREFIX), "a document has more than one object");
        return Ok(None);
    };
    let outcome = manifest::object(object, with).map_err(|(name, error)| anyhow!("{name}: {error}"))?;
    Ok(match outcome {
        Outcome::Behind(object) => Some(object),
        Outcome::Already | Outcome::NotWanted => None,
    })
}

/// A document of a YAML stream: the line that it begins with, and what is in it.
struct Document<'a> {
    marker: &'a str,
    content: &'a str,
}

/// The documents of a text. `---` at the beginning of a line begins one wherever it is, also within a text of several lines.
fn documents(text: &str) -> Vec<Document<'_>> {
    let (mut found, mut start, mut content, mut at) = (vec![], 0, 0, 0);
    for line in text.split_inclusive('\n') {
        let end = at + line.len();
        if line.strip_prefix("---").is_some_and(|rest| {
            rest.trim_end_matches(['\r', '\n']).trim_start().is_empty() || rest.trim_start().starts_with('#')
        }) {
            found.push((start, content, at));
            (start, content) = (at, end);
        }
        at = end;
    }
    found.push((start, content, at));
    let document = |(start, content, end): (usize, usize, usize)| Document {
        marker: &text[start..content],
        content: &text[content..end],
    };
    let found = found.into_iter().map(document);
    found
        .filter(|document| !document.marker.is_empty() || !document.content.is_empty())
        .collect()
}
