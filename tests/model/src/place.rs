//! The two regions, and the names and numbers under which the core knows what is in the model.
//!
//! The state holds nothing that only grows, so that it is finite: of a revision it says whether it is still the newest, of an epoch how far
//! it is from the one in the quorum. Here these become the numbers that the core compares.

use std::sync::LazyLock;
use std::time::Duration;

use leeward_core::{
    app::{App, Model, Placement, WriterRole},
    in_sync::WhenStandbyAway,
    name::{AppKey, ClusterName, Epoch, RoleKey},
};

/// A region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// The one that has the role first.
    West,
    /// The other one.
    East,
}

/// An epoch, as its distance from the one in the quorum: 0 for that one, negative for older ones.
pub(crate) type Distance = i8;

/// The revision of what was not changed since it was read.
pub(crate) const FRESH: u64 = 2;
/// The revision of what was changed since. Revisions never come back, so all of these are alike.
pub(crate) const STALE: u64 = 1;

/// The epoch in the quorum, as the core sees it.
const CURRENT: u64 = 100;

impl Place {
    /// Both.
    pub(crate) const BOTH: [Self; 2] = [Self::West, Self::East];

    /// The other region.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::West => Self::East,
            Self::East => Self::West,
        }
    }

    pub(crate) fn name(self) -> &'static ClusterName {
        static NAMES: LazyLock<[ClusterName; 2]> = LazyLock::new(|| ["west".into(), "east".into()]);
        &NAMES[self as usize]
    }

    pub(crate) fn of(name: &ClusterName) -> Self {
        if name == Self::West.name() {
            Self::West
        } else {
            Self::East
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name().as_str())
    }
}

pub(crate) fn revision(fresh: bool) -> u64 {
    if fresh { FRESH } else { STALE }
}

pub(crate) fn epoch(distance: Distance) -> Epoch {
    Epoch(CURRENT.saturating_add_signed(distance.into()))
}

pub(crate) fn distance(epoch: Epoch) -> Distance {
    let distance = i128::from(epoch.0) - i128::from(CURRENT);
    distance.clamp(Distance::MIN.into(), Distance::MAX.into()) as Distance
}

/// The application: one role, in both regions, failed over without being asked.
pub(crate) fn app() -> &'static App {
    static APP: LazyLock<App> = LazyLock::new(|| {
        let placement = |place: Place| Placement {
            cluster: place.name().clone(),
            priority: 1,
            weight: 100,
            standby_replicas: 0,
            overrides: vec![],
        };
        App {
            key: AppKey::new("shop", "web"),
            authority: Place::West.name().clone(),
            observed: 1,
            model: Model::ActivePassive,
            placements: Place::BOTH.map(placement).into(),
            rpo: Duration::from_secs(60),
            when_standby_away: WhenStandbyAway::Serve,
            rto: Duration::from_secs(60),
            automatic: true,
            paused: false,
            roles: vec![WriterRole {
                name: "data".into(),
                claims: vec!["data".into()],
                interval: Duration::from_secs(1),
            }],
            traffic: None,
            selector: serde_json::Value::Null,
            resource: serde_json::Value::Null,
        }
    });
    &APP
}

pub(crate) fn role_key() -> &'static RoleKey {
    static KEY: LazyLock<RoleKey> = LazyLock::new(|| RoleKey::new(app().key.clone(), "data"));
    &KEY
}
