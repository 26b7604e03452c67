//! A majority that is lost for good, and the quorum that is begun anew from what is left.

use std::path::PathBuf;
use std::time::Duration;

use leeward_core::{
    lease::{Lease, Role},
    name::{Epoch, Incarnation},
};
use leeward_quorum::etcd::Etcd;
use leeward_quorum::etcd::recover::{Error as RecoverError, Recovery, Step};
use leeward_quorum::pin::{self, Pin, Pinned};
use leeward_quorum::{Error, Store, Txn, incarnation, key};

use crate::conformance::config;
use crate::members::{at_last, copy, members};

const ROLE: &str = "role/shop/web/data";
const SURVIVOR: usize = 2;

/// A program in a directory of `PATH`; says so where there is none.
fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = names
        .iter()
        .flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
    let found = found.into_iter().find(|file| file.is_file());
    if found.is_none() {
        println!("skipped: no directory of PATH has {}", names.join(" or "));
    }
    found
}

fn recovery(data: PathBuf, known: Option<Pin>) -> Option<Recovery> {
    Some(Recovery {
        data,
        etcd: program(&["etcd"])?,
        restore: program(&["etcdutl", "etcdctl"])?,
        prefix: "leeward/".into(),
        login: None,
        known,
        lost: ["east".to_owned(), "witness".to_owned()].into(),
        now_ms: 1,
        token: "t".into(),
    })
}

fn lease(cluster: &str) -> Lease {
    Lease {
        cluster: cluster.into(),
        holder: "h".into(),
        sequence: 1,
        sealed: false,
    }
}

/// What an application that east writes leaves in the quorum.
fn written() -> Txn {
    let role = Role {
        in_sync: ["west".into()].into(),
        ..Role::held("east".into(), Epoch(4))
    };
    let txn = Txn::default().put(ROLE, &role).unwrap();
    let txn = txn.put("lease/east", &lease("east")).unwrap();
    txn.put("lease/west", &lease("west")).unwrap().read("")
}

fn read<T: serde::de::DeserializeOwned>(entries: &[leeward_quorum::Entry], key: &str) -> Option<T> {
    let entry = entries.iter().find(|entry| entry.key == key)?;
    serde_json::from_str(entry.value.as_deref()?).unwrap()
}

async fn never(recovery: &Recovery) -> RecoverError {
    recovery.run(&mut |_| Ok(())).await.unwrap_err()
}

/// As a kill there would.
fn stop() -> RecoverError {
    RecoverError::Last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_goes_on_in_a_new_incarnation_and_the_old_majority_is_not_obeyed() {
    let Some(mut etcd) = members(3, &[]).await else { return };
    let agent = tempfile::tempdir().unwrap();
    let file = pin::path(agent.path());
    let store = Pinned::open(config(etcd.endpoints()), &file).unwrap();
    let last = store.txn(written()).await.unwrap();
    assert!(last.applied);
    let before = pin::read(&file).unwrap().unwrap();
    assert_eq!((before.revision, before.incarnation), (last.revision, Incarnation(0)));
    // The survivor has heard of it. Stopped in order it has everything on its disk that it heard of.
    let own = || config(vec![etcd.endpoints().remove(SURVIVOR)]);
    let alone = Etcd::new(own()).unwrap();
    assert!(at_last(&alone, || Txn::default().read("")).await.revision >= last.revision);
    let Some(recovery) = recovery(etcd.data(SURVIVOR), Some(before)) else {
        return;
    };
    let running = never(&recovery).await;
    assert!(matches!(running, RecoverError::InUse { .. }), "{running}");
    etcd.kill(0);
    etcd.kill(1);
    etcd.stop(SURVIVOR).unwrap();

    // Killed after each step, and begun again: each step that is done stays done.
    let mut steps = Vec::new();
    for end in [
        Step::Copied,
        Step::Begun,
        Step::Restored,
        Step::MovedAside,
        Step::InPlace,
    ] {
        let stopped = recovery
            .run(&mut |step| {
                steps.push(step);
                if step == end { Err(stop()) } else { Ok(()) }
            })
            .await;
        assert!(matches!(stopped, Err(RecoverError::Last)), "{end:?}: {stopped:?}");
        assert_eq!(steps.last(), Some(&end));
    }
    let once = [
        Step::Copied,
        Step::Copied,
        Step::Begun,
        Step::Restored,
        Step::MovedAside,
        Step::InPlace,
    ];
    assert_eq!(steps, once);
    let renewed = recovery.run(&mut |_| Ok(())).await.unwrap();
    assert_eq!(recovery.run(&mut |_| Ok(())).await.unwrap(), renewed);
    pin::write(&file, renewed.pin()).unwrap();
    assert!(recovery.finish(&renewed).unwrap().join("old/member/wal").exists());
    let again = Recovery {
        known: Some(renewed.pin()),
        ..recovery
    };
    assert_eq!(again.finished().unwrap().as_ref(), Some(&renewed));
    assert_eq!((renewed.begun.number, renewed.behind), (Incarnation(1), 0));
    assert_ne!(renewed.cluster, before.cluster);

    // It serves with the options that the member always had.
    etcd.run(SURVIVOR).unwrap();
    let begin = |endpoints: Vec<String>| Pinned::open(config(endpoints), &file).unwrap();
    // An agent that ran all the time goes over, and sends nothing to the new one before it has read it.
    loop {
        match store.changes(last.revision, Duration::ZERO).await {
            Ok(changes) => break assert_eq!((changes.revision, changes.whole), (0, false)),
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
    assert!(
        store
            .txn(written())
            .await
            .unwrap_err()
            .to_string()
            .contains("read first")
    );
    let whole = store.changes(0, Duration::ZERO).await.unwrap();
    assert!(whole.whole && incarnation::of(&whole.entries) == Incarnation(1));
    assert!(store.txn(Txn::default().read("")).await.unwrap().applied);
    let store = begin(vec![etcd.endpoints().remove(SURVIVOR)]);
    let everything = loop {
        match store.txn(Txn::default().read("")).await {
            Ok(outcome) => break outcome,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    };
    let role: Role = read(&everything.entries, ROLE).unwrap();
    assert_eq!((role.owner.as_str(), role.epoch.readable().as_str()), ("east", "1.4"));
    assert!(role.in_sync.is_empty());
    assert!(read::<Lease>(&everything.entries, "lease/east").unwrap().sealed);
    assert!(!read::<Lease>(&everything.entries, "lease/west").unwrap().sealed);
    // West takes the role, as a failover does.
    let taken = Role::held("west".into(), role.epoch.next());
    let role_entry = everything.entries.iter().find(|entry| entry.key == ROLE).unwrap();
    let txn = Txn::default()
        .expect(ROLE, role_entry.revision)
        .put(ROLE, &taken)
        .unwrap();
    assert!(store.txn(txn).await.unwrap().applied);

    // The lost ones come back with what they had: a majority of the old quorum, which still says that east writes at 4.
    etcd.run(0).unwrap();
    etcd.run(1).unwrap();
    let zombie = Etcd::new(config(etcd.endpoints()[..2].to_vec())).unwrap();
    let theirs = at_last(&zombie, || Txn::default().read("")).await;
    let old: Role = read(&theirs.entries, ROLE).unwrap();
    assert!(old.epoch < taken.epoch && zombie.cluster() == before.cluster);
    for after in 5..20 {
        let grown = Role::held("east".into(), Epoch(after));
        let txn = Txn::default().put(ROLE, &grown).unwrap();
        assert!(at_last(&zombie, || txn.clone()).await.applied);
        assert!(grown.epoch < taken.epoch);
    }
    // An agent that asks all three is answered by the new quorum, and by nobody where only the old one is left.
    let error = begin(etcd.endpoints()[..2].to_vec())
        .txn(Txn::default().read(""))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Replaced(why) if why.contains("quorum.json"))
            && error.to_string().contains("quorum recover"),
        "{error}"
    );
    let all = begin(etcd.endpoints());
    let answer = loop {
        match all.txn(Txn::default().read(ROLE)).await {
            Ok(outcome) => break outcome,
            Err(error) => assert!(error.is_transient() || matches!(error, Error::Replaced(_)), "{error}"),
        }
    };
    assert_eq!(read::<Role>(&answer.entries, ROLE), Some(taken));
    assert!(read::<serde_json::Value>(&everything.entries, key::INCARNATION).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_lost_ones_decided_alone_is_below_all_that_comes_after() {
    let Some(mut etcd) = members(3, &[]).await else { return };
    let agent = tempfile::tempdir().unwrap();
    let file = pin::path(agent.path());
    let store = Pinned::open(config(etcd.endpoints()), &file).unwrap();
    store.txn(written()).await.unwrap();
    let alone = Etcd::new(config(vec![etcd.endpoints().remove(SURVIVOR)])).unwrap();
    at_last(&alone, || Txn::default().read("")).await;
    etcd.stop(SURVIVOR).unwrap();
    let mut given = Epoch(4);
    for _ in 0..3 {
        given = given.next();
        let txn = Txn::default().put(ROLE, &Role::held("west".into(), given)).unwrap();
        while let Err(error) = store.txn(txn.clone()).await {
            assert!(error.is_transient(), "{error}");
        }
    }
    etcd.kill(0);
    etcd.kill(1);
    let before = pin::read(&file).unwrap().unwrap();
    let Some(recovery) = recovery(etcd.data(SURVIVOR), Some(before)) else {
        return;
    };
    let renewed = recovery.run(&mut |_| Ok(())).await.unwrap();
    assert!(renewed.behind >= 3, "{renewed:?}");
    // No revision that was seen of the old one stands for anything in the new one.
    assert!(renewed.revision > before.revision, "{renewed:?}");
    pin::write(&file, renewed.pin()).unwrap();
    etcd.run(SURVIVOR).unwrap();
    let store = Pinned::open(config(vec![etcd.endpoints().remove(SURVIVOR)]), &file).unwrap();
    let entries = loop {
        match store.txn(Txn::default().read(ROLE)).await {
            Ok(outcome) => break outcome.entries,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    };
    assert!(read::<Role>(&entries, ROLE).unwrap().epoch > given);
    assert!(entries[0].revision > before.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_another_quorum_and_what_is_no_data_are_refused_untouched() {
    let Some(mut etcd) = members(1, &[]).await else { return };
    let store = Etcd::new(config(etcd.endpoints())).unwrap();
    store.txn(written()).await.unwrap();
    etcd.kill(0);
    let known = Pin {
        cluster: store.cluster() ^ 1,
        incarnation: Incarnation(0),
        revision: 1,
    };
    let Some(foreign) = recovery(etcd.data(0), Some(known)) else {
        return;
    };
    let error = never(&foreign).await;
    assert!(matches!(error, RecoverError::Foreign { .. }), "{error}");
    etcd.run(0).unwrap();
    assert!(at_last(&store, || Txn::default().read(ROLE)).await.revision > 1);
    let empty = Recovery {
        data: etcd.directory().join("nothing"),
        ..foreign
    };
    let error = never(&empty).await;
    assert!(error.to_string().contains("--data-dir"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_refuses_a_foreign_quorum_and_an_older_state_of_its_own() {
    let Some(mut etcd) = members(1, &[]).await else { return };
    let Some(other) = members(1, &["--initial-cluster-token=other"]).await else {
        return;
    };
    let agent = tempfile::tempdir().unwrap();
    let file = pin::path(agent.path());
    // Each time as an agent that is started anew.
    let start = |endpoints: Vec<String>| Pinned::open(config(endpoints), &file).unwrap();
    start(etcd.endpoints()).txn(written()).await.unwrap();
    let error = start(other.endpoints()).txn(written()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Replaced(why) if why.contains("quorum.json")),
        "{error}"
    );

    let (data, backup) = (etcd.data(0), etcd.directory().join("backup"));
    etcd.kill(0);
    copy(&data, &backup);
    etcd.run(0).unwrap();
    let store = start(etcd.endpoints());
    let newest = loop {
        match store.txn(written()).await {
            Ok(outcome) => break outcome.revision,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    };
    assert_eq!(pin::read(&file).unwrap().unwrap().revision, newest);
    etcd.kill(0);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&backup, &data).unwrap();
    etcd.run(0).unwrap();
    let older = start(etcd.endpoints());
    let error = loop {
        match older.changes(0, Duration::ZERO).await {
            Err(error) if error.is_transient() => {}
            other => break other.unwrap_err(),
        }
    };
    assert!(
        matches!(&error, Error::Replaced(why) if why.contains(&newest.to_string())),
        "{error}"
    );
}
