//! Who asks: bearer tokens from the region's token file.

use std::collections::HashMap;
use std::path::Path;

use http::{HeaderMap, header};
use serde::Deserialize;

/// Who a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

impl User {
    /// The region's own controllers, which call in process.
    pub(crate) fn local() -> Self {
        Self {
            name: "system:leeward-local".into(),
            groups: vec!["system:masters".into(), "system:authenticated".into()],
        }
    }
}

#[derive(Deserialize)]
struct Entry {
    token: String,
    user: String,
    #[serde(default)]
    groups: Vec<String>,
}

/// The tokens that the server accepts.
#[derive(Default)]
pub(crate) struct Tokens(HashMap<String, User>);

impl Tokens {
    /// Reads the token file: a JSON list of `{"token", "user", "groups"}`.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
        let entries: Vec<Entry> = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let users = entries.into_iter().filter(|e| !e.token.is_empty()).map(|mut e| {
            let everyone = "system:authenticated".to_owned();
            if !e.groups.contains(&everyone) {
                e.groups.push(everyone);
            }
            (
                e.token,
                User {
                    name: e.user,
                    groups: e.groups,
                },
            )
        });
        Ok(Self(users.collect()))
    }

    /// The user whose token the request carries.
    pub(crate) fn user(&self, headers: &HeaderMap) -> Option<User> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        self.of_token(token.trim()).cloned()
    }

    /// The user whose token it is.
    pub(crate) fn of_token(&self, token: &str) -> Option<&User> {
        self.0.get(token)
    }
}
