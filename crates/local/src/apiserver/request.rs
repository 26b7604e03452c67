//! A request's path and query, taken apart. Pure.

use std::collections::HashMap;
use std::num::IntErrorKind;

use super::status::Failure;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    Resources {
        group: String,
        version: String,
    },
    /// A collection, an object or a part of one.
    Resource(ResourcePath),
    /// `/openapi/v3`.
    OpenApiIndex,
    /// `/openapi/v3/GROUP_VERSION`, such as `apis/apps/v1`.
    OpenApi(String),
    /// `/version`.
    Version,
    /// `/healthz`, `/livez`, `/readyz`.
    Health,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

impl Path {
    pub(crate) fn parse(path: &str) -> Self {
        let decoded: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(decode).collect();
        let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["version"] => Self::Version,
            ["healthz" | "livez" | "readyz", ..] => Self::Health,
            ["openapi", "v3"] => Self::OpenApiIndex,
            ["openapi", "v3", rest @ ..] => Self::OpenApi(rest.join("/")),
            ["api"] => Self::CoreVersions,
            ["api", version] => Self::Resources {
                group: String::new(),
                version: (*version).into(),
            },
            ["api", version, rest @ ..] => Self::resource("", version, rest),
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).into()),
            ["apis", group, version] => Self::Resources {
                group: (*group).into(),
                version: (*version).into(),
            },
            ["apis", group, version, rest @ ..] => Self::resource(group, version, rest),
            _ => Self::Unknown,
        }
    }

    /// The API group that must be served for the path to lead anywhere, empty for what is always there; `None` for a
    /// path that leads nowhere.
    pub(crate) fn group(&self) -> Option<&str> {
        match self {
            Self::Group(group) | Self::Resources { group, .. } => Some(group),
            Self::Resource(path) => Some(&path.group),
            Self::Unknown => None,
            _ => Some(""),
        }
    }

    fn resource(group: &str, version: &str, rest: &[&str]) -> Self {
        let mut path = ResourcePath {
            group: group.into(),
            version: version.into(),
            ..ResourcePath::default()
        };
        let rest = match rest {
            ["namespaces", _, "status" | "finalize"] => rest,
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
                path.namespace = Some((*namespace).into());
                rest
            }
            rest => rest,
        };
        match rest {
            [plural] => path.plural = (*plural).into(),
            [plural, name] => {
                path.plural = (*plural).into();
                path.name = Some((*name).into());
            }
            [plural, name, subresource] => {
                path.plural = (*plural).into();
                path.name = Some((*name).into());
                path.subresource = Some((*subresource).into());
            }
            _ => return Self::Unknown,
        }
        Self::Resource(path)
    }
}

/// The parameters after the question mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(HashMap<String, Vec<String>>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|p| !p.is_empty());
        let mut found: HashMap<String, Vec<String>> = HashMap::new();
        for pair in pairs {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let values = found.entry(decode(&key.replace('+', " "))).or_default();
            values.push(decode(&value.replace('+', " ")));
        }
        Self(found)
    }

    /// A parameter that is there and not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.last(key).filter(|v| !v.is_empty())
    }

    /// Every value of a parameter that may be given more than once.
    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    fn last(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.last().map(String::as_str)
    }

    /// Whatever is not `false` or `0` is true.
    pub(crate) fn boolean(&self, key: &str) -> Option<bool> {
        self.last(key).map(|v| v != "0" && !v.eq_ignore_ascii_case("false"))
    }

    /// A parameter that is there, be it empty.
    pub(crate) fn given(&self, key: &str) -> Option<&str> {
        self.last(key)
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        self.boolean(key).unwrap_or(false)
    }

    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let number = text.parse::<i64>();
        number
            .map(Some)
            .map_err(|error| Failure::bad_request(number_error("ParseInt", text, error.kind())))
    }

    /// Whether nothing is to be kept.
    pub(crate) fn dry_run(&self) -> bool {
        self.get("dryRun") == Some("All")
    }
}

/// What Kubernetes says of a text that is no number.
pub(crate) fn number_error(function: &str, text: &str, kind: &IntErrorKind) -> String {
    let why = match kind {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {text:?}: {why}")
}

/// Undoes percent-encoding; what is not an encoding stays.
fn decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes.get(i + 1..i + 3).filter(|_| bytes[i] == b'%');
        let byte = hex
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Path, Query, ResourcePath};

    fn resource(group: &str, namespace: Option<&str>, rest: &[&str]) -> Path {
        Path::Resource(ResourcePath {
            group: group.into(),
            version: "v1".into(),
            namespace: namespace.map(Into::into),
            plural: rest[0].into(),
            name: rest.get(1).map(|s| (*s).into()),
            subresource: rest.get(2).map(|s| (*s).into()),
        })
    }

    #[test]
    fn paths_are_taken_apart() {
        let cases = [
            ("/api/v1/pods", resource("", None, &["pods"])),
            (
                "/api/v1/namespaces/a/pods/b/log",
                resource("", Some("a"), &["pods", "b", "log"]),
            ),
            ("/api/v1/namespaces/a", resource("", None, &["namespaces", "a"])),
            (
                "/api/v1/namespaces/a/status",
                resource("", None, &["namespaces", "a", "status"]),
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments",
                resource("apps", Some("a"), &["deployments"]),
            ),
            ("/apis/apps/v1/deployments/", resource("apps", None, &["deployments"])),
            ("/apis/apps", Path::Group("apps".into())),
            ("/openapi/v3/apis/apps/v1", Path::OpenApi("apis/apps/v1".into())),
            ("/api/v1/namespaces/a/pods/b/log/c", Path::Unknown),
            ("/", Path::Unknown),
        ];
        for (text, expected) in cases {
            assert_eq!(Path::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn a_query_is_decoded() {
        let query = Query::parse(Some("labelSelector=a%3Db%2Cc&watch=true&limit=x&e="));
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert!(query.flag("watch"));
        assert!(query.integer("limit").is_err());
        assert_eq!(query.get("e"), None);
        assert!(!Query::parse(Some("watch=0")).flag("watch"));
    }
}
