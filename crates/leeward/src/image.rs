//! `leeward image`: this program as an image for a cluster, without a container engine.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::Args;
use leeward_images::pack::{self, Entry};

use crate::output;

/// Nobody in particular: an account that no file of the image belongs to.
const USER: &str = "65532:65532";

/// Where and under which name.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The archive.
    #[arg(long, value_name = "FILE", default_value = "leeward.tar")]
    output: PathBuf,
    /// The image's name.
    #[arg(long, value_name = "NAME:TAG", default_value = concat!("leeward.dev/leeward:", env!("CARGO_PKG_VERSION")))]
    name: String,
}

/// Writes the archive. A file of that name is replaced once the new one is whole.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let image = image()?;
    let part = arguments.output.with_extension("part");
    let fault = || format!("{} cannot be written", part.display());
    let file = BufWriter::new(File::create(&part).with_context(fault)?);
    let written = image.archive(&arguments.name, file).map_err(anyhow::Error::from);
    let written = written.and_then(|mut file| file.flush().with_context(fault));
    let placed = written.and_then(|()| std::fs::rename(&part, &arguments.output).with_context(fault));
    if placed.is_err() {
        // What is half written is of no use.
        let _ = std::fs::remove_file(&part);
    }
    placed?;
    output::line(format_args!(
        "{} {} {} ({} MiB)",
        arguments.output.display(),
        arguments.name,
        image.digest(),
        image.layers_len() >> 20
    ))?;
    Ok(())
}

/// This program as an image.
///
/// # Errors
/// Its file or a library that it needs cannot be read.
pub(crate) fn image() -> anyhow::Result<pack::OciImage> {
    let mut entries = pack::executable(&std::env::current_exe()?, "/leeward")?;
    entries.push(Entry::directory("/tmp", 0o1777));
    entries.push(Entry::directory(leeward_api::install::DATA_DIR, 0o1777));
    // Without it the C library may ask the network for names that the pod's own file has.
    entries.push(Entry::bytes("/etc/nsswitch.conf", 0o644, *b"hosts: files dns\n"));
    let config = pack::Config {
        entrypoint: vec!["/leeward".into()],
        user: USER.into(),
        labels: [(
            "org.opencontainers.image.version".to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
        )]
        .into(),
        ..pack::Config::default()
    };
    Ok(pack::image(vec![entries], &config)?)
}
