//! Runs the commands of a session against one cluster.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::text::Text;
use super::{Output, Session, Step};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(100);
/// How long something may take to become as a step waits for.
const UNTIL: Duration = Duration::from_secs(60);

/// A cluster, as kubectl reaches it.
#[derive(Clone, Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    image: String,
    nodes: Vec<String>,
}

impl Cluster {
    /// The cluster of a kubeconfig.
    ///
    /// # Errors
    /// kubectl is not there, or the cluster does not answer.
    pub async fn new(kubeconfig: &Path, kubectl: &Path, image: &str) -> Result<Self> {
        let mut cluster = Self {
            kubeconfig: kubeconfig.canonicalize()?,
            kubectl: kubectl.to_owned(),
            image: image.to_owned(),
            nodes: Vec::new(),
        };
        let nodes = cluster.plain(&["get", "nodes", "-o", "name"]).await?;
        cluster.nodes = nodes.lines().map(|line| line.replace("node/", "")).collect();
        Ok(cluster)
    }

    /// Whether pods can run.
    #[must_use]
    pub fn has_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }

    async fn plain(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .output()
            .await
            .context("kubectl cannot be started")?;
        if !output.status.success() {
            bail!("kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Plays a session in a namespace that is deleted afterwards.
    ///
    /// # Errors
    /// The namespace cannot be made, or a command cannot be run.
    pub async fn play(&self, session: &Session) -> Result<Vec<Output>> {
        let random: u32 = rand::random();
        let (namespace, id) = (
            format!("session-{random:08x}"),
            format!("word{:08x}", random.rotate_left(7)),
        );
        self.plain(&["create", "namespace", &namespace]).await?;
        let played = self.steps(session, &namespace, &id).await;
        let deleted = self.plain(&["delete", "namespace", &namespace, "--wait=false"]).await;
        let outputs = played.with_context(|| session.name.clone())?;
        deleted?;
        Ok(outputs)
    }

    async fn steps(&self, session: &Session, namespace: &str, id: &str) -> Result<Vec<Output>> {
        let directory = tempfile::tempdir()?;
        // The programs of a session find the namespace as a user's do: in the kubeconfig.
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(
            &kubeconfig,
            self.plain(&["config", "view", "--raw", "--flatten"]).await?,
        )?;
        let mut there = self.clone();
        there.kubeconfig = kubeconfig;
        there
            .plain(&["config", "set-context", "--current", "--namespace", namespace])
            .await?;
        std::fs::create_dir(directory.path().join("work"))?;
        let programs = directory.path().join("bin");
        std::fs::create_dir(&programs)?;
        std::os::unix::fs::symlink(which(&self.kubectl)?, programs.join("kubectl"))?;
        let mut text = Text::new(namespace, id, &self.nodes, &self.image, directory.path())?;
        let mut outputs = Vec::new();
        for step in &session.steps {
            let words = |text: &str| {
                text.replace("{ns}", namespace)
                    .replace("{id}", id)
                    .replace("{image}", &self.image)
                    .replace("{node}", self.nodes.first().map_or("no-node", String::as_str))
            };
            outputs.push(there.step(step, directory.path(), &words, &mut text).await?);
        }
        Ok(outputs)
    }

    async fn step(
        &self,
        step: &Step,
        directory: &Path,
        words: &impl Fn(&str) -> String,
        text: &mut Text,
    ) -> Result<Output> {
        let begin = Instant::now();
        loop {
            let output = self.once(step, directory, words, text).await?;
            let done = step.until.as_ref().is_none_or(|until| {
                let all = [output.out.as_slice(), output.err.as_slice()].concat().join("\n");
                all.contains(until.as_str())
            });
            if done || begin.elapsed() > UNTIL {
                return Ok(output);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn once(
        &self,
        step: &Step,
        directory: &Path,
        words: &impl Fn(&str) -> String,
        text: &mut Text,
    ) -> Result<Output> {
        let work = directory.join("work");
        let mut input = words(&step.input);
        if let Some(file) = &step.file {
            let path = work.join(file);
            std::fs::create_dir_all(path.parent().unwrap_or(&work))?;
            std::fs::write(path, std::mem::take(&mut input))?;
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("sh")
            .args(["-c", &words(&step.run)])
            .current_dir(&work)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", directory)
            .env("PATH", format!("{}:{path}", directory.join("bin").display()))
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
            .await
            .with_context(|| format!("{:?} does not end", step.run))??;
        let mut lines = |bytes: &[u8]| -> Vec<String> {
            let all = text.lines(&String::from_utf8_lossy(bytes));
            let kept = all.into_iter().filter(|line| {
                let has = |words: &[String]| words.iter().any(|word| line.contains(word.as_str()));
                !has(&step.without) && (step.only.is_empty() || has(&step.only))
            });
            let hashed = |line: String| if step.hashed { hashed(line) } else { line };
            let mut kept: Vec<String> = kept.map(hashed).collect();
            if step.sort {
                kept.sort();
            }
            kept
        };
        let (out, err) = (lines(&output.stdout), lines(&output.stderr));
        let quiet = |lines| if step.quiet { Vec::new() } else { lines };
        Ok(Output {
            run: step.run.clone(),
            code: output.status.code().unwrap_or(-1),
            out: quiet(out),
            err: quiet(err),
        })
    }
}

/// A line of a description by its hash; any other as it is.
fn hashed(line: String) -> String {
    let is_description = line.starts_with("    ") && !line.contains('<');
    if !is_description {
        return line;
    }
    let hash = blake3::hash(line.trim().as_bytes()).to_hex();
    format!("    {}", &hash[..12])
}

/// Where a program is.
///
/// # Errors
/// It is in none of the directories of `PATH`.
pub fn which(program: &Path) -> Result<PathBuf> {
    if program.components().count() > 1 {
        return Ok(program.canonicalize()?);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file());
    found.with_context(|| format!("{} is not in PATH", program.display()))
}
