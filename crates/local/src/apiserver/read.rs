//! Get and list.

use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::{Call, json_response};
use super::object;
use super::options::{ListOptions, Match};
use super::selector::Selector;
use super::status::Failure;
use super::store::{Held, Object};
use super::view::{self, Form};

#[derive(Serialize)]
struct List<'a, I> {
    kind: String,
    #[serde(rename = "apiVersion")]
    api_version: String,
    metadata: Value,
    items: &'a I,
}

/// Where a list goes on: the token of `continue`, in Kubernetes' form.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    #[serde(rename = "v")]
    version: String,
    /// The revision of the whole list; below zero for what is there now.
    #[serde(default, rename = "rv")]
    revision: i64,
    /// What comes after the last object sent: `name` or `namespace/name`, and a zero byte.
    #[serde(default)]
    start: String,
}

impl Token {
    fn write(revision: i64, start: String) -> String {
        let version = "meta.k8s.io/v1".to_owned();
        let token = json!(Self {
            version,
            revision,
            start
        });
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn read(text: &str) -> Result<Self, Failure> {
        let invalid =
            |why: &str| Failure::bad_request(format!("invalid continue token: continue key is not valid{why}"));
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| invalid(": illegal base64 data at input byte 0"))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| {
            let first = bytes.first().map_or(char::REPLACEMENT_CHARACTER, |b| char::from(*b));
            invalid(&format!(": invalid character '{first}' looking for beginning of value"))
        })?;
        if token.version != "meta.k8s.io/v1" {
            let why = format!(": server does not recognize this encoded version {}", token.version);
            return Err(invalid(&why));
        }
        if token.revision == 0 {
            return Err(invalid(
                ": incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ));
        }
        if token.start.is_empty() {
            return Err(invalid(": encoded start key empty (version meta.k8s.io/v1)"));
        }
        Ok(token)
    }
}

const TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list \
    without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
    Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted \
    between the time the first chunk was returned and now may show up in the list.";

impl Call {
    /// `GET` of an object.
    pub(crate) fn read(&self) -> Result<Response, Failure> {
        let form = self.form()?;
        let asked = ListOptions::parse_revision(&self.query).map_err(|why| Failure::new(500, "", why))?;
        self.reachable(asked)?;
        let stored = self.get()?;
        Ok(json_response(
            200,
            &view::one(&self.resource, &stored, form, self.query.get("includeObject")),
        ))
    }

    /// The form that is asked for.
    pub(crate) fn form(&self) -> Result<Form, Failure> {
        let form = Form::negotiate(&self.accept)?;
        match self.query.get("includeObject") {
            Some(other) if form == Form::Table && !matches!(other, "None" | "Metadata" | "Object") => {
                Err(Failure::bad_request(format!(
                    "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
                     'Object', 'None', or empty"
                )))
            }
            _ => Ok(form),
        }
    }

    /// Label and field selectors, and the name where the path has one.
    pub(crate) fn selector(&self) -> Result<Selector, Failure> {
        Selector::parse(
            self.query.get("labelSelector"),
            self.query.get("fieldSelector"),
            &self.resource,
        )
    }

    fn in_namespace(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(self.namespace.as_str())
    }

    /// The objects that match, in the version of the path, and the revision that they are of.
    pub(crate) fn matching(&self, selector: &Selector) -> (u64, Vec<Object>) {
        let (revision, all) = {
            let state = self.app.store.read();
            (state.revision(), state.list(&self.resource.table, self.in_namespace()))
        };
        let shown = all.iter().map(|held| view::at_version(&self.resource, &held.open()));
        let matching = if selector.is_empty() {
            shown.collect()
        } else {
            shown.filter(|o| selector.matches(o)).collect()
        };
        (revision, matching)
    }

    /// Refuses a revision that the store has not reached.
    pub(crate) fn reachable(&self, asked: u64) -> Result<(), Failure> {
        let current = self.app.store.read().revision();
        if asked <= current {
            return Ok(());
        }
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut failure = Failure::new(504, "Timeout", message);
        failure.details = Some(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }));
        Err(failure)
    }

    /// `GET` of a collection.
    pub(crate) fn list(&self) -> Result<Response, Failure> {
        let form = self.form()?;
        let options = ListOptions::parse(&self.query)?;
        let selector = self.selector()?;
        let token = options.token.as_deref().map(Token::read).transpose()?;
        let (revision, mut objects) = self.state_for(&options, token.as_ref())?;
        if let Some(token) = &token {
            objects.retain(|held| self.place(held.head()).as_str() >= token.start.as_str());
        }
        // Whoever is content with any state gets all of it.
        let limit = if options.revision() == Ok(0) && options.has_version() {
            0
        } else {
            options.limit
        };
        let (total, mut examined) = (objects.len(), 0);
        let mut page = Vec::new();
        for held in &objects {
            examined += 1;
            let shown = view::at_version(&self.resource, &held.open());
            if selector.is_empty() || selector.matches(&shown) {
                page.push(shown);
            }
            if limit > 0 && page.len() == limit {
                break;
            }
        }
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if examined < total
            && let Some(last) = objects.get(examined - 1)
        {
            if selector.is_empty() {
                metadata["remainingItemCount"] = (total - examined).into();
            }
            let revision = i64::try_from(revision).unwrap_or(i64::MAX);
            metadata["continue"] = Token::write(revision, self.place(last.head()) + "\0").into();
        }
        Ok(self.show(form, &page, metadata))
    }

    /// An object's place in the list.
    fn place(&self, object: &Value) -> String {
        if self.resource.kind.namespaced && self.namespace.is_empty() {
            format!("{}/{}", object::namespace(object), object::name(object))
        } else {
            object::name(object).to_owned()
        }
    }

    /// The revision that a list is of, and every object of the kind then.
    fn state_for(&self, options: &ListOptions, token: Option<&Token>) -> Result<(u64, Vec<Held>), Failure> {
        let asked = options
            .revision()
            .map_err(|why| Failure::bad_request(format!("invalid resource version: {why}")))?;
        if token.is_some() && asked > 0 {
            let why = "specifying resource version is not allowed when using continue";
            return Err(Failure::bad_request(why));
        }
        let exact = match token {
            Some(token) => u64::try_from(token.revision).ok(),
            None if options.version_match == Some(Match::Exact) => Some(asked),
            // As it was before the two could be told apart.
            None if options.version_match.is_none() && options.limit > 0 && asked > 0 => Some(asked),
            None => None,
        };
        self.reachable(exact.unwrap_or(asked)).map_err(|mut failure| {
            // Whoever wants the future itself is not told when to come again.
            let details = failure.details.as_mut().and_then(Value::as_object_mut);
            details
                .filter(|_| exact.is_some())
                .map(|d| d.remove("retryAfterSeconds"));
            failure
        })?;
        let state = self.app.store.read();
        let table = &self.resource.table;
        let Some(revision) = exact else {
            return Ok((state.revision(), state.list(table, self.in_namespace())));
        };
        let found = state.list_at(table, self.in_namespace(), revision);
        found.map(|objects| (revision, objects)).map_err(|_| match token {
            None => Failure::expired("The resourceVersion for the provided list is too old."),
            Some(token) => {
                let mut failure = Failure::expired(TOO_OLD);
                failure.resume = Some(Token::write(-1, token.start.clone()));
                failure
            }
        })
    }

    pub(crate) fn show(&self, form: Form, objects: &[Object], metadata: Value) -> Response {
        let kind = &self.resource.kind;
        match form {
            // The items of a built-in kind's list do not repeat what the list says.
            Form::Whole if self.resource.custom.is_none() => {
                let items: Vec<_> = objects.iter().map(|o| view::WithoutKind(o)).collect();
                list(kind.list_kind.clone(), kind.api_version(), metadata, &items)
            }
            Form::Whole => list(kind.list_kind.clone(), kind.api_version(), metadata, &objects),
            Form::Metadata => {
                let items: Vec<Value> = objects.iter().map(|o| view::metadata_only(o)).collect();
                let items = (!items.is_empty()).then_some(items);
                let kind = "PartialObjectMetadataList".into();
                list(kind, "meta.k8s.io/v1".into(), metadata, &items)
            }
            Form::Table => {
                let include = self.query.get("includeObject");
                json_response(200, &view::as_table(&self.resource, objects, include, metadata))
            }
        }
    }
}

fn list(kind: String, api_version: String, metadata: Value, items: &impl Serialize) -> Response {
    let list = List {
        kind,
        api_version,
        metadata,
        items,
    };
    json_response(200, &list)
}
