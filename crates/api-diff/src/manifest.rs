//! Manifests for real clusters: applied to both sides, read back, compared and deleted.
//!
//! Every document is applied on the server, definitions and namespaces first, as a person with kubectl would. What is
//! compared is what the applier wrote and what the API made of it: status is the controllers', and goes by.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::difference::{Difference, differences};
use crate::normal::Normal;
use crate::play::{Answer, send};
use crate::recorded::Recorded;

/// How long an object may take to be served, or to become what the other side has.
const PATIENCE: Duration = Duration::from_secs(20);
/// The owner of the applied fields.
const MANAGER: &str = "api-diff";

/// What a manifest's objects were answered on one side.
struct Side<'a> {
    client: &'a kube::Client,
    /// The resources of each group and version, by kind: plural, and whether they are in namespaces.
    resources: BTreeMap<String, BTreeMap<String, (String, bool)>>,
    /// Where each applied object is, in the order in which they were applied.
    paths: Vec<String>,
    /// Namespaces that no document makes.
    namespaces: Vec<String>,
    /// Those that were read back once.
    looked: BTreeSet<String>,
    took: Took,
}

/// How long one side took.
#[derive(Clone, Debug, Default)]
pub struct Took {
    applying: Duration,
    slowest: (Duration, String),
    reading: Duration,
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "applied in {:.2?} (longest {:.2?}, {}), read in {:.2?}",
            self.applying, self.slowest.0, self.slowest.1, self.reading
        )
    }
}

/// What the comparison of some files found.
#[derive(Debug)]
pub struct Report {
    /// How many objects were applied to each side.
    pub objects: usize,
    /// Where they differ.
    pub differences: Vec<Difference>,
    /// How long the local region took.
    pub local: Took,
    /// How long the real API server took.
    pub real: Took,
}

/// Applies the documents of the files to both sides, reads them back, compares and deletes them.
///
/// # Errors
/// A file is no manifest, a side cannot be spoken to or refuses what the other takes.
pub async fn compare(files: &[PathBuf], local: &kube::Client, real: &kube::Client) -> Result<Report> {
    let documents = read(files)?;
    let namespace = format!("manifest-{:08x}", rand::random::<u32>());
    let (mut local, mut real) = (Side::new(local), Side::new(real));
    let found = play(&documents, &namespace, &mut local, &mut real).await;
    let (here, there) = tokio::join!(local.delete(), real.delete());
    let differences = found?;
    here?;
    there?;
    Ok(Report {
        objects: documents.len(),
        differences,
        local: local.took,
        real: real.took,
    })
}

/// The documents, those first that others need.
fn read(files: &[PathBuf]) -> Result<Vec<Value>> {
    let mut documents = Vec::new();
    for file in files {
        let name = || file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(name)?;
        let mut options = serde_saphyr::Options::default();
        options.budget = None;
        let found: Vec<Value> = serde_saphyr::from_multiple_with_options(&text, options).with_context(name)?;
        documents.extend(found.into_iter().filter(Value::is_object));
    }
    documents.sort_by_key(|document| match text(document, "/kind") {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        _ => 2,
    });
    Ok(documents)
}

async fn play(
    documents: &[Value],
    namespace: &str,
    local: &mut Side<'_>,
    real: &mut Side<'_>,
) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    for document in documents {
        let (here, there) = tokio::join!(local.apply(document, namespace), real.apply(document, namespace));
        let case = format!("{} {}", text(document, "/kind"), text(document, "/metadata/name"));
        let (here, there) = (here.context("local region")?, there.context("real API server")?);
        let (here, there) = (outcome(&here), outcome(&there));
        found.extend(differences(&format!("apply {case}"), 0, &here, &there));
    }
    let paths: Vec<String> = local
        .paths
        .iter()
        .filter(|path| real.paths.contains(path))
        .cloned()
        .collect();
    for path in paths {
        let began = Instant::now();
        loop {
            let (here, there) = tokio::join!(local.read(&path), real.read(&path));
            let (here, there) = (here?, there?);
            let different = differences(&path.replace(namespace, "{ns}"), 0, &here, &there);
            if different.is_empty() || began.elapsed() > PATIENCE {
                found.extend(different);
                break;
            }
            // Controllers may still be at work on one side.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(found)
}

/// What an apply was answered, without the object: that is read back later.
fn outcome(answer: &Answer) -> Recorded {
    let body = if answer.status < 300 {
        &Value::Null
    } else {
        &answer.body
    };
    Recorded {
        status: answer.status,
        warnings: answer.warnings.clone(),
        body: body.clone(),
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl<'a> Side<'a> {
    fn new(client: &'a kube::Client) -> Self {
        Self {
            client,
            resources: BTreeMap::new(),
            paths: Vec::new(),
            namespaces: Vec::new(),
            looked: BTreeSet::new(),
            took: Took::default(),
        }
    }

    async fn get(&self, path: &str) -> Result<Answer> {
        send(self.client, "GET", path, &[], Vec::new()).await
    }

    /// The path of a document's object, `None` where its kind is not served. Its namespace is made if it is not there.
    async fn path(&mut self, document: &Value, namespace: &str) -> Result<Option<String>> {
        let (api_version, kind) = (text(document, "/apiVersion"), text(document, "/kind"));
        let root = if api_version.contains('/') { "apis" } else { "api" };
        if self
            .resources
            .get(api_version)
            .is_none_or(|known| !known.contains_key(kind))
        {
            let listed = self.get(&format!("/{root}/{api_version}")).await?;
            let entries = listed.body.get("resources").and_then(Value::as_array);
            let known = entries
                .into_iter()
                .flatten()
                .filter(|entry| !text(entry, "/name").contains('/'));
            let known = known.map(|entry| {
                let namespaced = entry.get("namespaced") == Some(&Value::Bool(true));
                (
                    text(entry, "/kind").to_owned(),
                    (text(entry, "/name").to_owned(), namespaced),
                )
            });
            self.resources.insert(api_version.to_owned(), known.collect());
        }
        let Some((plural, namespaced)) = self.resources[api_version].get(kind).cloned() else {
            return Ok(None);
        };
        let name = text(document, "/metadata/name");
        if !namespaced {
            return Ok(Some(format!("/{root}/{api_version}/{plural}/{name}")));
        }
        let own = text(document, "/metadata/namespace");
        let namespace = if own.is_empty() { namespace } else { own };
        self.make_namespace(namespace).await?;
        let path = format!("/{root}/{api_version}/namespaces/{namespace}/{plural}/{name}");
        Ok(Some(path))
    }

    async fn make_namespace(&mut self, name: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{name}");
        if self.namespaces.contains(&path) || self.paths.contains(&path) {
            return Ok(());
        }
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let body = serde_json::to_vec(&namespace)?;
        let made = send(self.client, "POST", "/api/v1/namespaces", &[], body).await?;
        match made.status {
            201 => self.namespaces.push(path),
            409 => {}
            _ => bail!("the namespace {name} cannot be made: {}", made.body),
        }
        Ok(())
    }

    /// Applies one document, and waits until a definition is served.
    async fn apply(&mut self, document: &Value, namespace: &str) -> Result<Answer> {
        let Some(path) = self.path(document, namespace).await? else {
            return Ok(Answer {
                status: 404,
                warnings: Vec::new(),
                body: "its kind is not served".into(),
            });
        };
        let headers = [("content-type".to_owned(), "application/apply-patch+yaml".to_owned())];
        let query = format!("{path}?fieldManager={MANAGER}&force=true");
        let body = serde_json::to_vec(document)?;
        let began = Instant::now();
        let answer = send(self.client, "PATCH", &query, &headers, body).await?;
        let took = began.elapsed();
        self.took.applying += took;
        if took > self.took.slowest.0 {
            self.took.slowest = (took, path.rsplit('/').next().unwrap_or_default().to_owned());
        }
        if answer.status >= 300 {
            return Ok(answer);
        }
        if text(document, "/kind") == "CustomResourceDefinition" {
            self.established(&path).await?;
        }
        self.paths.push(path);
        Ok(answer)
    }

    async fn established(&self, path: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            let definition = self.get(path).await?.body;
            let conditions = definition.pointer("/status/conditions").and_then(Value::as_array);
            let served = |condition: &Value| condition["type"] == "Established" && condition["status"] == "True";
            if conditions.into_iter().flatten().any(served) {
                return Ok(());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "{path} is not established: {}",
                definition["status"]
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// An object as it is compared.
    async fn read(&mut self, path: &str) -> Result<Recorded> {
        let began = Instant::now();
        let mut answer = self.get(path).await?;
        // A second look is the comparison's wait, and no work of the server's.
        if self.looked.insert(path.to_owned()) {
            self.took.reading += began.elapsed();
        }
        let object = &mut answer.body;
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
            let managers = metadata.get_mut("managedFields").and_then(Value::as_array_mut);
            if let Some(managers) = managers {
                // What others own is theirs to write, in their own time.
                managers.retain(|entry| entry["manager"] == MANAGER);
            }
        }
        for port in object
            .pointer_mut("/spec/ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(port) = port.get_mut("nodePort") {
                *port = "PORT".into();
            }
        }
        let answer = Normal::new()?.answer(&answer);
        Ok(Recorded {
            status: answer.status,
            warnings: answer.warnings,
            body: answer.body,
        })
    }

    /// Deletes what was applied, the last first, and waits until it is gone.
    async fn delete(&self) -> Result<()> {
        for path in self.paths.iter().rev().chain(&self.namespaces) {
            send(self.client, "DELETE", path, &[], Vec::new()).await?;
        }
        for path in &self.paths {
            let began = Instant::now();
            while self.get(path).await?.status != 404 {
                ensure!(began.elapsed() < PATIENCE, "{path} was deleted and stays");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}
