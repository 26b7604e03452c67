//! The pure functions of the local Kubernetes API: patches, server-side apply, schemas, defaults, tables, OpenAPI.
//!
//! Everything here works on `serde_json::Value` and does no IO: the server reads an object from its store, calls one of
//! these functions with the request's body and the time, and writes what it gets back. A function never panics on bad
//! input; what is wrong with a request comes back as an error that names the field.

pub mod apply;
pub mod builtin;
pub mod facts;
pub mod json;
pub mod kinds;
pub mod list_types;
mod members;
pub mod metadata;
pub mod openapi;
pub mod patch;
pub mod schema;
pub(crate) mod spdy;
pub mod table;
pub(crate) mod words;

/// What is wrong with one field of an object, in the words of Kubernetes' `Status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// Path of the field as people write it, such as `spec.containers[0].name`.
    pub field: String,
    /// Machine-readable kind of the error, such as `FieldValueInvalid`.
    pub reason: Reason,
    /// The error without the path, such as `Invalid value: "X": must be lower case`.
    pub message: String,
}

/// The kinds of field error that Kubernetes names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Reason {
    /// A required field is absent.
    #[serde(rename = "FieldValueRequired")]
    Required,
    /// The value is not allowed.
    #[serde(rename = "FieldValueInvalid")]
    Invalid,
    /// The value is none of a fixed set.
    #[serde(rename = "FieldValueNotSupported")]
    NotSupported,
    /// The value occurs more than once.
    #[serde(rename = "FieldValueDuplicate")]
    Duplicate,
    /// The value may not be set here, or not be changed.
    #[serde(rename = "FieldValueForbidden")]
    Forbidden,
    /// The value has the wrong JSON type.
    #[serde(rename = "FieldValueTypeInvalid")]
    TypeInvalid,
    /// The value is longer than allowed.
    #[serde(rename = "FieldValueTooLong")]
    TooLong,
    /// The list or map has too many items.
    #[serde(rename = "FieldValueTooMany")]
    TooMany,
    /// Something that the field refers to does not exist.
    #[serde(rename = "FieldValueNotFound")]
    NotFound,
}

impl Reason {
    /// The name that goes into `Status.details.causes[].reason`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
        }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Kubernetes' name for the object as a whole.
        let field = if self.field.is_empty() { "<nil>" } else { &self.field };
        write!(f, "{field}: {}", self.message)
    }
}

impl FieldError {
    /// An error of kind `reason` at `field`.
    pub fn new(field: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason,
            message: message.into(),
        }
    }

    /// A required field is absent.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() {
            "Required value".into()
        } else {
            format!("Required value: {detail}")
        };
        Self::new(field, Reason::Required, message)
    }

    /// The value is not allowed.
    pub fn invalid(field: impl Into<String>, value: &serde_json::Value, detail: &str) -> Self {
        Self::new(
            field,
            Reason::Invalid,
            format!("Invalid value: {}: {detail}", shown(value)),
        )
    }

    /// The value is none of the supported ones.
    pub fn unsupported(field: impl Into<String>, value: &serde_json::Value, supported: &[String]) -> Self {
        let list = supported.join(", ");
        let message = format!("Unsupported value: {}: supported values: {list}", shown(value));
        Self::new(field, Reason::NotSupported, message)
    }

    /// The value occurs more than once.
    pub fn duplicate(field: impl Into<String>, value: &serde_json::Value) -> Self {
        Self::new(field, Reason::Duplicate, format!("Duplicate value: {}", shown(value)))
    }

    /// The value may not be set or changed.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(field, Reason::Forbidden, format!("Forbidden: {detail}"))
    }
}

/// A value as an error message shows it: scalars as JSON, objects and lists by their JSON type's name.
fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(_) => "\"object\"".into(),
        serde_json::Value::Array(_) => "\"array\"".into(),
        other => other.to_string(),
    }
}
