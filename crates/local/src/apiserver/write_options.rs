//! The options of a write that stand in its query: who writes, whether for real, and how strict. Pure.

use serde_json::json;

use super::request::Query;
use super::status::Failure;
use crate::machinery::{FieldError, Reason};

/// What is done with fields that a kind does not have, or that are given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Strict,
    Warn,
    Ignore,
}

impl FieldValidation {
    /// The query's, once [`check`] has passed.
    pub(crate) fn of(query: &Query) -> Self {
        match query.get("fieldValidation") {
            Some("Strict") => Self::Strict,
            Some("Ignore") => Self::Ignore,
            _ => Self::Warn,
        }
    }
}

/// The kinds of options, by their names in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Create,
    Update,
    Patch,
    Apply,
}

/// The longest name of a manager, bytes.
const LONGEST_MANAGER: usize = 128;

/// Refuses options that mean nothing.
pub(crate) fn check(query: &Query, kind: Kind) -> Result<(), Failure> {
    let mut errors = Vec::new();
    let manager = query.get("fieldManager").unwrap_or_default();
    match kind {
        Kind::Apply if manager.is_empty() => {
            errors.push(FieldError::required("fieldManager", "is required for apply patch"));
        }
        Kind::Patch if query.given("force").is_some() => {
            errors.push(FieldError::forbidden(
                "force",
                "may not be specified for non-apply patch",
            ));
        }
        _ => {}
    }
    if manager.len() > LONGEST_MANAGER {
        let message = format!("Too long: may not be more than {LONGEST_MANAGER} bytes");
        errors.push(FieldError::new("fieldManager", Reason::TooLong, message));
    }
    for (at, character) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(character));
        let message = format!("Invalid value: {}: {detail}", go_quoted(manager));
        errors.push(FieldError::new("fieldManager", Reason::Invalid, message));
    }
    if let Some(other) = query.given("dryRun").filter(|v| *v != "All") {
        let message = format!("Unsupported value: [{}]: supported values: \"All\"", json!(other));
        errors.push(FieldError::new("dryRun", Reason::NotSupported, message));
    }
    let validation = query.get("fieldValidation").unwrap_or_default();
    if !["", "Ignore", "Strict", "Warn"].contains(&validation) {
        let supported = ["", "Ignore", "Strict", "Warn"].map(|v| json!(v).to_string());
        errors.push(FieldError::unsupported(
            "fieldValidation",
            &validation.into(),
            &supported,
        ));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let name = match kind {
        Kind::Create => "CreateOptions",
        Kind::Update => "UpdateOptions",
        Kind::Patch | Kind::Apply => "PatchOptions",
    };
    Err(Failure::invalid_options(name, &errors))
}

/// A text in quotes, what cannot be printed escaped as Go does it.
fn go_quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\u{b}' => quoted.push_str("\\v"),
            '\n' | '\r' | '\t' | '"' | '\\' => quoted.extend(c.escape_default()),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
