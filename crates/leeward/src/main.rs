//! The command line of Leeward.

mod sample;

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("sample") => sample::run(),
        _ => anyhow::bail!("usage: leeward sample"),
    }
}
