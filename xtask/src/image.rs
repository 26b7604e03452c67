//! `cargo xtask image`: the program as an image for clusters, without a container engine.
//!
//! The program in it is linked statically, for two reasons: an image is as small as that, and the gate, which is the same program, is copied
//! into the images of other people's writers, whose libraries are not known.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::workspace::{self, Workspace};

/// Has everything be in the program, the C library, too. Only for the target: what runs while building, such as macros, is loaded by the compiler.
const STATIC: &str = "-C target-feature=+crt-static";

/// Builds the program with a profile, whose files lie in `directory`, and has it write itself to `output`.
pub(crate) fn write(
    workspace: &Workspace,
    profile: &str,
    directory: &str,
    output: &Path,
    name: Option<&str>,
) -> Result<()> {
    let program = build(workspace, profile, directory)?;
    let mut image = std::process::Command::new(program);
    image.args(["image", "--output"]).arg(output);
    if let Some(name) = name {
        image.args(["--name", name]);
    }
    let status = image.status().context("leeward cannot be started")?;
    ensure!(status.success(), "the image cannot be written");
    Ok(())
}

/// Builds the program, linked statically; where it is.
pub(crate) fn build(workspace: &Workspace, profile: &str, directory: &str) -> Result<PathBuf> {
    let target = host()?;
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let built = workspace::cargo()
        .args(["build", "--locked", "--package", "leeward"])
        .args(["--profile", profile, "--target", &target])
        .env("RUSTFLAGS", format!("{flags} {STATIC}"))
        .current_dir(workspace.root())
        .status()
        .context("cargo cannot be started")?;
    ensure!(
        built.success(),
        "the program cannot be built; a static one needs the C library's static files, which Debian has in libc6-dev"
    );
    Ok(workspace.built(&format!("{target}/{directory}"), "leeward"))
}

/// The target that programs are built for on this machine.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = std::process::Command::new(rustc).arg("-vV").output();
    let said = String::from_utf8(said.context("rustc cannot be started")?.stdout)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say what it builds for")?.to_owned())
}
