//! Bodies in Kubernetes' protobuf, as kubectl's `create` sends them whatever the server offers. Pure.
//!
//! Only what kubectl makes from its own flags is known here; everything else is refused with the advice to send JSON.
//! Answers are always JSON. The messages are in `messages`.

use serde_json::{Map, Value};

use super::status::Failure;
use messages::{Field, Type, fields_of};

mod messages;

/// What a body in protobuf begins with.
const MAGIC: &[u8] = b"k8s\0";

use Type::{Bool, BytesMap, Int, IntOrString, Message, NonZero, Skip, Text, TextMap, True};

/// The object of a body in protobuf.
pub(crate) fn object(bytes: &[u8], wanted: &str) -> Result<Value, Failure> {
    let unrecognized = |why: &str| super::body::unrecognized(wanted, why, bytes);
    let bad = || unrecognized("unexpected EOF");
    let foreign = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";
    let envelope = match bytes.strip_prefix(MAGIC) {
        _ if bytes.is_empty() => return Err(unrecognized("empty data")),
        None => return Err(unrecognized(foreign)),
        Some([]) => return Err(unrecognized("empty body")),
        Some(envelope) => envelope,
    };
    let (mut type_meta, mut raw): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(envelope) {
        match field.ok_or_else(bad)? {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for field in Fields(type_meta) {
        match field.ok_or_else(bad)? {
            (1, Wire::Bytes(bytes)) => api_version = text(bytes).ok_or_else(bad)?,
            (2, Wire::Bytes(bytes)) => kind = text(bytes).ok_or_else(bad)?,
            _ => {}
        }
    }
    let send_json = |what: String| {
        Failure::new(
            415,
            "UnsupportedMediaType",
            format!("{what} in protobuf is not known to this server; send it as application/json"),
        )
    };
    let fields = fields_of(&kind).ok_or_else(|| send_json(format!("a {kind}")))?;
    let mut object = message(raw, fields).map_err(|e| match e {
        Problem::Malformed => bad(),
        Problem::Unknown(number) => send_json(format!("field {number} of a part of a {kind}")),
    })?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

enum Problem {
    Malformed,
    Unknown(u64),
}

fn message(bytes: &[u8], fields: &[Field]) -> Result<Map<String, Value>, Problem> {
    let mut object = Map::new();
    for read in Fields(bytes) {
        let (number, wire) = read.ok_or(Problem::Malformed)?;
        let field = fields
            .iter()
            .find(|f| f.number == number)
            .ok_or(Problem::Unknown(number))?;
        if matches!(field.of, TextMap | BytesMap) {
            let (key, value) = entry(wire, matches!(field.of, BytesMap)).ok_or(Problem::Malformed)?;
            let map = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            map[key] = value;
            continue;
        }
        let Some(value) = value(wire, &field.of, field.list)? else {
            continue;
        };
        if field.list {
            let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(value);
            }
        } else {
            object.insert(field.name.into(), value);
        }
    }
    Ok(object)
}

/// The value of a field; `None` for one that counts as absent.
fn value(wire: Wire<'_>, of: &Type, in_list: bool) -> Result<Option<Value>, Problem> {
    Ok(match (of, wire) {
        (Skip, _) => None,
        (Text, Wire::Bytes(bytes)) => {
            let text = text(bytes).ok_or(Problem::Malformed)?;
            (in_list || !text.is_empty()).then(|| text.into())
        }
        (Int, Wire::Number(n)) => Some(n.cast_signed().into()),
        (NonZero, Wire::Number(n)) => (n != 0).then(|| n.cast_signed().into()),
        (Bool, Wire::Number(n)) => Some((n != 0).into()),
        (True, Wire::Number(n)) => (n != 0).then_some(Value::Bool(true)),
        (Message(fields), Wire::Bytes(bytes)) => Some(Value::Object(message(bytes, fields)?)),
        (IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes).ok_or(Problem::Malformed)?,
        _ => return Err(Problem::Malformed),
    })
}

/// `Some(None)` for zero, which stands for "not said".
fn int_or_string(bytes: &[u8]) -> Option<Option<Value>> {
    let (mut is_text, mut number, mut said) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(n)) => is_text = n == 1,
            (2, Wire::Number(n)) => number = n.cast_signed(),
            (3, Wire::Bytes(bytes)) => said = text(bytes)?,
            _ => return None,
        }
    }
    Some(if is_text {
        Some(said.into())
    } else {
        (number != 0).then(|| number.into())
    })
}

fn entry(wire: Wire<'_>, of_bytes: bool) -> Option<(String, Value)> {
    use base64::Engine;
    let Wire::Bytes(bytes) = wire else { return None };
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(bytes)) => key = bytes,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => return None,
        }
    }
    let value = if of_bytes {
        base64::engine::general_purpose::STANDARD.encode(value)
    } else {
        text(value)?
    };
    Some((text(key)?, value.into()))
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// A field as it is on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message; `None` where it is malformed, after which nothing follows.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.number()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.number()?),
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Wire::Bytes(bytes)
            }
            _ => return None,
        };
        Some((tag >> 3, wire))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{MAGIC, object};

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn a_secret_is_read() {
        let metadata = [field(1, b"s"), field(8, b"")].concat();
        let data = [field(1, b"k"), field(2, b"v")].concat();
        let raw = [field(1, &metadata), field(2, &data), field(3, b"Opaque")].concat();
        let expected = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "dg=="},
            "type": "Opaque"});
        assert_eq!(object(&envelope("v1", "Secret", &raw), "Secret").unwrap(), expected);
    }

    #[test]
    fn what_is_not_known_is_sent_back_with_advice() {
        let failure = object(&envelope("v1", "Pod", b""), "Pod").unwrap_err();
        assert_eq!(
            (failure.code, failure.message.contains("application/json")),
            (415, true)
        );
        assert_eq!(
            object(&envelope("v1", "Secret", &field(15, b"")), "Secret")
                .unwrap_err()
                .code,
            415
        );
        assert_eq!(object(b"k8s\0\xff", "Pod").unwrap_err().code, 400);
        assert_eq!(object(b"{}", "Pod").unwrap_err().code, 400);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = object(&[MAGIC, &bytes[..]].concat(), "Pod");
            let _ = object(&envelope("apps/v1", "Deployment", &bytes), "Deployment");
        }
    }
}
