//! Runs one more process inside a running container, for exec probes and hooks.

use std::convert::Infallible;
use std::fs::File;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::unistd::chdir;

use super::keeper::Ties;
use super::{Context, Error, Isolation, Join, init, plain};

/// Enters the container's namespaces; the PID namespace takes the children of this process only.
pub(super) fn enter(target: &Join) -> Result<(), Error> {
    if target.isolation == Isolation::Plain {
        return plain::adopt_orphans();
    }
    let kinds = [
        ("user", CloneFlags::CLONE_NEWUSER),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    // All are opened before the first is entered: in the container's mount namespace /proc shows other processes.
    let files = kinds
        .iter()
        .map(|(name, _)| File::open(format!("/proc/{}/ns/{name}", target.pid)))
        .collect::<Result<Vec<_>, _>>()
        .context(|| "the container is not running".to_owned())?;
    for ((name, flag), file) in kinds.iter().zip(files) {
        setns(file, *flag).context(|| format!("cannot enter the container's {name} namespace"))?;
    }
    Ok(())
}

/// Never returns when it worked.
pub(super) fn become_process(target: &Join, ties: &mut Ties) -> Error {
    match prepare(target, ties) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn prepare(target: &Join, ties: &Ties) -> Result<Infallible, Error> {
    ties.die_with_keeper()?;
    if target.isolation == Isolation::Plain {
        let cwd = format!("/proc/{}/cwd", target.pid);
        chdir(cwd.as_str()).context(|| "the container is not running".to_owned())?;
        return init::finish(&target.process, &target.image_root, ties);
    }
    if chdir(target.process.cwd.as_str()).is_err() {
        chdir("/").context(|| "cannot enter the container's root".to_owned())?;
    }
    init::finish(&target.process, Path::new("/"), ties)
}
