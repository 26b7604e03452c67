//! Strategic merge: a merge patch in which lists of the built-in kinds merge by key, with directives beside the fields.
//!
//! | in a patch | means |
//! |---|---|
//! | `$patch: replace` in a map or as an item of a list | take the patch's instead of merging |
//! | `$patch: delete` | empty the map, or drop the item with this key |
//! | `$retainKeys` | drop the map's other fields |
//! | `$setElementOrder/LIST` | the order of the items that the client knows |
//! | `$deleteFromPrimitiveList/LIST` | scalars to drop |
//! | `null` | drop the field |

use serde_json::{Map, Value};

use super::{PatchError, go_text};
use crate::machinery::json::type_name;
use crate::machinery::list_types::{ListTypes, PatchStrategy, Shape};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const ORDER_OF: &str = "$setElementOrder";
const DELETE: &str = "$deleteFromPrimitiveList/";

pub(super) fn apply(target: &Value, patch: &Value, kind: &str) -> Result<Value, PatchError> {
    let lists = ListTypes::builtin(kind);
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            Ok(Value::Object(merge_map(target, patch, Some(lists.root()))?))
        }
        _ => Err(PatchError::Malformed(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            type_name(patch)
        ))),
    }
}

fn cannot(message: impl Into<String>) -> PatchError {
    PatchError::CannotMerge(message.into())
}

fn directive(value: &Value) -> Option<&str> {
    value.get(DIRECTIVE).and_then(Value::as_str)
}

fn unknown_directive(name: &str, patch: &Map<String, Value>) -> PatchError {
    let shown = go_text(&Value::Object(patch.clone()));
    cannot(format!("unknown patch type: {name} in map: {shown}"))
}

fn merge_map(
    target: &Map<String, Value>,
    patch: &Map<String, Value>,
    shape: Option<&Shape>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(DIRECTIVE).map(|value| value.as_str().unwrap_or_default()) {
        Some("replace") => return Ok(without_directives_map(patch)),
        Some("delete") => return Ok(Map::new()),
        Some("merge") | None => {}
        Some(other) => return Err(unknown_directive(other, patch)),
    }
    let mut result = target.clone();
    if let Some(retained) = patch.get(RETAIN) {
        let names = retained
            .as_array()
            .ok_or_else(|| cannot(format!("{RETAIN} must be a list of field names")))?;
        result.retain(|name, _| names.iter().any(|kept| kept == name));
    }
    for (name, doomed) in patch
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(DELETE)?, value)))
    {
        let doomed = doomed
            .as_array()
            .ok_or_else(|| cannot(format!("{DELETE}{name} must be a list")))?;
        if let Some(items) = result.get_mut(name).and_then(Value::as_array_mut) {
            items.retain(|item| !doomed.contains(item));
        }
    }
    for (name, new) in patch.iter().filter(|(name, _)| !is_directive(name)) {
        if new.is_null() {
            result.remove(name);
            continue;
        }
        let inner = shape.and_then(|shape| shape.field(name));
        let merged = match (result.get(name), new) {
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(merge_map(old, new, inner)?),
            (Some(Value::Array(old)), Value::Array(new)) => Value::Array(merge_list(old, new, inner)?),
            (None, Value::Array(new)) => Value::Array(merge_list(&[], new, inner)?),
            _ => without_directives(new),
        };
        result.insert(name.clone(), merged);
    }
    order_lists(target, patch, &mut result, shape)?;
    Ok(result)
}

fn is_directive(name: &str) -> bool {
    name == DIRECTIVE || name == RETAIN || name.starts_with(ORDER) || name.starts_with(DELETE)
}

/// What of a patch becomes data where there is nothing to merge it with.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives_map(map)),
        Value::Array(items) => Value::Array(
            items
                .iter()
                .filter(|item| directive(item).is_none())
                .map(without_directives)
                .collect(),
        ),
        other => other.clone(),
    }
}

fn without_directives_map(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter()
        .filter(|(name, value)| !is_directive(name) && !value.is_null())
        .map(|(name, value)| (name.clone(), without_directives(value)))
        .collect()
}

fn merge_list(old: &[Value], new: &[Value], shape: Option<&Shape>) -> Result<Vec<Value>, PatchError> {
    if new.iter().any(|item| directive(item) == Some("replace")) {
        return Ok(new
            .iter()
            .filter(|item| directive(item).is_none())
            .map(without_directives)
            .collect());
    }
    let inner = shape.and_then(|shape| shape.items.as_deref());
    match shape.map(|shape| &shape.patch) {
        Some(PatchStrategy::MergeBy(key)) => merge_keyed(key, old, new, inner),
        Some(PatchStrategy::MergeScalars) => {
            let mut result = old.to_vec();
            for item in new {
                if !result.contains(item) {
                    result.push(item.clone());
                }
            }
            Ok(result)
        }
        _ => Ok(new.iter().map(without_directives).collect()),
    }
}

fn merge_keyed(key: &str, old: &[Value], new: &[Value], inner: Option<&Shape>) -> Result<Vec<Value>, PatchError> {
    let mut result = old.to_vec();
    for item in new {
        let (Some(patch), Some(value)) = (item.as_object(), item.get(key)) else {
            let shown = go_text(item);
            return Err(cannot(if item.is_object() {
                format!("map: {shown} does not contain declared merge key: {key}")
            } else {
                let (old, new) = (go_text(&Value::from(old)), go_text(&Value::from(new)));
                format!("list element types are not identical: [{old} {new}]")
            }));
        };
        let position = result.iter().position(|old| old.get(key) == Some(value));
        match (directive(item), position) {
            (Some("delete"), _) => result.retain(|old| old.get(key) != Some(value)),
            (Some("merge") | None, Some(position)) => {
                let empty = Map::new();
                let old = result[position].as_object().unwrap_or(&empty);
                result[position] = Value::Object(merge_map(old, patch, inner)?);
            }
            (Some("merge") | None, None) => result.push(Value::Object(merge_map(&Map::new(), patch, inner)?)),
            (Some(other), _) => return Err(unknown_directive(other, patch)),
        }
    }
    Ok(result)
}

/// Puts merged lists into the order that the patch gives; items that it does not mention keep their place relative to
/// those after them in the object.
fn order_lists(
    target: &Map<String, Value>,
    patch: &Map<String, Value>,
    result: &mut Map<String, Value>,
    shape: Option<&Shape>,
) -> Result<(), PatchError> {
    for (name, order) in patch
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(ORDER)?, value)))
    {
        let order = order
            .as_array()
            .ok_or_else(|| cannot(format!("{ORDER}{name} must be a list")))?;
        let key = match shape.and_then(|shape| shape.field(name)).map(|shape| &shape.patch) {
            Some(PatchStrategy::MergeBy(key)) => Some(key.as_str()),
            Some(PatchStrategy::MergeScalars) => None,
            _ => continue,
        };
        let identity = |item: &Value| match key {
            Some(key) => item.get(key).cloned().unwrap_or_default(),
            None => item.clone(),
        };
        let wanted: Vec<Value> = order.iter().map(identity).collect();
        let given = patch.get(name).and_then(Value::as_array);
        let given: Vec<&Value> = given
            .into_iter()
            .flatten()
            .filter(|item| directive(item).is_none())
            .collect();
        let places: Option<Vec<usize>> = given
            .iter()
            .map(|item| wanted.iter().position(|known| *known == identity(item)))
            .collect();
        if !places.is_some_and(|places| places.is_sorted()) {
            let (given, order) = (
                Value::from_iter(given.into_iter().cloned()),
                Value::from(order.as_slice()),
            );
            return Err(cannot(format!(
                "The order in patch list:\n{}\n doesn't match {ORDER_OF} list:\n{}\n",
                go_text(&given),
                go_text(&order)
            )));
        }
        let before: Vec<Value> = target
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(identity)
            .collect();
        if let Some(items) = result.get_mut(name).and_then(Value::as_array_mut) {
            *items = ordered(std::mem::take(items), &wanted, &before, identity);
        }
    }
    Ok(())
}

fn ordered(items: Vec<Value>, wanted: &[Value], before: &[Value], identity: impl Fn(&Value) -> Value) -> Vec<Value> {
    let place = |order: &[Value], item: &Value| order.iter().position(|known| *known == identity(item));
    let (mut known, unknown): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| place(wanted, item).is_some());
    known.sort_by_key(|item| place(wanted, item));
    let mut from = 0;
    for item in unknown {
        let mine = place(before, &item);
        let after = known
            .iter()
            .enumerate()
            .skip(from)
            .find(|(_, other)| place(before, other).zip(mine).is_some_and(|(other, mine)| other > mine));
        let at = after.map_or(known.len(), |(at, _)| at);
        known.insert(at, item);
        from = at + 1;
    }
    known
}
