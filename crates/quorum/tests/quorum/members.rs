//! Members of etcd that die, come back, are restored or are somebody else's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use leeward_core::holder::{Holder, Offer, Renewal};
use leeward_core::lease::{Delays, Lease, Moment, Timing};
use leeward_quorum::certificate::Trouble;
use leeward_quorum::etcd::{
    Etcd,
    status::{self, Members},
};
use leeward_quorum::{Error, Outcome, Store, Txn};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::conformance::config;

pub(crate) async fn members(count: usize, flags: &[&str]) -> Option<leeward_testing::Etcd> {
    leeward_testing::Etcd::start(count, flags, |_, _| Ok(())).await.unwrap()
}

fn write(value: u64) -> Txn {
    Txn::default().put("a", &value).unwrap().read("a")
}

/// Asks until it is answered, as whoever follows or renews does.
pub(crate) async fn at_last(store: &Etcd, txn: impl Fn() -> Txn) -> Outcome {
    loop {
        match store.txn(txn()).await {
            Ok(outcome) => return outcome,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_member_is_left_and_a_lost_majority_is_said_until_it_is_back() {
    let Some(mut etcd) = members(3, &[]).await else { return };
    let mut short = config(etcd.endpoints());
    short.timeout = Duration::from_millis(1500);
    let store = Etcd::new(short.clone()).unwrap();
    let first = store.txn(write(1)).await.unwrap();
    let status = status::ask(&short).await.unwrap();
    assert_eq!(
        (status.members, status.spare(), status.alarms),
        (3, Some(1), Some(vec![]))
    );
    assert_ne!(status.cluster, 0);

    etcd.kill(0);
    let second = at_last(&store, || write(2)).await;
    assert!(second.applied && second.revision > first.revision);
    assert_eq!(status::ask(&short).await.unwrap().spare(), Some(0));

    etcd.kill(1);
    let error = store.txn(write(3)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let without = status::ask(&short).await.unwrap();
    assert_eq!((without.spare(), without.alarms), (None, None));
    let error = store
        .changes(second.revision, Duration::from_millis(100))
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error}");

    etcd.run(0).unwrap();
    etcd.run(1).unwrap();
    let back = at_last(&store, || Txn::default().read("a")).await;
    let value: u64 = serde_json::from_str(back.entries[0].value.as_deref().unwrap()).unwrap();
    // Whether the third write was applied is not known to who sent it; what was acknowledged is there.
    assert!(value == 2 || value == 3, "{value}");
    assert!(back.revision >= second.revision);
}

const LEASE: &str = "lease/west";

fn renew(offer: &Offer) -> Txn {
    let txn = Txn::default().expect(LEASE, offer.replaces);
    txn.put(LEASE, &offer.lease).unwrap().read(LEASE)
}

/// A member that stands still has the request and says nothing: it may apply it when it goes on, after the lease was read again even.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_a_member_answers_too_late_is_open_and_the_next_one_asks_so_that_none_counts_twice() {
    let Some(mut etcd) = members(1, &[]).await else { return };
    let mut short = config(etcd.endpoints());
    short.timeout = Duration::from_millis(300);
    let store = Etcd::new(short).unwrap();
    let timing = Timing::new(Duration::from_secs(15), Delays::WITHOUT_ELECTIONS).unwrap();
    let now = Moment::default();
    let mut holder = Holder::new("west".into(), "a");
    let begins = holder.begin(None, None, &timing, now).unwrap();
    let first = Etcd::new(config(etcd.endpoints())).unwrap();
    let first = first.txn(renew(&begins)).await.unwrap().revision;
    holder.renewed(begins, now, Some(first), [], &timing);

    etcd.freeze(0).unwrap();
    let (open, error) = loop {
        let Renewal::Write(offer) = holder.renewal() else {
            panic!("a renewal that was answered is followed by the next one")
        };
        match store.txn(renew(&offer)).await {
            Ok(outcome) => holder.renewed(offer, now, Some(outcome.revision), [], &timing),
            Err(error) => break (offer, error),
        };
    };
    let said = error.to_string();
    assert!(
        matches!(error, Error::Unreachable(_)) && said.contains("no answer within 300ms"),
        "{said}"
    );
    assert_eq!(holder.renewal(), Renewal::Read);
    let asked = store.txn(Txn::default().read(LEASE)).await;
    assert!(matches!(asked, Err(Error::Unreachable(_))), "{asked:?}");

    etcd.thaw(0).unwrap();
    let (last, outcome) = loop {
        let read = at_last(&store, || Txn::default().read(LEASE)).await;
        let found: Lease = serde_json::from_str(read.entries[0].value.as_deref().unwrap()).unwrap();
        assert!(
            found.sequence + 1 >= open.lease.sequence,
            "what was acknowledged is there: {found:?}"
        );
        let at = (&found, read.entries[0].revision);
        let offer = holder.begin(Some(at), None, &timing, now).unwrap();
        // It loses against the open one where that is applied only now.
        match store.txn(renew(&offer)).await {
            Ok(outcome) if outcome.applied => break (offer, outcome),
            Ok(_) => {}
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    };
    // Each write that was applied is one revision, and one number of the lease.
    assert_eq!(outcome.revision - first, last.lease.sequence - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_behind_what_was_compacted_gets_everything() {
    let Some(etcd) = members(1, &[]).await else { return };
    let store = Etcd::new(config(etcd.endpoints())).unwrap();
    let first = store.txn(write(1)).await.unwrap();
    store.txn(Txn::default().put("gone", &1).unwrap()).await.unwrap();
    store.txn(Txn::default().delete("gone")).await.unwrap();
    let last = store.txn(write(2)).await.unwrap();
    store.compact(last.revision).await.unwrap();
    let changes = store.changes(first.revision, Duration::from_secs(10)).await.unwrap();
    assert!(changes.whole);
    assert_eq!(changes.revision, last.revision);
    let keys: Vec<&str> = changes.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_and_an_older_state_of_the_same_one_are_refused() {
    let Some(mut etcd) = members(1, &[]).await else { return };
    let Some(other) = members(1, &["--initial-cluster-token=other"]).await else {
        return;
    };
    let store = Etcd::new(config(etcd.endpoints())).unwrap();
    store.txn(write(1)).await.unwrap();
    let pinned = leeward_quorum::etcd::Config {
        cluster: store.cluster(),
        ..config(other.endpoints())
    };
    let error = Etcd::new(pinned).unwrap().txn(write(1)).await.unwrap_err();
    assert!(matches!(error, Error::Replaced(_)), "{error}");

    // A backup is put back: the cluster has the same identity, and revisions that were given out are gone.
    let (data, backup) = (etcd.data(0), etcd.directory().join("backup"));
    etcd.kill(0);
    std::fs::rename(&data, &backup).unwrap();
    copy(&backup, &data);
    etcd.run(0).unwrap();
    for value in 2..10 {
        at_last(&store, || write(value)).await;
    }
    let newest = at_last(&store, || write(10)).await.revision;
    etcd.kill(0);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&backup, &data).unwrap();
    etcd.run(0).unwrap();
    let error = loop {
        match store.txn(Txn::default().read("a")).await {
            Err(error) if error.is_transient() => {}
            other => break other.unwrap_err(),
        }
    };
    assert!(matches!(error, Error::Replaced(_)), "{error}");
    assert!(error.to_string().contains(&newest.to_string()), "{error}");
    assert!(matches!(
        store.changes(newest, Duration::from_millis(100)).await,
        Err(Error::Replaced(_))
    ));
}

pub(crate) fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_space_says_what_to_do() {
    let Some(etcd) = members(1, &["--quota-backend-bytes=1048576"]).await else {
        return;
    };
    let store = Etcd::new(config(etcd.endpoints())).unwrap();
    let large = "x".repeat(100 << 10);
    let error = loop {
        let txn = Txn::default().put("large", &large).unwrap();
        match store.txn(txn).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, Error::Refused(_)) && error.to_string().contains("disarm"),
        "{error}"
    );
    let status = status::ask(&config(etcd.endpoints())).await.unwrap();
    assert!(matches!(status.alarms.as_deref(), Some([(_, status::Alarm::NoSpace)])));
    let troubles = status::troubles(&config(etcd.endpoints()), &status, 0).await;
    let [Trouble::Over(alarm)] = &troubles[..] else {
        panic!("{troubles:?}")
    };
    assert!(alarm.contains("etcdctl alarm disarm"), "{alarm}");
    // What is there can still be read.
    assert_eq!(store.txn(Txn::default().read("large")).await.unwrap().entries.len(), 1);
}

/// As the specifications of some thousand applications are.
#[tokio::test]
async fn an_answer_of_many_megabytes_is_read() {
    let Some(etcd) = members(1, &[]).await else { return };
    let store = Etcd::new(config(etcd.endpoints())).unwrap();
    let value = "x".repeat(1 << 20);
    for index in 0..6 {
        at_last(&store, || {
            Txn::default().put(format!("spec/shop/{index}"), &value).unwrap()
        })
        .await;
    }
    let changes = store.changes(0, Duration::ZERO).await.unwrap();
    let bytes: usize = changes
        .entries
        .iter()
        .filter_map(|entry| entry.value.as_ref())
        .map(String::len)
        .sum();
    assert!(bytes > 6 << 20, "{bytes}");
}

/// What stands in front of a member: whoever connects is counted, and led to where it leads now.
struct Door {
    url: String,
    to: watch::Sender<SocketAddr>,
    taken: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Door {
    async fn to(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (to, taken) = (watch::Sender::new(address(endpoint)), Arc::<AtomicUsize>::default());
        let (url, leads, count) = (
            format!("http://{}", listener.local_addr().unwrap()),
            to.subscribe(),
            Arc::clone(&taken),
        );
        let serving = tokio::spawn(async move {
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let mut leads = leads.clone();
                tokio::spawn(async move {
                    let to = *leads.borrow_and_update();
                    let Ok(mut to) = TcpStream::connect(to).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut from, &mut to) => {}
                        // What was led elsewhere ends.
                        _ = leads.changed() => {}
                    }
                });
            }
        });
        Self {
            url,
            to,
            taken,
            serving,
        }
    }
}

fn address(endpoint: &str) -> SocketAddr {
    endpoint.strip_prefix("http://").unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_asked_again_and_again_over_one_connection_and_whoever_is_there_then_answers() {
    let Some(mut etcd) = members(1, &[]).await else { return };
    let Some(other) = members(1, &[]).await else { return };
    let door = Door::to(&etcd.endpoints()[0]).await;
    let mut members = Members::new(&config(vec![door.url.clone()])).unwrap();
    let first = members.ask().await;
    assert_eq!(
        (first.members, first.spare(), &first.alarms),
        (1, Some(0), &Some(vec![]))
    );
    for _ in 0..3 {
        assert_eq!(members.ask().await.without_spare(), first.without_spare());
    }
    assert_eq!(door.taken.load(Ordering::SeqCst), 1);

    // Another cluster in its place, as after one was begun anew: it is asked as well, and seen to be another one.
    door.to.send_replace(address(&other.endpoints()[0]));
    let now = loop {
        let now = members.ask().await;
        if now.endpoints[0].state.is_ok() {
            break now;
        }
    };
    assert_ne!(now.cluster, first.cluster);
    assert_eq!((now.members, now.spare()), (1, Some(0)));

    door.to.send_replace(address(&etcd.endpoints()[0]));
    etcd.kill(0);
    let gone = members.ask().await;
    assert!(gone.endpoints[0].state.is_err() && gone.ids.is_none(), "{gone:?}");
    etcd.run(0).unwrap();
    let back = loop {
        let back = members.ask().await;
        if back.ids.is_some() {
            break back;
        }
    };
    assert_eq!((back.cluster, back.members), (first.cluster, 1));
}
