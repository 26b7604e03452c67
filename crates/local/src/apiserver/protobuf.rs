//! Bodies in Kubernetes' protobuf, as kubectl's `create` sends them whatever the server offers. Pure.
//!
//! The numbers of fields are in `wire`; what a field's value looks like is known from the types of the built-in kinds
//! ([`facts`]). Answers are always JSON.

use facts::{Form, Type};
use serde_json::{Map, Value};

use super::status::Failure;
use crate::machinery::facts;
use wire::Field;

mod wire;

/// What a body in protobuf begins with.
const MAGIC: &[u8] = b"k8s\0";

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
    let options = || facts::all().find(|(_, known)| known.itself.name == format!("meta.v1.{kind}"));
    let known = facts::kind(&kind, &api_version).map(facts::get);
    let known = known.or_else(|| options().map(|(_, known)| known));
    let known = known.ok_or_else(|| send_json(format!("a {kind}")))?;
    let mut object = Map::new();
    message(raw, known, known.itself.name, &mut object).map_err(|e| match e {
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

/// Reads a message with the numbers of `name` into an object of `of`.
fn message(bytes: &[u8], of: &Type, name: &str, object: &mut Map<String, Value>) -> Result<(), Problem> {
    let numbers = wire::fields(name);
    for read in Fields(bytes) {
        let (number, wire) = read.ok_or(Problem::Malformed)?;
        let unknown = || Problem::Unknown(number);
        let found = numbers.iter().find(|field| field.number == number);
        let found = found.ok_or_else(unknown)?;
        if let Some(part) = found.part {
            let Wire::Bytes(bytes) = wire else {
                return Err(Problem::Malformed);
            };
            message(bytes, of, part, object)?;
            continue;
        }
        let field = of.field(found.name).ok_or_else(unknown)?;
        match &field.form {
            Form::List(item) => {
                let list = object.entry(found.name).or_insert_with(|| Value::Array(Vec::new()));
                if let (Some(value), Value::Array(list)) = (value(wire, item)?, list) {
                    list.push(value);
                }
            }
            Form::Map(item) => {
                let (key, value) = entry(wire, item)?;
                let map = object.entry(found.name).or_insert_with(|| Value::Object(Map::new()));
                map[key] = value;
            }
            form => {
                let Some(value) = value(wire, form)? else { continue };
                if !absent(&value, found, field) {
                    object.insert(found.name.into(), value);
                }
            }
        }
    }
    Ok(())
}

/// Whether the value stands for nothing: a zero of a field that always has one, and that JSON leaves out.
fn absent(value: &Value, number: &Field, field: &facts::Field) -> bool {
    let zero = *value == "" || *value == 0 || *value == false;
    zero && !number.optional && (field.default.is_none() || field.form == Form::String)
}

/// One value; none for a time that is not said.
fn value(wire: Wire<'_>, form: &Form) -> Result<Option<Value>, Problem> {
    use base64::Engine;
    let bytes = match (form, wire) {
        (Form::Boolean, Wire::Number(n)) => return Ok(Some((n != 0).into())),
        (Form::Int32 | Form::Int64, Wire::Number(n)) => return Ok(Some(n.cast_signed().into())),
        (_, Wire::Bytes(bytes)) => bytes,
        _ => return Err(Problem::Malformed),
    };
    Ok(match form {
        Form::String => Some(text(bytes).ok_or(Problem::Malformed)?.into()),
        Form::Bytes => Some(base64::engine::general_purpose::STANDARD.encode(bytes).into()),
        Form::IntOrString => Some(int_or_string(bytes).ok_or(Problem::Malformed)?),
        Form::Quantity => Some(inner(bytes).and_then(text).ok_or(Problem::Malformed)?.into()),
        Form::Time => time(bytes).ok_or(Problem::Malformed)?,
        Form::Object | Form::Any if bytes.is_empty() => Some(Value::Object(Map::new())),
        Form::Object | Form::Any => {
            let raw = inner(bytes).ok_or(Problem::Malformed)?;
            Some(serde_json::from_slice(raw).map_err(|_| Problem::Malformed)?)
        }
        Form::Type(id) => {
            let of = facts::get(*id);
            if of.itself.form != Form::Object || of.fields.is_empty() {
                return value(Wire::Bytes(bytes), &of.itself.form);
            }
            let mut object = Map::new();
            message(bytes, of, of.itself.name, &mut object)?;
            Some(Value::Object(object))
        }
        _ => return Err(Problem::Malformed),
    })
}

/// The one field of a message that wraps something.
fn inner(bytes: &[u8]) -> Option<&[u8]> {
    match Fields(bytes).next()?? {
        (1, Wire::Bytes(bytes)) => Some(bytes),
        _ => None,
    }
}

/// Seconds and nanoseconds since 1970.
fn time(bytes: &[u8]) -> Option<Option<Value>> {
    let (mut seconds, mut nanoseconds) = (0, 0);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(n)) => seconds = n.cast_signed(),
            (2, Wire::Number(n)) => nanoseconds = i32::try_from(n.cast_signed()).ok()?,
            _ => return None,
        }
    }
    if bytes.is_empty() {
        return Some(None);
    }
    let time = jiff::Timestamp::new(seconds, nanoseconds).ok()?;
    Some(Some(time.to_string().into()))
}

fn int_or_string(bytes: &[u8]) -> Option<Value> {
    let (mut is_text, mut number, mut said) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(n)) => is_text = n == 1,
            (2, Wire::Number(n)) => number = n.cast_signed(),
            (3, Wire::Bytes(bytes)) => said = text(bytes)?,
            _ => return None,
        }
    }
    Some(if is_text { said.into() } else { number.into() })
}

/// A key of a map and its value.
fn entry(wire: Wire<'_>, form: &Form) -> Result<(String, Value), Problem> {
    let Wire::Bytes(bytes) = wire else {
        return Err(Problem::Malformed);
    };
    let (mut key, mut found): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(bytes) {
        match field.ok_or(Problem::Malformed)? {
            (1, Wire::Bytes(bytes)) => key = bytes,
            (2, Wire::Bytes(bytes)) => found = bytes,
            _ => return Err(Problem::Malformed),
        }
    }
    let key = text(key).ok_or(Problem::Malformed)?;
    Ok((key, value(Wire::Bytes(found), form)?.unwrap_or_default()))
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
    fn parts_without_a_name_belong_to_the_object_and_zeros_count_where_they_may() {
        let volume = [field(1, b"v"), field(2, &field(6, &field(1, b"s")))].concat();
        let container = [
            field(1, b"a"),
            field(8, &field(1, &[field(1, b"cpu"), field(2, &field(1, b"1"))].concat())),
        ];
        let grace = vec![4 << 3, 0, 11 << 3, 0];
        let spec = [field(1, &volume), field(2, &container.concat()), grace].concat();
        let expected = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"volumes": [{"name": "v", "secret": {"secretName": "s"}}],
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}], "terminationGracePeriodSeconds": 0}});
        assert_eq!(
            object(&envelope("v1", "Pod", &field(2, &spec)), "Pod").unwrap(),
            expected
        );
    }

    #[test]
    fn what_is_not_known_is_sent_back_with_advice() {
        let failure = object(&envelope("v1", "Thing", b""), "Thing").unwrap_err();
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
