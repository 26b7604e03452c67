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
use super::selector::Selector;
use super::status::Failure;
use super::store::{Event, EventType, Object};
use super::view::{self, Form};

/// Time between bookmarks, as in Kubernetes.
const BOOKMARK: Duration = Duration::from_secs(60);

struct Watch {
    call: Call,
    selector: Selector,
    form: Form,
    /// Everything up to this revision was sent.
    position: u64,
    changed: watch::Receiver<u64>,
    pending: VecDeque<Bytes>,
    bookmark: Option<Instant>,
    end: Instant,
    over: bool,
}

impl Call {
    /// `GET` of a collection with `watch=true`.
    pub(crate) fn watch(self) -> Result<Response, Failure> {
        let form = Form::negotiate(&self.accept)?;
        let selector = self.selector()?;
        let asked = self.query.number("resourceVersion")?.unwrap_or(0);
        let bookmarks = self.query.flag("allowWatchBookmarks");
        let streaming_list = self.query.flag("sendInitialEvents");
        if asked > 0 {
            self.reachable(asked)?;
        }
        let seconds = match self.query.number("timeoutSeconds")? {
            Some(0) | None => rand::rng().random_range(1800..3600),
            Some(seconds) => seconds.min(24 * 3600),
        };
        let mut watch = Watch {
            changed: self.app.store.subscribe(&self.resource.table),
            position: asked,
            selector,
            form,
            pending: VecDeque::new(),
            bookmark: bookmarks.then(|| Instant::now() + BOOKMARK),
            end: Instant::now() + Duration::from_secs(seconds),
            over: false,
            call: self,
        };
        if asked == 0 || streaming_list {
            watch.begin_with_all(streaming_list && bookmarks);
        } else if let Err(too_old) = watch.call.app.store.read().since(&watch.call.resource.table, asked) {
            return Err(too_old_failure(asked, too_old.oldest));
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

fn too_old_failure(asked: u64, oldest: u64) -> Failure {
    Failure::expired(format!("too old resource version: {asked} ({oldest})"))
}

impl Watch {
    fn begin_with_all(&mut self, bookmark: bool) {
        let (revision, objects) = self.call.matching(&self.selector);
        self.position = revision;
        for object in objects {
            self.push("ADDED", &object);
        }
        if bookmark {
            let mut object = self.bookmark_object();
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            self.push_raw("BOOKMARK", &object);
        }
    }

    fn bookmark_object(&self) -> Value {
        let kind = &self.call.resource.kind;
        json!({
            "kind": kind.kind,
            "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": self.position.to_string(), "creationTimestamp": null},
        })
    }

    fn push(&mut self, event_type: &str, object: &Object) {
        let include = self.call.query.get("includeObject");
        let shown = view::one(&self.call.resource, object, self.form, include);
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
            |object: &Object| self.call.namespace.is_empty() || super::object::namespace(object) == self.call.namespace;
        let shown = view::at_version(&self.call.resource, &event.object);
        if !inside(&shown) {
            return;
        }
        let now = event.event_type != EventType::Deleted && self.selector.matches(&shown);
        if event.replayed {
            // What it was before is not known: the watcher may have it, and is told that it does not match any more.
            self.push(if now { "ADDED" } else { "DELETED" }, &shown);
            return;
        }
        let before = event.before.as_ref().map(|o| view::at_version(&self.call.resource, o));
        let before = before.is_some_and(|o| self.selector.matches(&o));
        match (before, now) {
            (false, true) => self.push("ADDED", &shown),
            (true, true) => self.push("MODIFIED", &shown),
            (true, false) => self.push("DELETED", &shown),
            (false, false) => {}
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
                    let status = too_old_failure(self.position, too_old.oldest).body();
                    self.push_raw("ERROR", &status);
                    self.over = true;
                    continue;
                }
                Ok((events, position)) => {
                    self.position = position;
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
                    self.bookmark = Some(now + BOOKMARK);
                    self.position = self.position.max(self.current());
                    let bookmark = self.bookmark_object();
                    self.push_raw("BOOKMARK", &bookmark);
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
