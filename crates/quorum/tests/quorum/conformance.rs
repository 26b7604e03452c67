//! What every driver must do, against each of them. Each rule has keys of its own, so that one store serves all of them.

use std::sync::Arc;
use std::time::Duration;

use leeward_quorum::embedded::{Client, Embedded, router};
use leeward_quorum::etcd::{Config, Etcd};
use leeward_quorum::{Entry, Store, Txn};

/// Long enough for whatever comes; what does not come is told at once.
const LONG: Duration = Duration::from_secs(10);

pub(crate) fn config(endpoints: Vec<String>) -> Config {
    Config {
        endpoints,
        tls: None,
        login: None,
        prefix: "leeward/".into(),
        timeout: Duration::from_secs(5),
        cluster: 0,
        revision: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(&directory.path().join("quorum.redb")).unwrap();
    every_rule(Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_conforms_over_http() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let store = Embedded::open(&directory.path().join("quorum.redb")).unwrap();
    tokio::spawn(async move { axum::serve(listener, router(store)).await });
    every_rule(Arc::new(Client::new(reqwest::Client::new(), base, LONG))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_of_three_members_conforms() {
    let Some(etcd) = leeward_testing::Etcd::start(3, &[], |_, _| Ok(())).await.unwrap() else {
        return;
    };
    let store = Arc::new(Etcd::new(config(etcd.endpoints())).unwrap());
    every_rule(store.clone()).await;
    keys_of_others_are_not_seen(&etcd, &store).await;
}

async fn every_rule(store: Arc<dyn Store>) {
    comparisons_decide(&*store).await;
    a_transaction_is_one_revision(&*store).await;
    what_is_read_is_read_after_the_writes(&*store).await;
    a_deleted_key_is_told_and_compares_as_absent(&*store).await;
    prefixes_are_prefixes(&*store).await;
    changes_are_waited_for(store.clone()).await;
    concurrent_writers_lose_nothing(store.clone()).await;
    a_follower_misses_no_key(store).await;
}

fn write(key: &str, value: u64) -> Txn {
    Txn::default().put(key, &value).unwrap()
}

fn value(entries: &[Entry], key: &str) -> Option<u64> {
    let entry = entries.iter().find(|entry| entry.key == key)?;
    serde_json::from_str(entry.value.as_deref()?).unwrap()
}

async fn comparisons_decide(store: &dyn Store) {
    let first = store.txn(write("compare/a", 1).expect("compare/a", 0)).await.unwrap();
    assert!(first.applied);
    for revision in [0, first.revision - 1, first.revision + 1] {
        let outcome = store
            .txn(write("compare/a", 2).expect("compare/a", revision).read("compare/"))
            .await
            .unwrap();
        assert!(!outcome.applied, "{revision}");
        assert_eq!(value(&outcome.entries, "compare/a"), Some(1));
    }
    // One of several that does not hold is enough.
    let both = write("compare/b", 1)
        .expect("compare/a", first.revision)
        .expect("compare/b", 7);
    assert!(!store.txn(both).await.unwrap().applied);
    let next = store
        .txn(write("compare/a", 3).expect("compare/a", first.revision))
        .await
        .unwrap();
    assert!(next.applied && next.revision > first.revision);
}

async fn a_transaction_is_one_revision(store: &dyn Store) {
    let txn = write("whole/a", 1).put("whole/b", &2).unwrap().read("whole/");
    let outcome = store.txn(txn).await.unwrap();
    assert_eq!(outcome.entries.len(), 2);
    assert!(outcome.entries.iter().all(|entry| entry.revision == outcome.revision));
    // A question alone makes none.
    let asked = store.txn(Txn::default().read("whole/")).await.unwrap();
    assert_eq!((asked.applied, asked.revision), (true, outcome.revision));
}

async fn what_is_read_is_read_after_the_writes(store: &dyn Store) {
    store.txn(write("after/a", 1)).await.unwrap();
    let outcome = store.txn(write("after/a", 2).read("after/")).await.unwrap();
    assert_eq!(value(&outcome.entries, "after/a"), Some(2));
    // The same key under two prefixes is told once.
    let twice = store.txn(Txn::default().read("after/").read("after/a")).await.unwrap();
    assert_eq!(value(&twice.entries, "after/a"), Some(2));
}

async fn a_deleted_key_is_told_and_compares_as_absent(store: &dyn Store) {
    let made = store.txn(write("gone/a", 1)).await.unwrap();
    let deleted = store
        .txn(
            Txn::default()
                .expect("gone/a", made.revision)
                .delete("gone/a")
                .read("gone/"),
        )
        .await
        .unwrap();
    assert!(deleted.applied);
    let told = deleted.entries.iter().find(|entry| entry.key == "gone/a").unwrap();
    assert_eq!((&told.value, told.revision), (&None, deleted.revision));
    let changes = store.changes(made.revision, LONG).await.unwrap();
    assert!(changes.entries.iter().any(|e| e.key == "gone/a" && e.value.is_none()));
    assert!(store.txn(write("gone/a", 2).expect("gone/a", 0)).await.unwrap().applied);
    // To delete what is not there is no error.
    assert!(store.txn(Txn::default().delete("gone/never")).await.unwrap().applied);
}

async fn prefixes_are_prefixes(store: &dyn Store) {
    let txn = write("prefix/a/1", 1).put("prefix/a/2", &2).unwrap();
    store.txn(txn.put("prefix/b/1", &3).unwrap()).await.unwrap();
    let outcome = store.txn(Txn::default().read("prefix/a/")).await.unwrap();
    let keys: Vec<&str> = outcome.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["prefix/a/1", "prefix/a/2"]);
    let everything = store.txn(Txn::default().read("")).await.unwrap();
    assert!(value(&everything.entries, "prefix/b/1").is_some());
}

async fn changes_are_waited_for(store: Arc<dyn Store>) {
    let before = store.txn(write("wait/a", 1)).await.unwrap();
    let nothing = store.changes(before.revision, Duration::from_millis(50)).await.unwrap();
    assert!(nothing.entries.is_empty() && !nothing.whole);
    assert_eq!(nothing.revision, before.revision);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.changes(before.revision, LONG).await.unwrap() }
    });
    let after = store.txn(write("wait/a", 2)).await.unwrap();
    let told = waiting.await.unwrap();
    assert_eq!(
        (told.revision, value(&told.entries, "wait/a")),
        (after.revision, Some(2))
    );
    // From nothing on, everything is told.
    let all = store.changes(0, LONG).await.unwrap();
    assert!(all.whole && all.revision >= after.revision);
    assert_eq!(value(&all.entries, "wait/a"), Some(2));
}

async fn concurrent_writers_lose_nothing(store: Arc<dyn Store>) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 25;
    store.txn(write("count", 0)).await.unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while done < EACH {
                    let read = store.txn(Txn::default().read("count")).await.unwrap();
                    let now = value(&read.entries, "count").unwrap();
                    let revision = read.entries[0].revision;
                    let txn = write("count", now + 1).expect("count", revision);
                    done += u64::from(store.txn(txn).await.unwrap().applied);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let read = store.txn(Txn::default().read("count")).await.unwrap();
    assert_eq!(value(&read.entries, "count"), Some(WRITERS * EACH));
}

async fn a_follower_misses_no_key(store: Arc<dyn Store>) {
    const KEYS: u64 = 100;
    let begin = store.txn(write("follow/begin", 0)).await.unwrap().revision;
    let follower = tokio::spawn({
        let store = store.clone();
        async move {
            let (mut after, mut seen) = (begin, std::collections::BTreeSet::new());
            while seen.len() < KEYS as usize {
                let changes = store.changes(after, LONG).await.unwrap();
                assert!(changes.revision > after, "{after}");
                assert!(
                    changes
                        .entries
                        .iter()
                        .all(|e| e.revision > after && e.revision <= changes.revision)
                );
                after = changes.revision;
                seen.extend(changes.entries.into_iter().map(|entry| entry.key));
            }
        }
    });
    for key in 0..KEYS {
        store.txn(write(&format!("follow/{key}"), key)).await.unwrap();
    }
    follower.await.unwrap();
}

async fn keys_of_others_are_not_seen(etcd: &leeward_testing::Etcd, store: &Etcd) {
    let other = Config {
        prefix: "leeward0/".into(),
        ..config(etcd.endpoints())
    };
    let other = Etcd::new(other).unwrap();
    let before = store.txn(write("mine", 1)).await.unwrap().revision;
    other.txn(write("theirs", 1)).await.unwrap();
    let everything = store.txn(Txn::default().read("")).await.unwrap();
    assert_eq!(value(&everything.entries, "theirs"), None);
    let quiet = store.changes(before, Duration::from_millis(100)).await.unwrap();
    assert!(quiet.entries.is_empty());
}
