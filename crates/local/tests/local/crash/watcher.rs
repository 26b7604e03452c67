//! A watcher that resumes from the last revision it saw, and checks that each event can follow what it saw before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use tokio::task::JoinHandle;

#[derive(Default)]
struct Seen {
    revisions: BTreeSet<u64>,
    /// The objects as the events leave them: their counts.
    objects: BTreeMap<String, String>,
    resumed: u64,
}

pub(super) struct Watcher {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    /// Watches from `begin` on, when nothing that matches is there.
    pub(super) fn start(maps: Api<ConfigMap>, selector: &str, begin: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (kept, selector, mut at) = (seen.clone(), selector.to_owned(), begin.to_owned());
        let task = tokio::spawn(async move {
            loop {
                let params = WatchParams::default().labels(&selector);
                if let Ok(stream) = maps.watch(&params, &at).await {
                    let mut stream = std::pin::pin!(stream);
                    while let Some(Ok(event)) = stream.next().await {
                        kept.lock().unwrap().take_in(event, &mut at);
                    }
                }
                kept.lock().unwrap().resumed += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { seen, task }
    }

    pub(super) fn seen(&self) -> BTreeSet<u64> {
        self.seen.lock().unwrap().revisions.clone()
    }

    pub(super) fn resumed(&self) -> u64 {
        self.seen.lock().unwrap().resumed
    }

    /// Waits until the events have led to what a list says.
    pub(super) async fn reaches(&self, maps: &Api<ConfigMap>, selector: &str, end: Instant) {
        loop {
            assert!(
                !self.task.is_finished(),
                "the watch of \"{selector}\" found an event that cannot be"
            );
            let there = maps.list(&ListParams::default().labels(selector)).await.unwrap();
            let there: BTreeMap<String, String> = there.items.iter().filter_map(brief).collect();
            let objects = self.seen.lock().unwrap().objects.clone();
            if there == objects {
                return;
            }
            assert!(
                Instant::now() < end,
                "the watch of \"{selector}\" ends with {objects:?} for {there:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Name and count of a writer's object.
fn brief(map: &ConfigMap) -> Option<(String, String)> {
    let count = map.data.as_ref()?.get("count")?.clone();
    Some((map.metadata.name.clone()?, count))
}

impl Seen {
    fn take_in(&mut self, event: WatchEvent<ConfigMap>, at: &mut String) {
        let (map, there_before, there_after) = match event {
            WatchEvent::Added(map) => (map, false, true),
            WatchEvent::Modified(map) => (map, true, true),
            WatchEvent::Deleted(map) => (map, true, false),
            other => panic!("{other:?}"),
        };
        let revision = map.metadata.resource_version.clone().unwrap();
        let number: u64 = revision.parse().unwrap();
        let last = self.revisions.last().copied().unwrap_or(0);
        assert!(number > last, "an event of revision {number} after one of {last}");
        *at = revision;
        self.revisions.insert(number);
        let Some((name, count)) = brief(&map) else { return };
        let before = self.objects.remove(&name);
        assert_eq!(
            before.is_some(),
            there_before,
            "an event about {name} was missed or came twice: {map:?}"
        );
        if there_after {
            self.objects.insert(name, count);
        }
    }
}
