//! What a person chose to have carried, read again from the accepted resource: nothing is decided by it, so that decisions do not know it. Pure.

use leeward_api::app;
use leeward_core::app::App;
use leeward_state::config::Secrets;

/// Which Secrets are carried: none of an application that was accepted before there was this choice.
pub(super) fn secrets(app: &App) -> Secrets {
    let said = app.resource.get("configuration").cloned().unwrap_or_default();
    let said = serde_json::from_value::<app::Configuration>(said).unwrap_or_default();
    match said.secrets {
        app::Secrets::None => Secrets::None,
        app::Secrets::Named => Secrets::Named(said.secret_names.into_iter().collect()),
        app::Secrets::All => Secrets::All,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn secrets_are_carried_only_where_a_person_asks_for_them() {
        let asked = |resource: Value| {
            let app = json!({
                "key": "shop/web", "authority": "west", "observed": 1, "model": "ActivePassive", "placements": [],
                "rpo": { "secs": 5, "nanos": 0 }, "rto": { "secs": 5, "nanos": 0 }, "automatic": true, "roles": [],
                "selector": null, "resource": resource,
            });
            secrets(&serde_json::from_value(app).unwrap())
        };
        let named = Secrets::Named(["db".to_owned()].into());
        for (resource, wanted) in [
            (json!(null), Secrets::None),
            (json!({ "model": "ActivePassive" }), Secrets::None),
            (json!({ "configuration": {} }), Secrets::None),
            (json!({ "configuration": { "secrets": "None" } }), Secrets::None),
            (json!({ "configuration": { "secrets": "All" } }), Secrets::All),
            (
                json!({ "configuration": { "secrets": "Named", "secretNames": ["db"] } }),
                named,
            ),
            // A word of a newer agent: what is not understood is not carried.
            (json!({ "configuration": { "secrets": "Some" } }), Secrets::None),
        ] {
            assert_eq!(asked(resource.clone()), wanted, "{resource}");
        }
    }
}
