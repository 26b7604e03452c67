//! Watches: a stream of changes from a revision on.
//!
//! A watch reads the kind's recent changes from its own position whenever the store says that there are new ones; a slow
//! reader delays nobody and, once what it has not read yet is no longer kept, is told so with 410 and ends.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};
use rand::Rng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use super::call::Call;
use super::object;
use super::options::ListOptions;
use super::selector::Selector;
use super::status::Failure;
use super::store::{Event, EventType, Object};
use super::view::{self, Form};

/// Time between bookmarks, as in Kubernetes.
const BOOKMARK: Duration = Duration::from_secs(60);
/// The last one comes this long before the watch ends.
const BEFORE_END: Duration = Duration::from_secs(2);

struct Watch {
    call: Call,
    selector: Selector,
    form: Form,
    /// Everything up to this revision was sent.
    position: u64,
    changed: watch::Receiver<u64>,
    /// A table's columns are described in its first event.
    columns_sent: bool,
    pending: VecDeque<Bytes>,
    bookmarks: bool,
    /// When the next one is due.
    bookmark: Option<Instant>,
    end: Instant,
    over: bool,
}

impl Call {
    /// `GET` of a collection with `watch=true`.
    pub(crate) fn watch(self) -> Result<Response, Failure> {
        let form = self.form()?;
        let options = ListOptions::parse(&self.query)?;
        let selector = self.selector()?;
        let asked = options.revision().map_err(|why| Failure::new(500, "", why))?;
        let seconds = match options.seconds {
            0 => rand::rng().random_range(1800..3600),
            seconds => seconds.min(24 * 3600),
        };
        let mut watch = Watch {
            changed: self.app.store.subscribe(&self.resource.table),
            position: asked,
            selector,
            form,
            columns_sent: false,
            pending: VecDeque::new(),
            bookmarks: options.bookmarks,
            bookmark: None,
            end: Instant::now() + Duration::from_secs(seconds),
            over: false,
            call: self,
        };
        watch.plan_bookmark();
        match options.initial_events {
            Some(true) => match watch.call.reachable(asked) {
                Ok(()) => watch.begin_with_all(),
                Err(failure) => watch.fail(&failure),
            },
            // From now on.
            _ if asked == 0 => watch.position = watch.call.app.store.read().revision(),
            _ => {}
        }
        let stream = futures::stream::unfold(watch, |mut watch| async move {
            let bytes = watch.next().await?;
            Some((Ok::<Bytes, Infallible>(bytes), watch))
        });
        let mut response = Response::new(Body::from_stream(stream));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

impl Watch {
    fn begin_with_all(&mut self) {
        let (revision, objects) = self.call.matching(&self.selector);
        self.position = revision;
        for object in objects {
            self.push("ADDED", &object);
        }
        if self.bookmarks {
            let mut object = self.bookmark_object();
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            self.push("BOOKMARK", &Object::new(object));
        }
    }

    /// The last event of a watch that cannot go on.
    fn fail(&mut self, failure: &Failure) {
        self.push_raw("ERROR", &failure.body());
        self.over = true;
    }

    /// When the next one is due: a minute from now, or shortly before the end.
    fn plan_bookmark(&mut self) {
        let now = Instant::now();
        let last = self.end.checked_sub(BEFORE_END).filter(|last| *last > now);
        self.bookmark = last.map(|last| last.min(now + BOOKMARK)).filter(|_| self.bookmarks);
    }

    fn bookmark_object(&self) -> Value {
        let kind = &self.call.resource.kind;
        json!({
            "kind": kind.kind,
            "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": self.position.to_string()},
        })
    }

    fn push(&mut self, event_type: &str, object: &Object) {
        let include = self.call.query.get("includeObject");
        let mut shown = view::one(&self.call.resource, object, self.form, include);
        if self.form == Form::Table && std::mem::replace(&mut self.columns_sent, true) {
            let mut rows = (*shown).clone();
            rows["columnDefinitions"] = Value::Null;
            shown = Object::new(rows);
        }
        self.push_raw(event_type, &shown);
    }

    fn push_raw(&mut self, event_type: &str, object: &Value) {
        let mut line = format!("{{\"type\":\"{event_type}\",\"object\":{object}}}");
        line.push('\n');
        self.pending.push_back(line.into());
    }

    /// What the watcher sees of a change: an object that comes to match is added, one that ceases to is deleted.
    fn show(&mut self, event: &Event) {
        let inside =
            |object: &Object| self.call.namespace.is_empty() || object::namespace(object) == self.call.namespace;
        let shown = view::at_version(&self.call.resource, &event.object);
        if !inside(&shown) {
            return;
        }
        let now = event.event_type != EventType::Deleted && self.selector.matches(&shown);
        let before = event.before.as_ref().map(|o| view::at_version(&self.call.resource, o));
        let before = before.filter(|o| self.selector.matches(o));
        match (before, now) {
            (None, true) => self.push("ADDED", &shown),
            (Some(_), true) => self.push("MODIFIED", &shown),
            (Some(_), false) if event.event_type == EventType::Deleted => self.push("DELETED", &shown),
            // It is shown as it was when it still matched.
            (Some(before), false) => {
                let mut last = (*before).clone();
                let revision = event.revision.to_string();
                object::metadata(&mut last).insert("resourceVersion".into(), revision.into());
                self.push("DELETED", &Object::new(last));
            }
            (None, false) => {}
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.pending.pop_front() {
                return Some(bytes);
            }
            if self.over {
                return None;
            }
            self.changed.borrow_and_update();
            let news = self
                .call
                .app
                .store
                .read()
                .since(&self.call.resource.table, self.position);
            match news {
                Err(too_old) => {
                    let (asked, oldest) = (self.position, too_old.oldest);
                    self.fail(&Failure::expired(format!(
                        "too old resource version: {asked} ({oldest})"
                    )));
                    continue;
                }
                Ok((events, position)) => {
                    // A watch from the future waits for it.
                    self.position = self.position.max(position);
                    for event in &events {
                        self.show(event);
                    }
                }
            }
            if self.pending.is_empty() {
                self.wait().await;
            }
        }
    }

    async fn wait(&mut self) {
        let wake = self.bookmark.map_or(self.end, |bookmark| bookmark.min(self.end));
        let stop = self.call.app.stop.clone();
        tokio::select! {
            changed = self.changed.changed() => self.over |= changed.is_err(),
            () = stop.cancelled() => self.over = true,
            () = tokio::time::sleep_until(wake) => {
                let now = Instant::now();
                if now >= self.end {
                    self.over = true;
                } else if self.bookmark.is_some() {
                    self.plan_bookmark();
                    self.position = self.position.max(self.current());
                    let bookmark = Object::new(self.bookmark_object());
                    self.push("BOOKMARK", &bookmark);
                }
            }
        }
    }

    /// The store's revision, if nothing of the kind happened since the watch's position.
    fn current(&self) -> u64 {
        match self
            .call
            .app
            .store
            .read()
            .since(&self.call.resource.table, self.position)
        {
            Ok((events, revision)) if events.is_empty() => revision,
            _ => self.position,
        }
    }
}
