//! `leeward apply -f`: server-side apply of manifests to a region, for machines without kubectl.

use std::{io::Read as _, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::{self, Scope},
};
use serde::Deserialize as _;

use crate::{bring_up, output, process, up::Place, values};

/// `leeward apply`
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Manifests, YAML or JSON; `-` is standard input.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filenames: Vec<PathBuf>,
    /// The region; the first one without it.
    #[arg(long, value_parser = values::name)]
    region: Option<String>,
    /// The namespace of objects that name none.
    #[arg(short, long, default_value = "default", value_parser = values::name)]
    namespace: String,
    #[command(flatten)]
    place: Place,
}

/// Applies everything, in the order of the files.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let instance = arguments.place.open()?;
    let region = arguments.region.as_deref().unwrap_or(&instance.regions()[0]).to_owned();
    let mut objects = vec![];
    for file in &arguments.filenames {
        let text = match file.as_os_str() == "-" {
            true => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text)?;
                text
            }
            false => std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
        };
        objects.extend(parse(&text).with_context(|| format!("{}", file.display()))?);
    }
    anyhow::ensure!(
        !objects.is_empty(),
        "there is no object in what was given; nothing was applied"
    );
    process::runtime(1)?.block_on(async {
        let client = bring_up::client(&instance, &region).await?;
        for (done, object) in objects.iter().enumerate() {
            let applied = apply(&client, object, &arguments.namespace).await;
            output::line(applied.map_err(|error| stopped(error, &objects, done))?)?;
        }
        Ok(())
    })
}

/// What went wrong with one object, and which were not tried after it.
pub(crate) fn stopped(error: anyhow::Error, objects: &[serde_json::Value], done: usize) -> anyhow::Error {
    let name = |object: &serde_json::Value| {
        let text = |pointer| object.pointer(pointer).and_then(|value| value.as_str()).unwrap_or("?");
        format!("{} {}", text("/kind"), text("/metadata/name"))
    };
    let rest: Vec<_> = objects.iter().skip(done + 1).map(name).collect();
    match rest[..] {
        [] => error,
        _ => anyhow::anyhow!(
            "{error:#}; of {} objects the first {done} are applied, and these were not tried: {}. Applying all of them again is safe",
            objects.len(),
            rest.join(", ")
        ),
    }
}

/// The objects in a text of one or more YAML documents; a `List` is taken apart.
pub(crate) fn parse(text: &str) -> anyhow::Result<Vec<serde_json::Value>> {
    let mut objects = vec![];
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(text)?;
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        match document.get("items").and_then(|items| items.as_array()) {
            Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                objects.extend(items.iter().cloned());
            }
            _ => objects.push(document),
        }
    }
    Ok(objects)
}

/// Applies one object; what was done, for a person.
pub(crate) async fn apply(client: &Client, object: &serde_json::Value, namespace: &str) -> anyhow::Result<String> {
    let object = DynamicObject::deserialize(object).context("this is not a Kubernetes object")?;
    let Some(types) = &object.types else {
        bail!("an object has neither apiVersion nor kind")
    };
    let gvk = GroupVersionKind::try_from(types)?;
    let found = discovery::pinned_kind(client, &gvk).await;
    let (resource, capabilities) = found.map_err(|error| match error {
        kube::Error::Api(status) if status.code != 404 => anyhow::anyhow!(
            "the kinds in {} cannot be asked for: {}",
            types.api_version,
            leeward_state::api_text(&kube::Error::Api(status))
        ),
        kube::Error::Api(_) | kube::Error::Discovery(_) => anyhow::anyhow!(
            "the cluster has no kind {} in {}; apply its CustomResourceDefinition first, or check the spelling",
            types.kind,
            types.api_version
        ),
        other => other.into(),
    })?;
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = object.namespace().unwrap_or_else(|| namespace.to_owned());
            Api::namespaced_with(client.clone(), &namespace, &resource)
        }
    };
    let name = object.name_any();
    if name.is_empty() {
        bail!("an object of kind {} has no metadata.name", types.kind);
    }
    let params = PatchParams::apply("leeward-cli").force();
    // The API's sentence names the field and the reason; the rest of its answer is for programs.
    let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
    applied.map_err(|error| anyhow::anyhow!("{}/{name}: {}", resource.plural, leeward_state::api_text(&error)))?;
    Ok(format!("{}/{name} applied", resource.plural))
}
