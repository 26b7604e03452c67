//! What every process has: its version, its time and its memory.

use std::fmt;

use leeward_api::metrics as table;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use super::page::Page;

/// Writes them. What the system does not tell is left out.
pub(super) fn write(page: &mut Page<'_>) -> fmt::Result {
    page.family(&table::BUILD, |family| family.info(&[env!("CARGO_PKG_VERSION")]))?;
    page.family(&table::PROCESS_CPU, |family| match getrusage(UsageWho::RUSAGE_SELF) {
        Ok(usage) => {
            let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            family.counter_f64(&[], seconds(usage.user_time()) + seconds(usage.system_time()))
        }
        Err(_) => Ok(()),
    })?;
    page.gauge(&table::PROCESS_MEMORY, resident().map(|bytes| bytes as f64))
}

fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}
