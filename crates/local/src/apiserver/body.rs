//! Reading a request's body: its size, its format, and how Kubernetes says that it cannot be read.

use axum::body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};

use super::status::Failure;
use crate::machinery::json::{self, Read, type_name};

/// The largest accepted body, bytes: that of Kubernetes.
pub(crate) const LIMIT: usize = 3 << 20;

/// What is accepted as the body of an object.
const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
/// What an object's kind and version are read into.
const TYPE: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
/// How much of a body that cannot be read is shown, bytes.
const SHOWN: usize = 30;

/// The whole body.
pub(crate) async fn read(body: Body) -> Result<bytes::Bytes, Failure> {
    match Limited::new(body, LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::too_large(LIMIT)),
        Err(error) => Err(Failure::bad_request(format!("the body ended early: {error}"))),
    }
}

/// What a body is written in, by the media type of its `Content-Type`.
pub(crate) fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// An object of a kind, of JSON, YAML or protobuf. Nothing, where JSON or YAML says null.
pub(crate) fn object(bytes: &[u8], content_type: &str, kind: &str) -> Result<Read, Failure> {
    let cannot = |why: &str| unrecognized(kind, why, bytes);
    let mut read = match media_type(content_type) {
        "" | "application/json" | "*/*" => {
            json::read(bytes).map_err(|e| cannot(&format!("couldn't get version/kind; json parse error: {e}")))?
        }
        "application/yaml" | "application/x-yaml" => yaml(bytes).map_err(|e| cannot(&e))?,
        "application/vnd.kubernetes.protobuf" => super::protobuf::object(bytes, kind)?.into(),
        _ => return Err(Failure::unsupported_media(ACCEPTED)),
    };
    if read.value.is_null() {
        read.value = json!({});
    }
    let undecodable = |value: &Value, into: &str| {
        cannot(&format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go {into}",
            type_name(value)
        ))
    };
    if !read.value.is_object() {
        return Err(undecodable(&read.value, &format!("value of type {TYPE}")));
    }
    for name in ["apiVersion", "kind"] {
        if let Some(value) = read.value.get(name).filter(|v| !v.is_string() && !v.is_null()) {
            return Err(undecodable(value, &format!("struct field .{name} of type string")));
        }
    }
    Ok(read)
}

/// The failure to read a body as an object of a kind.
pub(crate) fn unrecognized(kind: &str, why: &str, bytes: &[u8]) -> Failure {
    let cut = &bytes[..bytes.len().min(SHOWN)];
    let more = if bytes.len() > SHOWN { " ..." } else { "" };
    let shown = match bytes.first() {
        None => "<empty>".into(),
        Some(b'{') => String::from_utf8_lossy(cut).into_owned(),
        Some(_) => hex::encode(cut),
    };
    Failure::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({shown}{more})"
    ))
}

/// A patch in JSON.
pub(crate) fn patch(bytes: &[u8]) -> Result<Read, String> {
    json::read(bytes)
}

/// An apply configuration: YAML, or JSON, which is YAML.
pub(crate) fn configuration(bytes: &[u8]) -> Result<Read, Failure> {
    let cannot = |why: String| Failure::bad_request(format!("error decoding YAML: {why}"));
    let mut read = yaml(bytes).map_err(|e| cannot(format!("error converting YAML to JSON: {e}")))?;
    match &read.value {
        Value::Null => read.value = json!({}),
        Value::Object(_) => {}
        other => {
            return Err(cannot(format!(
                "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go value of type \
                 map[string]interface {{}}",
                type_name(other)
            )));
        }
    }
    Ok(read)
}

/// YAML. A key that is given twice is told, and its last value counts.
fn yaml(bytes: &[u8]) -> Result<Read, String> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Read::default());
    }
    if bytes.first() == Some(&b'{')
        && let Ok(read) = json::read(bytes)
        && read.repeated.is_empty()
    {
        return Ok(read);
    }
    let strict = match serde_saphyr::from_slice::<Value>(bytes) {
        Ok(value) => return Ok(value.into()),
        Err(error) => error.to_string(),
    };
    let first = strict.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let Some((place, key)) = first.split_once(": duplicate mapping key: ") else {
        return Err(format!("yaml: {first}"));
    };
    let line = place.split(' ').nth(1).unwrap_or_default();
    let key = key.split(", set ").next().unwrap_or_default();
    let lenient = serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins };
    let value = serde_saphyr::from_slice_with_options(bytes, lenient).map_err(|e| format!("yaml: {e}"))?;
    Ok(Read {
        value,
        repeated: vec![format!("line {line}: key {key:?} already set in map")],
    })
}
