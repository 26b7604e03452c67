//! Takes points of a role at the writer.
//!
//! The pods are frozen together, so all claims are read at one instant. The pause is kept short by reading as much as
//! possible before it, and by cloning instead of reading where the file system can; it is measured from before the freeze
//! is asked for until after the pods were told to go on. A point whose freeze did not hold the whole time is thrown away.

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use leeward_core::name::{Epoch, RoleKey};

use super::{
    Claim, Point,
    blocks::Spool,
    manifest::Manifest,
    patch,
    scan::{Scan, ScanError, Scanner},
    unix_ms,
    wire::{Header, WireError, is_name},
};

/// What thaws a freeze again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreezeToken(pub String);

/// Why pods could not be frozen or thawed.
pub type FreezeError = Box<dyn std::error::Error + Send + Sync>;

/// Stops all processes of a role's pods together, and lets them go on.
pub trait Freeze: Send + Sync {
    /// Answers when every process is stopped. They go on by themselves after `max`.
    fn freeze(&self, max: Duration) -> BoxFuture<'_, Result<FreezeToken, FreezeError>>;
    /// Lets them go on, and says whether they were stopped the whole time.
    fn thaw(&self, token: FreezeToken) -> BoxFuture<'_, Result<bool, FreezeError>>;
}

/// For a role none of whose pods runs: there is nothing to stop.
#[derive(Debug, Clone, Copy)]
pub struct NoFreeze;

impl Freeze for NoFreeze {
    fn freeze(&self, _: Duration) -> BoxFuture<'_, Result<FreezeToken, FreezeError>> {
        Box::pin(async { Ok(FreezeToken(String::new())) })
    }

    fn thaw(&self, _: FreezeToken) -> BoxFuture<'_, Result<bool, FreezeError>> {
        Box::pin(async { Ok(true) })
    }
}

/// Why no point was taken. Each is worth trying again at the next interval.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The pods could not be stopped or told to go on; they go on by themselves.
    #[error("the pods could not be frozen for a point: {0}")]
    Freeze(FreezeError),
    /// Reading took longer than the pods may stand still.
    #[error("the pods went on by themselves after {0:?}, before everything was read: the point was thrown away")]
    NotHeld(Duration),
    /// A claim could not be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The point could not be written to the staging directory.
    #[error("the point could not be put together: {0}")]
    Encode(#[from] WireError),
    /// The staging directory failed.
    #[error("the staging directory failed: {0}")]
    Io(#[from] io::Error),
    /// A claim has a name that no directory can have at the target.
    #[error("{0:?} cannot be a claim's name: expected lower-case letters, digits, '-' and '.'")]
    ClaimName(String),
}

/// Where a role's points come from.
#[derive(Clone)]
pub struct Source {
    role: RoleKey,
    epoch: Epoch,
    claims: Arc<[Claim]>,
    freezer: Arc<dyn Freeze>,
    staging: Arc<PathBuf>,
    max_pause: Duration,
}

/// A point that was taken and not yet sent.
pub(super) struct Taken {
    pub(super) point: Point,
    /// The encoded body, in a file without a name, and its length.
    pub(super) body: File,
    pub(super) length: u64,
    /// What the target has when it has this point.
    pub(super) manifest: Arc<Manifest>,
    /// How long the pods stood still.
    pub(super) pause: Duration,
    /// Sockets, pipes and devices that were left out.
    pub(super) skipped: usize,
}

impl Source {
    /// A source for a role in an epoch. `staging` is an existing directory for temporary files; on the claims' file system
    /// it lets clones be used. Pods stand still for `max_pause` at most.
    pub fn new(
        role: RoleKey,
        epoch: Epoch,
        claims: Vec<Claim>,
        freezer: Arc<dyn Freeze>,
        staging: PathBuf,
        max_pause: Duration,
    ) -> Result<Self, SourceError> {
        if let Some(claim) = claims.iter().find(|c| !is_name(&c.name)) {
            return Err(SourceError::ClaimName(claim.name.clone()));
        }
        Ok(Self {
            role,
            epoch,
            claims: claims.into(),
            freezer,
            staging: staging.into(),
            max_pause,
        })
    }

    /// The role whose points it takes.
    pub fn role(&self) -> &RoleKey {
        &self.role
    }

    /// The epoch in which it takes them.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Freezes something else from now on: [`NoFreeze`] once the pods were stopped for good.
    pub fn set_freezer(&mut self, freezer: Arc<dyn Freeze>) {
        self.freezer = freezer;
    }

    /// Takes the point that follows `parent`, whose content is `base`.
    pub(super) async fn take(&self, base: Arc<Manifest>, parent: Option<&Point>) -> Result<Taken, SourceError> {
        let (before, spool) = self.scan(base.clone(), None, Spool::new(&self.staging)).await?;

        let source_time_ms = unix_ms();
        let started = Instant::now();
        let token = self.freezer.freeze(self.max_pause).await.map_err(SourceError::Freeze)?;
        let frozen = Frozen {
            freezer: self.freezer.clone(),
            token: Some(token),
        };
        let scanned = self.scan(base.clone(), Some(before), spool).await;
        let held = frozen.thaw().await.map_err(SourceError::Freeze)?;
        let pause = started.elapsed();
        let (scan, spool) = scanned?;
        if !held {
            return Err(SourceError::NotHeld(self.max_pause));
        }

        let header = Header::Patch {
            role: self.role.clone(),
            epoch: self.epoch,
            sequence: parent.map_or(1, |p| p.sequence + 1),
            parent: parent.map(|p| p.id),
            source_time_ms,
        };
        let this = self.clone();
        blocking(move || this.encode(&header, &base, scan, spool, pause)).await
    }

    async fn scan(
        &self,
        base: Arc<Manifest>,
        before: Option<Scan>,
        mut spool: Spool,
    ) -> Result<(Scan, Spool), SourceError> {
        let this = self.clone();
        blocking(move || {
            let scan = this.scanner(&base, before.as_ref()).scan(&mut spool)?;
            Ok((scan, spool))
        })
        .await
    }

    fn scanner<'a>(&'a self, base: &'a Manifest, before: Option<&'a Scan>) -> Scanner<'a> {
        Scanner {
            claims: &self.claims,
            base,
            before,
            staging: &self.staging,
        }
    }

    fn encode(
        &self,
        header: &Header,
        base: &Manifest,
        mut scan: Scan,
        mut spool: Spool,
        pause: Duration,
    ) -> Result<Taken, SourceError> {
        self.scanner(base, None).finish(&mut scan, &mut spool)?;
        let body = io::BufWriter::with_capacity(64 << 10, tempfile::tempfile_in(&*self.staging)?);
        let (body, _) = patch::write(body, header, base, &scan, &mut spool)?;
        let body = body.into_inner().map_err(io::IntoInnerError::into_error)?;
        let body = super::wire::Body::open(body)?;
        let point = body.point()?;
        let body = body.into_file();
        let paths = scan.claims.into_iter().map(|(name, paths)| {
            let paths = paths.into_iter().map(|(path, scanned)| (path, scanned.entry));
            (name, paths.collect())
        });
        Ok(Taken {
            point,
            length: body.metadata()?.len(),
            body,
            manifest: Arc::new(Manifest(paths.collect())),
            pause,
            skipped: scan.skipped,
        })
    }
}

/// Pods that stand still. Dropped without a thaw, when a round is given up, they are told to go on all the same.
struct Frozen {
    freezer: Arc<dyn Freeze>,
    token: Option<FreezeToken>,
}

impl Frozen {
    async fn thaw(mut self) -> Result<bool, FreezeError> {
        match self.token.take() {
            Some(token) => self.freezer.thaw(token).await,
            None => Ok(true),
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let (Some(token), Ok(runtime)) = (self.token.take(), tokio::runtime::Handle::try_current()) {
            let freezer = self.freezer.clone();
            runtime.spawn(async move { freezer.thaw(token).await.is_ok() });
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(SourceError::Io(io::Error::other(e))),
    }
}
