//! What goes wrong between the regions, and what a point costs on the way.

use std::{
    fs::{self, File},
    io::{Read, Seek},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{extract::Request, middleware::Next, response::IntoResponse};
use futures::future::BoxFuture;
use leeward_core::{lease::Moment, name::Epoch};
use reqwest::StatusCode;
use tokio_util::sync::CancellationToken;

use super::{Disk, Region, anyone, assert_mirrored, from_west, role};
use crate::volumes::{
    link::Link,
    manifest::Manifest,
    mirror::{Mirror, MirrorError},
    source::{Freeze, FreezeError, FreezeToken, NoFreeze, SourceError, Taken},
    target::http::{Reason, Refusal, router},
};

fn bytes(taken: &Taken) -> Vec<u8> {
    let mut file = taken.body.try_clone().unwrap();
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

pub(super) async fn put(region: &Region, epoch: u64, sequence: u64, body: Vec<u8>) -> (StatusCode, Option<Refusal>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("{}/v1/mirror/shop/web/data/points/{epoch}/{sequence}", region.peer);
    let answer = reqwest::Client::new().put(url).body(body).send().await.unwrap();
    (answer.status(), answer.json().await.ok())
}

async fn take(disk: &Disk, epoch: u64, before: Option<&Taken>) -> Taken {
    let known = before.map_or_else(|| Arc::new(Manifest::default()), |b| b.manifest.clone());
    disk.source(epoch, NoFreeze)
        .take(known, before.map(|b| &b.point))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_bad_body_is_refused_and_leaves_nothing() {
    let (west, east) = (Region::new().await, Region::new().await);
    fs::write(west.path("data/file"), vec![5; 30_000]).unwrap();
    let good = take(&west, 2, None).await;
    let body = bytes(&good);

    for cut in [0, 1, 8, 40, body.len() - 33, body.len() - 1] {
        let (status, refusal) = put(&east, 2, 1, body[..cut].to_vec()).await;
        assert_eq!(
            (status, refusal.unwrap().reason),
            (StatusCode::BAD_REQUEST, Reason::Damaged),
            "{cut}"
        );
    }
    for flip in [0, 6, 20, body.len() / 2, body.len() - 1] {
        let mut changed = body.clone();
        changed[flip] ^= 1;
        assert_eq!(put(&east, 2, 1, changed).await.0, StatusCode::BAD_REQUEST, "{flip}");
    }
    let mut longer = body.clone();
    longer.push(0);
    assert_eq!(put(&east, 2, 1, longer).await.0, StatusCode::BAD_REQUEST);
    for (epoch, sequence) in [(2, 2), (3, 1)] {
        let (status, refusal) = put(&east, epoch, sequence, body.clone()).await;
        assert_eq!(
            (status, refusal.unwrap().reason),
            (StatusCode::BAD_REQUEST, Reason::Malformed)
        );
    }
    let head = east.target.head(&role()).unwrap();
    assert_eq!((head.epoch, head.point), (Epoch(0), None));
    let role_directory = east.path("mirror/shop_web_data");
    for part in ["tree", "journal", "incoming"] {
        assert_eq!(fs::read_dir(role_directory.join(part)).unwrap().count(), 0, "{part}");
    }
    assert_eq!(put(&east, 2, 1, body).await.0, StatusCode::OK);
    assert_mirrored(&west, &east.target);
}

#[tokio::test]
async fn only_the_next_point_of_no_lower_epoch_is_taken() {
    let (west, east) = (Region::new().await, Region::new().await);
    fs::write(west.path("data/file"), b"one").unwrap();
    let first = take(&west, 5, None).await;
    let second = take(&west, 5, Some(&first)).await;
    let third = take(&west, 5, Some(&second)).await;
    let old = take(&west, 4, Some(&first)).await;

    assert_eq!(put(&east, 5, 1, bytes(&first)).await.0, StatusCode::OK);
    // The answer may have been lost: the same point again is no mistake.
    assert_eq!(put(&east, 5, 1, bytes(&first)).await.0, StatusCode::OK);
    let (status, refusal) = put(&east, 5, 3, bytes(&third)).await;
    let refusal = refusal.unwrap();
    assert_eq!((status, refusal.reason), (StatusCode::CONFLICT, Reason::OutOfOrder));
    assert_eq!(refusal.head.unwrap().point, Some(first.point.clone()));
    let (status, refusal) = put(&east, 4, 2, bytes(&old)).await;
    assert_eq!(
        (status, refusal.unwrap().reason),
        (StatusCode::CONFLICT, Reason::StaleEpoch)
    );
    assert_eq!(put(&east, 5, 2, bytes(&second)).await.0, StatusCode::OK);
    let (status, refusal) = put(&east, 5, 1, bytes(&first)).await;
    assert_eq!(
        (status, refusal.unwrap().reason),
        (StatusCode::CONFLICT, Reason::OutOfOrder)
    );
    assert_eq!(east.target.last_point(&role()).unwrap(), Some(second.point));
}

#[tokio::test]
async fn a_restarted_source_sends_only_what_differs() {
    let (west, east) = (Region::new().await, Region::new().await);
    let noise: Vec<u8> = (0..2_000_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    fs::write(west.path("data/large"), &noise).unwrap();
    west.mirror_to(&east, 1).round().await.unwrap();
    fs::write(west.path("logs/small"), b"new").unwrap();

    let mut again = west.mirror_to(&east, 1);
    assert_eq!(again.round().await.unwrap().sequence, 2);
    assert_mirrored(&west, &east.target);
    let stats = again.status().stats;
    assert!(stats.bytes_sent < 1000 && stats.bytes_fetched < 20_000, "{stats:?}");
}

#[tokio::test]
async fn a_lost_answer_and_a_lost_request_are_made_good_without_starting_anew() {
    let (west, east) = (Region::new().await, Disk::new());
    let target = Arc::new(east.target());
    let (lose_answer, lose_request) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let lose = (lose_answer.clone(), lose_request.clone());
    let app = from_west(router(target.clone(), anyone())).layer(axum::middleware::from_fn(
        move |request: Request, next: Next| {
            let (answer, whole) = lose.clone();
            async move {
                if whole.swap(false, Ordering::Relaxed) {
                    return StatusCode::BAD_GATEWAY.into_response();
                }
                let response = next.run(request).await;
                match answer.swap(false, Ordering::Relaxed) {
                    true => StatusCode::BAD_GATEWAY.into_response(),
                    false => response,
                }
            }
        },
    ));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let _ = rustls::crypto::ring::default_provider().install_default();
    let link = Link::new(reqwest::Client::new(), &peer, &role());
    let (mut mirror, status) = Mirror::new(west.source(1, NoFreeze), link, Moment::default);

    fs::write(west.path("data/file"), b"one").unwrap();
    mirror.round().await.unwrap();
    let fetched = status.borrow().stats.bytes_fetched;
    for (lost, sequence) in [(&lose_answer, 3), (&lose_request, 4)] {
        fs::write(west.path("data/file"), format!("{sequence}")).unwrap();
        lost.store(true, Ordering::Relaxed);
        assert!(mirror.round().await.is_err());
        assert!(status.borrow().error.is_some());
        assert_eq!(mirror.round().await.unwrap().sequence, sequence);
        assert_eq!(status.borrow().error, None);
        assert_mirrored(&west, &target);
    }
    assert_eq!(status.borrow().stats.bytes_fetched, fetched);
}

/// Pods that write while they are not frozen.
struct Pods {
    file: File,
    written: Mutex<u8>,
    held: AtomicBool,
}

impl Freeze for Pods {
    fn freeze(&self, _: Duration) -> BoxFuture<'_, Result<FreezeToken, FreezeError>> {
        let mut written = self.written.lock().unwrap();
        *written += 1;
        // The last thing before they stand still; same size, so that only times can tell.
        self.file.write_all_at(&[*written], 0).unwrap();
        Box::pin(async { Ok(FreezeToken("t".into())) })
    }

    fn thaw(&self, token: FreezeToken) -> BoxFuture<'_, Result<bool, FreezeError>> {
        assert_eq!(token, FreezeToken("t".into()));
        Box::pin(async { Ok(self.held.load(Ordering::Relaxed)) })
    }
}

#[tokio::test]
async fn a_point_has_what_was_written_last_before_the_freeze_and_none_is_made_of_a_broken_one() {
    let (west, east) = (Region::new().await, Region::new().await);
    fs::write(west.path("data/file"), vec![9; 30_000]).unwrap();
    let file = fs::OpenOptions::new().write(true).open(west.path("data/file")).unwrap();
    let pods = Arc::new(Pods {
        file,
        written: Mutex::new(0),
        held: AtomicBool::new(true),
    });
    let mut mirror = west.mirror_to(&east, 1);
    mirror.source_mut().set_freezer(pods.clone());
    for round in 1..=5 {
        mirror.round().await.unwrap();
        assert_mirrored(&west, &east.target);
        assert_eq!(*pods.written.lock().unwrap(), round);
    }
    assert!(mirror.status().stats.pause_max > Duration::ZERO);
    pods.held.store(false, Ordering::Relaxed);
    let refused = mirror.round().await;
    assert!(matches!(refused, Err(MirrorError::Source(SourceError::NotHeld(_)))));
    assert_eq!(east.target.last_point(&role()).unwrap().unwrap().sequence, 5);
}

/// One page of a file, mapped shared.
struct Map(*mut u8);

impl Map {
    fn new(file: &File) -> Self {
        // SAFETY: a new shared mapping of an open file that is one page long; the result is checked.
        let at = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED);
        Self(at.cast())
    }

    fn write(&self, byte: u8) {
        // SAFETY: the page is mapped, and nothing else in this process refers to it.
        unsafe { self.0.write_volatile(byte) };
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length and is used no more.
        unsafe { libc::munmap(self.0.cast(), 4096) };
    }
}

#[tokio::test]
async fn what_is_written_through_a_memory_map_arrives_although_no_time_moves() {
    mapped(Disk::new()).await;
    mapped(Disk::fast()).await;
}

async fn mapped(west: Disk) {
    let east = Disk::fast();
    let target = east.target();
    fs::write(west.path("data/file"), vec![9; 4096]).unwrap();
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(west.path("data/file"))
        .unwrap();
    let map = Map::new(&file);
    let mut before: Option<Taken> = None;
    for byte in 1..=12 {
        map.write(byte);
        let taken = take(&west, 1, before.as_ref()).await;
        target.deliver(&taken).unwrap();
        assert_mirrored(&west, &target);
        before = Some(taken);
        if byte % 4 == 0 {
            // The times that decide are the file system's, so real time has to pass for the file to settle.
            for _ in 0..2 {
                std::thread::sleep(Duration::from_millis(60));
                before = Some(take(&west, 1, before.as_ref()).await);
                target.deliver(before.as_ref().unwrap()).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_full_disk_takes_no_point_and_says_so() {
    let (west, east) = (Disk::new(), Disk::new());
    fs::write(west.path("data/file"), b"one").unwrap();
    let first = take(&west, 1, None).await;
    let mut target = east.target();
    target.set_margin(u64::MAX);
    let refused = target.deliver(&first).unwrap_err().to_string();
    assert!(refused.contains("free some space"), "{refused}");
    target.set_margin(0);
    target.deliver(&first).unwrap();
    assert_mirrored(&west, &target);
}

#[tokio::test]
async fn a_gibibyte_of_which_a_mebibyte_changes_sends_little_and_stays_sparse() {
    let (west, east) = (Disk::new(), Disk::new());
    let target = east.target();
    let file = File::create(west.path("data/disk")).unwrap();
    file.set_len(1 << 30).unwrap();
    let first = take(&west, 1, None).await;
    target.deliver(&first).unwrap();
    assert!(first.length < 1000, "{}", first.length);
    // 256 pages of noise, spread by a step that never meets a page twice.
    let mut noise = 1u64;
    for page in (0..256u64).map(|n| n * 100_003 % (1 << 18)) {
        let mut next = || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (noise >> 33) as u8
        };
        let bytes: Vec<u8> = (0..4096).map(|_| next()).collect();
        file.write_all_at(&bytes, page << 12).unwrap();
    }
    let second = take(&west, 1, Some(&first)).await;
    assert!(second.length < 2 << 20, "{}", second.length);
    target.deliver(&second).unwrap();
    let allocated = |path| fs::metadata(path).unwrap().blocks() * 512;
    target
        .current(&role(), |_, tree| {
            assert!(allocated(tree.join("data/disk")) < 8 << 20);
            for page in (0..256u64).map(|n| n * 100_003 % (1 << 18)) {
                let (mut ours, mut theirs) = ([0; 4096], [0; 4096]);
                file_at(&west.path("data/disk"), &mut ours, page << 12);
                file_at(&tree.join("data/disk"), &mut theirs, page << 12);
                assert_eq!(ours, theirs);
            }
        })
        .unwrap();
}

fn file_at(path: &std::path::Path, buffer: &mut [u8], offset: u64) {
    File::open(path).unwrap().read_exact_at(buffer, offset).unwrap();
}

#[tokio::test]
async fn it_runs_until_it_is_stopped_and_then_takes_a_last_point() {
    let (west, east) = (Region::new().await, Region::new().await);
    fs::write(west.path("data/file"), b"one").unwrap();
    let (mirror, mut status) = Mirror::new(west.source(1, NoFreeze), east.link(), Moment::default);
    let stop = CancellationToken::new();
    let running = tokio::spawn(mirror.run(Duration::from_millis(5), stop.clone()));
    status.wait_for(|s| s.stats.points >= 3).await.unwrap();
    stop.cancel();
    let mut mirror = running.await.unwrap();
    fs::write(west.path("data/file"), b"last").unwrap();
    let last = mirror.round().await.unwrap();
    assert_mirrored(&west, &east.target);
    assert_eq!(status.borrow().confirmed, Some(last.clone()));
    assert_eq!(status.borrow().lag_ms(last.source_time_ms + 40), Some(40));
    assert_eq!(east.target.lag_ms(&role(), last.source_time_ms + 40).unwrap(), Some(40));
}

#[tokio::test]
async fn an_unchanged_role_costs_a_few_hundred_bytes_a_point() {
    let west = Disk::new();
    fs::write(west.path("data/file"), b"one").unwrap();
    let first = take(&west, 1, None).await;
    let second = take(&west, 1, Some(&first)).await;
    assert!(second.length < 200, "{}", second.length);
}

#[tokio::test]
async fn a_silent_peer_does_not_hold_up_a_stop() {
    let west = Disk::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = format!("http://{}", listener.local_addr().unwrap());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let link = Link::new(reqwest::Client::new(), &peer, &role());
    let (mirror, _) = Mirror::new(west.source(1, NoFreeze), link, Moment::default);
    let stop = CancellationToken::new();
    let running = tokio::spawn(mirror.run(Duration::from_millis(5), stop.clone()));
    // It has asked, and will never be answered.
    let _connection = listener.accept().await.unwrap();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(3), running)
        .await
        .unwrap()
        .unwrap();
}
