//! A decision of the core as a transaction of the store.

use std::collections::BTreeMap;

use leeward_core::{
    lease::{Lease, Sight},
    name::{AppKey, ClusterName},
    plan::{Change, Commit, Expect},
};

use crate::{Error, Txn, key};

/// The transaction of a commit for an application, which reads what the commit may change.
///
/// # Errors
/// A value cannot be written as JSON.
pub fn txn(app: &AppKey, sights: &BTreeMap<ClusterName, Sight>, commit: &Commit) -> Result<Txn, Error> {
    let mut txn = Txn::default();
    for expect in &commit.expects {
        txn = match expect {
            Expect::Plan(revision) => txn.expect(key::plan(app), *revision),
            Expect::Role(role, revision) => txn.expect(key::role(role), *revision),
            Expect::Lease(cluster, revision) => txn.expect(key::lease(cluster), *revision),
            Expect::Request(id, revision) => txn.expect(key::request(app, id), *revision),
            Expect::Maintenance(cluster, revision) => txn.expect(key::maintenance(cluster), *revision),
        };
    }
    for change in &commit.changes {
        txn = match change {
            Change::Plan(plan) => txn.put(key::plan(app), plan)?,
            Change::Role(role, state) => txn.put(key::role(role), state)?,
            Change::Seal(cluster) => match sights.get(cluster) {
                Some(sight) => txn.put(
                    key::lease(cluster),
                    &Lease {
                        sealed: true,
                        ..sight.lease.clone()
                    },
                )?,
                None => txn,
            },
            Change::Answer(request) if request.refused.is_some() => txn.put(key::request(app, &request.id), request)?,
            Change::Answer(request) => txn.delete(key::request(app, &request.id)),
        };
    }
    let prefixes = [
        key::spec(app),
        key::plan(app),
        format!("{}{app}/", key::ROLES),
        format!("{}{app}/", key::REQUESTS),
        key::LEASES.to_owned(),
    ];
    Ok(prefixes.into_iter().fold(txn, Txn::read))
}
