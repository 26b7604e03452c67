//! Reads the table of types. A line that is not understood is left out; a test sees that none is.

use std::collections::BTreeMap;

use super::{Field, Form, Merge, Table, Type, TypeId};

type Names = BTreeMap<&'static str, TypeId>;

pub(super) fn table(text: &'static str) -> Table {
    let lines = || text.lines().filter(|line| !line.starts_with('#'));
    let first_words = lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(' ').next());
    let names: Names = first_words.zip((0..).map(TypeId)).collect();
    let mut table = Table::default();
    for line in lines() {
        match line.strip_prefix(' ') {
            Some(line) => {
                if let (Some(last), Some(field)) = (table.types.last_mut(), field(line, &names)) {
                    last.fields.push(field);
                }
            }
            None => table.types.push(a_type(line)),
        }
    }
    let kinds = table.types.iter().zip((0..).map(TypeId));
    table.kinds = kinds
        .filter_map(|(a_type, id)| a_type.kind.map(|(version, kind)| ((kind, version), id)))
        .collect();
    table
}

fn a_type(line: &'static str) -> Type {
    let (name, mut rest) = line.split_once(' ').unwrap_or((line, ""));
    let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
    let form = scalar(word);
    if form.is_some() {
        rest = after;
    }
    let mut itself = Field {
        name,
        required: false,
        form: form.unwrap_or(Form::Object),
        merge: Merge::default(),
        values: Vec::new(),
        default: None,
    };
    let kind = rest.split(' ').find_map(|word| word.strip_prefix("kind="));
    attributes(rest, &mut itself);
    Type {
        itself,
        kind: kind.and_then(|kind| kind.rsplit_once('/')),
        fields: Vec::new(),
    }
}

fn field(line: &'static str, names: &Names) -> Option<Field> {
    let (name, rest) = line.split_once(' ')?;
    let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let bare = name.strip_suffix('!');
    let mut field = Field {
        name: bare.unwrap_or(name),
        required: bare.is_some(),
        form: form(word, names)?,
        merge: Merge::default(),
        values: Vec::new(),
        default: None,
    };
    attributes(rest, &mut field);
    Some(field)
}

fn form(word: &str, names: &Names) -> Option<Form> {
    if let Some(item) = word.strip_prefix("[]") {
        return Some(Form::List(Box::new(form(item, names)?)));
    }
    if let Some(item) = word.strip_prefix("{}") {
        return Some(Form::Map(Box::new(form(item, names)?)));
    }
    scalar(word).or_else(|| names.get(word).copied().map(Form::Type))
}

fn scalar(word: &str) -> Option<Form> {
    Some(match word {
        "string" => Form::String,
        "boolean" => Form::Boolean,
        "int32" => Form::Int32,
        "int64" => Form::Int64,
        "double" => Form::Double,
        "bytes" => Form::Bytes,
        "time" => Form::Time,
        "int-or-string" => Form::IntOrString,
        "quantity" => Form::Quantity,
        "object" => Form::Object,
        "any" => Form::Any,
        _ => return None,
    })
}

fn attributes(text: &'static str, field: &mut Field) {
    let (words, default) = match text.strip_prefix("default=") {
        Some(default) => ("", Some(default)),
        None => text
            .split_once(" default=")
            .map_or((text, None), |(words, default)| (words, Some(default))),
    };
    field.default = default;
    for word in words.split(' ') {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "atomic" | "granular" | "set" => field.merge.kind = Some(name),
            "map" => {
                field.merge.kind = Some(name);
                field.merge.keys = value.split(',').collect();
            }
            "patch" => {
                let (strategy, key) = value.split_once(':').map_or((value, None), |(s, key)| (s, Some(key)));
                field.merge.strategy = Some(strategy);
                field.merge.strategy_key = key;
            }
            "enum" => field.values = value.split(',').map(|value| value.replace('_', " ")).collect(),
            _ => {}
        }
    }
}
