//! The command line of Leeward.

#[allow(dead_code)]
mod demo;
mod sample;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["sample", ..] => sample::run(),
        // Before any runtime or thread exists: namespaces can only be entered by a process with one thread.
        ["local", "container", ..] => std::process::exit(leeward_local::container::main(&args[2..])),
        ["local", "api", "--config", file] => {
            log();
            Ok(leeward_local::process::api(file.as_ref())?)
        }
        ["local", "node", "--config", file] => {
            log();
            Ok(leeward_local::process::node(file.as_ref())?)
        }
        _ => anyhow::bail!("usage: leeward sample"),
    }
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("LEEWARD_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
