//! What was measured, for machines: a list of figures, each beside a peer's where there is one.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// One figure, of which less is better.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) ours: f64,
    pub(crate) unit: &'static str,
    /// The peer's version and its value.
    pub(crate) peer: Option<(String, f64)>,
}

impl Figure {
    pub(crate) fn alone(name: impl Into<String>, ours: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            ours,
            unit,
            peer: None,
        }
    }

    /// A ratio over 1 means that ours is better.
    fn json(&self) -> Value {
        let peer = self.peer.as_ref();
        json!({
            "name": self.name,
            "ours": self.ours,
            "unit": self.unit,
            "peer": peer.map(|_| "kube-apiserver"),
            "peer_version": peer.map(|(version, _)| version),
            "peer_value": peer.map(|(_, value)| value),
            "ratio": peer.map(|(_, value)| value / self.ours),
        })
    }
}

/// Writes the figures, where a file is given.
pub(crate) fn write(file: Option<&Path>, figures: &[Figure]) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let list: Vec<Value> = figures.iter().map(Figure::json).collect();
    let text = serde_json::to_string_pretty(&list)? + "\n";
    std::fs::write(file, text).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::Figure;

    #[test]
    fn a_ratio_over_one_means_that_ours_is_better_and_without_a_peer_there_is_none() {
        let figure = Figure {
            name: "get".into(),
            ours: 0.5,
            unit: "ms",
            peer: Some(("v1.36".into(), 2.0)),
        };
        assert_eq!(figure.json()["ratio"], 4.0);
        assert!(Figure::alone("get", 0.5, "ms").json()["ratio"].is_null());
    }
}
