//! Whose points an agent takes, by what it knows of the quorum and by the certificate of who sends.

use std::{path::Path, sync::Arc, time::Duration};

use leeward_controller::{agent::follow, clock, points};
use leeward_core::{
    lease::Role,
    name::{Epoch, RoleKey},
};
use leeward_quorum::{Store, Txn, embedded::Embedded, key};
use leeward_state::volumes::{
    Claim,
    link::Link,
    mirror::{Mirror, MirrorError},
    source::{NoFreeze, Source},
    target::Target,
};
use tokio_util::sync::CancellationToken;

use super::{Authority, agent, quorum, serve, until};

fn role() -> RoleKey {
    "shop/web/data".parse().unwrap()
}

async fn give(store: &Arc<Embedded>, owner: &str, epoch: u64) {
    let held = Role::held(owner.into(), Epoch(epoch));
    let txn = Txn::default().put(key::role(&role()), &held).unwrap();
    assert!(store.txn(txn).await.unwrap().applied);
}

fn mirror(http: reqwest::Client, url: &str, epoch: u64, directory: &Path) -> Mirror {
    let claim = Claim {
        name: "data".into(),
        directory: directory.join("data"),
    };
    let (freezer, staging) = (Arc::new(NoFreeze), directory.join("staging"));
    let source = Source::new(
        role(),
        Epoch(epoch),
        vec![claim],
        freezer,
        staging,
        Duration::from_secs(1),
    );
    Mirror::new(source.unwrap(), Link::new(http, url, &role()), clock::now).0
}

#[tokio::test]
async fn a_point_is_taken_from_the_writer_that_the_quorum_names_and_from_nobody_else() {
    let authority = Authority::new();
    let (store, directory) = quorum();
    let disk = directory.path();
    for part in ["data", "staging"] {
        std::fs::create_dir(disk.join(part)).unwrap();
    }
    std::fs::write(disk.join("data/ledger"), "one").unwrap();
    let http = |name: &str| authority.issue(name).client().unwrap();
    let east = agent("east", &store, http("east"), "https://127.0.0.1:1");
    let target = Arc::new(Target::open(&disk.join("points")).unwrap());
    let stop = CancellationToken::new();
    let router = points::router(Arc::clone(&east), Arc::clone(&target));
    let url = serve(authority.issue("east"), router, &stop).await;
    let send = async |name: &str, epoch| mirror(http(name), &url, epoch, disk).round().await;
    let says = |refused: Result<_, MirrorError>, what: &str| {
        let error = refused.unwrap_err();
        assert!(error.is_not_known() && error.to_string().contains(what), "{error}");
    };

    says(send("west", 4).await, "it knows of no such role");
    give(&store, "west", 4).await;
    let following = CancellationToken::new();
    let task = tokio::spawn(follow::run(Arc::clone(&east), following.clone()));
    let knows = |epoch| {
        move |east: &leeward_controller::agent::Agent| {
            let known = east.known().view.get::<Role>(&key::role(&role()));
            known.is_some_and(|known| known.value.epoch == Epoch(epoch))
        }
    };
    until(&east, "the role", knows(4)).await;
    says(
        send("west", 9).await,
        "epoch 9 of role shop/web/data was given to nobody",
    );
    says(
        send("north", 4).await,
        "epoch 4 of role shop/web/data was given to west, and north sent",
    );
    assert_eq!(target.head(&role()).unwrap().epoch, Epoch(0));
    assert_eq!(send("west", 4).await.unwrap().sequence, 1);

    // Cut off from the quorum: what it knows goes on.
    following.cancel();
    task.await.unwrap();
    give(&store, "north", 5).await;
    assert_eq!(send("west", 4).await.unwrap().sequence, 2);
    says(send("north", 5).await, "it knows epoch 4, of west");
    let task = tokio::spawn(follow::run(Arc::clone(&east), stop.clone()));
    until(&east, "the new writer", knows(5)).await;
    assert!(matches!(
        send("west", 4).await,
        Err(MirrorError::Superseded { highest: Epoch(5), .. })
    ));
    assert_eq!(send("north", 5).await.unwrap().epoch, Epoch(5));
    stop.cancel();
    task.await.unwrap();
}
