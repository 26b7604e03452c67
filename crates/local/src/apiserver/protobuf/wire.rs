//! The numbers of fields in messages: the table `wire.txt`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A numbered field.
pub(super) struct Field {
    pub(super) number: u64,
    /// Its name in JSON.
    pub(super) name: &'static str,
    /// Nothing and zero are not the same.
    pub(super) optional: bool,
    /// The type of a message whose fields belong to the object itself.
    pub(super) part: Option<&'static str>,
}

static TABLE: LazyLock<BTreeMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let lines = include_str!("wire.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, fields)| (name, fields.split(' ').filter_map(field).collect()))
        .collect()
});

fn field(text: &'static str) -> Option<Field> {
    let (number, name) = text.split_once(':')?;
    Some(Field {
        number: number.parse().ok()?,
        name: name.trim_end_matches('*'),
        optional: name.ends_with('*'),
        part: name.strip_prefix('>'),
    })
}

/// The fields of a type; none for one without a message.
pub(super) fn fields(name: &str) -> &'static [Field] {
    TABLE.get(name).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use crate::machinery::facts;

    #[test]
    fn every_numbered_field_is_one_of_its_type() {
        for (_, known) in facts::all() {
            for field in super::fields(known.itself.name) {
                let there = field.part.is_some() || known.field(field.name).is_some();
                assert!(there, "{} has no {}", known.itself.name, field.name);
            }
        }
        assert_eq!(super::fields("core.v1.Pod").len(), 3);
    }
}
