//! The names and numbers that decisions are about, each a type of its own, so that a region is never passed for a
//! cluster nor an epoch for a generation.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A name that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: expected {form}")]
pub struct NameError {
    text: String,
    what: &'static str,
    form: &'static str,
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps a name as it is.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }
    };
}

text! {
    /// A failure domain.
    RegionName
}
text! {
    /// A Kubernetes cluster, by the name of its `Cluster` resource.
    ClusterName
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The next one. Saturates: after 2^64 steps nothing moves any more, and nothing goes back.
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Who may write in a role: only grows, and each value names one region.
    Epoch
}
number! {
    /// The number of a committed plan: only grows.
    Generation
}

/// An application: the namespace and name of its `ProtectedApp`. As text, `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppKey {
    /// The namespace of the `ProtectedApp`.
    pub namespace: String,
    /// The name of the `ProtectedApp`.
    pub name: String,
}

impl AppKey {
    /// The application of this namespace and name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for AppKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split('/').collect::<Vec<_>>()[..] {
            [namespace, name] if !namespace.is_empty() && !name.is_empty() => Ok(Self::new(namespace, name)),
            _ => Err(NameError {
                text: text.to_owned(),
                what: "an application",
                form: "NAMESPACE/NAME",
            }),
        }
    }
}

/// A writer role of an application. As text, `NAMESPACE/APP/ROLE`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleKey {
    /// The application that the role belongs to.
    pub app: AppKey,
    /// The role's name within the application.
    pub role: String,
}

impl RoleKey {
    /// The role of this name in an application.
    pub fn new(app: AppKey, role: impl Into<String>) -> Self {
        Self { app, role: role.into() }
    }
}

impl fmt::Display for RoleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.role)
    }
}

impl FromStr for RoleKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split('/').collect::<Vec<_>>()[..] {
            [namespace, app, role] if ![namespace, app, role].contains(&"") => {
                Ok(Self::new(AppKey::new(namespace, app), role))
            }
            _ => Err(NameError {
                text: text.to_owned(),
                what: "a writer role",
                form: "NAMESPACE/APP/ROLE",
            }),
        }
    }
}

macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(AppKey, RoleKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_as_they_were_written() {
        let role = RoleKey::new(AppKey::new("shop", "web"), "data");
        assert_eq!(role.to_string().parse(), Ok(role.clone()));
        assert_eq!(role.app.to_string().parse(), Ok(role.app));
    }

    #[test]
    fn a_key_with_a_missing_part_is_refused() {
        for text in ["", "a", "a/", "/a", "a/b/c"] {
            assert!(text.parse::<AppKey>().is_err(), "{text}");
        }
        for text in ["a/b", "a/b/", "a//c", "a/b/c/d"] {
            assert!(text.parse::<RoleKey>().is_err(), "{text}");
        }
    }
}
