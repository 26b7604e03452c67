//! Label and field selectors. Pure.

mod fields;
mod labels;

use serde_json::Value;

use super::registry::Resource;
use super::status::Failure;

/// What an object must have to be listed or watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<labels::Requirement>,
    fields: Vec<fields::Term>,
}

impl Selector {
    pub(crate) fn parse(labels: Option<&str>, fields: Option<&str>, resource: &Resource) -> Result<Self, Failure> {
        Ok(Self {
            labels: labels::parse(labels.unwrap_or_default()).map_err(Failure::bad_request)?,
            fields: fields::parse(fields.unwrap_or_default(), resource).map_err(Failure::bad_request)?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.labels.iter().all(|requirement| requirement.holds(labels))
            && self
                .fields
                .iter()
                .all(|term| (fields::value(object, &term.path) == term.value) == term.equal)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Selector, fields, labels};

    fn matches(text: &str) -> bool {
        let object = json!({"metadata": {"name": "n", "labels": {"a": "b", "tier": "web", "n": "5"}}});
        let selector = Selector {
            labels: labels::parse(text).unwrap(),
            ..Selector::default()
        };
        selector.matches(&object)
    }

    #[test]
    fn labels_select() {
        for yes in [
            "a=b",
            "a==b",
            "a",
            "!c",
            "a in (x, b),tier",
            "a!=c",
            "z!=c",
            "tier notin (db)",
            "n>4,n<6",
            "",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in [
            "a=c",
            "!a",
            "a in (x,y)",
            "a!=b",
            "z",
            "tier notin (db,web)",
            "z in (a)",
            "n>5",
            "a in ()",
        ] {
            assert!(!matches(no), "{no}");
        }
    }

    #[test]
    fn a_broken_selector_is_refused() {
        for bad in [
            "a in b", "a=b=c d", "a in (b", "=b", "a b", "a,", ",a", "a/b/c", "/a", "n>x", "(",
        ] {
            assert!(labels::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fields_of_an_object_are_read_as_text() {
        let object = json!({"metadata": {"name": "n"}, "spec": {"hostNetwork": true}, "source": {"component": "c"}});
        for (path, expected) in [
            ("metadata.name", "n"),
            ("spec.hostNetwork", "true"),
            ("spec.unschedulable", "false"),
            ("source", "c"),
            ("status.phase", ""),
        ] {
            assert_eq!(fields::value(&object, path), expected, "{path}");
        }
    }
}
