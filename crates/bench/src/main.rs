//! `leeward-bench`, which `cargo xtask bench` builds for release and runs: figures, never a verdict about another machine.

mod api;
mod figure;
mod fleet;
mod idle;
mod order;
mod region;
mod watchers;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Measures a local region, with the program `leeward` as it is built for release.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
enum Bench {
    /// Lists, creates, gets and watches on a local region's API and on a real API server, one after the other.
    Api(api::Options),
    /// The loss of a region with many applications: planned and committed in an etcd of three members. And what the quorum is written at rest.
    /// Exits 1 when 1,000 take over 2 s, when time grows faster than what moves, or when more than renewals is written at rest.
    Fleet(fleet::Options),
    /// What an agent takes while nothing happens: memory, processor, and requests to its Kubernetes API and to the quorum, with ten applications
    /// protected. Exits 1 over 64 MiB, 3 % of a core, or 25 requests to the Kubernetes API a minute for each application.
    Idle(idle::Options),
    /// Writes which functions a region's processes run, so that the linker puts them together.
    Order(order::Options),
    /// A region's start and memory, idle and after use. Exits 1 when it takes 3 s or 100 MiB.
    Region(region::Options),
}

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(Bench::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(bench: Bench) -> Result<ExitCode> {
    match bench {
        Bench::Api(options) => tokio::runtime::Runtime::new()?.block_on(api::run(options)),
        Bench::Fleet(options) => tokio::runtime::Runtime::new()?.block_on(fleet::run(&options)),
        Bench::Idle(options) => tokio::runtime::Runtime::new()?.block_on(idle::run(&options)),
        Bench::Order(options) => order::run(&options),
        Bench::Region(options) => region::run(&options),
    }
}
