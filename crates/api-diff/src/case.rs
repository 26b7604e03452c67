//! A case: requests that are played in order in a namespace of their own. Cases are YAML files that a person can read.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// Some requests and a name that says what they show.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What is shown, as a sentence; unique among all cases.
    #[serde(rename = "case")]
    pub name: String,
    /// The requests, in order.
    pub steps: Vec<Step>,
}

/// One request and what is looked at in its answer.
///
/// In `request`, `watch`, `body`, `raw` and `headers` the word `{ns}` is the case's own namespace, `{id}` a word of the
/// case's own for the names of objects outside namespaces, and `{x}` what an earlier step kept as `x`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Method and path, such as `GET /api/v1/namespaces/{ns}/pods`.
    #[serde(default)]
    pub request: String,
    /// In place of `request`: the path of a watch; its events are the answer.
    pub watch: Option<String>,
    /// How many events to wait for; the watch ends then, or when the server ends it.
    #[serde(default)]
    pub take: usize,
    /// The body, sent as JSON.
    pub body: Option<Value>,
    /// In place of `body`: the bytes to send.
    pub raw: Option<String>,
    /// The kind of a patch.
    pub patch: Option<PatchKind>,
    /// What the answer is asked for as.
    #[serde(default)]
    pub accept: Accept,
    /// More headers; `content-type` overrides what `patch` says.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Makes the body large: the text at the pointer becomes this long.
    pub fill: Option<Fill>,
    /// Values of the answer for later steps: a name, and a JSON pointer.
    #[serde(default)]
    pub keep: BTreeMap<String, String>,
    /// What of the answer is compared: JSON pointers, `*` for every item. Everything where none is given.
    #[serde(default)]
    pub only: Vec<String>,
    /// What of the answer is not compared: JSON pointers, `*` for every item.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// The answer's revisions and uids are not numbered: how often others wrote meanwhile is no part of the case.
    #[serde(default)]
    pub aside: bool,
    /// Lists of the answer whose order means nothing: JSON pointers.
    #[serde(default)]
    pub sort: Vec<String>,
    /// The request is repeated until the answer is so, for half a minute at most.
    pub until: Option<Until>,
}

/// The media types of patches.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' strategic merge.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    /// The media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// What an answer is asked for as.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Accept {
    /// The object.
    #[default]
    Json,
    /// A `meta.k8s.io/v1` Table.
    Table,
    /// A `PartialObjectMetadata` or a list of them.
    Metadata,
    /// A `PartialObjectMetadataList`.
    MetadataList,
    /// Aggregated discovery.
    Discovery,
    /// YAML, compared as the value that it says.
    Yaml,
}

impl Accept {
    /// The header's value.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Table => "application/json;as=Table;v=v1;g=meta.k8s.io",
            Self::Metadata => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            Self::MetadataList => "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            Self::Discovery => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::Yaml => "application/yaml",
        }
    }
}

/// A long text in a body.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fill {
    /// A JSON pointer to a text of the body.
    pub at: String,
    /// How many bytes it gets.
    pub bytes: usize,
}

/// What a repeated request waits for. Both must hold where both are given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Until {
    /// The status code.
    pub status: Option<u16>,
    /// Values of the body by JSON pointer; null where nothing may be.
    #[serde(default)]
    pub body: BTreeMap<String, Value>,
}

/// Reads the cases of every `.yaml` file of a directory, in the order of the files' names.
///
/// # Errors
/// A file cannot be read or is no list of cases, or two cases have the same name.
pub fn read(directory: &Path) -> Result<Vec<(String, Vec<Case>)>> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .with_context(|| format!("the cases in {} cannot be read", directory.display()))?
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    let mut names = std::collections::BTreeSet::new();
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let cases: Vec<Case> =
            serde_saphyr::from_str(&text).with_context(|| format!("{}: no list of cases", file.display()))?;
        for case in &cases {
            ensure!(names.insert(case.name.clone()), "two cases are named \"{}\"", case.name);
            for step in &case.steps {
                ensure!(
                    step.watch.is_some() != (step.request.split_whitespace().count() == 2),
                    "{}: case \"{}\": a step is either a watch or a request of method and path",
                    file.display(),
                    case.name
                );
            }
        }
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        found.push((stem, cases));
    }
    Ok(found)
}
