//! The formats of texts that Kubernetes knows (`format` in a schema); others say nothing.

use std::sync::LazyLock;

use regex::Regex;

/// The formats and what a text of each must match; an empty pattern is checked in another way, or not at all.
const FORMATS: &[(&str, &str)] = &[
    ("bsonobjectid", "^[0-9a-fA-F]{24}$"),
    ("byte", ""),
    ("cidr", ""),
    ("creditcard", ""),
    ("date", ""),
    ("date-time", ""),
    ("datetime", ""),
    ("duration", ""),
    ("email", r"^[^@\s]+@[^@\s]+$|<[^@\s]+@[^@\s]+>$"),
    ("hexcolor", "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
    (
        "hostname",
        r"^([a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?)*\.?$",
    ),
    ("ipv4", ""),
    ("ipv6", ""),
    ("isbn", ""),
    ("isbn10", ""),
    ("isbn13", ""),
    (
        "k8s-long-name",
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    ),
    ("k8s-short-name", "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"),
    ("mac", "^([0-9a-fA-F]{2}[:-]){5,7}[0-9a-fA-F]{2}$"),
    ("password", ""),
    ("rgbcolor", r"^rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)$"),
    ("ssn", r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"),
    ("uri", r"^(/|[a-zA-Z][-a-zA-Z0-9+.]*:)\S*$"),
    (
        "uuid",
        "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
    ),
    (
        "uuid3",
        "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
    ),
    (
        "uuid4",
        "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$",
    ),
    (
        "uuid5",
        "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$",
    ),
];

/// The formats of numbers, which are part of their types.
const NUMBERS: &[&str] = &["int32", "int64", "float", "double"];

fn known(format: &str) -> Option<usize> {
    FORMATS.iter().position(|(name, _)| *name == format)
}

/// Whether the format of a place is one of texts.
pub(super) fn is_known(format: &Option<String>) -> bool {
    format.as_deref().is_some_and(|format| known(format).is_some())
}

/// Whether a definition that uses the format is warned.
pub(super) fn is_unheard_of(format: &str) -> bool {
    known(format).is_none() && !NUMBERS.contains(&format)
}

/// Whether a text has a format.
pub(super) fn fits(text: &str, format: &str) -> bool {
    static PATTERNS: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| {
        let pattern =
            |(_, pattern): &(_, &str)| Some(pattern).filter(|p| !p.is_empty()).and_then(|p| Regex::new(p).ok());
        FORMATS.iter().map(pattern).collect()
    });
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "byte" => is_base64(text),
        "duration" => super::rules::is_duration(text),
        _ => known(format)
            .and_then(|i| PATTERNS[i].as_ref())
            .is_none_or(|pattern| pattern.is_match(text)),
    }
}

fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        let bits = bits.parse::<u8>();
        let most = match address.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(_)) => 32,
            Ok(std::net::IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.is_ok_and(|bits| bits <= most)
    })
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}
