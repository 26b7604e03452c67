//! The entries of `metadata.managedFields`.

use serde_json::{Value, json};

use super::Conflict;
use super::fields::Fields;

/// How a manager came to own its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What one manager owns.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: Option<String>,
    pub(super) time: Option<String>,
    pub(super) fields: Fields,
}

impl Entry {
    /// An entry without fields, which names a manager.
    pub(super) fn id(manager: &str, operation: Operation, api_version: &str, subresource: Option<&str>) -> Self {
        Self {
            manager: manager.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.map(str::to_owned),
            time: None,
            fields: Fields::default(),
        }
    }

    fn parse(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let operation = match text("operation")? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        Some(Self {
            manager: text("manager").unwrap_or("unknown").to_owned(),
            operation,
            api_version: text("apiVersion").unwrap_or_default().to_owned(),
            subresource: text("subresource").filter(|name| !name.is_empty()).map(str::to_owned),
            time: text("time").map(str::to_owned),
            fields: Fields::parse(value.get("fieldsV1")?),
        })
    }

    fn to_value(&self) -> Value {
        let mut value = json!({
            "manager": self.manager,
            "operation": self.operation.name(),
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_value(),
        });
        if let Some(time) = &self.time {
            value["time"] = json!(time);
        }
        if let Some(subresource) = &self.subresource {
            value["subresource"] = json!(subresource);
        }
        value
    }

    fn is_same_manager(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }
}

/// All entries of an object.
#[derive(Debug, Default)]
pub(super) struct Managers {
    pub(super) entries: Vec<Entry>,
}

impl Managers {
    /// Takes the managedFields out of `object`. Entries that cannot be read are dropped, as nobody could use them.
    pub(super) fn take(object: &mut Value) -> Self {
        let list = object
            .pointer_mut("/metadata")
            .and_then(Value::as_object_mut)
            .and_then(|metadata| metadata.remove("managedFields"));
        let entries = list
            .as_ref()
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Entry::parse)
            .collect();
        Self { entries }
    }

    /// Where the entry of the same manager is.
    pub(super) fn position(&self, id: &Entry) -> Option<usize> {
        self.entries.iter().position(|entry| entry.is_same_manager(id))
    }

    /// Where the entry of an applying manager is.
    pub(super) fn position_of_applier(&self, manager: &str, subresource: Option<&str>) -> Option<usize> {
        self.position(&Entry::id(manager, Operation::Apply, "", subresource))
    }

    /// The fields of `changed` that somebody owns.
    pub(super) fn conflicts(&self, changed: &Fields) -> Vec<Conflict> {
        self.entries
            .iter()
            .flat_map(|entry| {
                entry
                    .fields
                    .intersection(changed)
                    .paths()
                    .into_iter()
                    .map(|field| Conflict {
                        manager: entry.manager.clone(),
                        operation: entry.operation.name().to_owned(),
                        subresource: entry.subresource.clone(),
                        api_version: entry.api_version.clone(),
                        field,
                    })
            })
            .collect()
    }

    /// Takes `fields` from every manager.
    pub(super) fn release(&mut self, fields: &Fields) {
        for entry in &mut self.entries {
            entry.fields = entry.fields.difference(fields);
        }
        self.entries.retain(|entry| !entry.fields.is_empty());
    }

    /// Adds an entry, unless it owns nothing.
    pub(super) fn put(&mut self, entry: Entry) {
        if !entry.fields.is_empty() {
            self.entries.push(entry);
        }
    }

    /// Writes the entries into `object`: appliers first, then by time.
    pub(super) fn put_into(mut self, mut object: Value) -> Value {
        self.entries.sort_by(|a, b| {
            (a.operation, &a.time, &a.manager, &a.subresource).cmp(&(b.operation, &b.time, &b.manager, &b.subresource))
        });
        let list: Vec<Value> = self.entries.iter().map(Entry::to_value).collect();
        if let Some(map) = object.as_object_mut()
            && !list.is_empty()
        {
            let metadata = map.entry("metadata").or_insert_with(|| json!({}));
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.insert("managedFields".into(), Value::Array(list));
            }
        }
        object
    }
}
