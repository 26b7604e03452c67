//! A Debian package unpacked below a directory: downloaded by apt, which checks its signature, and unpacked by dpkg. Nothing of it
//! is configured, so no service starts, and no root is needed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// Downloads `package` and unpacks it into `into`.
///
/// # Errors
/// When this is no Debian or Ubuntu, or the package cannot be had, or only in a version older than `at_least`.
pub(super) fn unpack(package: &str, at_least: &str, into: &Path) -> Result<()> {
    for program in ["apt-get", "dpkg"] {
        if Command::new(program).arg("--version").output().is_err() {
            bail!("this is no Debian or Ubuntu: there is no {program}");
        }
    }
    let downloads = into.join("packages");
    std::fs::create_dir_all(&downloads).with_context(|| format!("cannot make {}", downloads.display()))?;
    println!("unpacking the package {package} into {}", into.display());
    let result = download(package, &downloads).and_then(|()| unpack_all(&downloads, at_least, into));
    let _ = std::fs::remove_dir_all(&downloads);
    result
}

/// With the machine's own package lists, or, where it has none, with lists that are fetched for this download alone.
fn download(package: &str, downloads: &Path) -> Result<()> {
    let apt = |state: &[String], words: &[&str]| {
        Command::new("apt-get")
            .args(state)
            .args(["-qq"])
            .args(words)
            .current_dir(downloads)
            .status()
    };
    if apt(&[], &["download", package]).is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let own = downloads.join("apt");
    let lists = own.join("lists");
    std::fs::create_dir_all(lists.join("partial")).with_context(|| format!("cannot make {}", lists.display()))?;
    let state = [
        format!("-oDir::State={}", own.display()),
        format!("-oDir::State::lists={}", lists.display()),
        "-oDir::State::status=/var/lib/dpkg/status".to_owned(),
        format!("-oDir::Cache={}", own.join("cache").display()),
        "-oAPT::Sandbox::User=".to_owned(),
    ];
    std::fs::create_dir_all(own.join("cache/archives/partial")).context("cannot make apt's cache")?;
    let update = apt(&state, &["update"]).context("apt-get cannot be started")?;
    ensure!(
        update.success(),
        "the package lists cannot be fetched: is the archive reachable?"
    );
    let status = apt(&state, &["download", package]).context("apt-get cannot be started")?;
    ensure!(status.success(), "the package {package} cannot be downloaded");
    Ok(())
}

fn unpack_all(downloads: &Path, at_least: &str, into: &Path) -> Result<()> {
    let mut unpacked = 0;
    for entry in std::fs::read_dir(downloads).context("the downloads are gone")? {
        let file = entry.context("the downloads are gone")?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            check_version(&file, at_least)?;
            let status = Command::new("dpkg")
                .arg("-x")
                .arg(&file)
                .arg(into)
                .status()
                .context("dpkg cannot be started")?;
            ensure!(status.success(), "{} cannot be unpacked", file.display());
            unpacked += 1;
        }
    }
    ensure!(unpacked > 0, "nothing was downloaded");
    Ok(())
}

fn check_version(file: &Path, at_least: &str) -> Result<()> {
    let output = Command::new("dpkg")
        .arg("-f")
        .arg(file)
        .arg("Version")
        .output()
        .context("dpkg cannot be started")?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let compared = Command::new("dpkg")
        .args(["--compare-versions", &version, "ge", at_least])
        .status();
    ensure!(
        compared.is_ok_and(|status| status.success()),
        "the archive has version {version}, {at_least} or later is needed"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs Debian or Ubuntu and its archive"]
    fn a_package_is_unpacked_without_root() {
        let into = tempfile::tempdir().unwrap();
        unpack("etcd-server", "3.4", into.path()).unwrap();
        assert!(into.path().join("usr/bin/etcd").is_file());
        assert!(!into.path().join("packages").exists());
    }

    #[test]
    #[ignore = "needs Debian or Ubuntu and its archive"]
    fn a_package_that_is_too_old_is_not_unpacked() {
        let into = tempfile::tempdir().unwrap();
        let error = unpack("etcd-server", "1000", into.path()).unwrap_err().to_string();
        assert!(error.contains("1000 or later is needed"), "{error}");
        assert_eq!(std::fs::read_dir(into.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_download_of_nothing_is_an_error() {
        let into = tempfile::tempdir().unwrap();
        assert!(unpack_all(into.path(), "0", into.path()).is_err());
    }
}
