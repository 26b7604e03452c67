//! The forms that names, labels and amounts have in Kubernetes, and what its messages say of them.

use serde_json::Value;

use crate::machinery::FieldError;
use crate::machinery::builtin::quantity::Amount;
use crate::machinery::words::{
    LABEL, Unit::Characters, is_dns_label, is_subdomain, key_problems, path_part_problems, subdomain_problems,
    value_problems,
};

/// What a text has to look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::machinery::builtin) enum Form {
    /// RFC 1123 label.
    Label,
    /// RFC 1123 subdomain.
    Subdomain,
    /// A subdomain whose first part is `*`.
    Wildcard,
    /// A key of a label or annotation: `name` or `example.com/name`.
    LabelKey,
    /// A value of a label.
    LabelValue,
    /// A name of a port.
    PortName,
    /// A key of a ConfigMap or Secret.
    DataKey,
    /// A name of an environment variable.
    Variable,
    /// A name that may be part of a path.
    PathPart,
    /// An IP address.
    Address,
    /// `20%`.
    Percent,
}

const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which \
    must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
    '*.example.com', regex used for validation is \
    '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DATA_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
    'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const VARIABLE: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
    '93%', regex used for validation is '[0-9]+%')";
const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

fn unless(fits: bool, message: &str) -> Option<String> {
    (!fits).then(|| message.to_owned())
}

impl Form {
    /// What is wrong with the text, if anything.
    pub(in crate::machinery::builtin) fn problems(self, text: &str) -> Vec<String> {
        match self {
            Self::Label => [Characters.too_long(text, 63), not_label(text)],
            Self::Subdomain => return subdomain_problems(text, Characters),
            Self::Wildcard => {
                let fits = text.strip_prefix("*.").is_some_and(is_subdomain);
                [Characters.too_long(text, 253), unless(fits, WILDCARD)]
            }
            Self::LabelKey => return key_problems(text, Characters),
            Self::LabelValue => return value_problems(text, Characters),
            Self::PortName => return port_name(text),
            Self::DataKey => return data_key(text),
            Self::Variable => {
                let fits = |c: char| (' '..='~').contains(&c) && c != '=';
                let empty = "environment variable name must be non-empty";
                [
                    unless(!text.is_empty(), empty),
                    unless(text.chars().all(fits), VARIABLE),
                ]
            }
            Self::PathPart => return path_part_problems(text),
            Self::Address => [unless(text.parse::<std::net::IpAddr>().is_ok(), ADDRESS), None],
            Self::Percent => {
                let digits = text.strip_suffix('%').unwrap_or_default();
                let fits = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
                [unless(fits, PERCENT), None]
            }
        }
        .into_iter()
        .flatten()
        .collect()
    }

    pub(in crate::machinery::builtin) fn fits(self, text: &str) -> bool {
        self.problems(text).is_empty()
    }
}

fn not_label(text: &str) -> Option<String> {
    let dotted = text.contains('.') && is_subdomain(text);
    unless(is_dns_label(text), if dotted { "must not contain dots" } else { LABEL })
}

fn port_name(text: &str) -> Vec<String> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let charset = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)";
    let edges = !text.starts_with('-') && !text.ends_with('-');
    [
        Characters.too_long(text, 15),
        unless(!text.is_empty() && text.bytes().all(inner), charset),
        unless(
            text.bytes().any(|c| c.is_ascii_lowercase()),
            "must contain at least one letter (a-z)",
        ),
        unless(!text.contains("--"), "must not contain consecutive hyphens"),
        unless(edges, "must not begin or end with a hyphen"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn data_key(text: &str) -> Vec<String> {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let parent = match text {
        "." => Some("must not be '.'"),
        ".." => Some("must not be '..'"),
        _ if text.starts_with("..") => Some("must not start with '..'"),
        _ => None,
    };
    [
        Characters.too_long(text, 253),
        unless(!text.is_empty() && text.bytes().all(inner), DATA_KEY),
        parent.map(str::to_owned),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Refuses an amount below zero.
pub(super) fn amount(value: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if Amount::of(value).is_some_and(|amount| amount.nanos() < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(at, value, detail));
    }
}
