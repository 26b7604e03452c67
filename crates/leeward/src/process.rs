//! What every process of Leeward does the same way: a small runtime, a log, and an orderly end on SIGTERM and SIGINT.

use std::{future::Future, time::Duration};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What is logged where `RUST_LOG` does not choose. While the Kubernetes API is away every request fails, each with a line of the
/// client; agents and nodes say themselves when that begins and ends.
const LOGGED: &str = "info,kube_client=off,kube_runtime=error";

/// What a process that serves does first: it writes its log to standard error, where `RUST_LOG` chooses what, and ends at a panic.
pub(crate) fn begin() {
    end_on_panic();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| LOGGED.into());
    // A second logger is refused, and the first one goes on.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        // Where a line finds no room, saying so on the same full disk would be a panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .try_init();
}

/// Has a panic of any task or thread end the process. One that goes on without a part of itself is taken for whole by others; one that is
/// gone is not, is started again, and has what it must not do without that part end at its lease.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
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
    begin();
    runtime(workers)?.block_on(async {
        let stop = CancellationToken::new();
        cancel_on_signal(stop.clone(), &[])?;
        tokio::spawn(leeward_local::heap::give_back(|| {}));
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

/// This program, to be started again.
pub(crate) fn this() -> anyhow::Result<std::process::Command> {
    let program = std::env::current_exe().context("this program's file is not known")?;
    Ok(std::process::Command::new(program))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::Command};

    #[test]
    fn a_process_that_finds_no_room_for_its_log_goes_on() {
        const CHILD: &str = "LEEWARD_TEST_LOGS";
        if std::env::var_os(CHILD).is_some() {
            super::begin();
            tracing::info!("nobody reads this");
            std::process::exit(7);
        }
        let name = "process::tests::a_process_that_finds_no_room_for_its_log_goes_on";
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        let ended = child
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .stderr(full)
            .status()
            .unwrap();
        assert_eq!(ended.code(), Some(7), "{ended}");
    }

    #[test]
    fn a_panic_of_a_task_ends_the_whole_process() {
        const CHILD: &str = "LEEWARD_TEST_PANICS";
        if std::env::var_os(CHILD).is_some() {
            super::end_on_panic();
            let runtime = super::runtime(1).unwrap();
            // What the task leaves behind is what goes on for ever in the parent's eyes, were it not for the hook.
            runtime.block_on(async {
                tokio::spawn(async { panic!("a defect") });
                std::future::pending::<()>().await;
            });
        }
        let name = "process::tests::a_panic_of_a_task_ends_the_whole_process";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let ended = child
            .args([name, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert_eq!(ended.status.signal(), Some(libc::SIGABRT));
        assert!(String::from_utf8_lossy(&ended.stderr).contains("a defect"));
    }
}
