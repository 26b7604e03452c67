//! The arrows of ARCHITECTURE.md: which crate may depend on which.
//!
//! Every crate has a height; an arrow only ever points to a lower one. `core` and `api` are pure: nothing that they depend on, near
//! or far, is a runtime, a server or a client of Kubernetes. A crate that has no height here is an error, so that a new one is
//! placed by a decision.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::workspace::Workspace;

/// Each crate of the workspace and its height.
const HEIGHTS: &[(&str, u8)] = &[
    ("xtask", 6),
    ("leeward-api-diff", 6),
    ("leeward-bench", 6),
    ("leeward-model", 6),
    ("leeward-sim", 6),
    ("leeward", 5),
    ("leeward-controller", 4),
    ("leeward-traffic", 3),
    ("leeward-images", 3),
    ("leeward-state", 3),
    ("leeward-testing", 3),
    ("leeward-local", 2),
    ("leeward-quorum", 2),
    ("leeward-gate", 2),
    ("leeward-pki", 1),
    ("leeward-install", 2),
    ("leeward-api", 1),
    ("leeward-core", 1),
];

/// The crates that only hold data and decisions.
const PURE: &[&str] = &["leeward-api", "leeward-core"];

/// What no pure crate may reach.
const EFFECTS: &[&str] = &[
    "tokio",
    "kube",
    "kube-client",
    "kube-runtime",
    "hyper",
    "axum",
    "reqwest",
    "mio",
];

/// Fails when an arrow of the workspace points where it must not.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let graph = Graph::read(&workspace.metadata()?)?;
    let understood = graph.members.len() >= HEIGHTS.len() && graph.edges.len() > HEIGHTS.len();
    ensure!(
        understood,
        "cargo's answer was not understood: a crate of xtask/src/arrows.rs is missing from it"
    );
    let wrong = graph.check();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Who depends on whom, development dependencies left out.
#[derive(Debug, Default, Clone)]
struct Graph {
    members: BTreeSet<String>,
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Reads the output of `cargo metadata`.
    fn read(metadata: &Value) -> Result<Self> {
        let mut names = BTreeMap::new();
        for package in metadata["packages"].as_array().context("no packages")? {
            let id = package["id"].as_str().context("a package without id")?;
            names.insert(id, package["name"].as_str().context("a package without name")?);
        }
        let name = |id: &Value| {
            let id = id.as_str().context("no id")?;
            names
                .get(id)
                .map(|name| (*name).to_owned())
                .with_context(|| format!("unknown package {id}"))
        };
        let mut graph = Self::default();
        for member in metadata["workspace_members"].as_array().context("no members")? {
            graph.members.insert(name(member)?);
        }
        for node in metadata["resolve"]["nodes"].as_array().context("no resolution")? {
            let edges = graph.edges.entry(name(&node["id"])?).or_default();
            for dependency in node["deps"].as_array().context("no dependencies")? {
                let kinds = dependency["dep_kinds"].as_array().context("no kinds")?;
                if kinds.iter().any(|kind| kind["kind"] != "dev") {
                    edges.insert(name(&dependency["pkg"])?);
                }
            }
        }
        Ok(graph)
    }

    /// Everything that is wrong, one line each.
    fn check(&self) -> Vec<String> {
        let heights: BTreeMap<&str, u8> = HEIGHTS.iter().copied().collect();
        let mut wrong = Vec::new();
        for from in &self.members {
            let Some(height) = heights.get(from.as_str()) else {
                wrong.push(format!(
                    "{from} has no height: place it in xtask/src/arrows.rs and in ARCHITECTURE.md"
                ));
                continue;
            };
            for to in self
                .edges
                .get(from)
                .into_iter()
                .flatten()
                .filter(|to| self.members.contains(*to))
            {
                if heights.get(to.as_str()).is_some_and(|other| other >= height) {
                    wrong.push(format!("{from} depends on {to}, which does not stand below it"));
                }
            }
        }
        for pure in PURE {
            for path in self.paths(pure) {
                let Some(reached) = path.last() else { continue };
                if EFFECTS.contains(&reached.as_str()) || self.members.contains(reached) {
                    wrong.push(format!("{pure} must not reach {reached}: {}", path.join(" > ")));
                }
            }
        }
        wrong
    }

    /// A shortest path from a crate to each that it reaches, the crate itself left out.
    fn paths(&self, from: &str) -> Vec<Vec<String>> {
        let mut found = vec![vec![from.to_owned()]];
        let mut seen = BTreeSet::from([from.to_owned()]);
        let mut next = 0;
        while let Some(path) = found.get(next).cloned() {
            next += 1;
            let edges = path.last().and_then(|last| self.edges.get(last));
            for to in edges.into_iter().flatten() {
                if seen.insert(to.clone()) {
                    found.push(path.iter().chain([to]).cloned().collect());
                }
            }
        }
        found.split_off(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &str)]) -> Graph {
        let mut graph = Graph {
            members: HEIGHTS.iter().map(|(name, _)| (*name).to_owned()).collect(),
            ..Graph::default()
        };
        for (from, to) in edges {
            graph.edges.entry((*from).into()).or_default().insert((*to).into());
        }
        graph
    }

    #[test]
    fn every_arrow_of_the_workspace_points_down() {
        check(&Workspace::find().unwrap()).unwrap();
    }

    #[test]
    fn an_arrow_up_or_sideways_is_named() {
        for (from, to) in [
            ("leeward-state", "leeward-controller"),
            ("leeward-images", "leeward-state"),
        ] {
            let wrong = graph(&[(from, to)]).check();
            assert!(
                wrong.len() == 1 && wrong[0].contains(from) && wrong[0].contains(to),
                "{wrong:?}"
            );
        }
        assert_eq!(
            graph(&[("leeward", "leeward-core"), ("leeward-state", "leeward-api")]).check(),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_pure_crate_that_reaches_a_runtime_from_afar_is_named_with_the_way_there() {
        let wrong = graph(&[("leeward-core", "tidy"), ("tidy", "tower"), ("tower", "tokio")]).check();
        assert_eq!(
            wrong,
            ["leeward-core must not reach tokio: leeward-core > tidy > tower > tokio"]
        );
    }

    #[test]
    fn a_pure_crate_depends_on_no_other_crate_of_the_workspace() {
        let wrong = graph(&[("leeward-api", "leeward-core")]).check();
        assert!(
            wrong
                .iter()
                .any(|line| line.contains("leeward-api must not reach leeward-core")),
            "{wrong:?}"
        );
    }

    #[test]
    fn a_crate_without_a_height_is_named() {
        let mut graph = graph(&[]);
        graph.members.insert("leeward-new".into());
        assert!(graph.check()[0].starts_with("leeward-new has no height"));
    }
}
