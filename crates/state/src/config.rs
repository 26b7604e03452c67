//! Configuration: the active cluster's objects of an application, carried to the clusters that stand by.
//!
//! Flow: where the application is active, [`cluster::fetch`] reads the namespace, [`select`] takes the
//! application's objects and what they refer to, [`clean`] takes off what belongs to that cluster alone, and a [`Bundle`] of them goes over the peer link. Where it stands by, [`Bundle::check`] refuses
//! what no application may send, [`desired`] makes of it what should be here, [`plan`] compares that with what is here, and
//! [`cluster::apply`] does it. [`Kept`] has the newest bundle on disk. Everything but it and [`cluster`] is pure.
//!
//! Invariants:
//! - Only the kinds of [`Kind`], and only in the application's namespace, are ever written.
//! - An object is deleted only when it was carried here, the source is the authority and this cluster is not, and the bundle still
//!   holds a workload; a claim is never deleted, because it may hold the last copy of data.
//! - What another manager keeps here (Argo CD, Flux, Helm) is compared and reported, never written; only how many replicas a workload has is.
//! - A Secret is carried only when it is asked for, and its values are in no text that is for a person.
//! - The ConfigMap `leeward-APP` tells each cluster its own epoch and is never carried.

mod autoscaler;
mod clean;
pub mod cluster;
mod compare;
mod keeper;
mod kept;
mod object;
mod plan;
mod quantity;
mod references;
mod secrets;
mod select;
mod standby;

pub use autoscaler::{SETTLE, autoscale, target};
pub use clean::clean;
pub use keeper::{Keeper, set_back};
pub use kept::{Kept, KeptError};
pub use object::{Id, Kind};
pub use plan::{Change, Receiver, missing, missing_priorities, plan};
pub use references::{Reference, images, references};
pub use secrets::Secrets;
pub use select::select;
pub use standby::{Override, Running, desired, scale};

use leeward_core::name::{AppKey, ClusterName, Epoch, Generation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The objects of an application as they are where it is active, cleaned: what travels over the peer link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// The application.
    pub app: AppKey,
    /// The cluster that the objects are from.
    pub source: ClusterName,
    /// The epoch in which they were read; none without writer roles.
    pub epoch: Option<Epoch>,
    /// The plan under which they were read.
    pub generation: Generation,
    /// Which Secrets are among them. An agent that does not say it carries all.
    #[serde(default = "Secrets::all", skip_serializing_if = "Secrets::is_all")]
    pub secrets: Secrets,
    /// The objects, cleaned, in the order in which they are applied.
    pub objects: Vec<Value>,
    /// BLAKE3 of the objects, hexadecimal: equal for equal objects, whatever the order of their keys.
    pub hash: String,
}

/// Why a bundle or an override was refused. Sending the same again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The objects are not those that the hash was made of.
    #[error("the configuration of {app} arrived damaged: it is asked for again")]
    Damaged {
        /// The application.
        app: AppKey,
    },
    /// An object that no application may have carried.
    #[error("the configuration of {app} holds {what}, which is never carried: nothing of it was applied")]
    Foreign {
        /// The application.
        app: AppKey,
        /// The object, or what of it could be read.
        what: String,
    },
    /// An override that would make another object of it.
    #[error("the override of {kind} {name} changes {field}: remove that from its patch")]
    Identity {
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
        /// What it changes.
        field: &'static str,
    },
}

impl Bundle {
    /// Puts cleaned objects into order and seals them with their hash. No Secrets may be among them, unless [`Bundle::with`] says which.
    pub fn new(
        app: AppKey,
        source: ClusterName,
        epoch: Option<Epoch>,
        generation: Generation,
        mut objects: Vec<Value>,
    ) -> Self {
        objects.sort_by_cached_key(Id::of);
        let hash = compare::hash(&objects);
        Self {
            app,
            source,
            epoch,
            generation,
            secrets: Secrets::None,
            objects,
            hash,
        }
    }

    /// The same, with the Secrets that were asked for.
    #[must_use]
    pub fn with(self, secrets: Secrets) -> Self {
        Self { secrets, ..self }
    }

    /// Checks what came from a peer: that it is whole, that every object is of a kind that is carried, and that none is outside of
    /// the application's namespace.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::Foreign`].
    pub fn check(&self) -> Result<(), Error> {
        if compare::hash(&self.objects) != self.hash {
            return Err(Error::Damaged { app: self.app.clone() });
        }
        for object in &self.objects {
            let foreign = |what: String| {
                Err(Error::Foreign {
                    app: self.app.clone(),
                    what,
                })
            };
            let Some(id) = Id::of(object) else {
                let kind = object["kind"].as_str().unwrap_or("no kind");
                return foreign(format!("an object of {kind}"));
            };
            let inside = match id.kind {
                Kind::Namespace => id.name == self.app.namespace,
                _ => object["metadata"]["namespace"] == self.app.namespace.as_str(),
            };
            if !inside {
                return foreign(format!("{id} of another namespace"));
            }
            if !self.secrets.let_pass(&id) {
                return foreign(format!("{id}, which nobody asked for"));
            }
            if object::stays(object, &self.app) || clean(object) != *object {
                return foreign(format!("{id} with what belongs to one cluster alone"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
