//! What is protected, as a person asks for it.

use std::time::Duration;

use leeward_core::{
    app::{App, Model, Placement, Traffic, WriterRole},
    in_sync::WhenStandbyAway,
    name::AppKey,
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    fault::Place,
    world::{INTERVAL, name},
};

/// The cluster whose resource it is.
pub(crate) const AUTHORITY: Place = Place::West;

/// The application of a run: in a quarter of the seeds the writer stops while the standby is away.
pub(crate) fn app(seed: u64, rpo: Duration, has_roles: bool) -> App {
    // A generator of its own, so that what else happens in a seed stays as it is.
    let when_standby_away = match StdRng::seed_from_u64(seed ^ 0x7374_6f70).random_bool(0.25) {
        true => WhenStandbyAway::Stop,
        false => WhenStandbyAway::Serve,
    };
    let placement = |cluster: Place, priority| Placement {
        cluster: name(cluster),
        priority,
        weight: 100,
        standby_replicas: 0,
        overrides: vec![],
    };
    let role = WriterRole {
        name: "data".into(),
        claims: vec!["data".into()],
        interval: Duration::from_micros(INTERVAL),
    };
    App {
        key: AppKey::new("shop", "web"),
        authority: name(AUTHORITY),
        observed: 1,
        model: Model::ActivePassive,
        placements: vec![placement(Place::West, 1), placement(Place::East, 2)],
        rpo,
        when_standby_away,
        rto: Duration::from_secs(60),
        automatic: true,
        paused: false,
        roles: has_roles.then_some(role).into_iter().collect(),
        traffic: Some(Traffic {
            hosts: vec!["web.example".into()],
            service: "web".into(),
            port: 80,
            path: "/".into(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            tolerated_failures: 1,
        }),
        selector: serde_json::Value::Null,
        resource: serde_json::Value::Null,
    }
}
