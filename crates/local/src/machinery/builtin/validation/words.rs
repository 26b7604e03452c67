//! The forms that names, labels and amounts have in Kubernetes, and what its messages say of them.

use serde_json::Value;

use crate::machinery::FieldError;
use crate::machinery::builtin::quantity::Amount;

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

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which \
    must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
    '*.example.com', regex used for validation is \
    '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const NAME_PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. \
    'example.com/MyName')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, \
    '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or \
    '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const DATA_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
    'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const VARIABLE: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
    '93%', regex used for validation is '[0-9]+%')";
const ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

fn too_long(text: &str, most: usize) -> Option<String> {
    (text.len() > most).then(|| format!("must be no more than {most} characters"))
}

fn unless(fits: bool, message: &str) -> Option<String> {
    (!fits).then(|| message.to_owned())
}

impl Form {
    /// What is wrong with the text, if anything.
    pub(in crate::machinery::builtin) fn problems(self, text: &str) -> Vec<String> {
        match self {
            Self::Label => [too_long(text, 63), not_label(text)],
            Self::Subdomain => [too_long(text, 253), unless(is_subdomain(text), SUBDOMAIN)],
            Self::Wildcard => {
                let fits = text.strip_prefix("*.").is_some_and(is_subdomain);
                [too_long(text, 253), unless(fits, WILDCARD)]
            }
            Self::LabelKey => return label_key(text),
            Self::LabelValue => [
                too_long(text, 63),
                unless(text.is_empty() || is_name(text), LABEL_VALUE),
            ],
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
            Self::PathPart => return path_part(text),
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

fn is_dns_part(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn not_label(text: &str) -> Option<String> {
    let dotted = text.contains('.') && is_subdomain(text);
    unless(is_dns_part(text), if dotted { "must not contain dots" } else { LABEL })
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_dns_part)
}

fn is_name(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.bytes().all(inner) && edge(text.bytes().next()) && edge(text.bytes().last())
}

fn label_key(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => return vec![format!("a valid label key {QUALIFIED}")],
        Some(("", name)) => {
            problems.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            let wrong = Form::Subdomain.problems(prefix);
            problems.extend(wrong.into_iter().map(|problem| format!("prefix part {problem}")));
            name
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    }
    problems.extend(too_long(name, 63).map(|problem| format!("name part {problem}")));
    problems.extend(unless(is_name(name), &format!("name part {NAME_PART}")));
    problems
}

fn port_name(text: &str) -> Vec<String> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let charset = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)";
    let edges = !text.starts_with('-') && !text.ends_with('-');
    [
        too_long(text, 15),
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
        too_long(text, 253),
        unless(!text.is_empty() && text.bytes().all(inner), DATA_KEY),
        parent.map(str::to_owned),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn path_part(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    let holds = |part: &&str| text.contains(*part);
    let wrong = ["/", "%"].into_iter().filter(holds);
    wrong.map(|part| format!("may not contain '{part}'")).collect()
}

/// Refuses an amount below zero.
pub(super) fn amount(value: &Value, at: &str, errors: &mut Vec<FieldError>) {
    if Amount::of(value).is_some_and(|amount| amount.nanos() < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(at, value, detail));
    }
}
