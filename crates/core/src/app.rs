//! An application as decisions see it: what a person asked for, checked and with defaults filled in.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    in_sync::WhenStandbyAway,
    name::{AppKey, ClusterName, RoleKey},
};

/// What runs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Model {
    /// Every cluster serves.
    ActiveActive,
    /// One cluster serves and writes; the others stand by.
    ActivePassive,
}

/// An accepted specification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// Which application.
    pub key: AppKey,
    /// The cluster whose `ProtectedApp` this is.
    pub authority: ClusterName,
    /// The `metadata.generation` of that resource.
    pub observed: i64,
    /// What runs where.
    pub model: Model,
    /// Where, in the order that the person wrote.
    pub placements: Vec<Placement>,
    /// The most that may be lost.
    pub rpo: Duration,
    /// What the writer does while a standby does not confirm points.
    #[serde(default)]
    pub when_standby_away: WhenStandbyAway,
    /// The longest time until it is back.
    pub rto: Duration,
    /// Whether Leeward fails over by itself.
    pub automatic: bool,
    /// Whether a person said that it does nothing by itself for now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// The writer roles.
    pub roles: Vec<WriterRole>,
    /// How users reach it.
    pub traffic: Option<Traffic>,
    /// The label selector of its objects, as it stands in the resource.
    pub selector: serde_json::Value,
    /// The whole `spec` of the resource, for the read-only copies in the other clusters.
    pub resource: serde_json::Value,
}

/// One cluster of an application.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The cluster.
    pub cluster: ClusterName,
    /// 1 to 5, lower is preferred.
    pub priority: u8,
    /// 1 to 1000.
    pub weight: u16,
    /// Replicas of each workload while standing by.
    pub standby_replicas: i32,
    /// Merge patches on carried objects: kind, name, patch.
    pub overrides: Vec<(String, String, serde_json::Value)>,
}

/// A group of claims that makes points together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterRole {
    /// Its name within the application.
    pub name: String,
    /// The claims.
    pub claims: Vec<String>,
    /// Time between points.
    pub interval: Duration,
}

/// How users reach an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Host names.
    pub hosts: Vec<String>,
    /// The Service whose endpoints answer.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// The path that probes ask for.
    pub path: String,
    /// Time between probes.
    pub interval: Duration,
    /// How long a probe's answer may take.
    pub timeout: Duration,
    /// Failures in a row that are tolerated.
    pub tolerated_failures: u8,
}

impl App {
    /// The keys of its writer roles.
    pub fn role_keys(&self) -> impl Iterator<Item = RoleKey> + '_ {
        self.roles.iter().map(|role| RoleKey::new(self.key.clone(), &role.name))
    }

    /// Its placement in a cluster.
    pub fn placement(&self, cluster: &ClusterName) -> Option<&Placement> {
        self.placements.iter().find(|p| p.cluster == *cluster)
    }

    /// The cluster that is active first: the authority, since the data is there, else the most preferred one.
    pub fn first_active(&self) -> Option<&ClusterName> {
        self.placement(&self.authority)
            .or_else(|| self.placements.iter().min_by_key(|p| p.priority))
            .map(|placement| &placement.cluster)
    }

    /// Whether Leeward fails over by itself now.
    pub fn fails_over(&self) -> bool {
        self.model == Model::ActivePassive && self.automatic && !self.paused
    }

    /// The clusters that could take over from `active`, most preferred first.
    pub fn standbys<'a>(&'a self, active: &'a ClusterName) -> Vec<&'a Placement> {
        let mut standbys: Vec<_> = self.placements.iter().filter(|p| p.cluster != *active).collect();
        standbys.sort_by_key(|p| (p.priority, u16::MAX - p.weight));
        standbys
    }
}

/// All accepted applications.
pub type Apps = BTreeMap<AppKey, App>;
