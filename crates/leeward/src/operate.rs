//! `leeward failover` and `leeward switchover`: makes an `Operation` in the cluster that is to be active, and follows it; or calls one off.

mod cancel;
mod follow;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use leeward_api::{Operation, OperationSpec, operation::OperationType};

use crate::{
    fleet::{self, Source, full_name},
    output, process, values,
};
use follow::{Progress, Verdict, Wish};

/// `leeward failover`
#[derive(Args, Debug)]
pub(crate) struct Failover {
    #[command(flatten)]
    common: Common,
    /// The cluster that is to be active.
    #[arg(long, value_name = "CLUSTER", value_parser = values::name)]
    to: String,
    /// Also to a cluster that is not in sync, and to any only where no more than this time before the last sign of the active one would be
    /// lost; such as 42s. It is kept in the operation's record
    #[arg(long, value_name = "DURATION", value_parser = values::duration, allow_hyphen_values = true)]
    accept_data_loss: Option<Duration>,
}

/// `leeward switchover`
#[derive(Args, Debug)]
pub(crate) struct Switchover {
    #[command(flatten)]
    common: Common,
    /// The cluster that is to be active.
    #[arg(long, value_name = "CLUSTER", required_unless_present = "cancel", value_parser = values::name)]
    to: Option<String>,
    /// Calls off the switchover that runs, as long as it is not past its point of no return.
    #[arg(long, conflicts_with = "to")]
    cancel: bool,
}

/// What both take.
#[derive(Args, Debug)]
struct Common {
    /// The application, as NAME or NAMESPACE/NAME.
    #[arg(value_parser = values::app)]
    app: String,
    /// The application's namespace; not needed while the name is unique.
    #[arg(short, long, value_parser = values::name)]
    namespace: Option<String>,
    /// Returns as soon as the operation is asked for.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    source: Source,
}

/// The exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Who writes what a person asks for here.
const MANAGER: &str = "leeward-cli";

/// Asks for a failover, and follows it to its end.
pub(crate) fn fail_over(arguments: &Failover) -> anyhow::Result<ExitCode> {
    let Failover {
        common,
        to,
        accept_data_loss,
    } = arguments;
    run(common, Wish::Move, async {
        ask(OperationType::Failover, common, to, accept_data_loss.map(Into::into)).await
    })
}

/// Asks for a switchover, or calls one off, and follows it to its end.
pub(crate) fn switch_over(arguments: &Switchover) -> anyhow::Result<ExitCode> {
    let common = &arguments.common;
    match &arguments.to {
        Some(to) => run(common, Wish::Move, ask(OperationType::Switchover, common, to, None)),
        None => run(common, Wish::CallOff, cancel::call_off(common)),
    }
}

fn run(
    arguments: &Common,
    wish: Wish,
    asks: impl Future<Output = anyhow::Result<(Client, Operation)>>,
) -> anyhow::Result<ExitCode> {
    process::runtime(1)?.block_on(async {
        let (client, operation) = asks.await?;
        let (name, namespace) = (operation.name_any(), operation.namespace().unwrap_or_default());
        output::line(match wish {
            Wish::Move => format!("operation {namespace}/{name} is asked for in {}", operation.spec.to),
            Wish::CallOff => format!("operation {namespace}/{name} is asked to be called off"),
        })?;
        if arguments.no_wait {
            return Ok(ExitCode::SUCCESS);
        }
        let api: Api<Operation> = Api::namespaced(client, &namespace);
        tokio::select! {
            verdict = watch(api, &name, wish) => Ok(match verdict? {
                Verdict::AsWished => ExitCode::SUCCESS,
                Verdict::Failed => ExitCode::FAILURE,
            }),
            signal = tokio::signal::ctrl_c() => {
                signal.context("Ctrl-C cannot be waited for")?;
                output::say(format_args!(
                    "\nthe operation goes on; watch it with: leeward status {namespace}/{}",
                    operation.spec.app
                ));
                Ok(ExitCode::from(INTERRUPTED))
            }
        }
    })
}

/// Makes the resource.
async fn ask(
    type_: OperationType,
    arguments: &Common,
    to: &str,
    accept: Option<kube::core::Duration>,
) -> anyhow::Result<(Client, Operation)> {
    let fleet = arguments.source.open().await?;
    let picture = fleet.ask_any().await?;
    let app = &picture.app(&arguments.app, arguments.namespace.as_deref())?.resource;
    picture.expect_cluster(to)?;
    let placements: Vec<_> = app
        .spec
        .placements
        .iter()
        .map(|placement| placement.cluster.as_str())
        .collect();
    if !placements.contains(&to) {
        bail!(
            "{} has no placement in {}; its placements are {}",
            full_name(app),
            to,
            placements.join(", ")
        );
    }
    let silence = picture.silence_of(to);
    let client = fleet.client(to).filter(|_| silence.is_none());
    let Some(client) = client else {
        bail!(
            "{} does not answer ({}); an application can only move to a cluster that is there",
            to,
            silence.unwrap_or("it is not among the local regions; give its --kubeconfig")
        );
    };
    let namespace = app.namespace().unwrap_or_default();
    let operation = Operation {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-{}-", app.name_any(), verb(type_))),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: OperationSpec {
            type_,
            app: app.name_any(),
            to: to.to_owned(),
            accept_data_loss: accept,
            cancel: false,
        },
        status: None,
    };
    let api: Api<Operation> = Api::namespaced(client.clone(), &namespace);
    let params = PostParams {
        field_manager: Some(MANAGER.into()),
        ..PostParams::default()
    };
    match api.create(&params, &operation).await {
        Ok(operation) => Ok((client.clone(), operation)),
        Err(error) => bail!("{to} refused the operation: {}", fleet::reason(&error)),
    }
}

fn verb(type_: OperationType) -> &'static str {
    match type_ {
        OperationType::Failover => "failover",
        OperationType::Switchover => "switchover",
    }
}

/// Follows an operation to its end and prints each step.
async fn watch(api: Api<Operation>, name: &str, wish: Wish) -> anyhow::Result<Verdict> {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut progress = Progress::new(wish);
    let stream = watcher::watch_object(api, name).default_backoff();
    let mut stream = std::pin::pin!(stream);
    loop {
        let operation = match stream.try_next().await {
            Ok(Some(Some(operation))) => operation,
            Ok(Some(None)) if progress.began() => bail!("the operation was deleted while it ran"),
            Ok(Some(None)) => continue,
            Ok(None) => bail!("the operation cannot be followed any more"),
            Err(error) => {
                bar.set_message(format!("the cluster does not answer: {error}"));
                continue;
            }
        };
        let news = progress.look(&operation);
        for line in news.lines {
            say(&bar, &line)?;
        }
        if let Some(verdict) = news.verdict {
            bar.finish_and_clear();
            return Ok(verdict);
        }
        bar.set_message(news.now);
    }
}

/// One line, above the spinner where there is one.
fn say(bar: &ProgressBar, line: &str) -> anyhow::Result<()> {
    if bar.is_hidden() {
        output::line(line)
    } else {
        bar.suspend(|| output::line(line))
    }
}
