//! `leeward switchover APP --cancel`: calls off the switchover of an application that runs, or that was asked for and did not begin.
//!
//! What is called off is the `Operation` of that name. Where the cluster that it was made in does not answer, which may be why it is called
//! off, one of the same name is made in a cluster that does.

use anyhow::{Context as _, bail};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use leeward_api::{Operation, OperationSpec, ProtectedApp, operation::OperationType};
use serde_json::json;

use super::{Common, MANAGER};
use crate::fleet::{self, Picture, Told, full_name};

/// What is to be called off.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    name: String,
    to: String,
    /// The cluster that keeps its `Operation` and answers, if one does.
    kept_by: Option<String>,
}

/// Says in the resource that the operation is called off.
pub(super) async fn call_off(arguments: &Common) -> anyhow::Result<(Client, Operation)> {
    let fleet = arguments.source.open().await?;
    let picture = fleet.ask_any().await?;
    let told = picture.app(&arguments.app, arguments.namespace.as_deref())?;
    let found = find(&picture, told)?;
    let by = found.kept_by.as_ref().unwrap_or(&told.by);
    let client = fleet
        .client(by)
        .with_context(|| format!("{by} answered and has no client; this is a defect"))?;
    let namespace = told.resource.namespace().unwrap_or_default();
    let api: Api<Operation> = Api::namespaced(client.clone(), &namespace);
    let done = match &found.kept_by {
        Some(_) => {
            let params = PatchParams {
                field_manager: Some(MANAGER.into()),
                ..PatchParams::default()
            };
            let cancel = Patch::Merge(json!({ "spec": { "cancel": true } }));
            api.patch(&found.name, &params, &cancel).await
        }
        None => {
            let params = PostParams {
                field_manager: Some(MANAGER.into()),
                ..PostParams::default()
            };
            api.create(&params, &another(&found, &told.resource)).await
        }
    };
    match done {
        Ok(operation) => Ok((client.clone(), operation)),
        Err(error) => bail!("{by} refused to call {} off: {}", found.name, fleet::reason(&error)),
    }
}

/// The operation of the same name, called off.
fn another(found: &Found, app: &ProtectedApp) -> Operation {
    Operation {
        metadata: ObjectMeta {
            name: Some(found.name.clone()),
            namespace: app.namespace(),
            ..ObjectMeta::default()
        },
        spec: OperationSpec {
            type_: OperationType::Switchover,
            app: app.name_any(),
            to: found.to.clone(),
            accept_data_loss: None,
            cancel: true,
        },
        status: None,
    }
}

/// The operation that runs, else one that waits to begin.
fn find(picture: &Picture, told: &Told<ProtectedApp>) -> anyhow::Result<Found> {
    let app = &told.resource;
    let running = app.status.as_ref().and_then(|status| status.operation.as_ref());
    if let Some(late) = running.and_then(|running| running.not_cancellable.as_ref()) {
        bail!("{late}");
    }
    let phase = |operation: &Operation| operation.status.as_ref().and_then(|status| status.phase.clone());
    let of_app = picture
        .operations
        .iter()
        .filter(|told| told.resource.spec.app == app.name_any() && told.resource.namespace() == app.namespace());
    let waits = |operation: &Operation| phase(operation).is_none_or(|phase| phase == "Pending");
    let named = |operation: &Operation| match running {
        Some(running) => operation.name_any() == running.name,
        None => waits(operation) && operation.spec.type_ == OperationType::Switchover,
    };
    let kept = of_app.clone().find(|told| named(&told.resource));
    let (name, to) = match (running, kept) {
        (Some(running), _) => (running.name.clone(), running.to.clone()),
        (None, Some(kept)) => (kept.resource.name_any(), kept.resource.spec.to.clone()),
        (None, None) => {
            let newest = of_app.map(|told| &told.resource).next();
            let newest = newest.map_or_else(String::new, |operation| {
                let phase = phase(operation).unwrap_or_default();
                format!("; the newest, {}, has ended: {phase}", operation.name_any())
            });
            bail!(
                "no operation of {} runs: there is nothing to call off{newest}",
                full_name(app)
            );
        }
    };
    Ok(Found {
        name,
        to,
        kept_by: kept.map(|kept| kept.by.clone()),
    })
}

#[cfg(test)]
mod tests {
    use leeward_api::app::RunningOperation;

    use super::*;
    use crate::fleet::samples::{operation, shop};

    fn running(cancellable: bool) -> RunningOperation {
        RunningOperation {
            name: "shop-switchover-x".into(),
            type_: OperationType::Switchover,
            from: "west".into(),
            to: "east".into(),
            step: Some("LastPoint in west".into()),
            cancellable,
            not_cancellable: (!cancellable).then(|| "it is past its point of no return".into()),
        }
    }

    fn picture(running: Option<RunningOperation>, operations: Vec<Operation>) -> Picture {
        let mut app = shop(5, "east", &[]);
        if let Some(status) = &mut app.status {
            status.operation = running;
        }
        let by = || "west".to_owned();
        Picture {
            apps: vec![Told {
                resource: app,
                by: by(),
            }],
            operations: operations
                .into_iter()
                .map(|resource| Told { resource, by: by() })
                .collect(),
            ..Picture::default()
        }
    }

    fn switchover(name: &str, phase: &str) -> Operation {
        let mut switchover = operation(name, phase, 3);
        switchover.spec.type_ = OperationType::Switchover;
        switchover
    }

    fn found(picture: &Picture) -> anyhow::Result<Found> {
        find(picture, picture.app("shop", None)?)
    }

    #[test]
    fn the_running_operation_is_found_also_where_its_resource_is_away() {
        let runs = switchover("shop-switchover-x", "Running");
        let there = found(&picture(Some(running(true)), vec![runs])).unwrap();
        assert_eq!(
            (there.name.as_str(), there.kept_by.as_deref()),
            ("shop-switchover-x", Some("west"))
        );
        let away = picture(Some(running(true)), vec![]);
        let found = found(&away).unwrap();
        assert_eq!((found.to.as_str(), &found.kept_by), ("east", &None));
        let another = another(&found, &away.apps[0].resource);
        assert_eq!(another.name_any(), "shop-switchover-x");
        assert!(another.spec.cancel);
    }

    #[test]
    fn one_that_has_not_begun_is_called_off_too() {
        let found = found(&picture(None, vec![switchover("waits", "Pending")])).unwrap();
        assert_eq!(found.name, "waits");
    }

    #[test]
    fn what_cannot_be_called_off_is_said_with_the_reason() {
        let late = found(&picture(Some(running(false)), vec![])).unwrap_err().to_string();
        assert!(late.contains("point of no return"), "{late}");
        let ended = found(&picture(None, vec![switchover("done", "Succeeded")]))
            .unwrap_err()
            .to_string();
        assert_eq!(
            ended,
            "no operation of shop/shop runs: there is nothing to call off; the newest, done, has ended: Succeeded"
        );
    }
}
