//! The root file system of a container: built in the init's own mount namespace, gone with it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::pivot_root;

use super::path::{Last, resolve};
use super::{Context, Error, Mount, Run};

const NONE: Option<&str> = None;

/// Keeps every later mount from being seen outside.
pub(super) fn make_private() -> Result<(), Error> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context(|| "cannot make mounts private".to_owned())
}

/// Builds the root file system and returns where it is; `note` receives what had to be done in a lesser way.
pub(super) fn build_root(run: &Run, mut note: impl FnMut(String)) -> Result<PathBuf, Error> {
    let root = run.scratch.join("root");
    make_directory(&root)?;
    if let Err(error) = overlay(run, &root) {
        note(format!("no overlay file system here ({error}); the image is copied"));
        copy_tree(&run.image_root, &root)?;
        bind(&root, &root)?;
    }
    for (name, mode) in [("proc", 0o755), ("dev", 0o755), ("tmp", 0o1777)] {
        let path = resolve(&root, Path::new(name), Last::Follow)?;
        if !path.is_dir() {
            make_directory(&path)?;
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        }
    }
    if let Err(errno) = proc(&root) {
        note(format!("no /proc of its own ({errno}): the machine's is shown"));
        bind_recursive(Path::new("/proc"), &root.join("proc"))?;
    }
    devices(&root)?;
    for volume in &run.mounts {
        volume_mount(&root, volume)?;
    }
    if run.read_only_root {
        remount_read_only(&root)?;
    }
    Ok(root)
}

/// Makes `root` the root directory and lets go of the machine's.
pub(super) fn enter_root(root: &Path) -> Result<(), Error> {
    nix::unistd::chdir(root).context(|| format!("cannot enter {}", root.display()))?;
    // The old root comes to lie over the new one, and is detached from there: no directory for it is needed.
    pivot_root(".", ".").context(|| "cannot change the root file system".to_owned())?;
    umount2(".", MntFlags::MNT_DETACH).context(|| "cannot let go of the machine's file system".to_owned())?;
    nix::unistd::chdir("/").context(|| "cannot enter the new root".to_owned())
}

fn overlay(run: &Run, root: &Path) -> Result<(), Error> {
    let (upper, work) = (run.scratch.join("upper"), run.scratch.join("work"));
    make_directory(&upper)?;
    make_directory(&work)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        escape(&run.image_root),
        escape(&upper),
        escape(&work)
    );
    mount(
        Some("overlay"),
        root,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .context(|| "the kernel refuses it".to_owned())?;
    // The kernel makes a directory there that its own user may not look into; a node that was killed could not remove it.
    let _ = fs::set_permissions(work.join("work"), fs::Permissions::from_mode(0o700));
    Ok(())
}

/// Escapes what separates overlay options.
fn escape(path: &Path) -> String {
    path.display()
        .to_string()
        .replace('\\', "\\\\")
        .replace(',', "\\,")
        .replace(':', "\\:")
}

fn proc(root: &Path) -> Result<(), Errno> {
    let target = root.join("proc");
    mount(
        Some("proc"),
        &target,
        Some("proc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        NONE,
    )?;
    // Root of the machine is root inside, and these files ask for no capability.
    for name in ["sys", "sysrq-trigger", "irq", "bus", "fs"] {
        let path = target.join(name);
        if path.exists() && mount(Some(&path), &path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).is_ok() {
            let flags = MsFlags::MS_BIND
                | MsFlags::MS_REMOUNT
                | MsFlags::MS_RDONLY
                | MsFlags::MS_NOSUID
                | MsFlags::MS_NODEV
                | MsFlags::MS_NOEXEC;
            mount(NONE, &path, NONE, flags, NONE)?;
        }
    }
    Ok(())
}

fn devices(root: &Path) -> Result<(), Error> {
    let dev = root.join("dev");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &dev, Some("tmpfs"), flags, Some("mode=755,size=64k"))
        .context(|| "cannot mount /dev".to_owned())?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let (source, target) = (Path::new("/dev").join(name), dev.join(name));
        if source.exists() {
            fs::write(&target, b"").context(|| format!("cannot make /dev/{name}"))?;
            bind(&source, &target)?;
        }
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(name)).context(|| format!("cannot make /dev/{name}"))?;
    }
    let shm = dev.join("shm");
    make_directory(&shm)?;
    mount(
        Some("tmpfs"),
        &shm,
        Some("tmpfs"),
        flags | MsFlags::MS_NODEV,
        Some("mode=1777"),
    )
    .context(|| "cannot mount /dev/shm".to_owned())
}

fn volume_mount(root: &Path, volume: &Mount) -> Result<(), Error> {
    let source = match &volume.sub_path {
        Some(sub) => {
            let path = resolve(&volume.source, Path::new(sub), Last::Follow)?;
            if !path.exists() {
                make_directory(&path)?;
            }
            path
        }
        None => volume.source.clone(),
    };
    let kind = fs::metadata(&source).context(|| format!("cannot use the volume's {}", source.display()))?;
    let target = resolve(root, &volume.target, Last::Follow)?;
    if kind.is_dir() {
        make_directory(&target)?;
    } else if !target.exists() {
        if let Some(parent) = target.parent() {
            make_directory(parent)?;
        }
        fs::write(&target, b"").context(|| format!("cannot make the mount point {}", volume.target.display()))?;
    }
    bind_recursive(&source, &target)?;
    if volume.read_only {
        remount_read_only(&target)
    } else {
        Ok(())
    }
}

fn bind(source: &Path, target: &Path) -> Result<(), Error> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)
        .context(|| format!("cannot mount {} at {}", source.display(), target.display()))
}

fn bind_recursive(source: &Path, target: &Path) -> Result<(), Error> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .context(|| format!("cannot mount {} at {}", source.display(), target.display()))
}

/// A user namespace may add flags to a mount but not take away those that it came with, so they are read and kept.
fn remount_read_only(target: &Path) -> Result<(), Error> {
    let now = statvfs(target)
        .context(|| format!("cannot look at the mount {}", target.display()))?
        .flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (has, keep) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if now.contains(has) {
            flags |= keep;
        }
    }
    mount(NONE, target, NONE, flags, NONE).context(|| format!("cannot make {} read-only", target.display()))
}

fn make_directory(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).context(|| format!("cannot make the directory {}", path.display()))
}

/// Copies an unpacked image where no overlay can be had. Hard links become copies.
fn copy_tree(from: &Path, to: &Path) -> Result<(), Error> {
    let context = |path: &Path| format!("cannot copy {}", path.display());
    for entry in fs::read_dir(from).context(|| context(from))? {
        let entry = entry.context(|| context(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let metadata = source.symlink_metadata().context(|| context(&source))?;
        if metadata.is_symlink() {
            let link = fs::read_link(&source).context(|| context(&source))?;
            symlink(link, &target).context(|| context(&source))?;
        } else if metadata.is_dir() {
            make_directory(&target)?;
            copy_tree(&source, &target)?;
            fs::set_permissions(&target, metadata.permissions()).context(|| context(&source))?;
        } else if metadata.is_file() {
            fs::copy(&source, &target).context(|| context(&source))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_options_are_escaped() {
        assert_eq!(escape(Path::new("/a:b,c\\d")), "/a\\:b\\,c\\\\d");
    }

    #[test]
    fn a_copy_has_files_links_and_modes() {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        fs::create_dir(from.path().join("d")).unwrap();
        fs::write(from.path().join("d/run"), b"x").unwrap();
        fs::set_permissions(from.path().join("d/run"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/d/run", from.path().join("link")).unwrap();
        copy_tree(from.path(), to.path()).unwrap();
        assert_eq!(
            fs::metadata(to.path().join("d/run")).unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert_eq!(fs::read_link(to.path().join("link")).unwrap(), Path::new("/d/run"));
    }
}
