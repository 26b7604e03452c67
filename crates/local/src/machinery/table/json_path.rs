//! The JSONPaths of printer columns: fields, indexes, `*`, and filters that compare a field with a literal.

use serde_json::Value;

/// What `path` finds in `value`, such as `.status.conditions[?(@.type=="Ready")].status`. A path that cannot be read
/// finds nothing.
pub(super) fn find<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let path = path
        .trim()
        .trim_start_matches('{')
        .trim_end_matches('}')
        .trim_start_matches('$');
    let mut found = vec![value];
    let mut rest = path;
    while !rest.is_empty() {
        let Some((step, after)) = next(rest) else {
            return Vec::new();
        };
        found = found.into_iter().flat_map(|value| step.children(value)).collect();
        rest = after;
    }
    found
}

enum Step<'p> {
    Field(&'p str),
    Index(i64),
    All,
    Where { path: &'p str, equal: bool, literal: Value },
}

/// The first step of a path, and what follows it.
fn next(path: &str) -> Option<(Step<'_>, &str)> {
    if let Some(rest) = path.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        return match name {
            // A dot before a bracket says nothing.
            "" if after.starts_with('[') => next(after),
            "" => None,
            "*" => Some((Step::All, after)),
            name => Some((Step::Field(name), after)),
        };
    }
    let inside = path.strip_prefix('[')?;
    if let Some(condition) = inside.strip_prefix("?(") {
        let end = condition.find(")]")?;
        return Some((filter(&condition[..end])?, &condition[end + 2..]));
    }
    if let Some(quote) = inside.chars().next().filter(|c| *c == '\'' || *c == '"') {
        let end = inside[1..].find(quote)? + 1;
        return Some((Step::Field(&inside[1..end]), inside[end + 1..].strip_prefix(']')?));
    }
    let (index, after) = inside.split_once(']')?;
    let step = if index == "*" {
        Step::All
    } else {
        Step::Index(index.trim().parse().ok()?)
    };
    Some((step, after))
}

fn filter(condition: &str) -> Option<Step<'_>> {
    let (left, right, equal) = match condition.split_once("==") {
        Some((left, right)) => (left, right, true),
        None => condition.split_once("!=").map(|(left, right)| (left, right, false))?,
    };
    let right = right.trim();
    let quoted = right.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
    let literal = match quoted {
        Some(text) => Value::from(text),
        None => serde_json::from_str(right).ok()?,
    };
    Some(Step::Where {
        path: left.trim().strip_prefix('@')?,
        equal,
        literal,
    })
}

impl Step<'_> {
    fn children<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(*name).into_iter().collect(),
            Self::Index(index) => value
                .as_array()
                .and_then(|items| {
                    let index = if *index < 0 {
                        items.len().checked_sub(index.unsigned_abs() as usize)?
                    } else {
                        *index as usize
                    };
                    items.get(index)
                })
                .into_iter()
                .collect(),
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Self::Where { path, equal, literal } => {
                let items = value.as_array().into_iter().flatten();
                items
                    .filter(|item| find(item, path).contains(&literal) == *equal)
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_paths_that_printer_columns_use_find_their_values() {
        let value = json!({"spec": {"a-b": {"c": 1}, "dotted.name": 2, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "False"}]}});
        for (path, expected) in [
            (".spec.a-b.c", json!([1])),
            ("{.spec.a-b.c}", json!([1])),
            ("$.spec['dotted.name']", json!([2])),
            (".spec.list[0].v", json!([1])),
            (".spec.list[-1].v", json!([2])),
            (".spec.list[-3].v", json!([])),
            (".spec.list[*].n", json!(["x", "y"])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type == 'Ready')].status", json!(["True"])),
            (".status.conditions[?(@.type!='Ready')].type", json!(["Old"])),
            (".spec.missing.more", json!([])),
            (".spec.list[", json!([])),
            (".spec.list[?(@.n=]", json!([])),
            ("..", json!([])),
            ("[é", json!([])),
        ] {
            assert_eq!(json!(find(&value, path)), expected, "{path}");
        }
    }
}
