//! The grammar of names and labels (RFC 1123, RFC 1035), and what Kubernetes says of a text that breaks it.

pub(crate) const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
    must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
pub(crate) const LETTER_FIRST: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with \
    an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
    validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
pub(crate) const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub(crate) const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, \
    '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or \
    '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// What a limit of length counts in, in Kubernetes' words: where validation is declared it says characters, elsewhere bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Characters,
}

impl Unit {
    /// What is wrong with the length of a text.
    pub(crate) fn too_long(self, text: &str, most: usize) -> Option<String> {
        let unit = match self {
            Self::Bytes => "bytes",
            Self::Characters => "characters",
        };
        (text.len() > most).then(|| format!("must be no more than {most} {unit}"))
    }
}

/// Whether a text is one label of a DNS name, of any length.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Whether a text is labels of DNS joined by dots, of any length.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_dns_label)
}

/// Whether a text is a name as the last part of a label's key, or a value of a label that is not empty, of any length.
pub(crate) fn is_name(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.bytes().all(inner) && edge(text.bytes().next()) && edge(text.bytes().last())
}

/// What is wrong with a subdomain.
pub(crate) fn subdomain_problems(text: &str, unit: Unit) -> Vec<String> {
    let form = (!is_subdomain(text)).then(|| SUBDOMAIN.to_owned());
    unit.too_long(text, 253).into_iter().chain(form).collect()
}

/// What is wrong with a key of a label or annotation: `NAME` or `PREFIX/NAME`.
pub(crate) fn key_problems(text: &str, unit: Unit) -> Vec<String> {
    let mut problems = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => {
            return vec![format!(
                "a valid label key {NAME} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            problems.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            let wrong = subdomain_problems(prefix, unit);
            problems.extend(wrong.into_iter().map(|problem| format!("prefix part {problem}")));
            name
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    }
    problems.extend(unit.too_long(name, 63).map(|problem| format!("name part {problem}")));
    if !is_name(name) {
        problems.push(format!("name part {NAME}"));
    }
    problems
}

/// What is wrong with a value of a label.
pub(crate) fn value_problems(text: &str, unit: Unit) -> Vec<String> {
    let form = (!text.is_empty() && !is_name(text)).then(|| LABEL_VALUE.to_owned());
    unit.too_long(text, 63).into_iter().chain(form).collect()
}

/// What is wrong with a text that is to be a part of a path.
pub(crate) fn path_part_problems(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    let banned = ['/', '%'].into_iter().filter(|c| text.contains(*c));
    banned.map(|c| format!("may not contain '{c}'")).collect()
}
