//! The edge's question whether this cluster may answer for an application now: the lease's clock, looked at each time.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use leeward_core::name::{AppKey, RoleKey};
use leeward_traffic::{Admission, Verdict};

use crate::agent::Agent;

/// Answers from the newest grants.
pub struct Grants {
    agent: Arc<Agent>,
    roles: ArcSwap<HashMap<AppKey, Vec<RoleKey>>>,
}

impl Grants {
    /// Nothing is known yet: everything with a writer role is refused.
    pub fn new(agent: Arc<Agent>) -> Arc<Self> {
        Arc::new(Self {
            agent,
            roles: ArcSwap::default(),
        })
    }

    /// Replaces the roles of each application.
    pub fn set_roles(&self, roles: HashMap<AppKey, Vec<RoleKey>>) {
        if **self.roles.load() != roles {
            self.roles.store(Arc::new(roles));
        }
    }
}

impl Admission for Grants {
    fn admit(&self, app: &AppKey) -> Verdict {
        let roles = self.roles.load();
        match roles.get(app) {
            None => Verdict::Refused {
                reason: "the application is not known here yet".into(),
            },
            Some(roles) if roles.is_empty() => Verdict::Free,
            Some(roles) => match self.agent.granted(roles, false) {
                Some(epoch) => Verdict::Granted { epoch },
                None => Verdict::Refused {
                    reason: "this region holds no grant for the writer role".into(),
                },
            },
        }
    }
}
