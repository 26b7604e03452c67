//! From a source over a peer link to a target and back, as the agent does it.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use leeward_core::name::{AppKey, Epoch, RoleKey};

use super::{
    Claim,
    link::Link,
    mirror::{Mirror, MirrorError},
    source::{NoFreeze, Source},
    target::{Target, TargetError, http::router},
    tree::{Found, FoundKind, Root},
};

fn role() -> RoleKey {
    RoleKey::new(AppKey::new("shop", "web"), "data")
}

/// A region's directory on a disk: volumes, staging and mirror.
struct Region {
    directory: tempfile::TempDir,
    target: Arc<Target>,
    peer: String,
}

impl Region {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for part in ["data", "logs", "staging"] {
            fs::create_dir(directory.path().join(part)).unwrap();
        }
        let target = Arc::new(Target::open(&directory.path().join("mirror")).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = format!("http://{}", listener.local_addr().unwrap());
        let app = router(target.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            directory,
            target,
            peer,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn claims(&self) -> Vec<Claim> {
        let claim = |name: &str| Claim {
            name: name.into(),
            directory: self.path(name),
        };
        vec![claim("data"), claim("logs")]
    }

    fn mirror_to(&self, other: &Region, epoch: u64) -> Mirror {
        let (claims, staging) = (self.claims(), self.path("staging"));
        let freezer = Arc::new(NoFreeze);
        // Another test in this process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let source = Source::new(role(), Epoch(epoch), claims, freezer, staging, Duration::from_secs(2)).unwrap();
        Mirror::new(source, Link::new(reqwest::Client::new(), &other.peer, &role())).0
    }
}

/// Everything in a directory, content included, without what differs between two copies by nature.
fn content(directory: &Path) -> Vec<(PathBuf, FoundKind, super::tree::Meta, Vec<u8>)> {
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

fn assert_mirrored(source: &Region, target: &Region) {
    target
        .target
        .current(&role(), |_, tree| {
            for claim in ["data", "logs"] {
                assert_eq!(content(&tree.join(claim)), content(&source.path(claim)), "{claim}");
            }
        })
        .unwrap();
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
    assert_mirrored(&west, &east);

    fs::rename(west.path("data/a/b/file"), west.path("data/a/moved")).unwrap();
    fs::remove_dir(west.path("data/a/b")).unwrap();
    fs::remove_file(west.path("data/a/link")).unwrap();
    fs::create_dir(west.path("data/a/link")).unwrap();
    let log = fs::OpenOptions::new().write(true).open(west.path("logs/log")).unwrap();
    log.write_at(b"changed", 50_000).unwrap();
    assert_eq!(mirror.round().await.unwrap().sequence, 2);
    assert_mirrored(&west, &east);
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
    west.target.follow(&role(), Epoch(2), &west.claims()).unwrap();
    back.round().await.unwrap();
    assert_mirrored(&east, &west);
    let kept = west.target.kept(&role()).unwrap();
    assert_eq!((kept[0].files, kept[0].bytes), (1, 4));
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
            let line = format!("{:016x}{number:010} {:036x}\n", number * 7919, u128::from(number) << 64);
            log.write_all(line.as_bytes()).unwrap();
            (written, number) = (written + line.len() as u64, number + 1);
        }
        mirror.round().await.unwrap();
    }
    assert_mirrored(&west, &east);
    let sent = mirror.status().stats.bytes_sent;
    assert!(sent < written, "{sent} bytes sent for {written}");
}
