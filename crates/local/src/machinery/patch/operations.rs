//! JSON patch (RFC 6902), as lenient as Kubernetes is: negative indices count from the end, `replace` of a field that is
//! missing adds it, and an operation without a value has null.

use serde_json::Value;

use super::PatchError;

/// The most operations that one patch may have.
pub(super) const MOST: usize = 10_000;

/// The most that the `copy` operations of one patch may add, in bytes of JSON. Each could double the object.
const COPIED: usize = 3 << 20;

/// Applies the operations in order; nothing is changed where one fails.
pub(super) fn apply(target: &Value, operations: &[Value]) -> Result<Value, PatchError> {
    let mut result = target.clone();
    let mut left = COPIED;
    for operation in operations {
        one(&mut result, operation, &mut left).ok_or(PatchError::DoesNotApply)?;
    }
    Ok(result)
}

/// The bytes of a value as JSON.
fn size(value: &Value) -> Option<usize> {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).ok()?;
    Some(count.0)
}

fn one(target: &mut Value, operation: &Value, left: &mut usize) -> Option<()> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let value = || operation.get("value").cloned().unwrap_or_default();
    let path = text("path")?;
    match text("op")? {
        "add" => add(target, path, value()),
        "remove" => remove(target, path).map(drop),
        "replace" => replace(target, path, value()),
        "move" => {
            let moved = remove(target, text("from")?)?;
            add(target, path, moved)
        }
        "copy" => {
            let copied = get(target, text("from")?)?.unwrap_or_default();
            *left = left.checked_sub(size(&copied)?)?;
            add(target, path, copied)
        }
        "test" if path.is_empty() => (*target == value()).then_some(()),
        "test" => (get(target, path)?.unwrap_or_default() == value()).then_some(()),
        _ => None,
    }
}

/// The container that a path leads to, and the last key.
fn container<'a>(target: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let mut keys = path.strip_prefix('/')?.split('/').map(decoded);
    let mut last = keys.next()?;
    let mut at = target;
    for key in keys {
        at = match at {
            Value::Object(map) => map.get_mut(&last)?,
            Value::Array(items) => {
                let index = index(&last, items.len())?;
                items.get_mut(index)?
            }
            _ => return None,
        };
        last = key;
    }
    (at.is_object() || at.is_array()).then_some((at, last))
}

fn decoded(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}

/// An index below or at `length`; a negative one counts from the end.
fn index(key: &str, length: usize) -> Option<usize> {
    let number: i64 = key.parse().ok()?;
    let length = i64::try_from(length).ok()?;
    let index = if number < 0 { number + length } else { number };
    usize::try_from(index).ok()
}

/// What is at a path: `Some(None)` for a field that its object does not have.
fn get(target: &mut Value, path: &str) -> Option<Option<Value>> {
    let (at, key) = container(target, path)?;
    match at {
        Value::Object(map) => Some(map.get(&key).cloned()),
        Value::Array(items) => items.get(index(&key, items.len())?).cloned().map(Some),
        _ => None,
    }
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    let (at, key) = container(target, path)?;
    match at {
        Value::Object(map) => drop(map.insert(key, value)),
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let length = items.len();
            // From the end, minus one is behind the last item.
            let index = index(&key, if key.starts_with('-') { length + 1 } else { length })?;
            (index <= length).then_some(())?;
            items.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn replace(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        (value.is_object() || value.is_array()).then_some(())?;
        *target = value;
        return Some(());
    }
    let (at, key) = container(target, path)?;
    match at {
        Value::Object(map) => drop(map.insert(key, value)),
        Value::Array(items) => {
            let index = index(&key, items.len())?;
            *items.get_mut(index)? = value;
        }
        _ => return None,
    }
    Some(())
}

fn remove(target: &mut Value, path: &str) -> Option<Value> {
    let (at, key) = container(target, path)?;
    match at {
        Value::Object(map) => map.remove(&key),
        Value::Array(items) => {
            let index = index(&key, items.len())?;
            (index < items.len()).then(|| items.remove(index))
        }
        _ => None,
    }
}
