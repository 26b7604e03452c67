//! Reading a request's body: its size, its format, its depth.

use axum::body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::status::Failure;

/// The largest accepted body, bytes: that of Kubernetes.
pub(crate) const LIMIT: usize = 3 << 20;

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

/// An object of JSON or YAML.
pub(crate) fn object(bytes: &[u8], content_type: &str) -> Result<Value, Failure> {
    let value = match media_type(content_type) {
        "" | "application/json" | "*/*" => json(bytes)?,
        "application/yaml" | "application/x-yaml" => yaml(bytes)?,
        "application/vnd.kubernetes.protobuf" => super::protobuf::object(bytes)?,
        _ => return Err(Failure::unsupported_media("application/json, application/yaml")),
    };
    if !value.is_object() {
        return Err(Failure::bad_request("the body of the request is not an object"));
    }
    Ok(value)
}

/// JSON of at most 128 levels.
pub(crate) fn json(bytes: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(bytes).map_err(|e| {
        Failure::bad_request(format!(
            "the object provided is unrecognized: the body is not JSON: {e}"
        ))
    })
}

/// YAML, or JSON, which is YAML.
pub(crate) fn yaml(bytes: &[u8]) -> Result<Value, Failure> {
    if bytes.first() == Some(&b'{') {
        return json(bytes);
    }
    serde_saphyr::from_slice(bytes).map_err(|e| {
        Failure::bad_request(format!(
            "the object provided is unrecognized: the body is not YAML: {e}"
        ))
    })
}
