//! CustomResourceDefinitions: what the server fills in, which names it accepts, and when a definition counts as
//! established. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{object, time};

/// The store's table of definitions.
pub(crate) const TABLE: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Keeps a definition, while it is being deleted, until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Completes spec and status. A definition whose names are free, as the `others` have them, is served from the moment
/// that it is written.
pub(crate) fn establish<'a>(definition: &mut Value, old: Option<&Value>, others: impl Iterator<Item = &'a Value>) {
    default(definition);
    let mut status = old
        .and_then(|old| old.get("status"))
        .cloned()
        .unwrap_or_else(|| json!({}));
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array);
    let storage = versions
        .into_iter()
        .flatten()
        .find(|version| version["storage"] == true);
    let stored = object::list(&mut status, "storedVersions");
    if let Some(name) = storage.and_then(|version| version.get("name"))
        && !stored.contains(name)
    {
        stored.push(name.clone());
    }
    let names = definition.pointer("/spec/names").cloned().unwrap_or_default();
    if status.get("acceptedNames") != Some(&names) {
        let group = object::str_at(definition, "/spec/group");
        accept(&names, &Taken::by(group, object::name(definition), others), &mut status);
    }
    definition["status"] = status;
}

fn default(definition: &mut Value) {
    let spec = object::child(definition, "spec");
    spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    let spec = &mut definition["spec"];
    if let Some(service) = spec
        .pointer_mut("/conversion/webhook/clientConfig/service")
        .and_then(Value::as_object_mut)
    {
        service.entry("port").or_insert(443.into());
    }
    let kind = object::str_at(spec, "/names/kind").to_owned();
    let names = object::child(spec, "names");
    if !kind.is_empty() {
        for (name, word) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
            if names.get(name).is_none_or(|given| given == "" || given.is_null()) {
                names.insert(name.into(), word.into());
            }
        }
    }
}

/// What the other definitions of a group are called.
struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    fn by<'a>(group: &str, own: &str, others: impl Iterator<Item = &'a Value>) -> Self {
        let mut taken = Self {
            resources: BTreeSet::new(),
            kinds: BTreeSet::new(),
        };
        for other in others.filter(|other| object::str_at(other, "/spec/group") == group && object::name(other) != own)
        {
            let names = &other["status"]["acceptedNames"];
            let text = |name: &str| names[name].as_str().map(str::to_owned);
            let short = names["shortNames"].as_array().into_iter().flatten();
            let short = short.filter_map(Value::as_str).map(str::to_owned);
            taken
                .resources
                .extend(["plural", "singular"].into_iter().filter_map(text).chain(short));
            taken.kinds.extend(["kind", "listKind"].into_iter().filter_map(text));
        }
        taken
    }
}

/// Takes over the names that are free, and says which were not.
fn accept(names: &Value, taken: &Taken, status: &mut Value) {
    let before = status.get("acceptedNames").cloned().unwrap_or_else(|| json!({}));
    let mut accepted = before.clone();
    let mut conflict = None;
    let in_use = |name: &Value, pool: &BTreeSet<String>| {
        let name = name.as_str().filter(|name| pool.contains(*name))?;
        Some(format!("{name:?} is already in use"))
    };
    for (name, reason, pool) in [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
        ("categories", "", &taken.kinds),
    ] {
        let (wanted, had) = (&names[name], &before[name]);
        let problem = match wanted {
            _ if wanted == had || reason.is_empty() => None,
            Value::Array(words) => {
                let new = words
                    .iter()
                    .filter(|word| !had.as_array().is_some_and(|had| had.contains(word)));
                let used: Vec<String> = new.filter_map(|word| in_use(word, pool)).collect();
                let said = if used.len() > 1 {
                    format!("[{}]", used.join(", "))
                } else {
                    used.concat()
                };
                Some(said).filter(|said| !said.is_empty())
            }
            word => in_use(word, pool),
        };
        match problem {
            Some(said) => conflict = Some((reason, said)),
            None => object::copy_key(names, &mut accepted, name),
        }
    }
    // As a definition has them from its beginning.
    for name in ["plural", "kind"]
        .into_iter()
        .filter(|name| accepted.get(name).is_none())
        .collect::<Vec<_>>()
    {
        accepted[name] = "".into();
    }
    status["acceptedNames"] = accepted;
    match conflict {
        Some((reason, said)) => {
            set_condition(status, "NamesAccepted", "False", reason, &said);
            if !is_established(status) {
                set_condition(
                    status,
                    "Established",
                    "False",
                    "NotAccepted",
                    "not all names are accepted",
                );
            }
        }
        None => {
            set_condition(status, "NamesAccepted", "True", "NoConflicts", "no conflicts found");
            let message = "the initial names have been accepted";
            set_condition(status, "Established", "True", "InitialNamesAccepted", message);
        }
    }
}

fn set_condition(status: &mut Value, kind: &str, value: &str, reason: &str, message: &str) {
    let conditions = object::list(status, "conditions");
    let position = conditions.iter().position(|condition| condition["type"] == kind);
    let since = position
        .map(|i| &conditions[i])
        .filter(|condition| condition["status"] == value)
        .map(|condition| condition["lastTransitionTime"].clone());
    let condition = json!({"type": kind, "status": value, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| time::now().into())});
    match position {
        Some(i) => conditions[i] = condition,
        None => conditions.push(condition),
    }
}

/// Whether a definition with this status is served.
pub(crate) fn is_established(status: &Value) -> bool {
    let conditions = status.get("conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

/// Whether a definition waits for a name that another one has.
pub(crate) fn waits_for_names(definition: &Value) -> bool {
    definition.pointer("/spec/names") != definition.pointer("/status/acceptedNames")
}

/// What a definition is from the moment that it is to go, until its objects are gone.
pub(crate) fn terminate(definition: &mut Value) {
    object::add_finalizer(definition, CLEANUP);
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    object::child(definition, "status");
    set_condition(
        &mut definition["status"],
        "Terminating",
        "True",
        "InstanceDeletionPending",
        message,
    );
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{establish, waits_for_names};

    fn definition(plural: &str) -> Value {
        let schema = json!({"openAPIV3Schema": {"type": "object"}});
        json!({"metadata": {"name": format!("{plural}.sea.dev")}, "spec": {"group": "sea.dev", "scope": "Cluster",
            "names": {"plural": plural, "kind": "Boat"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema},
                {"name": "v2", "served": true, "storage": false, "schema": schema}]}})
    }

    #[test]
    fn a_version_that_was_stored_once_stays_listed() {
        let mut old = definition("boats");
        establish(&mut old, None, std::iter::empty());
        let mut new = old.clone();
        new["spec"]["versions"][0]["storage"] = false.into();
        new["spec"]["versions"][1]["storage"] = true.into();
        establish(&mut new, Some(&old), std::iter::empty());
        assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
        assert_eq!(new["status"]["acceptedNames"]["singular"], "boat");
    }

    #[test]
    fn a_name_that_another_definition_has_is_waited_for() {
        let mut boats = definition("boats");
        establish(&mut boats, None, std::iter::empty());
        let mut ships = definition("ships");
        establish(&mut ships, None, [&boats].into_iter());
        assert_eq!(
            ships["status"]["conditions"][0]["message"],
            "\"BoatList\" is already in use"
        );
        assert!(waits_for_names(&ships) && !waits_for_names(&boats));
        let old = ships.clone();
        establish(&mut ships, Some(&old), std::iter::empty());
        assert_eq!(ships["status"]["conditions"][1]["status"], "True");
    }
}
