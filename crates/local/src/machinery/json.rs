//! JSON as Kubernetes' decoder reads it: fields that are given twice are told, and what is wrong in its words. Pure.
//!
//! `serde_json` does the reading. Only when it fails, a scan over the bytes finds out what the decoder would say.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value, and what is told of fields that it gives more than once; the last one counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Read {
    /// What was read.
    pub value: Value,
    /// Sentences such as `duplicate field "data.k"`, in the order of the text.
    pub repeated: Vec<String>,
}

impl From<Value> for Read {
    fn from(value: Value) -> Self {
        Self {
            value,
            repeated: Vec::new(),
        }
    }
}

/// Reads one JSON text.
///
/// # Errors
/// What is wrong, as Kubernetes says it.
pub fn read(bytes: &[u8]) -> Result<Read, String> {
    let mut repeated = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let seed = Place {
        path: String::new(),
        repeated: &mut repeated,
    };
    let value = seed
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(value) => Ok(Read { value, repeated }),
        Err(error) => Err(syntax_error(bytes).unwrap_or_else(|| match error.to_string() {
            deep if deep.contains("recursion limit") => "exceeded max depth".into(),
            other => other,
        })),
    }
}

/// Where a value is, and where to note what is repeated below.
struct Place<'a> {
    path: String,
    repeated: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Place {
            path: format!("{}[{}]", self.path, list.len()),
            repeated: self.repeated,
        })? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let path = if self.path.is_empty() {
                name.clone()
            } else {
                format!("{}.{name}", self.path)
            };
            if map.contains_key(&name) {
                self.repeated.push(format!("duplicate field {path:?}"));
            }
            let value = fields.next_value_seed(Place {
                path,
                repeated: self.repeated,
            })?;
            // A map that is given twice is filled twice, as a struct's field is.
            match (map.get_mut(&name), value) {
                (Some(Value::Object(first)), Value::Object(second)) => merge(first, second),
                (_, value) => drop(map.insert(name, value)),
            }
        }
        Ok(map.into())
    }
}

fn merge(first: &mut Map<String, Value>, second: Map<String, Value>) {
    for (name, value) in second {
        match (first.get_mut(&name), value) {
            (Some(Value::Object(inner)), Value::Object(more)) => merge(inner, more),
            (_, value) => drop(first.insert(name, value)),
        }
    }
}

/// What a value is read as next.
enum Next {
    Value,
    KeyOrEnd,
    Key,
    ItemOrEnd,
}

/// The first place where the text is no JSON; `None` where it is.
fn syntax_error(bytes: &[u8]) -> Option<String> {
    Scan { bytes, at: 0 }.text().err()
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Scanned<T = ()> = Result<T, String>;

impl Scan<'_> {
    fn text(&mut self) -> Scanned {
        let mut open: Vec<u8> = Vec::new();
        let mut next = Next::Value;
        loop {
            let byte = self.visible()?;
            match (next, byte) {
                (Next::Value | Next::ItemOrEnd, b'{') => {
                    open.push(b'{');
                    next = Next::KeyOrEnd;
                    continue;
                }
                (Next::Value | Next::ItemOrEnd, b'[') => {
                    open.push(b'[');
                    next = Next::ItemOrEnd;
                    continue;
                }
                (Next::KeyOrEnd, b'}') | (Next::ItemOrEnd, b']') => drop(open.pop()),
                (Next::KeyOrEnd | Next::Key, b'"') => {
                    self.string()?;
                    match self.visible()? {
                        b':' => next = Next::Value,
                        other => return wrong(other, "after object key"),
                    }
                    continue;
                }
                (Next::KeyOrEnd | Next::Key, other) => {
                    return wrong(other, "looking for beginning of object key string");
                }
                (Next::Value | Next::ItemOrEnd, other) => self.scalar(other)?,
            }
            // A value has ended.
            next = loop {
                let Some(within) = open.last() else {
                    return match self.visible() {
                        Ok(other) => wrong(other, "after top-level value"),
                        Err(_) => Ok(()),
                    };
                };
                match (within, self.visible()?) {
                    (b'{', b',') => break Next::Key,
                    (_, b',') => break Next::Value,
                    (b'{', b'}') | (b'[', b']') => drop(open.pop()),
                    (b'{', other) => return wrong(other, "after object key:value pair"),
                    (_, other) => return wrong(other, "after array element"),
                }
            };
        }
    }

    fn byte(&mut self) -> Scanned<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte.ok_or_else(|| "unexpected end of JSON input".into())
    }

    /// The next byte that is no white space.
    fn visible(&mut self) -> Scanned<u8> {
        loop {
            match self.byte()? {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                byte => return Ok(byte),
            }
        }
    }

    fn scalar(&mut self, first: u8) -> Scanned {
        match first {
            b'"' => self.string(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' => match self.byte()? {
                digit @ b'0'..=b'9' => self.number(digit),
                other => wrong(other, "in numeric literal"),
            },
            b'0'..=b'9' => self.number(first),
            other => wrong(other, "looking for beginning of value"),
        }
    }

    fn literal(&mut self, word: &str) -> Scanned {
        for expected in word.bytes().skip(1) {
            let byte = self.byte()?;
            if byte != expected {
                let within = format!("in literal {word} (expecting {})", quoted(expected));
                return wrong(byte, &within);
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Scanned {
        loop {
            match self.byte()? {
                b'"' => return Ok(()),
                b'\\' => match self.byte()? {
                    b'u' => {
                        for _ in 0..4 {
                            let byte = self.byte()?;
                            if !byte.is_ascii_hexdigit() {
                                return wrong(byte, "in \\u hexadecimal character escape");
                            }
                        }
                    }
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    other => return wrong(other, "in string escape code"),
                },
                control @ 0..0x20 => return wrong(control, "in string literal"),
                _ => {}
            }
        }
    }

    fn number(&mut self, first: u8) -> Scanned {
        if first != b'0' {
            self.digits();
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            match self.byte()? {
                b'0'..=b'9' => self.digits(),
                other => return wrong(other, "after decimal point in numeric literal"),
            }
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            match self.byte()? {
                b'0'..=b'9' => self.digits(),
                other => return wrong(other, "in exponent of numeric literal"),
            }
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }
}

fn wrong<T>(byte: u8, place: &str) -> Scanned<T> {
    Err(format!("invalid character {} {place}", quoted(byte)))
}

fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".into(),
        b'"' => "'\"'".into(),
        b'\n' => "'\\n'".into(),
        b'\t' => "'\\t'".into(),
        b'\r' => "'\\r'".into(),
        b'\\' => "'\\\\'".into(),
        0..0x20 | 0x7f..0xa0 => format!("'\\x{byte:02x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

/// The JSON type of a value as a decoder names it.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{read, syntax_error};

    #[test]
    fn fields_given_twice_are_told_and_the_last_counts() {
        let text = br#"{"metadata": {"name": "a", "name": "b"}, "data": {"k": 1, "k": 2}, "data": {"l": 3}}"#;
        let found = read(text).unwrap();
        assert_eq!(
            found.repeated,
            [
                "duplicate field \"metadata.name\"",
                "duplicate field \"data.k\"",
                "duplicate field \"data\""
            ]
        );
        assert_eq!(
            found.value,
            json!({"metadata": {"name": "b"}, "data": {"k": 2, "l": 3}})
        );
    }

    #[test]
    fn what_is_no_json_is_told_in_the_decoders_words() {
        let cases = [
            ("", "unexpected end of JSON input"),
            ("{\"a\": [1, {\"b\"", "unexpected end of JSON input"),
            ("nonsense", "invalid character 'o' in literal null (expecting 'u')"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("{a", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\": 1 2}", "invalid character '2' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("-a", "invalid character 'a' in numeric literal"),
            ("1.", "unexpected end of JSON input"),
            ("1.e", "invalid character 'e' after decimal point in numeric literal"),
            ("01", "invalid character '1' after top-level value"),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert_eq!(read(deep.as_bytes()).unwrap_err(), "exceeded max depth");
    }

    proptest! {
        /// The scan and the reader agree on what JSON is.
        #[test]
        fn the_scan_finds_fault_with_what_cannot_be_read_only(text in "[\\[\\]{}\",:0-9a-z\\\\ .eE+-]{0,40}") {
            let strict: Result<serde_json::Value, _> = serde_json::from_str(&text);
            match strict {
                Ok(value) => {
                    prop_assert_eq!(syntax_error(text.as_bytes()), None);
                    prop_assert!(read(text.as_bytes()).is_ok(), "{}", value);
                }
                // Numbers beyond what fits are JSON that cannot be read.
                Err(_) => prop_assert!(read(text.as_bytes()).is_err()),
            }
        }
    }
}
