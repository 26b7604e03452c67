//! The facts about the types of the built-in kinds, read from the OpenAPI v3 documents that Kubernetes publishes: names and
//! types of fields, what is required, defaults, values of enumerations, and how lists and maps merge. Only facts: what a
//! field means is for the documents themselves to say.
//!
//! The table's form is described where it is read: `crates/local/src/machinery/facts.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::workspace::Workspace;

const TABLE: &str = "crates/local/src/machinery/facts/types.txt";
const REFERENCE: &str = "#/components/schemas/";
/// What the names of types begin with, and what stands for it.
const PREFIXES: [(&str, &str); 4] = [
    ("io.k8s.api.", ""),
    ("io.k8s.apimachinery.pkg.apis.meta.", "meta."),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.",
        "apiextensions.",
    ),
    ("io.k8s.kube-aggregator.pkg.apis.apiregistration.", "apiregistration."),
];
const NOTICE: &str =
    "# Made by `cargo xtask facts` from the OpenAPI documents of Kubernetes: not to be changed by hand.\n";

type Schemas = BTreeMap<String, Value>;

/// Writes the table from every document in the directory.
pub(crate) fn write(workspace: &Workspace, directory: &Path) -> Result<()> {
    let schemas = read(directory)?;
    let table = table(&schemas)?;
    let file = workspace.root().join(TABLE);
    std::fs::write(&file, table).with_context(|| file.display().to_string())
}

fn read(directory: &Path) -> Result<Schemas> {
    let mut schemas = Schemas::new();
    let entries = std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let file = entry?.path();
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let mut document: Value = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        if let Some(Value::Object(found)) = document.pointer_mut("/components/schemas").map(Value::take) {
            schemas.extend(found);
        }
    }
    ensure!(
        !schemas.is_empty(),
        "{} has no OpenAPI v3 documents",
        directory.display()
    );
    Ok(schemas)
}

/// One paragraph for every kind of object and each type that one of them uses.
fn table(schemas: &Schemas) -> Result<String> {
    let mut open: Vec<&str> = schemas
        .iter()
        .filter(|(_, schema)| is_kind(schema))
        .map(|(name, _)| name.as_str())
        .collect();
    let mut used = BTreeSet::new();
    while let Some(name) = open.pop() {
        let schema = schemas.get(name).with_context(|| format!("{name} is missing"))?;
        if used.insert(name) {
            references(schema, &mut open);
        }
    }
    let mut text = NOTICE.to_owned();
    for name in used {
        paragraph(&mut text, name, &schemas[name]).with_context(|| name.to_owned())?;
    }
    Ok(text)
}

/// Whether objects of this schema have metadata of their own.
fn is_kind(schema: &Value) -> bool {
    let reference = schema.pointer("/properties/metadata").and_then(reference);
    schema.get("x-kubernetes-group-version-kind").is_some()
        && reference.is_some_and(|name| name.ends_with(".meta.v1.ObjectMeta"))
}

fn references<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
    match schema {
        Value::Object(map) => {
            for (key, child) in map {
                match child.as_str().filter(|_| key == "$ref") {
                    Some(target) => found.extend(target.strip_prefix(REFERENCE)),
                    None => references(child, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

fn paragraph(text: &mut String, name: &str, schema: &Value) -> Result<()> {
    write!(text, "{}", short(name))?;
    let properties = schema.get("properties").and_then(Value::as_object);
    if properties.is_none() {
        write!(text, " {}", form(schema)?)?;
    }
    // What is in every group, such as the options of a deletion, has many.
    let kinds = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
    if let Some([kind]) = kinds.map(Vec::as_slice) {
        let part = |name: &str| kind.get(name).and_then(Value::as_str).unwrap_or_default();
        let group = Some(part("group")).filter(|group| !group.is_empty());
        let version = group.map_or_else(
            || part("version").to_owned(),
            |group| format!("{group}/{}", part("version")),
        );
        write!(text, " kind={version}/{}", part("kind"))?;
    }
    attributes(text, schema)?;
    text.push('\n');
    let required: Vec<&str> = words(schema, "required");
    for (field, schema) in properties.into_iter().flatten().collect::<BTreeMap<_, _>>() {
        let mark = if required.contains(&field.as_str()) { "!" } else { "" };
        write!(text, " {field}{mark} {}", form(schema)?)?;
        attributes(text, schema)?;
        text.push('\n');
    }
    Ok(())
}

fn short(name: &str) -> String {
    let rest = |(long, short): &(&str, &str)| name.strip_prefix(long).map(|rest| format!("{short}{rest}"));
    PREFIXES.iter().find_map(rest).unwrap_or_else(|| name.to_owned())
}

fn reference(schema: &Value) -> Option<&str> {
    let target = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref"))?;
    target.as_str()?.strip_prefix(REFERENCE)
}

fn words<'a>(schema: &'a Value, key: &str) -> Vec<&'a str> {
    let list = schema.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The type of a value: a word, `[]` or `{}` before the type of the items, or the name of a type.
fn form(schema: &Value) -> Result<String> {
    if let Some(name) = reference(schema) {
        return Ok(short(name));
    }
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    Ok(match (text("type"), text("format")) {
        (Some("array"), _) => format!("[]{}", form(schema.get("items").context("a list without items")?)?),
        (Some("object"), _) => match schema.get("additionalProperties") {
            Some(inner) => format!("{{}}{}", form(inner)?),
            None => "object".into(),
        },
        (Some("string"), Some("byte")) => "bytes".into(),
        (Some("string"), Some("date-time")) => "time".into(),
        (Some("string"), None) => "string".into(),
        (Some("boolean"), None) => "boolean".into(),
        (Some("integer"), Some(format @ ("int32" | "int64"))) => format.into(),
        (Some("number"), Some("double")) => "double".into(),
        (None, Some("int-or-string")) => "int-or-string".into(),
        (None, None) if schema.get("oneOf").is_some() => "quantity".into(),
        (None, None) => "any".into(),
        other => bail!("a type that the table has no word for: {other:?}"),
    })
}

fn attributes(text: &mut String, schema: &Value) -> Result<()> {
    let strategy = schema.get("x-kubernetes-patch-strategy").and_then(Value::as_str);
    let merge_key = schema.get("x-kubernetes-patch-merge-key").and_then(Value::as_str);
    let merges = strategy.is_some_and(|s| s.starts_with("merge"));
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("map") => write!(text, " map={}", words(schema, "x-kubernetes-list-map-keys").join(","))?,
        Some(kind) => write!(text, " {kind}")?,
        None => {}
    }
    if let Some(kind) = schema.get("x-kubernetes-map-type").and_then(Value::as_str) {
        write!(text, " {kind}")?;
    }
    match (strategy, merge_key) {
        (Some(strategy), Some(key)) => write!(text, " patch={strategy}:{key}")?,
        (Some(strategy), None) => write!(text, " patch={strategy}")?,
        (None, Some(key)) => write!(text, " patch=:{key}")?,
        (None, None) => {}
    }
    ensure!(
        !merges || schema.get("type").is_some_and(|t| t == "array"),
        "merge of what is no list"
    );
    let values = ["/enum", "/items/enum", "/additionalProperties/enum"];
    if let Some(values) = values
        .iter()
        .find_map(|at| schema.pointer(at))
        .and_then(Value::as_array)
    {
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        ensure!(
            values.iter().all(|value| !value.contains([',', '_'])),
            "a value of an enumeration with a comma or an underscore"
        );
        write!(text, " enum={}", values.join(",").replace(' ', "_"))?;
    }
    // Last, as it may hold anything.
    if let Some(default) = schema.get("default") {
        write!(text, " default={default}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kind_and_what_it_uses_become_paragraphs() {
        let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
        let schemas: Schemas = [
            ("io.k8s.api.core.v1.Unused".to_owned(), json!({"type": "object"})),
            (meta.to_owned(), json!({"properties": {"name": {"type": "string"}}})),
            (
                "io.k8s.api.sea.v1.Boat".to_owned(),
                json!({
                    "x-kubernetes-group-version-kind": [{"group": "sea.io", "version": "v1", "kind": "Boat"}],
                    "required": ["ports"],
                    "properties": {
                        "metadata": {"allOf": [{"$ref": format!("{REFERENCE}{meta}")}], "default": {}},
                        "flag": {"type": "string", "enum": ["Blue", "Red"]},
                        "ports": {"type": "array", "items": {"type": "integer", "format": "int32"},
                            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
                            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "a"},
                    },
                }),
            ),
        ]
        .into();
        let expected = format!(
            "{NOTICE}sea.v1.Boat kind=sea.io/v1/Boat\n flag string enum=Blue,Red\n metadata meta.v1.ObjectMeta default={{}}\n \
             ports! []int32 map=a,b patch=merge:a\nmeta.v1.ObjectMeta\n name string\n"
        );
        assert_eq!(table(&schemas).unwrap(), expected);
    }
}
