//! The Markdown pages: every link to a file of this repository leads somewhere, and every whole resource in an example is one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use leeward_api::{Cluster, Operation, ProtectedApp};
use serde_json::Value;

use crate::workspace::Workspace;

/// Checks every page.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut pages = Vec::new();
    find(workspace.root(), &mut pages, false)?;
    find(&workspace.root().join("docs"), &mut pages, true)?;
    ensure!(pages.len() > 5, "the pages were not found");
    let mut wrong = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
        let name = page.strip_prefix(workspace.root()).unwrap_or(&page).display();
        let directory = page.parent().unwrap_or(workspace.root());
        let lost = links(&text).into_iter().filter(|link| !directory.join(link).exists());
        wrong.extend(lost.map(|link| format!("{name}: {link} leads nowhere")));
        let bad = examples(&text)
            .into_iter()
            .filter_map(|example| resource(example).err());
        wrong.extend(bad.map(|error| format!("{name}: {error:#}")));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn find(directory: &Path, pages: &mut Vec<PathBuf>, deep: bool) -> Result<()> {
    for entry in std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let path = entry?.path();
        if deep && path.is_dir() {
            find(&path, pages, deep)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    Ok(())
}

/// The files that a page links to, without what is on other machines, without anchors, and without what looks like a link in code.
fn links(text: &str) -> Vec<String> {
    let prose: String = text.split('`').step_by(2).collect();
    let targets = prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target);
    let files = targets
        .filter(|target| !target.contains("://"))
        .filter_map(|target| target.split('#').next());
    files.filter(|file| !file.is_empty()).map(ToOwned::to_owned).collect()
}

/// The YAML examples of a page that are whole resources of Leeward.
fn examples(text: &str) -> Vec<&str> {
    let blocks = text
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .map(|(block, _)| block);
    blocks
        .filter(|block| block.starts_with("apiVersion: leeward.dev/"))
        .collect()
}

fn resource(example: &str) -> Result<()> {
    let value: Value = serde_saphyr::from_str(example).context("an example is no YAML")?;
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    let read = match kind.as_str() {
        "Cluster" => serde_json::from_value::<Cluster>(value).map(drop),
        "ProtectedApp" => serde_json::from_value::<ProtectedApp>(value).map(drop),
        "Operation" => serde_json::from_value::<Operation>(value).map(drop),
        other => anyhow::bail!("an example is of a kind that does not exist: {other:?}"),
    };
    read.with_context(|| format!("an example of {kind} is none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_the_repository_hold_together() {
        check(&Workspace::find().unwrap()).unwrap();
    }

    #[test]
    fn links_to_files_are_found_without_anchors_and_without_other_machines() {
        let text = "[a](b.md), [`c`](d/e.md#f) [g](https://example.com/h.md) [i](#j) `[k](l.md)`";
        assert_eq!(links(text), ["b.md", "d/e.md"]);
    }

    #[test]
    fn an_example_that_is_no_resource_is_named() {
        let operation = |spec: &str| {
            let text = format!(
                "text\n```yaml\napiVersion: leeward.dev/v1alpha1\nkind: Operation\nmetadata: {{name: x}}\nspec: {spec}\n```\n"
            );
            let found = examples(&text);
            assert_eq!(found.len(), 1);
            resource(found[0])
        };
        assert!(operation("{app: a, type: Switchover, to: east}").is_ok());
        assert!(operation("{app: a, kind: Switchover, to: east}").is_err());
    }
}
