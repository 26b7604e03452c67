//! From a source over a peer link to a target and back, as the agent does it.

mod crash;
mod peer;
mod place;
mod random;
mod right;

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use leeward_core::{
    lease::Moment,
    name::{AppKey, Epoch, RoleKey},
};

use super::{
    Claim,
    link::Link,
    mirror::{Mirror, MirrorError},
    source::{Freeze, NoFreeze, Source},
    target::{
        Target, TargetError,
        http::router,
        right::{Rule, Sender},
    },
    tree::{Found, FoundKind, Root},
};

fn role() -> RoleKey {
    RoleKey::new(AppKey::new("shop", "web"), "data")
}

/// A region's directory on a disk: volumes, staging and mirror.
struct Region {
    disk: Disk,
    target: Arc<Target>,
    peer: String,
}

/// What a region has on its disk.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap())
    }

    /// One in memory where there is such a thing, for tests that sync thousands of times.
    fn fast() -> Self {
        Self::on(
            tempfile::tempdir_in("/dev/shm")
                .or_else(|_| tempfile::tempdir())
                .unwrap(),
        )
    }

    fn on(directory: tempfile::TempDir) -> Self {
        for part in ["data", "logs", "staging"] {
            fs::create_dir(directory.path().join(part)).unwrap();
        }
        Self(directory)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn claims(&self) -> Vec<Claim> {
        let claim = |name: &str| Claim {
            name: name.into(),
            directory: self.path(name),
        };
        vec![claim("data"), claim("logs")]
    }

    fn source(&self, epoch: u64, freezer: impl Freeze + 'static) -> Source {
        self.source_of(self.claims(), epoch, freezer)
    }

    fn source_of(&self, claims: Vec<Claim>, epoch: u64, freezer: impl Freeze + 'static) -> Source {
        let staging = self.path("staging");
        Source::new(
            role(),
            Epoch(epoch),
            claims,
            Arc::new(freezer),
            staging,
            Duration::from_secs(2),
        )
        .unwrap()
    }

    fn target(&self) -> Target {
        Target::open(&self.path("mirror")).unwrap()
    }
}

impl std::ops::Deref for Region {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        &self.disk
    }
}

impl Region {
    /// One that takes points from whoever brings them.
    async fn new() -> Self {
        Self::with(anyone()).await
    }

    async fn with(rule: Rule) -> Self {
        let disk = Disk::new();
        let target = Arc::new(disk.target());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = format!("http://{}", listener.local_addr().unwrap());
        let app = from_west(router(target.clone(), rule));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { disk, target, peer }
    }

    fn link(&self) -> Link {
        // Another test in this process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Link::new(reqwest::Client::new(), &self.peer, &role())
    }

    fn mirror_to(&self, other: &Region, epoch: u64) -> Mirror {
        Mirror::new(self.source(epoch, NoFreeze), other.link(), Moment::default).0
    }
}

fn anyone() -> Rule {
    Arc::new(|_, _, _| Ok(()))
}

/// As a peer link names who asks.
fn from_west(router: axum::Router) -> axum::Router {
    router.layer(axum::Extension(Sender("west".into())))
}

type Content = Vec<(PathBuf, FoundKind, super::tree::Meta, Vec<u8>)>;

/// Everything in a directory, content included, without what differs between two copies by nature.
fn content(directory: &Path) -> Content {
    let mut found = Root::open(directory).unwrap().walk().unwrap();
    found.retain(|f| f.kind != FoundKind::Other);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let read = |f: Found| {
        let bytes = match f.kind {
            FoundKind::File { .. } => fs::read(directory.join(&f.path)).unwrap(),
            _ => Vec::new(),
        };
        (f.path, f.kind, f.meta, bytes)
    };
    found.into_iter().map(read).collect()
}

fn contents(directory: &Path) -> Vec<Content> {
    ["data", "logs"].map(|claim| content(&directory.join(claim))).into()
}

fn assert_mirrored(source: &Disk, target: &Target) {
    let shown = target.current(&role(), |_, tree| contents(tree)).unwrap();
    assert_eq!(shown, contents(source.0.path()));
}

#[tokio::test]
async fn what_is_written_arrives_with_its_metadata() {
    let (west, east) = (Region::new().await, Region::new().await);
    let mut mirror = west.mirror_to(&east, 1);
    fs::create_dir_all(west.path("data/a/b")).unwrap();
    fs::write(west.path("data/a/b/file"), b"one").unwrap();
    fs::write(west.path("logs/log"), vec![7; 100_000]).unwrap();
    fs::set_permissions(west.path("data/a/b/file"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("../nowhere", west.path("data/a/link")).unwrap();
    assert_eq!(mirror.round().await.unwrap().sequence, 1);
    assert_mirrored(&west, &east.target);

    fs::rename(west.path("data/a/b/file"), west.path("data/a/moved")).unwrap();
    fs::remove_dir(west.path("data/a/b")).unwrap();
    fs::remove_file(west.path("data/a/link")).unwrap();
    fs::create_dir(west.path("data/a/link")).unwrap();
    let log = fs::OpenOptions::new().write(true).open(west.path("logs/log")).unwrap();
    log.write_at(b"changed", 50_000).unwrap();
    assert_eq!(mirror.round().await.unwrap().sequence, 2);
    assert_mirrored(&west, &east.target);
}

#[tokio::test]
async fn a_switchover_goes_there_and_back_without_a_loss() {
    let (west, east) = (Region::new().await, Region::new().await);
    west.target.begin(&role(), Epoch(1)).unwrap();
    let mut mirror = west.mirror_to(&east, 1);
    fs::write(west.path("data/log"), b"first").unwrap();
    let last = mirror.round().await.unwrap();

    let promoted = east.target.promote(&role(), Epoch(2), &east.claims()).unwrap();
    assert_eq!(promoted.point, Some(last));
    assert_eq!(fs::read(east.path("data/log")).unwrap(), b"first");
    let again = east.target.promote(&role(), Epoch(2), &east.claims()).unwrap();
    assert_eq!(again, promoted);
    fs::write(west.path("data/log"), b"late").unwrap();
    assert!(matches!(mirror.round().await, Err(MirrorError::Superseded { .. })));

    let mut back = east.mirror_to(&west, 2);
    assert!(matches!(back.round().await, Err(MirrorError::NotFollowing)));
    fs::write(east.path("data/log"), b"first, second").unwrap();
    let late = fs::OpenOptions::new().write(true).open(west.path("data/log")).unwrap();
    late.set_modified(UNIX_EPOCH + Duration::from_millis(5_250)).unwrap();
    west.target
        .follow(&role(), Epoch(2), &west.claims(), Some(3_000))
        .unwrap();
    back.round().await.unwrap();
    assert_mirrored(&east, &west.target);
    let kept = west.target.kept(&role()).unwrap();
    assert_eq!((kept[0].files, kept[0].bytes), (1, 4));
    assert_eq!((kept[0].from_ms, kept[0].to_ms), (Some(3_000), Some(5_250)));
    assert_eq!(fs::read(kept[0].path.join("data/log")).unwrap(), b"late");

    let refused = west.target.promote(&role(), Epoch(1), &west.claims());
    assert!(matches!(refused, Err(TargetError::StaleEpoch { .. })));
    west.target.promote(&role(), Epoch(3), &west.claims()).unwrap();
    assert_eq!(fs::read(west.path("data/log")).unwrap(), b"first, second");
}

#[tokio::test]
async fn an_append_log_travels_within_twice_its_size() {
    let (west, east) = (Region::new().await, Region::new().await);
    let (mut written, mut number) = (0, 0u64);
    let mut log = fs::File::create(west.path("data/log")).unwrap();
    let mut mirror = west.mirror_to(&east, 1);
    for _ in 0..20 {
        for _ in 0..100 {
            let noise = blake3::hash(&u64::to_le_bytes(number)).to_hex();
            let line = format!("{number:010} {}\n", &noise[..52]);
            log.write_all(line.as_bytes()).unwrap();
            (written, number) = (written + line.len() as u64, number + 1);
        }
        mirror.round().await.unwrap();
    }
    assert_mirrored(&west, &east.target);
    let sent = mirror.status().stats.bytes_sent;
    // Half of a hexadecimal digit is noise; a point that sent whole blocks again would not stay under this.
    assert!(sent * 10 < written * 7, "{sent} bytes sent for {written}");
}
