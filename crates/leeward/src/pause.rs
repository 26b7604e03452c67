//! `leeward pause` and `leeward resume`: says in a `ProtectedApp` whether Leeward moves it by itself.
//!
//! A specification has one home, so it is said there; the cluster of the copy that was found names it. The command returns when that
//! cluster's agent has taken notice, since until then the application may still be moved.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::wait::await_condition,
};
use leeward_api::ProtectedApp;
use leeward_controller::protected_app::accept::AUTHORITY_ANNOTATION;
use serde_json::json;

use crate::{
    fleet::{self, Source, Told, full_name},
    output, process, values,
};

/// The longest time until an agent has taken notice.
const NOTICED: Duration = Duration::from_secs(20);

/// `leeward pause`, `leeward resume`
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The application, as NAME or NAMESPACE/NAME.
    #[arg(value_parser = values::app)]
    app: String,
    /// The application's namespace; not needed while the name is unique.
    #[arg(short, long, value_parser = values::name)]
    namespace: Option<String>,
    #[command(flatten)]
    source: Source,
}

/// Says that an application is paused, or is not.
pub(crate) fn run(arguments: &Arguments, paused: bool) -> anyhow::Result<ExitCode> {
    process::runtime(1)?.block_on(async {
        let fleet = arguments.source.open().await?;
        let picture = fleet.ask_any().await?;
        let told = picture.app(&arguments.app, arguments.namespace.as_deref())?;
        let (name, home) = (full_name(&told.resource), home(told));
        let word = if paused { "paused" } else { "resumed" };
        if let Some(silence) = picture.silence_of(home) {
            bail!(
                "{home} has the specification of {name} and does not answer ({silence}), so that it cannot be {word} now; a person's failover \
                 and switchover work either way"
            );
        }
        // A change of a copy would be undone.
        let client = fleet.client(home).filter(|_| picture.answered.iter().any(|cluster| cluster == home));
        let client = client.with_context(|| {
            format!("{home} has the specification of {name}, and was not asked; give its --kubeconfig")
        })?;
        let namespace = told.resource.namespace().unwrap_or_default();
        let api: Api<ProtectedApp> = Api::namespaced(client.clone(), &namespace);
        let params = PatchParams {
            field_manager: Some("leeward-cli".into()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({ "spec": { "paused": paused } }));
        let patched = match api.patch(&told.resource.name_any(), &params, &patch).await {
            Ok(patched) => patched,
            Err(error) => bail!("{home} refused that {name} is {word}: {}", fleet::reason(&error)),
        };
        let generation = patched.metadata.generation;
        let resource = patched.name_any();
        let noticed = await_condition(api, &resource, move |app: Option<&ProtectedApp>| {
            let status = app.and_then(|app| app.status.as_ref());
            status.is_some_and(|status| status.observed_generation >= generation)
        });
        match tokio::time::timeout(NOTICED, noticed).await {
            Ok(noticed) => {
                noticed.context("the application cannot be watched")?;
            }
            Err(_) => bail!(
                "{name} says that it is {word}, but the agent of {home} has not taken notice within {} s: see `leeward status`",
                NOTICED.as_secs()
            ),
        }
        output::line(match paused {
            true => format!("{name} is paused: Leeward does not move it by itself until `leeward resume {name}`"),
            false => format!("{name} is resumed: Leeward moves it by itself where its specification says so"),
        })?;
        Ok(ExitCode::SUCCESS)
    })
}

/// The cluster that has the specification.
fn home(told: &Told<ProtectedApp>) -> &str {
    let annotation = told.resource.annotations().get(AUTHORITY_ANNOTATION);
    annotation.map_or(told.by.as_str(), String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::samples::shop;

    #[test]
    fn what_is_said_of_an_application_is_said_where_it_was_applied() {
        let mut told = Told {
            resource: shop(5, "east", &[]),
            by: "east".into(),
        };
        assert_eq!(home(&told), "east");
        told.resource
            .annotations_mut()
            .insert(AUTHORITY_ANNOTATION.into(), "west".into());
        assert_eq!(home(&told), "west");
    }
}
