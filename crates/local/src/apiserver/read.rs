//! Get and list.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::call::{Call, json_response};
use super::selector::Selector;
use super::status::Failure;
use super::store::Object;
use super::view::{self, Form};

#[derive(Serialize)]
struct List<'a, I> {
    kind: String,
    #[serde(rename = "apiVersion")]
    api_version: String,
    metadata: Value,
    items: &'a I,
}

/// The place of a page in a list that was begun: the token of `continue`.
#[derive(Serialize, Deserialize)]
struct Token {
    page: u64,
}

/// The rests of lists that clients read page by page, as they were when the first page was read.
#[derive(Default)]
pub(crate) struct Pages(Mutex<PagesInner>);

#[derive(Default)]
struct PagesInner {
    next: u64,
    kept: VecDeque<Rest>,
}

struct Rest {
    page: u64,
    table: String,
    since: Instant,
    revision: u64,
    objects: Vec<Object>,
}

impl Pages {
    const KEPT: usize = 32;
    const AGE: Duration = Duration::from_secs(300);

    fn keep(&self, table: &str, revision: u64, objects: Vec<Object>) -> String {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.next += 1;
        let page = inner.next;
        inner.kept.retain(|rest| rest.since.elapsed() < Self::AGE);
        if inner.kept.len() >= Self::KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(Rest {
            page,
            table: table.to_owned(),
            since: Instant::now(),
            revision,
            objects,
        });
        URL_SAFE_NO_PAD.encode(json!(Token { page }).to_string())
    }

    fn find(&self, table: &str, token: &str) -> Result<(u64, Vec<Object>), Failure> {
        let invalid = || Failure::bad_request("continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = inner.kept.iter().find(|r| r.page == token.page && r.table == table);
        let rest = rest.filter(|r| r.since.elapsed() < Self::AGE).ok_or_else(|| {
            Failure::expired(
                "The provided continue parameter is too old to display a consistent list result. You must start a new list \
                 without the continue parameter.",
            )
        })?;
        Ok((rest.revision, rest.objects.clone()))
    }
}

impl Call {
    /// `GET` of an object.
    pub(crate) fn read(&self) -> Result<Response, Failure> {
        let form = Form::negotiate(&self.accept)?;
        let stored = self.get()?;
        Ok(json_response(
            200,
            &view::one(&self.resource, &stored, form, self.query.get("includeObject")),
        ))
    }

    /// Label and field selectors, and the name where the path has one.
    pub(crate) fn selector(&self) -> Result<Selector, Failure> {
        Selector::parse(
            self.query.get("labelSelector"),
            self.query.get("fieldSelector"),
            &self.resource.kind.kind,
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
        let shown = all.iter().map(|o| view::at_version(&self.resource, o));
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
        let message = format!("Too large resource version: {asked}, current: {current}");
        let mut failure = Failure::new(504, "Timeout", message);
        failure.details = Some(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }));
        Err(failure)
    }

    /// `GET` of a collection.
    pub(crate) fn list(&self) -> Result<Response, Failure> {
        let form = Form::negotiate(&self.accept)?;
        let selector = self.selector()?;
        if let Some(asked) = self.query.number("resourceVersion")? {
            self.reachable(asked)?;
        }
        let limit = self
            .query
            .number("limit")?
            .and_then(|l| usize::try_from(l).ok())
            .filter(|l| *l > 0);
        let (revision, mut objects) = match self.query.get("continue") {
            Some(token) => self.app.pages.find(&self.resource.table, token)?,
            None => self.matching(&selector),
        };
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if let Some(limit) = limit.filter(|l| *l < objects.len()) {
            let rest = objects.split_off(limit);
            if selector.is_empty() {
                metadata["remainingItemCount"] = rest.len().into();
            }
            metadata["continue"] = self.app.pages.keep(&self.resource.table, revision, rest).into();
        }
        Ok(self.show(form, &objects, metadata))
    }

    fn show(&self, form: Form, objects: &[Object], metadata: Value) -> Response {
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
