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
            /// The next one, in the same incarnation. Saturates: after 2^40 steps nothing moves any more, and nothing goes back.
            pub fn next(self) -> Self {
                match self.ordinal() {
                    Incarnation::LOW => self,
                    _ => Self(self.0.saturating_add(1)),
                }
            }

            /// The quorum's incarnation that it was given out in: its high bits.
            pub fn incarnation(self) -> Incarnation {
                Incarnation((self.0 >> Incarnation::SHIFT) as u32)
            }

            /// Its number within the incarnation: its low bits.
            pub fn ordinal(self) -> u64 {
                self.0 & Incarnation::LOW
            }

            /// The same number in an incarnation, unless it is of a later one already. Two that were given out in one incarnation stay
            /// in their order, and equal ones stay equal.
            pub fn in_incarnation(self, incarnation: Incarnation) -> Self {
                self.max(Self(u64::from(incarnation.0) << Incarnation::SHIFT | self.ordinal()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// How often the quorum was begun anew after its majority was lost for good. It makes the high bits of every epoch and generation, so
/// that whatever is given out in an incarnation is above all that an earlier one can have given, also what nobody knows of any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// Where the high bits begin. A program that takes numbers for floating point still tells those of 8,191 incarnations apart.
    const SHIFT: u32 = 40;
    /// The low bits.
    const LOW: u64 = (1 << Self::SHIFT) - 1;
    /// The last one; there is none after it.
    pub const LAST: Self = Self((1 << (u64::BITS - Self::SHIFT)) - 1);

    /// The one after it, if there can be one.
    pub fn next(self) -> Option<Self> {
        (self < Self::LAST).then(|| Self(self.0 + 1))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

number! {
    /// Who may write in a role: only grows, and each value names one region.
    Epoch
}

impl Epoch {
    /// As a person reads it: `7`, and `2.7` in the second incarnation after the first one.
    pub fn readable(self) -> String {
        match self.incarnation() {
            Incarnation(0) => self.to_string(),
            incarnation => format!("{incarnation}.{}", self.ordinal()),
        }
    }
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
    fn an_epoch_of_a_later_incarnation_is_above_all_of_an_earlier_one() {
        let last = Epoch(Incarnation::LOW);
        assert_eq!(last.next(), last);
        for epoch in [Epoch(0), Epoch(1), Epoch(7), last] {
            let raised = epoch.in_incarnation(Incarnation(1));
            assert!(
                raised > last && raised < Epoch(0).in_incarnation(Incarnation(2)),
                "{raised}"
            );
            assert_eq!((raised.incarnation(), raised.ordinal()), (Incarnation(1), epoch.0));
            assert_eq!(raised.in_incarnation(Incarnation(0)), raised);
            assert_eq!(raised.in_incarnation(Incarnation(1)), raised);
        }
        let raised = Epoch(7).in_incarnation(Incarnation(1));
        assert_eq!(raised.next(), Epoch(8).in_incarnation(Incarnation(1)));
        assert_eq!((raised.readable().as_str(), Epoch(7).readable().as_str()), ("1.7", "7"));
        let end = last.in_incarnation(Incarnation::LAST);
        assert_eq!(
            (end.0, end.incarnation(), Incarnation::LAST.next()),
            (u64::MAX, Incarnation::LAST, None)
        );
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
