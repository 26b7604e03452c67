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
        _ => anyhow::bail!("usage: leeward sample"),
    }
}
