//! The ready pods of this cluster by application: immutable, replaced as a whole by the agent.

use std::{collections::HashMap, net::SocketAddr};

use http::uri::Authority;
use leeward_core::name::AppKey;

/// Application to the addresses of its ready local pods.
#[derive(Debug, Clone, Default)]
pub struct Backends {
    by_app: HashMap<AppKey, Vec<Authority>>,
}

impl Backends {
    /// The pods of each application.
    pub fn new(pods: impl IntoIterator<Item = (AppKey, Vec<SocketAddr>)>) -> Self {
        let authorities = |list: Vec<SocketAddr>| list.into_iter().filter_map(authority).collect();
        Self {
            by_app: pods.into_iter().map(|(app, list)| (app, authorities(list))).collect(),
        }
    }

    /// The pods of an application, as the authority part of a URI.
    pub(crate) fn of(&self, app: &AppKey) -> &[Authority] {
        self.by_app.get(app).map_or(&[], Vec::as_slice)
    }
}

/// An address as the authority of a URI. Every address has one; the type only cannot say so.
pub(crate) fn authority(address: SocketAddr) -> Option<Authority> {
    Authority::try_from(address.to_string()).ok()
}
