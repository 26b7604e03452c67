//! What every process of Leeward does the same way: a small runtime, a log, and an orderly end on SIGTERM and SIGINT.

use std::{future::Future, time::Duration};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What is logged where `RUST_LOG` does not choose. While the Kubernetes API is away every request fails, each with a line of the
/// client; agents and nodes say themselves when that begins and ends.
const LOGGED: &str = "info,kube_client=off,kube_runtime=error";

/// Writes the log to standard error; `RUST_LOG` chooses what.
pub(crate) fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| LOGGED.into());
    // A second logger is refused, and the first one goes on.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .try_init();
}

/// A runtime with this many worker threads; idle memory grows with each.
pub(crate) fn runtime(workers: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
        .context("the runtime cannot be started")
}

/// Runs a service until it ends or the process is asked to; `stop` is cancelled then.
pub(crate) fn long_lived<F, T>(workers: usize, service: F) -> anyhow::Result<()>
where
    F: FnOnce(CancellationToken) -> T,
    T: Future<Output = anyhow::Result<()>>,
{
    log_to_stderr();
    runtime(workers)?.block_on(async {
        let stop = CancellationToken::new();
        cancel_on_signal(stop.clone(), &[])?;
        tokio::spawn(leeward_local::heap::give_back());
        service(stop).await
    })
}

/// Cancels `stop` when the process is asked to end, by SIGTERM, SIGINT or one of `others`.
pub(crate) fn cancel_on_signal(stop: CancellationToken, others: &[SignalKind]) -> anyhow::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()].iter().chain(others) {
        let what = || format!("signal {} cannot be handled", kind.as_raw_value());
        let mut asked = signal(*kind).with_context(what)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            asked.recv().await;
            stop.cancel();
        });
    }
    Ok(())
}
