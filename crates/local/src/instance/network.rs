//! Networks of their own for the regions of an instance, so that links between them can be cut.
//!
//! Each region, the witness and the users (this program) has a network namespace, with one link to a bridge in the users' one.
//! Addresses are those of [`super::addresses`]: a namespace answers for its own part of 127.0.0.0/8 and reaches the rest over the
//! bridge, so that no process knows the difference. A cut is a route in the sender's namespace to a link behind which there is
//! nobody: what is sent vanishes without an answer, in one direction, also on connections that are open.
//!
//! The machine's own network is not touched. A namespace has no name and goes with the last process in it, so whatever way this
//! program ends, nothing is left behind. Links are made by `ip`, which Debian has in the package iproute2.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Write as _},
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use nix::sched::{CloneFlags, setns, unshare};

use super::addresses::Octet;

/// What can go wrong with networks. None of it passes by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Only root may make namespaces.
    #[error("regions in network namespaces of their own need root; run it as root")]
    NotRoot,
    /// A namespace holds for one thread only, so all others would stay outside.
    #[error("networks must be separated before this program starts a second thread; this is a defect")]
    Threads,
    /// The kernel refused something.
    #[error("cannot {what}: {source}; the kernel must allow network namespaces (CAP_SYS_ADMIN and CAP_NET_ADMIN)")]
    Kernel {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// `ip` could not be run.
    #[error("cannot run `ip`: {0}; install it: apt-get install iproute2")]
    NoIp(io::Error),
    /// `ip` refused something.
    #[error("`ip` refused: {0}")]
    Ip(String),
    /// There is no such place.
    #[error("there is no network of {0:?}")]
    Unknown(Place),
}

/// Who has a network of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// This program, and whatever else is started from it.
    Users,
    /// The witness, with its member of the quorum.
    Witness,
    /// A region.
    Region(String),
}

/// Says that this program has left the machine's network.
#[derive(Debug)]
#[must_use]
pub struct Isolated(());

/// Leaves the machine's network for an empty one with a loopback device. To be called before any second thread is started.
pub fn isolate() -> Result<Isolated, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(kernel("count threads"))?
        .count();
    if threads != 1 {
        return Err(Error::Threads);
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| kernel("make a network namespace")(errno.into()))?;
    ip("link set lo up\n")?;
    Ok(Isolated(()))
}

/// The addresses of a place, and its end of the link to the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    first: Ipv4Addr,
    prefix: u8,
    /// What connections come from. Members of etcd look whether it is in the certificate, so it is the address of the member.
    source: Ipv4Addr,
    index: u8,
}

impl Part {
    fn of_users() -> Self {
        Self {
            // No instance has this octet.
            first: Ipv4Addr::new(127, 255, 0, 0),
            prefix: 16,
            source: Ipv4Addr::new(127, 255, 0, 1),
            index: u8::MAX,
        }
    }

    /// The witness's part is that of region 0.
    fn of(octet: Octet, index: u8) -> Self {
        Self {
            first: Ipv4Addr::new(127, octet.0, index * 16, 0),
            prefix: 20,
            source: Ipv4Addr::new(127, octet.0, index * 16, 5),
            index,
        }
    }

    fn range(self) -> String {
        format!("{}/{}", self.first, self.prefix)
    }

    /// What all places have: their addresses, the way to all others through `device`, and the void.
    fn setting(self, device: &str) -> String {
        let Self { source, .. } = self;
        let range = self.range();
        format!(
            "link set lo up\n\
             route del table local local 127.0.0.0/8 dev lo\n\
             addr add {source}/32 dev lo\n\
             route add local {range} dev lo src {source}\n\
             link set {device} up\n\
             route add 127.0.0.0/8 dev {device} src {source}\n\
             link add void type veth peer name void-end\n\
             link set void arp off\n\
             link set void up\n\
             link set void-end up\n"
        )
    }
}

#[derive(Debug)]
struct Namespace {
    part: Part,
    /// None for the users': it is this program's own.
    handle: Option<File>,
}

/// The networks of an instance.
#[derive(Debug)]
pub struct Network {
    places: BTreeMap<Place, Namespace>,
    /// From, to.
    cuts: Mutex<BTreeSet<(Place, Place)>>,
}

impl Network {
    /// Makes them: for the witness, and for the regions in the order of their addresses.
    pub(super) fn make(Isolated(()): Isolated, octet: Octet, regions: &[String]) -> Result<Self, Error> {
        // Between namespaces, what goes to 127.0.0.0/8 is dropped unless this is set.
        route_loopback()?;
        ip("link add regions type bridge\n")?;
        let users = Part::of_users();
        ip(&users.setting("regions"))?;
        let mut places = BTreeMap::from([(
            Place::Users,
            Namespace {
                part: users,
                handle: None,
            },
        )]);
        let regions = regions.iter().cloned().map(Place::Region);
        for (place, index) in std::iter::once(Place::Witness).chain(regions).zip(0_u8..) {
            let part = Part::of(octet, index);
            let handle = within_new(|| connect(part))?;
            ip(&format!(
                "link set place{index} master regions\nlink set place{index} up\n"
            ))?;
            places.insert(
                place,
                Namespace {
                    part,
                    handle: Some(handle),
                },
            );
        }
        Ok(Self {
            places,
            cuts: Mutex::default(),
        })
    }

    fn namespace(&self, place: &Place) -> Result<&Namespace, Error> {
        self.places.get(place).ok_or_else(|| Error::Unknown(place.clone()))
    }

    /// A place's namespace, to start a process in; none for this program's own.
    pub(super) fn handle(&self, place: &Place) -> Result<Option<OwnedFd>, Error> {
        let handle = self.namespace(place)?.handle.as_ref();
        let owned = handle.map(|handle| handle.as_fd().try_clone_to_owned()).transpose();
        owned.map_err(kernel("hold a network namespace"))
    }

    /// Does something in a place's network, on a thread of its own.
    pub fn within<T: Send>(&self, place: &Place, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let handle = self.namespace(place)?.handle.as_ref();
        on_thread(|| {
            if let Some(handle) = handle {
                setns(handle, CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| kernel("enter a network namespace")(errno.into()))?;
            }
            Ok(work())
        })
    }

    /// Cuts the way from one place to another; the way back stays. Cutting twice is cutting once.
    pub fn cut(&self, from: &Place, to: &Place) -> Result<(), Error> {
        self.turn(from, to, true)
    }

    /// Restores the way from one place to another.
    pub fn heal(&self, from: &Place, to: &Place) -> Result<(), Error> {
        self.turn(from, to, false)
    }

    /// Restores every way.
    pub fn heal_all(&self) -> Result<(), Error> {
        let cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        cuts.iter().try_for_each(|(from, to)| self.heal(from, to))
    }

    fn turn(&self, from: &Place, to: &Place, cut: bool) -> Result<(), Error> {
        let (range, source) = (self.namespace(to)?.part.range(), self.namespace(from)?.part.source);
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let way = (from.clone(), to.clone());
        if cuts.contains(&way) == cut {
            return Ok(());
        }
        let verb = if cut { "add" } else { "del" };
        let route = format!("route {verb} {range} dev void src {source}\n");
        self.within(from, || ip(&route))??;
        if cut {
            cuts.insert(way);
        } else {
            cuts.remove(&way);
        }
        Ok(())
    }
}

/// In a new namespace: the link to this program's one, and all else.
fn connect(part: Part) -> Result<(), Error> {
    route_loopback()?;
    let (index, program) = (part.index, std::process::id());
    ip(&format!(
        "link add uplink type veth peer name place{index} netns {program}\n"
    ))?;
    ip(&part.setting("uplink"))
}

fn route_loopback() -> Result<(), Error> {
    std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
        .map_err(kernel("route between loopback addresses"))
}

/// Makes a namespace, does something in it, and gives its handle.
fn within_new(work: impl FnOnce() -> Result<(), Error> + Send) -> Result<File, Error> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| kernel("make a network namespace")(errno.into()))?;
        let handle = File::open("/proc/thread-self/ns/net").map_err(kernel("open a network namespace"))?;
        work()?;
        Ok(handle)
    })
}

/// A thread's namespace ends with it, so that no other work lands in it.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| {
        Err(kernel("work in a network namespace")(io::Error::other(
            "the thread ended",
        )))
    })
}

fn kernel(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Kernel { what, source }
}

/// Runs `ip` on these lines, in the calling thread's namespace.
fn ip(lines: &str) -> Result<(), Error> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::NoIp)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(lines.as_bytes()).map_err(Error::NoIp)?;
    }
    let done = child.wait_with_output().map_err(Error::NoIp)?;
    if done.status.success() {
        return Ok(());
    }
    Err(Error::Ip(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_answers_for_its_part_of_the_instance() {
        let part = Part::of(Octet(7), 2);
        assert_eq!(part.range(), "127.7.32.0/20");
        assert_eq!(part.source, Octet(7).region(2).map(|r| r.etcd().0.ip()).unwrap());
        assert_eq!(Part::of(Octet(7), 0).source, Octet(7).etcd().0.ip());
        let setting = part.setting("uplink");
        assert!(
            setting.contains("route add local 127.7.32.0/20 dev lo src 127.7.32.5\n"),
            "{setting}"
        );
    }
}
