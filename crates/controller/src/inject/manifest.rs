//! Objects of manifests: which of them have pods, and where.

use leeward_api::gate::PREFIX;
use serde_json::Value;

use super::{Error, Outcome, With, behind};

/// What of an object is brought behind a gate: itself where it has pods that want one, each of its items where it is a list.
///
/// # Errors
/// With the object's kind and name, as [`behind`], and when the object is none that Leeward moves.
pub fn object(object: &Value, with: &With<'_>) -> Result<Outcome, (String, Error)> {
    let kind = object["kind"].as_str().unwrap_or_default();
    if kind.ends_with("List")
        && let Some(items) = object["items"].as_array()
    {
        return list(object, items, with);
    }
    one(object, kind, with).map_err(|error| (called(object), error))
}

fn one(object: &Value, kind: &str, with: &With<'_>) -> Result<Outcome, Error> {
    let is = |group: &str| object["apiVersion"].as_str() == Some(group);
    let template = |path| object.pointer(path).is_some_and(asks);
    match kind {
        "Pod" if is("v1") => behind(object, with),
        "Deployment" | "StatefulSet" if is("apps/v1") => {
            if !template("/spec/template") && asks(object) {
                return Err(Error::Misplaced(kind.to_owned()));
            }
            let outcome = behind(&object["spec"]["template"], with)?;
            if outcome != Outcome::NotWanted && kind == "Deployment" {
                surge(&object["spec"]["strategy"])?;
            }
            let Outcome::Behind(template) = outcome else {
                return Ok(outcome);
            };
            let mut placed = object.clone();
            placed["spec"]["template"] = template;
            Ok(Outcome::Behind(placed))
        }
        _ if ["", "/spec/template", "/spec/jobTemplate/spec/template"]
            .into_iter()
            .any(template) =>
        {
            Err(Error::Kind(kind.to_owned()))
        }
        _ => Ok(Outcome::NotWanted),
    }
}

fn list(object_: &Value, items: &[Value], with: &With<'_>) -> Result<Outcome, (String, Error)> {
    let (mut placed, mut all) = (object_.clone(), Outcome::NotWanted);
    for (n, item) in items.iter().enumerate() {
        match object(item, with)? {
            Outcome::NotWanted => {}
            Outcome::Already if all == Outcome::NotWanted => all = Outcome::Already,
            Outcome::Already => {}
            Outcome::Behind(item) => {
                placed["items"][n] = item;
                all = Outcome::Behind(Value::Null);
            }
        }
    }
    Ok(match all {
        Outcome::Behind(_) => Outcome::Behind(placed),
        other => other,
    })
}

/// Whether something has an annotation of a gate.
fn asks(object: &Value) -> bool {
    let annotations = object["metadata"]["annotations"].as_object();
    annotations.is_some_and(|annotations| annotations.keys().any(|key| key.starts_with(PREFIX)))
}

/// Refuses a strategy under which a new pod comes before the old one ends.
fn surge(strategy: &Value) -> Result<(), Error> {
    let more = &strategy["rollingUpdate"]["maxSurge"];
    let none = more.as_i64() == Some(0) || matches!(more.as_str(), Some("0" | "0%"));
    match strategy["type"].as_str() == Some("Recreate") || none {
        true => Ok(()),
        false => Err(Error::Surge),
    }
}

/// What an object is called in messages.
pub fn called(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or("object without a kind");
    let name = text("/metadata/name")
        .or(text("/metadata/generateName"))
        .unwrap_or("without a name");
    match text("/metadata/namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}
