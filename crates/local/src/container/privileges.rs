//! Takes away what an application must not have, right before it starts.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::{Context, Error};

/// The layout of `struct __user_cap_header_struct` (capget(2)).
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// One of the two words of `struct __user_cap_data_struct` of version 3.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAP_VERSION_3: u32 = 0x2008_0522;

/// Drops every capability, from the bounding set too, and bars new privileges for good.
pub(super) fn drop_all() -> Result<(), Error> {
    for capability in 0..64_u64 {
        // SAFETY: PR_CAPBSET_DROP reads one integer and touches no memory of ours.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        // EINVAL: past the kernel's last capability. EPERM: none to drop, as for a plain process of an ordinary user.
        if result < 0 && matches!(Errno::last(), Errno::EINVAL | Errno::EPERM) {
            break;
        }
    }
    let header = CapHeader {
        version: CAP_VERSION_3,
        pid: 0,
    };
    let none = [CapData::default(); 2];
    // SAFETY: both pointers refer to live values of the layout that version 3 of capset(2) reads.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    if result < 0 {
        return Err(Errno::last()).context(|| "cannot drop the capabilities".to_owned());
    }
    prctl::set_no_new_privs().context(|| "cannot bar new privileges".to_owned())
}

/// Gives every signal its default meaning and unblocks it: what a program expects to find after execve.
pub(super) fn reset_signals() -> Result<(), Error> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action installs no handler, so no code of ours can run in a signal's context.
        unsafe { sigaction(signal, &default) }.context(|| format!("cannot reset {signal}"))?;
    }
    SigSet::empty()
        .thread_set_mask()
        .context(|| "cannot unblock signals".to_owned())
}
