//! The reference page of the built-in kinds of a local region's API, read from its tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};

const KINDS: &str = include_str!("../../../crates/local/src/machinery/kinds/builtin.txt");
const ACTING: &str = include_str!("../../../crates/local/src/machinery/kinds/acting.txt");

const INTRODUCTION: &str = "\
A local region's API stores every stable built-in kind of Kubernetes 1.36 with its defaults, and refuses what is not of the kind's \
form. Of the kinds below that something acts on, specifications are validated as Kubernetes does; of the others at least types and names \
of fields. Custom kinds come from their CustomResourceDefinitions.

Where a real cluster would act on an object and a local region does not, an event with the reason `NotActedOn` says so once when the object \
is created (for an object outside of namespaces in the namespace `default`): `kubectl get events --field-selector reason=NotActedOn`.

The scheduler looks at requests of cpu and memory, the number of pods, node selectors, required node affinity, taints and cordons; \
it spreads the pods of one owner. It does not look at affinity between pods, topology spread, priorities, host ports and preferences. \
A node is not ready 2 s after its last renewal, not 40 s; if its process is gone, its pods are removed 2 s later; if it only hangs, they get \
their end after 300 s, as in a real cluster.
";

/// The page.
pub(super) fn page() -> Result<String> {
    let mut acting = BTreeMap::new();
    for line in ACTING.lines().filter(|line| !line.starts_with('#')) {
        let mut parts = line.splitn(3, ' ');
        let row = (parts.next(), parts.next(), parts.next());
        let (Some(kind), Some(word), Some(text)) = row else {
            anyhow::bail!("acting.txt: no row: {line}");
        };
        acting.insert(kind, (word, text));
    }
    let mut page = format!(
        "<!-- Made by `cargo xtask generate` from crates/local/src/machinery/kinds: change it there. -->\n# Kinds of a local \
         region\n\n{INTRODUCTION}"
    );
    for line in KINDS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some(version) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            write!(page, "\n## {version}\n\n| kind | acted on | what |\n|---|---|---|\n")?;
            continue;
        }
        let kind = line
            .split_whitespace()
            .nth(1)
            .context("builtin.txt: a row without a kind")?;
        let (word, text) = acting
            .get(kind)
            .with_context(|| format!("acting.txt has no row for {kind}"))?;
        let word = match *word {
            "acts" => "yes",
            "stored" => "no need",
            _ => "**no**",
        };
        writeln!(page, "| {kind} | {word} | {text} |")?;
    }
    Ok(page)
}
