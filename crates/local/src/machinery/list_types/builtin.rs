//! The shapes of the built-in kinds, from what is known of their types.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::{Fields, Key, PatchStrategy, Shape, Topology};
use crate::machinery::facts::{self, Field, Form, Merge, TypeId};

/// The shapes of a type's fields, those of which nothing is to be said left out.
pub(super) type Shapes = BTreeMap<&'static str, Shape>;

/// The shapes of the fields of a type.
pub(super) fn fields(of: TypeId) -> &'static Shapes {
    static TYPES: LazyLock<BTreeMap<TypeId, Shapes>> = LazyLock::new(|| {
        let types = facts::all().map(|(id, a_type)| (id, shapes(&a_type.fields)));
        types.filter(|(_, shapes)| !shapes.is_empty()).collect()
    });
    static NONE: Shapes = Shapes::new();
    TYPES.get(&of).unwrap_or(&NONE)
}

fn shapes(fields: &[Field]) -> Shapes {
    let shapes = fields
        .iter()
        .map(|field| (field.name, shape(&field.form, &field.merge)));
    shapes.filter(|(_, shape)| *shape != Shape::default()).collect()
}

/// The shape of values of a type.
pub(super) fn of_type(id: TypeId) -> Shape {
    shape(&Form::Type(id), &Merge::default())
}

fn shape(form: &Form, merge: &Merge) -> Shape {
    let items = match form {
        Form::List(item) | Form::Map(item) => Some(shape(item, &Merge::default())),
        _ => None,
    };
    let (fields, inherited) = match form {
        Form::Type(id) => {
            let itself = &facts::get(*id).itself;
            (Fields::Of(*id), itself.merge.kind)
        }
        _ => (Fields::default(), None),
    };
    // What is said of a field goes before what is said of its type.
    let topology = match merge.kind.or(inherited) {
        Some("atomic") => Topology::Atomic,
        Some("set") => Topology::Set,
        Some("map") => Topology::Keys(keys(form, &merge.keys)),
        _ => Topology::Unsaid,
    };
    let patch = match (merge.strategy, merge.strategy_key) {
        (Some(strategy), Some(key)) if strategy.starts_with("merge") => PatchStrategy::MergeBy(key.to_owned()),
        (Some(strategy), None) if strategy.starts_with("merge") => PatchStrategy::MergeScalars,
        _ => PatchStrategy::Replace,
    };
    Shape {
        topology,
        patch,
        fields,
        items: items.map(Box::new),
    }
}

/// The keys of a list, each with the default that the items' type has for it.
fn keys(list: &Form, names: &[&'static str]) -> Vec<Key> {
    let item = match list {
        Form::List(item) => match **item {
            Form::Type(id) => Some(facts::get(id)),
            _ => None,
        },
        _ => None,
    };
    let default = |name: &str| {
        item?
            .field(name)?
            .default
            .and_then(|text| serde_json::from_str(text).ok())
    };
    let keys = names.iter().map(|name| Key {
        name: (*name).to_owned(),
        default: default(name),
    });
    keys.collect()
}
