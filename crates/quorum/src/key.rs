//! Where things are in the quorum.

use leeward_core::{
    name::{AppKey, ClusterName, RoleKey},
    operation::StepName,
};

/// The prefix of all leases.
pub const LEASES: &str = "lease/";
/// The prefix of all roles.
pub const ROLES: &str = "role/";
/// The prefix of all accepted specifications.
pub const SPECS: &str = "spec/";
/// The prefix of all plans.
pub const PLANS: &str = "plan/";
/// The prefix of all requests.
pub const REQUESTS: &str = "request/";
/// The prefix of all journals.
pub const JOURNALS: &str = "journal/";
/// The prefix of what people said of clusters. A key is never deleted, so that its revision only grows.
pub const MAINTENANCE: &str = "maintenance/";
/// Which incarnation of the quorum this is; absent in the first one.
pub const INCARNATION: &str = "incarnation";
/// Who decides.
pub const LEADER: &str = "leader";

/// The prefixes below which agents write, besides [`LEADER`]; any agent may lead, and a leader seals the leases of others. The incarnation is
/// written by who begins one alone.
pub const WRITTEN_BELOW: [&str; 7] = [LEASES, ROLES, SPECS, PLANS, REQUESTS, JOURNALS, MAINTENANCE];

/// The application that a key says something of: of a specification, a plan, a role, a step or a request.
pub fn app_of(key: &str) -> Option<AppKey> {
    let rest = [SPECS, PLANS, ROLES, JOURNALS, REQUESTS]
        .iter()
        .find_map(|prefix| key.strip_prefix(prefix))?;
    let mut parts = rest.split('/');
    let (namespace, name) = (parts.next()?, parts.next()?);
    Some(AppKey::new(namespace, name))
}

/// A cluster's lease.
pub fn lease(cluster: &ClusterName) -> String {
    format!("{LEASES}{cluster}")
}

/// What was said of a cluster.
pub fn maintenance(cluster: &ClusterName) -> String {
    format!("{MAINTENANCE}{cluster}")
}

/// A writer role.
pub fn role(role: &RoleKey) -> String {
    format!("{ROLES}{role}")
}

/// An accepted specification.
pub fn spec(app: &AppKey) -> String {
    format!("{SPECS}{app}")
}

/// An application's plan.
pub fn plan(app: &AppKey) -> String {
    format!("{PLANS}{app}")
}

/// What a person asked for.
pub fn request(app: &AppKey, id: &str) -> String {
    format!("{REQUESTS}{app}/{id}")
}

/// A step of an operation.
pub fn journal(app: &AppKey, operation: &str, step: StepName) -> String {
    format!("{JOURNALS}{app}/{operation}/{step:?}")
}

/// All steps of an operation.
pub fn journal_prefix(app: &AppKey, operation: &str) -> String {
    format!("{JOURNALS}{app}/{operation}/")
}
