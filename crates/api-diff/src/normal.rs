//! What is random in an answer, replaced by words that say what it is.
//!
//! A uid or a resource version becomes `uid1`, `uid2`, ... in the order in which a case meets them: two that are equal
//! stay equal, and two that differ stay different. The hash of a pod template becomes `hash1`, `hash2`, ... wherever it stands, and the
//! random end of a pod's name that an event tells becomes `?????`.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use crate::play::Answer;

/// Where a hash stands.
const HASHES: [&str; 5] = [
    "pod-template-hash",
    "controller.kubernetes.io/hash",
    "controller-revision-hash",
    "currentRevision",
    "updateRevision",
];

/// Makes the answers of one case comparable.
pub struct Normal {
    uids: Numbered,
    revisions: Numbered,
    hashes: Numbered,
    patterns: Patterns,
}

struct Patterns {
    uid: Regex,
    time: Regex,
    age: Regex,
    pod: Regex,
}

/// Values and the numbers that they got.
struct Numbered {
    word: &'static str,
    seen: BTreeMap<String, usize>,
}

impl Numbered {
    fn new(word: &'static str) -> Self {
        Self {
            word,
            seen: BTreeMap::new(),
        }
    }

    fn name(&mut self, value: &str) -> String {
        let next = self.seen.len() + 1;
        let number = self.seen.entry(value.to_owned()).or_insert(next);
        format!("{}{number}", self.word)
    }
}

impl Normal {
    /// For a case that has not begun.
    ///
    /// # Errors
    /// None: the patterns are fixed.
    pub fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            uids: Numbered::new("uid"),
            revisions: Numbered::new("rv"),
            hashes: Numbered::new("hash"),
            patterns: Patterns {
                uid: Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")?,
                time: Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")?,
                age: Regex::new(r"^(\d+[dhms])+$")?,
                pod: Regex::new("(Created|Deleted) pod: (.+-)[bcdfghjklmnpqrstvwxz2456789]{5}$")?,
            },
        })
    }

    /// The answer with everything random named.
    pub fn answer(&mut self, answer: &Answer) -> Answer {
        let mut body = answer.body.clone();
        self.find_hashes(&body);
        self.value("", &mut body);
        Answer {
            status: answer.status,
            warnings: answer.warnings.iter().map(|w| self.text("", w)).collect(),
            body,
        }
    }

    fn find_hashes(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                for (key, child) in map {
                    match child {
                        // Some stand alone, and some at the end of a name.
                        Value::String(name) if HASHES.contains(&key.as_str()) => {
                            self.hashes.name(name.rsplit('-').next().unwrap_or(name));
                        }
                        child => self.find_hashes(child),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.find_hashes(item)),
            _ => {}
        }
    }

    fn value(&mut self, key: &str, value: &mut Value) {
        match value {
            Value::Object(map) => {
                generated_name(map);
                self.keys(map);
                let list = map.get("items").is_some() || map.get("rows").is_some();
                for (key, child) in map.iter_mut() {
                    if list && key == "metadata" {
                        // A list's revision is the whole server's, which others write to as well.
                        if let Some(revision) = child.get_mut("resourceVersion").filter(|r| *r != "") {
                            *revision = "LIST".into();
                        }
                    }
                    if key == "rows" {
                        self.rows(child);
                    } else {
                        self.value(key, child);
                    }
                }
            }
            Value::Array(items) => {
                if key == "managedFields" {
                    // Their order is that of their times, which may fall into one second or two.
                    items.sort_by_key(|entry| {
                        ["operation", "manager", "subresource", "apiVersion"].map(|name| entry[name].to_string())
                    });
                }
                for item in items {
                    self.value(key, item);
                }
            }
            Value::String(text) => *text = self.text(key, text),
            // The nodes' ports are given out at random.
            Value::Number(_) if key == "nodePort" || key == "healthCheckNodePort" => *value = "PORT".into(),
            _ => {}
        }
    }

    /// The keys of owned fields tell which owner an owner's entry is of.
    fn keys(&mut self, map: &mut serde_json::Map<String, Value>) {
        if map.keys().any(|key| self.patterns.uid.is_match(key)) {
            *map = std::mem::take(map)
                .into_iter()
                .map(|(key, value)| (self.text("", &key), value))
                .collect();
        }
    }

    /// Ages in tables go by.
    fn rows(&mut self, rows: &mut Value) {
        for row in rows.as_array_mut().into_iter().flatten() {
            if let Some(cells) = row.get_mut("cells").and_then(Value::as_array_mut) {
                for cell in cells {
                    if cell.as_str().is_some_and(|text| self.patterns.age.is_match(text)) {
                        *cell = "AGE".into();
                    }
                }
            }
            self.value("", row);
        }
    }

    fn text(&mut self, key: &str, text: &str) -> String {
        match key {
            "resourceVersion" if text != "LIST" && text != "0" && !text.is_empty() => {
                return self.revisions.name(text);
            }
            "ca.crt" => return "CERTIFICATE".into(),
            "continue" if !text.is_empty() => return "CONTINUE".into(),
            "clusterIP" | "clusterIPs" if text != "None" && !text.is_empty() => return "ADDRESS".into(),
            _ => {}
        }
        let patterns = &self.patterns;
        let uids = &mut self.uids;
        let named = patterns
            .uid
            .replace_all(text, |found: &regex::Captures<'_>| uids.name(&found[0]));
        let named = patterns.time.replace_all(&named, "TIME");
        let mut named = patterns.pod.replace(&named, "$1 pod: $2?????").into_owned();
        for (hash, number) in &self.hashes.seen {
            named = named.replace(hash, &format!("{}{number}", self.hashes.word));
        }
        named
    }
}

/// A name that the server made of `generateName` ends in five random letters.
fn generated_name(map: &mut serde_json::Map<String, Value>) {
    let Some(prefix) = map.get("generateName").and_then(Value::as_str).map(str::to_owned) else {
        return;
    };
    if let Some(name) = map.get_mut("name")
        && let Some(text) = name.as_str()
        && let Some(random) = text.strip_prefix(&prefix)
        && random.len() == 5
    {
        *name = format!("{prefix}?????").into();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::json;

    use super::{Answer, Normal};

    fn normal(body: serde_json::Value) -> serde_json::Value {
        let answer = Answer {
            status: 200,
            warnings: Vec::new(),
            body,
        };
        Normal::new().unwrap().answer(&answer).body
    }

    #[test]
    fn equal_revisions_stay_equal_and_others_differ() {
        let body = normal(json!([
            {"metadata": {"resourceVersion": "71"}},
            {"metadata": {"resourceVersion": "93"}},
            {"metadata": {"resourceVersion": "71"}},
        ]));
        let revisions: Vec<_> = body
            .as_array()
            .unwrap()
            .iter()
            .map(|o| &o["metadata"]["resourceVersion"])
            .collect();
        assert_eq!(revisions, ["rv1", "rv2", "rv1"]);
    }

    #[test]
    fn owners_of_fields_are_in_one_order_whenever_they_came() {
        let entry = |manager: &str| json!({"manager": manager, "operation": "Apply", "apiVersion": "v1"});
        let (one, other) = (json!([entry("a"), entry("b")]), json!([entry("b"), entry("a")]));
        assert_eq!(
            normal(json!({"managedFields": one})),
            normal(json!({"managedFields": other}))
        );
    }

    #[test]
    fn a_hash_is_named_wherever_it_stands() {
        let body = normal(json!([
            {"message": "Created pod: web-7d9c5bf7b8-x2b7q", "name": "web-7d9c5bf7b8"},
            {"labels": {"pod-template-hash": "7d9c5bf7b8"}},
        ]));
        assert_eq!(
            body,
            json!([
                {"message": "Created pod: web-hash1-?????", "name": "web-hash1"},
                {"labels": {"pod-template-hash": "hash1"}},
            ])
        );
    }

    #[test]
    fn what_is_random_gets_a_name_and_the_rest_stays() {
        let body = normal(json!({
            "message": "uid 6ba7b810-9dad-11d1-80b4-00c04fd430c8 since 2026-01-02T03:04:05Z",
            "metadata": {"generateName": "a-", "name": "a-x2b7q", "uid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8"},
            "rows": [{"cells": ["a", "5m3s"]}],
            "spec": {"clusterIP": "10.1.2.3", "clusterIPs": ["None"]},
        }));
        assert_eq!(
            body,
            json!({
                "message": "uid uid1 since TIME",
                "metadata": {"generateName": "a-", "name": "a-?????", "uid": "uid1"},
                "rows": [{"cells": ["a", "AGE"]}],
                "spec": {"clusterIP": "ADDRESS", "clusterIPs": ["None"]},
            })
        );
    }
}
