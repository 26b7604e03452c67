//! What is random in the output of a command, replaced by words that say what it is.

use std::path::Path;

use anyhow::Result;
use regex::Regex;

/// Makes the output of one session comparable.
pub struct Text {
    words: Vec<(String, &'static str)>,
    patterns: Vec<(Regex, &'static str)>,
    age: Regex,
    gap: Regex,
}

/// The letters of generated names.
macro_rules! random {
    ($count:literal) => {
        concat!("[bcdfghjklmnpqrstvwxz2456789]{", $count, "}")
    };
}

/// What is random wherever it stands, in the order in which it is looked for.
const PATTERNS: &[(&str, &str)] = &[
    ("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME"),
    (
        r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}",
        "TIME",
    ),
    (r"[EWIF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ", "LOG "),
    (r"eyJ[\w-]+\.[\w-]+\.[\w-]+", "TOKEN"),
    (r"\b(containerd|leeward)://\S+", "CONTAINER-ID"),
    (r"\bsha256:[0-9a-f]{64}", "DIGEST"),
    (r"https?://(\d+\.){3}\d+:\d+", "SERVER"),
    (r"\b(\d+\.){3}\d+\b", "IP"),
    (r"127\.0\.0\.1:\d{5}|\[::1\]:\d{5}", "LOCAL"),
    (concat!("-", random!("8,10"), "-", random!("5"), r"\b"), "-HASH-ID"),
    (
        r"\b(once|web|idle|kube-api-access)-[bcdfghjklmnpqrstvwxz2456789]{5}\b",
        "$1-ID",
    ),
    (concat!(r"\b", random!("8,10"), r"\b"), "HASH"),
    (r#"resourceVersion(["\\]*): ?["\\]*\d+["\\]*"#, "resourceVersion$1: RV"),
    (r"\b3[0-2]\d{3}(/TCP)", "PORT$1"),
    (r"\(x\d+ over [0-9dhms]+\)", "(MANY)"),
    (r"\b([0-9]+[dhms])+ ago", "AGE ago"),
    (r"\b(in |for |within )[0-9.]+m?s\b", "${1}AGE"),
];

impl Text {
    /// For a session that has not begun.
    ///
    /// # Errors
    /// None: the patterns are fixed.
    pub fn new(namespace: &str, id: &str, nodes: &[String], image: &str, directory: &Path) -> Result<Self> {
        let mut words = vec![
            (directory.display().to_string(), "DIRECTORY"),
            (namespace.to_owned(), "{ns}"),
            (id.to_owned(), "{id}"),
            (image.to_owned(), "{image}"),
        ];
        words.extend(nodes.iter().map(|node| (node.clone(), "{node}")));
        words.retain(|(word, _)| !word.is_empty());
        let patterns = PATTERNS.iter().map(|(pattern, name)| Ok((Regex::new(pattern)?, *name)));
        Ok(Self {
            words,
            patterns: patterns.collect::<Result<_>>()?,
            age: Regex::new(r"^(<invalid>|([0-9]+[dhms])+)$")?,
            gap: Regex::new(r"(\S) {2,}|\t+")?,
        })
    }

    /// The lines of an output.
    pub fn lines(&mut self, output: &str) -> Vec<String> {
        output.lines().map(|line| self.line(line)).collect()
    }

    fn line(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (word, name) in &self.words {
            line = line.replace(word.as_str(), name);
        }
        for (pattern, name) in &self.patterns {
            line = pattern.replace_all(&line, *name).into_owned();
        }
        // How wide a column is depends on what was random in it.
        let line = self.gap.replace_all(line.trim_end(), "$1  ");
        let begin = line.len() - line.trim_start().len();
        let cells = line[begin..].split("  ").map(|cell| match cell {
            cell if self.age.is_match(cell.trim_end_matches(" (MANY)")) => "AGE",
            cell => cell,
        });
        line[..begin].to_owned() + &cells.collect::<Vec<_>>().join("  ")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::Text;

    #[test]
    fn what_is_random_gets_a_name_and_the_rest_stays() {
        let nodes = ["node-1".to_owned()];
        let mut text = Text::new("space", "word", &nodes, "box:1", std::path::Path::new("/tmp/x")).unwrap();
        let mut line = |line: &str| text.lines(line).concat();
        assert_eq!(
            line("web-7d9c5b8f6d-x2b7q   1/1   Running   0    61s"),
            "web-HASH-ID  1/1  Running  0  AGE"
        );
        assert_eq!(
            line("NewReplicaSet:   web-7d9c5b8f6d (1/1 replicas created)"),
            "NewReplicaSet:  web-HASH (1/1 replicas created)"
        );
        assert_eq!(
            line("  Normal  Pulled     3s (x2 over 5s)  kubelet"),
            "  Normal  Pulled  AGE  kubelet"
        );
        assert_eq!(line("Node:  node-1/10.0.0.2 of space"), "Node:  {node}/IP of {ns}");
        assert_eq!(line("resourceVersion: \"123\""), "resourceVersion: RV");
        assert_eq!(line("deployment.apps/web created"), "deployment.apps/web created");
    }
}
