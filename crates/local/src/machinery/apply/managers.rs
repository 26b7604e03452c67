//! The entries of `metadata.managedFields`.

use serde_json::{Value, json};

use super::Conflict;
use super::fields::Fields;

/// How many entries of updaters an object may have.
const MOST_UPDATERS: usize = 10;
/// The manager that the oldest updaters are merged into.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// Whether a request's managedFields ask to forget all: no entry, or one that says nothing.
pub(super) fn is_reset(list: &Value) -> bool {
    match list.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

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
        if text("fieldsType") != Some("FieldsV1") {
            return None;
        }
        Some(Self {
            manager: text("manager").unwrap_or_default().to_owned(),
            operation,
            api_version: text("apiVersion").filter(|version| !version.is_empty())?.to_owned(),
            subresource: text("subresource").filter(|name| !name.is_empty()).map(str::to_owned),
            time: text("time").map(str::to_owned),
            fields: value.get("fieldsV1").map(Fields::parse).unwrap_or_default(),
        })
    }

    fn to_value(&self) -> Value {
        let mut value = json!({
            "operation": self.operation.name(),
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_value(),
        });
        if !self.manager.is_empty() {
            value["manager"] = json!(self.manager);
        }
        if let Some(time) = &self.time {
            value["time"] = json!(time);
        }
        if let Some(subresource) = &self.subresource {
            value["subresource"] = json!(subresource);
        }
        value
    }

    fn identity(&self) -> (&str, Operation, &str, Option<&str>) {
        (
            &self.manager,
            self.operation,
            &self.api_version,
            self.subresource.as_deref(),
        )
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
    /// Reads managedFields; `None` where an entry cannot be read, as then none can be relied on.
    pub(super) fn parse(list: Option<&Value>) -> Option<Self> {
        let entries = list.and_then(Value::as_array).into_iter().flatten().map(Entry::parse);
        Some(Self {
            entries: entries.collect::<Option<_>>()?,
        })
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
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|a, b| a.identity().cmp(&b.identity()));
        entries
            .into_iter()
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

    /// Merges the oldest updaters of a version into one, so that no more than ten are left.
    pub(super) fn limit_updaters(&mut self) {
        let (appliers, mut updaters): (Vec<Entry>, Vec<Entry>) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|e| e.operation == Operation::Apply);
        updaters.sort_by(|a, b| (&a.time, a.identity()).cmp(&(&b.time, b.identity())));
        let mut i = 0;
        while updaters.len() > MOST_UPDATERS && i < updaters.len() {
            let version = updaters[i].api_version.clone();
            let Some(older) = updaters[..i].iter().position(|e| e.api_version == version) else {
                i += 1;
                continue;
            };
            let mine = updaters.remove(i);
            let bucket = &mut updaters[older];
            *bucket = Entry {
                fields: std::mem::take(&mut bucket.fields).union(&mine.fields),
                time: mine.time,
                ..Entry::id(ANCIENT_CHANGES, Operation::Update, &version, None)
            };
        }
        self.entries = appliers;
        self.entries.extend(updaters);
    }

    /// Writes the entries into `object`: appliers first, then by time.
    pub(super) fn put_into(mut self, mut object: Value) -> Value {
        self.entries.sort_by(|a, b| {
            let order = |e: &Entry| {
                (
                    e.operation,
                    e.time.clone(),
                    e.manager.clone(),
                    e.api_version.clone(),
                    e.subresource.clone(),
                )
            };
            order(a).cmp(&order(b))
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
