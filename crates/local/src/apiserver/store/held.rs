//! How memory holds an object: as a value, or, where that would be large, as text with the object's head beside it.
//!
//! A tree of values takes some twenty times the text that it was read from. What an operator's install defines is a megabyte of text
//! for one object, which is read a few times in a region's life; so it stays text, compressed, and who reads it pays for that.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Object;

/// From this [`weight`] on an object is held as text: some 6 KiB of JSON, which few Pods reach.
const LARGE: usize = 64 << 10;
/// Text from this size on is compressed, in bytes.
const COMPRESSED: usize = 16 << 10;

/// About how much memory a value takes, in bytes. Most of it is the nodes of maps, which have room for eleven entries each and are more
/// than half full in a map that has grown.
pub(super) fn weight(value: &Value) -> usize {
    const NODE: usize = 11 * (size_of::<String>() + size_of::<Value>()) + 16;
    const ENTRIES: usize = 8;
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len() * size_of::<Value>() + items.iter().map(weight).sum::<usize>(),
        Value::Object(map) => {
            let nodes = map.len().div_ceil(ENTRIES) * NODE;
            nodes + map.iter().map(|(key, child)| key.len() + weight(child)).sum::<usize>()
        }
        _ => 0,
    }
}

/// An object in memory.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    Value(Object),
    Text {
        /// What is asked most: API version, kind, and metadata less annotations and managed fields.
        head: Object,
        text: Text,
    },
}

impl Held {
    /// Holds an object of this [`weight`].
    pub(super) fn new(object: Object, weight: usize) -> Self {
        if weight < LARGE {
            return Self::Value(object);
        }
        Self::Text {
            head: Arc::new(head(&object)),
            text: Text::new(&object),
        }
    }

    /// The object with at least its API version, kind, and metadata less annotations and managed fields.
    pub(crate) fn head(&self) -> &Object {
        match self {
            Self::Value(object) => object,
            Self::Text { head, .. } => head,
        }
    }

    /// The whole object. Parses it where it is text, so hold no lock meanwhile.
    pub(crate) fn open(&self) -> Object {
        match self {
            Self::Value(object) => object.clone(),
            Self::Text { text, .. } => Arc::new(text.value()),
        }
    }
}

fn head(object: &Value) -> Value {
    let mut head = Map::new();
    for key in ["apiVersion", "kind"] {
        head.extend(object.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    let metadata = object.get("metadata").and_then(Value::as_object);
    let small = metadata
        .into_iter()
        .flatten()
        .filter(|(key, _)| !matches!(key.as_str(), "annotations" | "managedFields"));
    let small: Map<String, Value> = small.map(|(key, value)| (key.clone(), value.clone())).collect();
    head.insert("metadata".into(), small.into());
    head.into()
}

/// A value as JSON. Two of the same value are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Plain(Arc<str>),
    /// With zstd.
    Compressed(Arc<[u8]>),
}

impl Text {
    pub(crate) fn new(value: &Value) -> Self {
        Self::of(&value.to_string())
    }

    pub(super) fn of(json: &str) -> Self {
        match json.len() >= COMPRESSED {
            true => zstd::bulk::compress(json.as_bytes(), 1)
                .map_or_else(|_| Self::Plain(json.into()), |z| Self::Compressed(z.into())),
            false => Self::Plain(json.into()),
        }
    }

    /// What is the same for the same value, and another for another.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Plain(text) => text.as_bytes(),
            Self::Compressed(bytes) => bytes,
        }
    }

    /// The value; null where it was never JSON, which neither a value's text nor a checked file's is.
    pub(crate) fn value(&self) -> Value {
        let parsed = match self {
            Self::Plain(text) => serde_json::from_str(text).ok(),
            Self::Compressed(bytes) => zstd::stream::decode_all(&**bytes)
                .ok()
                .and_then(|json| serde_json::from_slice(&json).ok()),
        };
        parsed.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Held, Text, weight};

    #[test]
    fn a_large_object_is_held_as_compressed_text_and_opened_unchanged() {
        let fields: serde_json::Map<_, _> = (0..2000)
            .map(|n| (format!("field{n}"), json!({"type": "string"})))
            .collect();
        let object = std::sync::Arc::new(
            json!({"kind": "X", "metadata": {"name": "n", "annotations": {"a": "b"}}, "spec": fields}),
        );
        let held = Held::new(object.clone(), weight(&object));
        let Held::Text { head, text } = &held else {
            panic!("held as a value")
        };
        assert_eq!(**head, json!({"kind": "X", "metadata": {"name": "n"}}));
        assert!(matches!(text, Text::Compressed(_)) && text.bytes().len() * 4 < object.to_string().len());
        assert_eq!(held.open(), object);
    }

    #[test]
    fn a_small_object_is_held_as_it_is() {
        let object = std::sync::Arc::new(json!({"metadata": {"name": "n"}}));
        let held = Held::new(object.clone(), weight(&object));
        assert!(std::sync::Arc::ptr_eq(&held.open(), &object) && std::sync::Arc::ptr_eq(held.head(), &object));
    }
}
