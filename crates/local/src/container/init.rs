//! The init of a container: prepares its surroundings and becomes the application.

use std::convert::Infallible;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, execve, sethostname, setsid};

use super::keeper::Ties;
use super::path::{Last, resolve};
use super::{Context, Error, Process, Run, mounts, privileges};

/// Never returns when it worked.
pub(super) fn become_application(run: &Run, ties: &mut Ties) -> Error {
    match prepare(run, ties) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn prepare(run: &Run, ties: &mut Ties) -> Result<Infallible, Error> {
    ties.die_with_keeper()?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .context(|| "the kernel refuses a mount namespace".to_owned())?;
    mounts::make_private()?;
    let root = mounts::build_root(run, |text| ties.note(text))?;
    mounts::enter_root(&root)?;
    sethostname(&run.hostname).context(|| "cannot set the host name".to_owned())?;
    enter_directory(&run.process.cwd)?;
    finish(&run.process, Path::new("/"), ties)
}

/// What every kind of process does last: lose all privileges and become the program.
pub(super) fn finish(process: &Process, root: &Path, ties: &Ties) -> Result<Infallible, Error> {
    let _ = setsid();
    privileges::drop_all()?;
    // A change of credentials clears the parent-death signal; see the keeper.
    ties.die_with_keeper()?;
    privileges::reset_signals()?;
    close_on_exec()?;
    execute(process, root)
}

fn enter_directory(path: &str) -> Result<(), Error> {
    let path = if path.is_empty() { "/" } else { path };
    if chdir(path).is_ok() {
        return Ok(());
    }
    // Inside the container's root, so this cannot lead elsewhere.
    let _ = std::fs::create_dir_all(path);
    chdir(path).context(|| format!("cannot enter the working directory {path}"))
}

fn execute(process: &Process, root: &Path) -> Result<Infallible, Error> {
    let Some(name) = process.args.first().filter(|name| !name.is_empty()) else {
        return Err(Error::Exec(
            "no command: neither the image nor the pod names a program to run".to_owned(),
        ));
    };
    let nul = |_| Error::Exec("an argument or a variable contains a NUL byte".to_owned());
    let args = process
        .args
        .iter()
        .map(|arg| CString::new(arg.as_str()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(nul)?;
    let env = process
        .env
        .iter()
        .map(|(name, value)| CString::new(format!("{name}={value}")))
        .collect::<Result<Vec<_>, _>>()
        .map_err(nul)?;
    let mut failure = Errno::ENOENT;
    for candidate in candidates(name, process, root)? {
        let path = CString::new(candidate.as_os_str().as_encoded_bytes()).map_err(nul)?;
        match execve(&path, &args, &env) {
            Ok(never) => match never {},
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => failure = errno,
        }
    }
    Err(Error::Exec(match failure {
        Errno::ENOENT => {
            format!("cannot run {name:?}: not found in the image (or its interpreter or loader is missing)")
        }
        Errno::ENOEXEC => format!("cannot run {name:?}: not a program of this machine's kind"),
        errno => format!("cannot run {name:?}: {}", errno.desc()),
    }))
}

/// Where the program may be, in the order in which a shell would try.
fn candidates(name: &str, process: &Process, root: &Path) -> Result<Vec<PathBuf>, Error> {
    let place = |path: &Path| -> Result<PathBuf, Error> {
        if root == Path::new("/") {
            Ok(path.to_path_buf())
        } else {
            Ok(resolve(root, path, Last::Follow)?)
        }
    };
    if name.contains('/') {
        let path = if name.starts_with('/') {
            PathBuf::from(name)
        } else {
            Path::new(&process.cwd).join(name)
        };
        return Ok(vec![place(&path)?]);
    }
    let path = process
        .env
        .iter()
        .find(|(key, _)| key == "PATH")
        .map_or("", |(_, value)| value.as_str());
    path.split(':')
        .filter(|part| !part.is_empty())
        .map(|part| place(&Path::new(part).join(name)))
        .collect()
}

/// No file of the preparation may reach the application.
fn close_on_exec() -> Result<(), Error> {
    // SAFETY: close_range(2) with CLOSE_RANGE_CLOEXEC only sets a flag on descriptors; it touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    // Kernels before 5.11 lack it; there the standard library's own close-on-exec flags have to do.
    if result < 0 && !matches!(Errno::last(), Errno::ENOSYS | Errno::EINVAL) {
        return Err(Errno::last()).context(|| "cannot mark files to be closed".to_owned());
    }
    Ok(())
}
