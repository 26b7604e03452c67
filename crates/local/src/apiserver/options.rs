//! The options of a list or watch, and which of them go together. Pure.

use super::request::{Query, number_error};
use super::status::Failure;
use crate::machinery::FieldError;

/// How a given revision is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Exact,
    NotOlderThan,
}

/// What a list or watch asks for besides its selectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListOptions {
    pub(crate) watch: bool,
    /// As it was given; read it with [`ListOptions::revision`].
    version: String,
    pub(crate) version_match: Option<Match>,
    /// 0 where there is none.
    pub(crate) limit: usize,
    pub(crate) token: Option<String>,
    pub(crate) initial_events: Option<bool>,
    pub(crate) bookmarks: bool,
    /// 0 where the server may choose.
    pub(crate) seconds: u64,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query) -> Result<Self, Failure> {
        let positive = |key: &str| Ok(u64::try_from(query.integer(key)?.unwrap_or(0)).unwrap_or(0));
        let text = |key: &str| query.get(key).unwrap_or_default();
        let (mut named, version) = (text("resourceVersionMatch"), text("resourceVersion"));
        let watch = query.flag("watch");
        let mut initial_events = query.boolean("sendInitialEvents");
        if watch && named.is_empty() && initial_events.is_none() && matches!(version, "" | "0") {
            (initial_events, named) = (Some(true), "NotOlderThan");
        }
        let options = Self {
            watch,
            version: version.to_owned(),
            version_match: match named {
                "Exact" => Some(Match::Exact),
                "NotOlderThan" => Some(Match::NotOlderThan),
                _ => None,
            },
            limit: usize::try_from(positive("limit")?).unwrap_or(usize::MAX),
            token: query.get("continue").map(str::to_owned),
            initial_events,
            bookmarks: query.flag("allowWatchBookmarks"),
            seconds: positive("timeoutSeconds")?,
        };
        let errors = options.errors(named);
        if errors.is_empty() {
            Ok(options)
        } else {
            Err(Failure::invalid_options("ListOptions", &errors))
        }
    }

    fn errors(&self, named: &str) -> Vec<FieldError> {
        const MATCH: &str = "resourceVersionMatch";
        let mut errors = Vec::new();
        let mut forbid = |field: &str, why: &str| errors.push(FieldError::forbidden(field, why));
        let supported: &[&str] = if self.watch {
            &["\"NotOlderThan\""]
        } else {
            &["\"Exact\"", "\"NotOlderThan\"", "\"\""]
        };
        let known = self
            .version_match
            .is_some_and(|m| !self.watch || m == Match::NotOlderThan);
        if self.watch && self.initial_events.is_some() && self.version_match != Some(Match::NotOlderThan) {
            forbid(
                MATCH,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            );
        }
        if !named.is_empty() {
            if self.watch && self.initial_events.is_none() {
                forbid(
                    MATCH,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            if !self.watch && self.version.is_empty() {
                forbid(
                    MATCH,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                );
            }
            if !self.watch && self.token.is_some() {
                forbid(MATCH, "resourceVersionMatch is forbidden when continue is provided");
            }
            if !known {
                let list: Vec<String> = supported.iter().map(|s| (*s).to_owned()).collect();
                errors.push(FieldError::unsupported(MATCH, &named.into(), &list));
            }
            if !self.watch && self.version_match == Some(Match::Exact) && self.version == "0" {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(FieldError::forbidden(MATCH, why));
            }
            if self.watch && self.token.is_some() {
                let why = "resourceVersionMatch is forbidden when continue is provided";
                errors.push(FieldError::forbidden(MATCH, why));
            }
        }
        if !self.watch && self.initial_events.is_some() {
            let why = "sendInitialEvents is forbidden for list";
            errors.push(FieldError::forbidden("sendInitialEvents", why));
        }
        errors
    }

    /// Whether a revision was given, be it 0.
    pub(crate) fn has_version(&self) -> bool {
        !self.version.is_empty()
    }

    /// The revision given; 0 where none was. What is wrong with it comes as a text.
    pub(crate) fn revision(&self) -> Result<u64, String> {
        revision(&self.version)
    }

    /// The revision that a `GET` of one object names.
    pub(crate) fn parse_revision(query: &Query) -> Result<u64, String> {
        revision(query.get("resourceVersion").unwrap_or_default())
    }
}

fn revision(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse::<u64>().map_err(|error| {
        let why = number_error("ParseUint", text, error.kind());
        format!("resourceVersion: Invalid value: {text:?}: {why}")
    })
}
