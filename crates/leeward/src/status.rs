//! `leeward status`: what is true of all clusters and applications, or of one, also while a region is lost.

mod render;

use clap::{Args, ValueEnum};
use kube::ResourceExt as _;
use leeward_api::ProtectedApp;
use serde_json::{Value, json};

use crate::{
    fleet::{self, Picture, Source},
    output, values,
};

pub(crate) use render::{active, kept_text, operation_of, seconds};

/// `leeward status`
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The application, as NAME or NAMESPACE/NAME; all of them without it.
    #[arg(value_parser = values::app)]
    app: Option<String>,
    /// The application's namespace; not needed while the name is unique. Without an application all of this namespace.
    #[arg(short, long, value_parser = values::name)]
    namespace: Option<String>,
    /// How it is written: tables for people, or the resources themselves.
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    #[command(flatten)]
    source: Source,
}

/// How a status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The resources as JSON.
    Json,
    /// The resources as YAML.
    Yaml,
    /// Tables with more columns.
    Wide,
}

/// Prints the status.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut picture = fleet::picture(&arguments.source)?;
    if let (None, Some(namespace)) = (&arguments.app, &arguments.namespace) {
        let of_it = |told: &fleet::Told<ProtectedApp>| told.resource.namespace().as_ref() == Some(namespace);
        picture.apps.retain(of_it);
    }
    let app = match &arguments.app {
        Some(name) => Some(picture.app(name, arguments.namespace.as_deref())?),
        None => None,
    };
    let wide = arguments.output == Some(Output::Wide);
    let text = match (arguments.output, app) {
        (Some(Output::Json), _) => serde_json::to_string_pretty(&resources(&picture, arguments)?)? + "\n",
        (Some(Output::Yaml), _) => serde_saphyr::to_string(&resources(&picture, arguments)?)?,
        (_, Some(app)) => render::app(&picture, app, wide, jiff::Timestamp::now()),
        (_, None) => render::all(&picture, wide),
    };
    output::write(&text)?;
    for line in render::silent(&picture) {
        output::say(line);
    }
    Ok(())
}

/// The application, or a list of everything, without what only the API server needs.
fn resources(picture: &Picture, arguments: &Arguments) -> anyhow::Result<Value> {
    if let Some(name) = &arguments.app {
        return clean(&picture.app(name, arguments.namespace.as_deref())?.resource);
    }
    let clusters = picture.clusters.iter().map(|told| clean(&told.resource));
    let apps = picture.apps.iter().map(|told| clean(&told.resource));
    let items: Vec<Value> = clusters.chain(apps).collect::<Result<_, _>>()?;
    Ok(json!({ "apiVersion": "v1", "kind": "List", "items": items }))
}

fn clean<T: kube::Resource + serde::Serialize + Clone>(resource: &T) -> anyhow::Result<Value> {
    let mut resource = resource.clone();
    resource.meta_mut().managed_fields = None;
    Ok(serde_json::to_value(&resource)?)
}
