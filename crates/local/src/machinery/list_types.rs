//! How the lists and maps of an object merge: by keys, as sets, or whole.

/// The merge topology of one kind's fields.
#[derive(Debug, Clone)]
pub struct ListTypes {
    kind: String,
}

impl ListTypes {
    /// The topology of a built-in kind.
    pub fn builtin(kind: &str) -> Self {
        Self { kind: kind.to_owned() }
    }

    /// The kind this answers for.
    pub fn kind(&self) -> &str {
        &self.kind
    }
}
