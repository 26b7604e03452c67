//! A program that ends with the test, however the test ends.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Starts the program, waits until standard input is closed, and ends the program. A process that is killed closes what it had
/// open, so this works where nothing of it can be run any more. A line on standard input names a signal for it; the one that ends it in order
/// is the last. Signals of the terminal go to it too and must not end it first.
const KEEPER: &str = r#"trap '' INT TERM HUP; "$@" & program=$!
while read -r how; do kill -"$how" "$program"; [ "$how" = TERM ] && break; done
[ "${how:-}" = TERM ] || kill -KILL "$program"; wait "$program""#;

/// A program that runs while this is there.
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    keeper: Child,
}

impl Process {
    /// Starts a program; what it says goes to `DIRECTORY/NAME.log`.
    pub(crate) fn start(
        name: impl Into<String>,
        program: &Path,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        directory: &Path,
    ) -> Result<Self> {
        let name = name.into();
        let log = directory.join(format!("{name}.log"));
        let file = std::fs::File::create(&log)?;
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(program)
            .args(arguments.into_iter().map(Into::into))
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { name, log, keeper })
    }

    /// Ends the program in order, and waits until it has ended.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.signal("TERM")?;
        self.keeper.wait()?;
        Ok(())
    }

    /// Sends the program a signal, by its name without `SIG`; when it arrives is not known.
    pub(crate) fn signal(&mut self, name: &str) -> Result<()> {
        let told = self.keeper.stdin.as_mut();
        let told = told.map(|stdin| stdin.write_all(format!("{name}\n").as_bytes()));
        told.transpose()
            .with_context(|| format!("{} cannot be sent {name}", self.name))?;
        Ok(())
    }

    /// Fails with the last that the program said.
    pub(crate) fn failed<T>(&self, why: &str) -> Result<T> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(15)..].join("\n");
        bail!("{} {why}; the last of its log:\n{last}", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It ends as soon as the program has ended, which was killed just now.
        let _ = self.keeper.wait();
    }
}
