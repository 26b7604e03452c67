//! The programs that the checks need: where they are looked for, and how a missing one is had.
//!
//! Looked for in the directories of `LEEWARD_TOOLS`, then in `PATH`, then in `target/tools`. A missing one is put into
//! `target/tools`, as an ordinary user and without starting anything: a Rust program by `cargo install`, a Debian package by
//! `apt-get download` and `dpkg -x` where those exist.

mod debian;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::workspace::{Workspace, cargo};

/// A program that a check needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    /// The name of its file.
    pub(crate) program: &'static str,
    /// Where it comes from.
    pub(crate) source: Source,
}

/// Where a program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A crate of the same name, at this version.
    Crate(&'static str),
    /// A package of Debian and Ubuntu.
    Debian {
        /// The package's name.
        package: &'static str,
        /// The oldest version that serves.
        at_least: &'static str,
    },
}

/// Checks licences, bans and sources of the dependencies.
pub(crate) const DENY: Tool = Tool {
    program: "cargo-deny",
    source: Source::Crate("0.20.2"),
};
/// Runs the tests.
pub(crate) const NEXTEST: Tool = Tool {
    program: "cargo-nextest",
    source: Source::Crate("0.9.151"),
};

/// Speaks to the Kubernetes API of a local region as a person does.
pub(crate) const KUBECTL: Tool = Tool {
    program: "kubectl",
    // Older ones ask for the second version of OpenAPI documents, which a local region does not serve.
    source: Source::Debian {
        package: "kubernetes-client",
        at_least: "1.27",
    },
};

/// The quorum of several machines.
pub(crate) const ETCD: Tool = Tool {
    program: "etcd",
    source: Source::Debian {
        package: "etcd-server",
        at_least: "3.4",
    },
};

/// Gives the data of a member of etcd a new identity when the quorum is begun anew.
pub(crate) const ETCDCTL: Tool = Tool {
    program: "etcdctl",
    source: Source::Debian {
        package: "etcd-client",
        at_least: "3.4",
    },
};

impl Tool {
    /// What a person does to get it.
    pub(crate) fn advice(&self) -> String {
        match self.source {
            Source::Crate(version) => format!("cargo install --locked {} --version {version}", self.program),
            Source::Debian { package, at_least } => format!(
                "install version {at_least} or later (Debian, Ubuntu: `{package}`), or put `{}` into a directory of LEEWARD_TOOLS",
                self.program
            ),
        }
    }
}

/// The directories in which programs are looked for, in order.
pub(crate) struct Tools {
    install: PathBuf,
    search: Vec<PathBuf>,
}

impl Tools {
    /// Reads `LEEWARD_TOOLS` and `PATH`.
    pub(crate) fn new(workspace: &Workspace) -> Self {
        Self::of(
            workspace.tools(),
            std::env::var_os("LEEWARD_TOOLS"),
            std::env::var_os("PATH"),
        )
    }

    fn of(install: PathBuf, tools: Option<OsString>, path: Option<OsString>) -> Self {
        // Each of LEEWARD_TOOLS may be a directory of programs or one into which packages were unpacked.
        let below = |root: &Path| ["", "bin", "usr/bin", "usr/sbin"].map(|directory| root.join(directory));
        let split = |list: &Option<OsString>| -> Vec<PathBuf> {
            list.iter()
                .flat_map(std::env::split_paths)
                .filter(|directory| !directory.as_os_str().is_empty())
                .collect()
        };
        let mut search: Vec<PathBuf> = split(&tools).iter().flat_map(|root| below(root)).collect();
        search.extend(split(&path));
        search.extend(below(&install));
        Self { install, search }
    }

    /// Where a program is, if it is anywhere.
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        self.search
            .iter()
            .map(|directory| directory.join(program))
            .find(|file| is_program(file))
    }

    /// Finds a tool, or gets it.
    ///
    /// # Errors
    /// When it is missing and cannot be had here: says why and what to do.
    pub(crate) fn get(&self, tool: &Tool) -> Result<PathBuf> {
        if let Some(file) = self.find(tool.program) {
            return Ok(file);
        }
        match tool.source {
            Source::Crate(version) => self.install_crate(tool.program, version),
            Source::Debian { package, at_least } => debian::unpack(package, at_least, &self.install),
        }
        .with_context(|| format!("{} is missing: {}", tool.program, tool.advice()))?;
        self.find(tool.program)
            .with_context(|| format!("{} was unpacked, but its file is not there", tool.program))
    }

    /// A `PATH` with every directory that is searched, so that a test finds what was found here.
    pub(crate) fn path(&self) -> Result<OsString> {
        std::env::join_paths(&self.search).context("a directory of LEEWARD_TOOLS or PATH has a `:` in its name")
    }

    fn install_crate(&self, name: &str, version: &str) -> Result<()> {
        println!(
            "{name} is missing: building it into {} (a minute or two)",
            self.install.display()
        );
        let build = self.install.join("build");
        // Without optimisation it is built in half the time, and it is fast enough.
        let status = cargo()
            .args([
                "install",
                "--locked",
                "--debug",
                "--no-default-features",
                name,
                "--version",
                version,
                "--root",
            ])
            .arg(&self.install)
            .env("CARGO_TARGET_DIR", &build)
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .status()
            .context("cargo cannot be started")?;
        // Hundreds of megabytes that nothing needs any more.
        let _ = std::fs::remove_dir_all(&build);
        ensure!(status.success(), "cargo install {name} failed: is crates.io reachable?");
        Ok(())
    }
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn program(directory: &Path) -> PathBuf {
        std::fs::create_dir_all(directory).unwrap();
        let file = directory.join("tool");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        file
    }

    #[test]
    fn a_tool_is_taken_from_leeward_tools_before_path_before_target() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let tools = Tools::of(at("target"), Some(at("own").into()), Some(at("path").into()));
        assert_eq!(tools.find("tool"), None);
        for place in ["target/usr/bin", "path", "own/bin"] {
            let expected = program(&at(place));
            assert_eq!(tools.find("tool"), Some(expected));
        }
    }

    #[test]
    fn a_file_that_cannot_be_run_is_no_tool() {
        let root = tempfile::tempdir().unwrap();
        let file = program(root.path());
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(Tools::of(root.path().into(), None, None).find("tool"), None);
    }
}
