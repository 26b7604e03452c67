//! Whose points are taken, and what becomes of those that come before it is known that they may.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use leeward_core::{
    lease::{Moment, Role},
    name::{Epoch, RoleKey},
};
use reqwest::StatusCode;
use tokio_util::sync::CancellationToken;

use super::{Region, assert_mirrored, peer::put, role};
use crate::volumes::{
    mirror::{Mirror, MirrorError},
    source::{Freeze, FreezeError, FreezeToken},
    target::{
        http::Reason,
        right::{Sender, judge},
    },
};

/// What the target's region knows of the role.
type Known = Arc<Mutex<Option<Role>>>;

fn held(owner: &str, epoch: u64) -> Option<Role> {
    Some(Role::held(owner.into(), Epoch(epoch)))
}

async fn knowing(role: Option<Role>) -> (Region, Known) {
    let known: Known = Arc::new(Mutex::new(role));
    let of = Arc::clone(&known);
    let rule =
        move |Sender(sender): &Sender, role: &RoleKey, epoch| judge(sender, role, epoch, of.lock().unwrap().as_ref());
    (Region::with(Arc::new(rule)).await, known)
}

#[tokio::test]
async fn an_epoch_that_was_given_to_nobody_is_refused_and_shuts_nobody_out() {
    let west = Region::new().await;
    let (east, known) = knowing(held("west", 2)).await;
    fs::write(west.path("data/file"), b"one").unwrap();
    let refused = west.mirror_to(&east, 9).round().await.unwrap_err();
    assert!(refused.is_not_known(), "{refused}");
    // One that does not ask before it sends.
    let (status, refusal) = put(&east, 9, 1, vec![0; 100]).await;
    let refusal = refusal.unwrap();
    assert_eq!((status, refusal.reason), (StatusCode::CONFLICT, Reason::NotKnown));
    assert!(
        refusal
            .message
            .starts_with("epoch 9 of role shop/web/data was given to nobody"),
        "{}",
        refusal.message
    );
    assert_eq!(east.target.head(&role()).unwrap().epoch, Epoch(0));
    west.mirror_to(&east, 2).round().await.unwrap();
    assert_mirrored(&west, &east.target);
    assert_eq!(east.target.head(&role()).unwrap().epoch, Epoch(2));

    *known.lock().unwrap() = held("north", 2);
    let refused = west.mirror_to(&east, 2).round().await.unwrap_err();
    assert!(
        refused.to_string().contains("was given to north, and west sent"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_role_that_went_on_while_a_point_travelled_takes_it_no_more() {
    let west = Region::new().await;
    let asked = AtomicUsize::new(0);
    // Known when the point begins to arrive, and not when it is there.
    let rule = move |Sender(sender): &Sender, role: &RoleKey, epoch| {
        let epoch_here = if asked.fetch_add(1, Ordering::Relaxed) < 2 {
            1
        } else {
            2
        };
        judge(sender, role, epoch, held("west", epoch_here).as_ref())
    };
    let east = Region::with(Arc::new(rule)).await;
    fs::write(west.path("data/file"), b"one").unwrap();
    let refused = west.mirror_to(&east, 1).round().await;
    assert!(
        matches!(refused, Err(MirrorError::Superseded { highest: Epoch(2), .. })),
        "{refused:?}"
    );
    assert_eq!(east.target.head(&role()).unwrap().point, None);
}

/// Pods that count how often they stood still.
struct Pods(Arc<AtomicUsize>);

impl Freeze for Pods {
    fn freeze(&self, _: Duration) -> BoxFuture<'_, Result<FreezeToken, FreezeError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(FreezeToken("t".into())) })
    }

    fn thaw(&self, _: FreezeToken) -> BoxFuture<'_, Result<bool, FreezeError>> {
        Box::pin(async { Ok(true) })
    }
}

#[tokio::test]
async fn a_new_writer_that_is_known_later_sends_soon_after_and_its_pods_do_not_stand_still_until_then() {
    let west = Region::new().await;
    let (east, known) = knowing(held("east", 1)).await;
    fs::write(west.path("data/file"), b"one").unwrap();
    let frozen = Arc::new(AtomicUsize::new(0));
    let source = west.source(2, Pods(Arc::clone(&frozen)));
    let (mirror, mut status) = Mirror::new(source, east.link(), Moment::default);
    let stop = CancellationToken::new();
    let hour = Duration::from_secs(3600);
    let running = tokio::spawn(mirror.run(hour, stop.clone()));
    let waits = status.wait_for(|s| s.error.as_ref().is_some_and(|e| e.contains("was given to nobody")));
    tokio::time::timeout(Duration::from_secs(20), waits)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(frozen.load(Ordering::Relaxed), 0);
    *known.lock().unwrap() = held("west", 2);
    let confirmed = status.wait_for(|s| s.confirmed.is_some());
    tokio::time::timeout(Duration::from_secs(20), confirmed)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(frozen.load(Ordering::Relaxed), 1);
    assert_mirrored(&west, &east.target);
    stop.cancel();
    running.await.unwrap();
}
