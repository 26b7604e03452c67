//! What `leeward install` puts into a cluster, as data: the same objects as plain manifests and as a Helm chart.
//!
//! Flow: [`Values`] -> typed objects, in parts (one per file of the chart) -> [`render`]ed as YAML documents, or as the [`chart`]'s templates.
//! The templates are not written by hand: they are the same objects made with markers as values, and each marker in their text is then
//! replaced by the expression that Helm knows the value by. So a field that one form has and the other lacks cannot come to be.
//!
//! What differs from one region to the next is not here: `leeward_api::install` says where an agent finds it. Nothing here performs IO.

mod account;
mod agent;
pub mod chart;
mod meta;
mod monitoring;
mod network;
mod values;

pub use values::{BadValue, IMAGE, Values};

use serde_json::Value;

/// Why manifests cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A value cannot be used.
    #[error(transparent)]
    Value(#[from] BadValue),
    /// An object has no JSON form.
    #[error("an object of the installation has no JSON form: {0}; this is a defect")]
    Json(#[from] serde_json::Error),
    /// An object has no YAML form.
    #[error("an object of the installation has no YAML form: {0}; this is a defect")]
    Yaml(#[from] serde_saphyr::ser::Error),
    /// The alert rules of the chart are not what Prometheus reads.
    #[error("charts/leeward/alerts.yaml is no list of rule groups: {0}; this is a defect")]
    Alerts(String),
}

/// Objects that belong together: a file of the chart.
pub(crate) struct Part {
    /// The file's name, without its ending.
    pub(crate) file: &'static str,
    /// What is in it, in the order in which it is applied.
    pub(crate) objects: Vec<Value>,
}

/// What an installation is made of, besides the definitions and the namespace.
pub(crate) fn parts(values: &Values) -> Result<Vec<Part>, InstallError> {
    let part = |file, objects| Part { file, objects };
    Ok(vec![
        part("account", account::objects(values)?),
        part("network", network::objects(values)?),
        part("agent", agent::objects(values)?),
        part("monitoring", monitoring::objects(values)?),
    ])
}

/// Every object of an installation, in the order in which it is applied: definitions and namespace first.
///
/// # Errors
/// A value cannot be used.
pub fn objects(values: &Values) -> Result<Vec<Value>, InstallError> {
    values.check()?;
    let mut objects: Vec<Value> = leeward_api::crds()
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?;
    objects.push(account::namespace(values)?);
    objects.extend(parts(values)?.into_iter().flat_map(|part| part.objects));
    Ok(objects)
}

/// The same as YAML documents.
///
/// # Errors
/// A value cannot be used.
pub fn render(values: &Values) -> Result<String, InstallError> {
    Ok(documents(&objects(values)?)?)
}

/// Objects as YAML documents. Words that older readers take for something else, such as `on`, are quoted.
fn documents(objects: &[Value]) -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for object in objects {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        text.push_str(serde_saphyr::to_string(object)?.trim_end());
        text.push('\n');
    }
    Ok(text)
}
