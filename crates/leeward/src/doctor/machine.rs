//! Looks at the machine.

use std::{
    net::TcpListener,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use nix::sys::{
    resource::{Resource, getrlimit},
    statvfs::statvfs,
};

use super::judge::{self, Check};

nix::ioctl_write_int!(clone_file, 0x94, 9);

/// Everything that does not depend on the instance in `dir`.
pub(super) fn look(dir: &Path) -> Vec<Check> {
    let there = existing(dir);
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    vec![
        judge::namespaces(leeward_local::container::namespaces_available()),
        judge::loopback(bind()),
        judge::disk(&there, free(&there)),
        judge::reflinks(clones(&there)),
        judge::files(files),
        judge::kubectl(in_path("kubectl")),
    ]
}

/// The directory, or the closest of its parents that exists.
fn existing(dir: &Path) -> PathBuf {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let found = dir.ancestors().find(|dir| dir.is_dir());
    found.map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

fn bind() -> Result<std::net::SocketAddr, String> {
    let address = "127.254.241.7:0";
    TcpListener::bind(address)
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("{address} cannot be bound: {error}"))
}

fn free(dir: &Path) -> Result<u64, String> {
    let stat = statvfs(dir).map_err(|error| error.desc().to_owned())?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// Tries to clone one temporary file into another; both are removed.
fn clones(dir: &Path) -> Result<bool, String> {
    let file = || tempfile::tempfile_in(dir).map_err(|error| format!("{} cannot be written: {error}", dir.display()));
    let (mut from, to) = (file()?, file()?);
    std::io::Write::write_all(&mut from, &[0; 4096]).map_err(|error| format!("{}: {error}", dir.display()))?;
    let from = u64::try_from(from.as_raw_fd()).map_err(|error| error.to_string())?;
    // SAFETY: FICLONE takes two open descriptors and touches no memory of ours; both files live until after the call.
    Ok(unsafe { clone_file(to.as_raw_fd(), from) }.is_ok())
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}
