//! Where two answers differ, and which differences are accepted.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::case::Step;
use crate::recorded::Recorded;

/// One place where the local region answers otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The case.
    pub case: String,
    /// Which step, from 1.
    pub step: usize,
    /// Where in the answer: `status`, `warnings`, or a JSON pointer of the body.
    pub at: String,
    /// What the local region says there; `None` for nothing.
    pub local: Option<Value>,
    /// What the real API server says there; `None` for nothing.
    pub real: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |value: &Option<Value>| value.as_ref().map_or_else(|| "(nothing)".to_owned(), Value::to_string);
        writeln!(f, "{} (step {}) at {}", self.case, self.step, self.at)?;
        writeln!(f, "    real:  {}", side(&self.real))?;
        write!(f, "    local: {}", side(&self.local))
    }
}

/// A difference that is meant to be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The case's name; every case where none is given.
    pub case: Option<String>,
    /// The place, as [`Difference::at`]; `*` stands for one step of a pointer, a `**` at the end for everything below.
    pub at: String,
    /// Why it is accepted.
    pub reason: String,
}

impl Accepted {
    /// Reads the list; each entry needs a reason.
    ///
    /// # Errors
    /// The file cannot be read, or an entry says no reason.
    pub fn read(file: &Path) -> Result<Vec<Self>> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let list: Vec<Self> = serde_saphyr::from_str(&text).with_context(|| file.display().to_string())?;
        for entry in &list {
            ensure!(
                !entry.reason.trim().is_empty(),
                "the accepted difference at {} has no reason",
                entry.at
            );
        }
        Ok(list)
    }

    /// Whether it covers the difference.
    #[must_use]
    pub fn covers(&self, difference: &Difference) -> bool {
        self.case.as_ref().is_none_or(|case| *case == difference.case) && matches(&self.at, &difference.at)
    }
}

fn matches(pattern: &str, at: &str) -> bool {
    let (mut pattern, mut at) = (pattern.split('/'), at.split('/'));
    loop {
        match (pattern.next(), at.next()) {
            (None, None) | (Some("**"), _) => return true,
            (Some(wanted), Some(found)) if wanted == "*" || wanted == found => {}
            _ => return false,
        }
    }
}

/// The part of a body that a step compares.
#[must_use]
pub fn compared(step: &Step, body: &Value) -> Value {
    let mut body = body.clone();
    for pointer in &step.sort {
        if let Some(list) = body.pointer_mut(pointer).and_then(Value::as_array_mut) {
            list.sort_by_cached_key(Value::to_string);
        }
    }
    let mut kept = if step.only.is_empty() {
        body
    } else {
        let mut kept = serde_json::Map::new();
        for pointer in &step.only {
            for (at, value) in found(&body, pointer) {
                kept.insert(at, value);
            }
        }
        Value::Object(kept)
    };
    for pointer in &step.ignore {
        for (at, _) in found(&kept, pointer) {
            remove(&mut kept, &at);
        }
    }
    kept
}

/// The places that a pointer with `*` names, each with what is there.
fn found(value: &Value, pattern: &str) -> Vec<(String, Value)> {
    let mut places = vec![(String::new(), value)];
    for word in pattern.split('/').skip(1) {
        places = places
            .into_iter()
            .flat_map(|(at, value)| -> Vec<(String, &Value)> {
                match value {
                    Value::Object(map) if word == "*" => map
                        .iter()
                        .map(|(key, child)| (format!("{at}/{}", escaped(key)), child))
                        .collect(),
                    Value::Array(items) if word == "*" => items
                        .iter()
                        .enumerate()
                        .map(|(i, child)| (format!("{at}/{i}"), child))
                        .collect(),
                    other => other
                        .pointer(&format!("/{word}"))
                        .map(|child| (format!("{at}/{word}"), child))
                        .into_iter()
                        .collect(),
                }
            })
            .collect();
    }
    places.into_iter().map(|(at, value)| (at, value.clone())).collect()
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn remove(value: &mut Value, pointer: &str) {
    let Some((parent, key)) = pointer.rsplit_once('/') else {
        return;
    };
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.remove(&key.replace("~1", "/").replace("~0", "~"));
        }
        // The other items keep their places.
        Some(Value::Array(items)) => {
            if let Some(item) = key.parse::<usize>().ok().and_then(|i| items.get_mut(i)) {
                *item = Value::Null;
            }
        }
        _ => {}
    }
}

/// Everything in which two answers to the step `index` differ.
#[must_use]
pub fn differences(case: &str, index: usize, local: &Recorded, real: &Recorded) -> Vec<Difference> {
    let mut places = Vec::new();
    unequal(
        "status",
        Some(&json!(local.status)),
        Some(&json!(real.status)),
        &mut places,
    );
    unequal(
        "warnings",
        Some(&json!(local.warnings)),
        Some(&json!(real.warnings)),
        &mut places,
    );
    unequal("", Some(&local.body), Some(&real.body), &mut places);
    places
        .into_iter()
        .map(|(at, local, real)| Difference {
            case: case.to_owned(),
            step: index + 1,
            at,
            local,
            real,
        })
        .collect()
}

type Place = (String, Option<Value>, Option<Value>);

fn unequal(at: &str, local: Option<&Value>, real: Option<&Value>, places: &mut Vec<Place>) {
    match (local, real) {
        (Some(Value::Object(l)), Some(Value::Object(r))) => {
            let keys: std::collections::BTreeSet<&String> = l.keys().chain(r.keys()).collect();
            for key in keys {
                unequal(&format!("{at}/{}", escaped(key)), l.get(key), r.get(key), places);
            }
        }
        (Some(Value::Array(l)), Some(Value::Array(r))) => {
            for i in 0..l.len().max(r.len()) {
                unequal(&format!("{at}/{i}"), l.get(i), r.get(i), places);
            }
        }
        (l, r) if l != r => places.push((at.to_owned(), l.cloned(), r.cloned())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Accepted, Difference, compared, differences};
    use crate::recorded::Recorded;

    fn recorded(step: &str, status: u16, body: &serde_json::Value) -> Recorded {
        let step = serde_saphyr::from_str(step).unwrap();
        Recorded {
            status,
            warnings: Vec::new(),
            body: compared(&step, body),
        }
    }

    #[test]
    fn each_place_that_differs_is_named_once() {
        let step = "{request: GET /x, ignore: [/items/*/b]}";
        let found = differences(
            "c",
            0,
            &recorded(step, 200, &json!({"items": [{"a": 1, "b": 1}], "only": "local"})),
            &recorded(step, 404, &json!({"items": [{"a": 2, "b": 2}, {}]})),
        );
        let places: Vec<&str> = found.iter().map(|d| d.at.as_str()).collect();
        assert_eq!(places, ["status", "/items/0/a", "/items/1", "/only"]);
    }

    #[test]
    fn only_what_a_step_names_is_compared() {
        let step = "{request: GET /x, only: [/items/*/a]}";
        let found = differences(
            "c",
            0,
            &recorded(step, 200, &json!({"items": [{"a": 1, "b": 1}]})),
            &recorded(step, 200, &json!({"items": [{"a": 1, "b": 2}], "c": 3})),
        );
        assert_eq!(found, []);
    }

    #[test]
    fn an_accepted_place_may_have_stars() {
        let difference = Difference {
            case: "c".into(),
            step: 1,
            at: "/a/0/b/c".into(),
            local: None,
            real: None,
        };
        let accepted = |at: &str| Accepted {
            case: None,
            at: at.into(),
            reason: "r".into(),
        };
        assert!(accepted("/a/*/b/c").covers(&difference) && accepted("/a/**").covers(&difference));
        assert!(!accepted("/a/*/b").covers(&difference) && !accepted("/b/**").covers(&difference));
    }
}
