//! The gate as a program of its own, to be built statically and put into any image.

use std::{io::Write as _, process::ExitCode};

use clap::Parser;

/// Runs a writer while its region is granted the right to write, and lets its answers out only then.
#[derive(Parser)]
#[command(name = "leeward-gate", version)]
struct Cli {
    #[command(flatten)]
    arguments: leeward_gate::Arguments,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        // Where a line finds no room, saying so on the same full disk would be a panic, and the writer's end.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .init();
    // In the words of `leeward gate`, so that an init container need not know of which program its image is.
    let mut line: Vec<_> = std::env::args_os().collect();
    if line.get(1).is_some_and(|first| first == "gate") {
        line.remove(1);
    }
    match leeward_gate::run(Cli::parse_from(line).arguments, &[]) {
        Ok(code) => code,
        Err(error) => {
            let _ = std::io::stderr().write_all(format!("error: {error}\n").as_bytes());
            error.code()
        }
    }
}
