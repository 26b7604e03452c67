//! Files that are made from the resource kinds in `crates/api`: the definitions for the chart, and the reference page. And the reference
//! pages of a local region's kinds, of an agent's rights and of the metrics, which are made from their tables. And what is shown of the metrics:
//! alerts and a dashboard, whose expressions are checked against the table. And the chart, made from the objects of an installation in
//! `crates/install`.

mod alerts;
mod dashboard;
mod expressions;
mod kinds;
mod metrics;
mod reference;
mod rights;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::workspace::Workspace;

const NOTICE: &str = "Made by `cargo xtask generate` from crates/api: change it there.";

/// Every generated file: its path below the workspace and what belongs into it.
pub(crate) fn files() -> Result<BTreeMap<PathBuf, String>> {
    let definitions = leeward_api::crds();
    let mut files = BTreeMap::new();
    for definition in &definitions {
        let plural = &definition.spec.names.plural;
        files.insert(
            format!("charts/leeward/crds/{plural}.yaml").into(),
            definition_file(definition)?,
        );
    }
    files.insert(
        "docs/reference/resources.md".into(),
        reference::page(&definitions, NOTICE)?,
    );
    files.insert("docs/reference/local-kinds.md".into(), kinds::page()?);
    files.insert("docs/reference/rights.md".into(), rights::page()?);
    for (path, text) in leeward_install::chart::files()? {
        files.insert(format!("charts/leeward/{path}").into(), text);
    }
    files.insert("docs/reference/metrics.md".into(), metrics::page()?);
    files.insert("charts/leeward/alerts.yaml".into(), alerts::file()?);
    files.insert("charts/leeward/dashboard.json".into(), dashboard::file()?);
    Ok(files)
}

fn definition_file(definition: &CustomResourceDefinition) -> Result<String> {
    // Through JSON, so that what is not set is absent and the keys have one order.
    let value = serde_json::to_value(definition).context("a definition is no JSON")?;
    let yaml = serde_saphyr::to_string(&value).context("a definition is no YAML")?;
    Ok(format!("# {NOTICE}\n{}\n", yaml.trim_end()))
}

/// Fails when a generated file is not what it should be.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    for (path, text) in files()? {
        let found = std::fs::read_to_string(workspace.root().join(&path)).unwrap_or_default();
        ensure!(
            found == text,
            "{} is out of date: run `cargo xtask generate`",
            path.display()
        );
    }
    Ok(())
}

/// Writes every generated file that is not up to date.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    for (path, text) in files()? {
        let file = workspace.root().join(&path);
        if std::fs::read_to_string(&file).is_ok_and(|old| old == text) {
            continue;
        }
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_files_are_up_to_date() {
        check(&Workspace::find().unwrap()).unwrap();
    }

    #[test]
    fn a_definition_file_reads_back_as_the_definition() {
        for definition in leeward_api::crds() {
            let file = definition_file(&definition).unwrap();
            let read: CustomResourceDefinition = serde_saphyr::from_str(&file).unwrap();
            assert_eq!(read, definition);
        }
    }
}
