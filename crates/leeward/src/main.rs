//! The command line of Leeward.

#[allow(dead_code)]
mod demo;
mod sample;

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["sample", ..] => sample::run(),
        // Before any runtime or thread exists: namespaces can only be entered by a process with one thread.
        ["local", "container", ..] => std::process::exit(leeward_local::container::main(&args[2..])),
        ["local", "api", "--config", file] => {
            let config = read(file)?;
            runtime()?.block_on(async {
                let server = leeward_local::apiserver::Server::open(config).await?;
                Ok(server.serve(stopped()).await?)
            })
        }
        ["local", "node", "--config", file] => {
            let config = read(file)?;
            runtime()?.block_on(async { Ok(leeward_local::node::run(config, stopped()).await?) })
        }
        _ => anyhow::bail!("usage: leeward sample"),
    }
}

fn read<T: serde::de::DeserializeOwned>(file: &str) -> anyhow::Result<T> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read the configuration {file}"))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{file} is not a configuration of this process"))
}

/// One thread is enough for a region's processes, and keeps them small.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LEEWARD_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        }
        _ => std::future::pending().await,
    }
}
