//! `Operation`s: asked for, and followed to their end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, PostParams},
};
use leeward_api::{Operation, OperationSpec, operation::OperationType};
use serde::Serialize;

use super::stage::Stage;
use crate::manifests;

/// A step with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    /// What was done.
    pub(crate) name: String,
    /// When it began, after the beginning of what it is a part of.
    pub(crate) start_ms: i64,
    /// When it ended.
    pub(crate) end_ms: i64,
}

/// Asks for a switchover, under this name; the operation's name.
pub(crate) async fn ask(stage: &Stage, name: &str, to: &str) -> anyhow::Result<String> {
    let api: Api<Operation> = Api::namespaced(stage.client(to)?, manifests::NAMESPACE);
    let spec = OperationSpec {
        type_: OperationType::Switchover,
        app: manifests::APP.into(),
        to: to.into(),
        accept_data_loss: None,
        cancel: false,
    };
    let operation = api.create(&PostParams::default(), &Operation::new(name, spec)).await?;
    Ok(operation.name_any())
}

/// Waits until an operation in a region's API has ended well: the one of this name, or the newest one.
pub(crate) async fn operation(
    stage: &Stage,
    region: &str,
    name: Option<&str>,
    patience: Duration,
) -> anyhow::Result<Operation> {
    let api: Api<Operation> = Api::namespaced(stage.client(region)?, manifests::NAMESPACE);
    let end = Instant::now() + patience;
    let mut last = String::new();
    loop {
        let listed = api
            .list(&ListParams::default())
            .await
            .map(|list| list.items)
            .unwrap_or_default();
        let found = listed
            .into_iter()
            .filter(|o| name.is_none_or(|name| o.name_any() == name))
            .max_by_key(|o| o.status.as_ref().and_then(|status| status.epoch));
        if let Some(found) = found {
            let status = found.status.clone().unwrap_or_default();
            match status.phase.as_deref() {
                Some("Succeeded") => return Ok(found),
                Some("Refused" | "Failed") => bail!("{}: {}", found.name_any(), status.message.unwrap_or_default()),
                _ => last = status.message.unwrap_or_default(),
            }
        }
        if Instant::now() > end {
            bail!("the operation did not end within {} s: {last}", patience.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The steps of an operation, with times in milliseconds after `began` (Unix ms).
pub(crate) fn steps(operation: &Operation, began: i64) -> Vec<Step> {
    let Some(status) = &operation.status else { return vec![] };
    let step = |step: &leeward_api::operation::StepStatus| {
        Some(Step {
            name: step.name.clone(),
            start_ms: step.started.as_ref()?.0.as_millisecond() - began,
            end_ms: step.ended.as_ref()?.0.as_millisecond() - began,
        })
    };
    status.steps.iter().filter_map(step).collect()
}

/// The source time of the point that an operation promoted, in Unix milliseconds.
pub(crate) fn promoted_ms(operation: &Operation) -> anyhow::Result<i64> {
    let point = operation
        .status
        .as_ref()
        .and_then(|status| status.promoted_point.as_ref());
    Ok(point
        .context("the operation does not say which point it promoted")?
        .0
        .as_millisecond())
}
