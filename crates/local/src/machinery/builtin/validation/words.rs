//! The forms that names, labels and amounts have in Kubernetes.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::machinery::FieldError;

pub(super) const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
    '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
    validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
pub(super) const FILE_NAME: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
    'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const QUANTITY: &str = "quantities must match the regular expression \
    '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

fn is_dns_part(text: &str, longest: usize) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=longest).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// RFC 1123 label.
pub(super) fn is_dns_label(text: &str) -> bool {
    is_dns_part(text, 63)
}

/// A key of a ConfigMap or Secret.
pub(super) fn is_file_name(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    (1..=253).contains(&text.len()) && text.bytes().all(inner) && text != "." && text != ".."
}

/// Refuses what is not an amount such as `500m`, `1Gi` or `2`.
pub(super) fn quantity(value: &Value, at: String, errors: &mut Vec<FieldError>) {
    static FORM: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$").ok());
    let fits = match value {
        Value::Number(_) => true,
        Value::String(text) => FORM.as_ref().is_none_or(|form| form.is_match(text)),
        _ => false,
    };
    if !fits {
        errors.push(FieldError::invalid(at, value, QUANTITY));
    }
}
