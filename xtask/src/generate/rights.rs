//! The reference page of what an agent may do in its cluster, made from the table that tests grant by.

use std::fmt::Write as _;

use anyhow::Result;
use leeward_api::access::RULES;

/// The page.
pub(super) fn page() -> Result<String> {
    let mut page = String::from(
        "<!-- Made by `cargo xtask generate` from crates/api/src/access.rs: change it there. -->\n# What an agent may do in its cluster\n\n\
         These rights, in every namespace of its own cluster, and none in any other cluster. \
         A local region does not enforce rights.\n\n\
         | group | resources | verbs | what for |\n|---|---|---|---|\n",
    );
    for rule in RULES {
        let group = if rule.group.is_empty() { "core" } else { rule.group };
        let list = |words: &[&str]| {
            words
                .iter()
                .map(|word| format!("`{word}`"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        writeln!(
            page,
            "| {group} | {} | {} | {} |",
            list(rule.resources),
            list(rule.verbs),
            rule.reason
        )?;
    }
    Ok(page)
}
