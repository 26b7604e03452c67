//! The form in which Kubernetes keeps an object: its types know of each field whether a zero is a value or absence.
//!
//! A field that a type keeps by value and omits when empty is dropped when it is zero; one that is never omitted is there
//! when nothing was said; amounts are written in one way only. Whatever a client sends takes this form before it is
//! owned, validated or stored, so that two objects are equal when Kubernetes holds them equal.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::quantity;
use crate::machinery::facts::{self, Form as Kind};

/// The facts that the schemas do not tell.
const FACTS: &str = include_str!("forms.txt");

/// What a field is when nothing, or nothing but zero, was said.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// A zero is a value, and absence is something else.
    Pointer,
    /// A zero is absence.
    Dropped,
    /// Absence is this zero.
    Kept(Zero),
    /// An amount.
    Quantity,
    /// A map of amounts, absent when empty.
    Quantities,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Zero {
    Text,
    Number,
    False,
    Object,
    Null,
}

impl Zero {
    fn value(self) -> Value {
        match self {
            Self::Text => json!(""),
            Self::Number => json!(0),
            Self::False => json!(false),
            Self::Object => json!({}),
            Self::Null => Value::Null,
        }
    }
}

struct Field {
    form: Form,
    /// The type of the field, or of each of its items.
    inner: Option<&'static str>,
}

struct Type {
    /// The name without the package's path, such as `core.v1.Container`.
    short: &'static str,
    fields: BTreeMap<&'static str, Field>,
    defaults: Vec<(&'static str, Value)>,
}

static PLANS: LazyLock<HashMap<&'static str, Type>> = LazyLock::new(plans);

/// The last three parts of a type's name: group, version, name.
fn short(name: &str) -> &str {
    name.rmatch_indices('.').nth(2).map_or(name, |(i, _)| &name[i + 1..])
}

fn plans() -> HashMap<&'static str, Type> {
    let mut facts_of: HashMap<&str, HashMap<&str, &str>> = HashMap::new();
    let mut defaults: HashMap<&str, Vec<(&str, Value)>> = HashMap::new();
    for line in FACTS.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let (Some(fact), Some(of)) = (words.next(), words.next()) else {
            continue;
        };
        for word in words {
            match word.split_once('=') {
                Some((name, value)) => {
                    let value = serde_json::from_str(value).unwrap_or_default();
                    defaults.entry(of).or_default().push((name, value));
                }
                None => {
                    facts_of.entry(of).or_default().insert(word, fact);
                }
            }
        }
    }
    let plan = |(_, a_type): (_, &'static facts::Type)| {
        let name = short(a_type.itself.name);
        let known = facts_of.get(name);
        let field = |field: &'static facts::Field| {
            let fact = known
                .and_then(|known| known.get(field.name).copied())
                .unwrap_or_default();
            (field.name, self::field(field, fact))
        };
        let plan = Type {
            short: name,
            fields: a_type.fields.iter().map(field).collect(),
            defaults: defaults.get(name).cloned().unwrap_or_default(),
        };
        (!a_type.fields.is_empty()).then_some((a_type.itself.name, plan))
    };
    facts::all().filter_map(plan).collect()
}

fn field(of: &'static facts::Field, fact: &str) -> Field {
    let plain = |form| Field { form, inner: None };
    let name_of = |kind: &Kind| match kind {
        Kind::Type(id) => Some(facts::get(*id).itself.name),
        _ => None,
    };
    let zero = match &of.form {
        Kind::Type(_) => {
            let inner = name_of(&of.form);
            let form = match (inner.map(short), fact) {
                (Some("api.resource.Quantity"), _) => Form::Quantity,
                (Some("meta.v1.ObjectMeta"), _) | (_, "struct") => Form::Kept(Zero::Object),
                (_, "null") => Form::Kept(Zero::Null),
                _ => Form::Pointer,
            };
            return Field { form, inner };
        }
        Kind::List(item) | Kind::Map(item) => {
            let inner = name_of(item);
            let form = match (inner.map(short), fact) {
                (_, "null") => Form::Kept(Zero::Null),
                (Some("api.resource.Quantity"), _) => Form::Quantities,
                _ => Form::Dropped,
            };
            return Field { form, inner };
        }
        Kind::String | Kind::Bytes => Zero::Text,
        Kind::Int32 | Kind::Int64 | Kind::Double => Zero::Number,
        Kind::Boolean => Zero::False,
        _ => return plain(Form::Pointer),
    };
    plain(match fact {
        "null" => Form::Kept(Zero::Null),
        "kept" => Form::Kept(zero),
        "dropped" | "value" => Form::Dropped,
        "pointer" => Form::Pointer,
        _ if of.required => Form::Kept(zero),
        _ if zero == Zero::Text => Form::Dropped,
        _ => Form::Pointer,
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Gives an object of the type `name` its form and its defaults. `visit` sees each object within, by the name of its
/// type, when its zeros are gone and its plain defaults set, before what is in it.
pub(super) fn shape(name: &str, object: &mut Map<String, Value>, visit: &mut dyn FnMut(&str, &mut Map<String, Value>)) {
    let Some(plan) = PLANS.get(name) else { return };
    object.retain(|key, value| {
        let dropped = plan.fields.get(key.as_str()).is_some_and(|field| {
            let form = field.form;
            matches!(form, Form::Dropped | Form::Quantities) && is_zero(value)
        });
        !dropped && !value.is_null()
    });
    for (key, value) in &plan.defaults {
        let zero = || {
            plan.fields
                .get(key)
                .is_some_and(|field| matches!(field.form, Form::Kept(_)))
        };
        match object.get(*key) {
            Some(said) if !(is_zero(said) && zero()) => {}
            _ => {
                object.insert((*key).into(), value.clone());
            }
        }
    }
    visit(plan.short, object);
    for (key, field) in &plan.fields {
        if let Form::Kept(zero) = field.form {
            object.entry(*key).or_insert_with(|| zero.value());
        }
        let Some(value) = object.get_mut(*key) else { continue };
        match field.form {
            Form::Quantity => quantity::canonical(value),
            Form::Quantities => {
                for amount in value.as_object_mut().into_iter().flat_map(Map::values_mut) {
                    quantity::canonical(amount);
                }
            }
            _ => {
                if let Some(inner) = field.inner {
                    shape_all(inner, value, visit);
                }
            }
        }
    }
}

/// What an object of the type `name` has when nothing was said.
pub(super) fn empty(name: &str) -> Value {
    let Some(plan) = PLANS.get(name) else { return json!({}) };
    let kept = plan.fields.iter().filter_map(|(key, field)| {
        let value = match (field.form, field.inner) {
            (Form::Kept(Zero::Object), Some(inner)) => empty(inner),
            (Form::Kept(zero), _) => zero.value(),
            _ => return None,
        };
        Some(((*key).to_owned(), value))
    });
    Value::Object(kept.collect())
}

/// Shapes an object, each of a list, or each of a map's values.
fn shape_all(name: &str, value: &mut Value, visit: &mut dyn FnMut(&str, &mut Map<String, Value>)) {
    match value {
        Value::Object(map) => shape(name, map, visit),
        Value::Array(items) => items.iter_mut().for_each(|item| shape_all(name, item, visit)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(name: &str, mut object: Value) -> Value {
        let name = PLANS
            .iter()
            .find(|(_, plan)| plan.short == name)
            .map(|(full, _)| *full)
            .unwrap();
        shape(name, object.as_object_mut().unwrap(), &mut |_, _| {});
        object
    }

    #[test]
    fn every_fact_is_about_a_field_that_exists() {
        let known: HashMap<&str, &Type> = PLANS.values().map(|plan| (plan.short, plan)).collect();
        for line in FACTS.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split(' ').collect();
            let Some(plan) = known.get(words[1]) else { continue };
            for word in &words[2..] {
                let (name, value) = word.split_once('=').unwrap_or((word, "null"));
                assert!(plan.fields.contains_key(name), "{line}: {name}");
                assert!(serde_json::from_str::<Value>(value).is_ok(), "{line}: {value}");
            }
        }
    }

    #[test]
    fn zeros_are_dropped_where_they_are_absence_and_kept_where_they_are_values() {
        let spec = json!({"hostNetwork": false, "automountServiceAccountToken": false, "nodeSelector": {},
            "hostname": "", "runtimeClassName": "", "volumes": [], "tolerations": null});
        let spec = shaped("core.v1.PodSpec", spec);
        for gone in ["hostNetwork", "nodeSelector", "hostname", "volumes", "tolerations"] {
            assert_eq!(spec.get(gone), None, "{gone}");
        }
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(spec["runtimeClassName"], "");
    }

    #[test]
    fn what_is_never_absent_is_there() {
        let status = shaped("apps.v1.DaemonSetStatus", json!({}));
        assert_eq!(status["numberReady"], 0);
        let slice = shaped("discovery.v1.EndpointSlice", json!({}));
        assert_eq!(slice.get("endpoints"), Some(&Value::Null));
        let service = shaped("core.v1.Service", json!({}));
        assert_eq!(service["status"], json!({"loadBalancer": {}}));
    }
}
