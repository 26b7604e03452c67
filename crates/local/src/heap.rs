//! What a process no longer uses of its heap, given back to the machine.
//!
//! glibc's allocator gives back what lies at the end of its heap; one small block that stays behind keeps all before it. After a large
//! request, such as the definitions of an operator, that is most of the process.

use std::time::Duration;

/// How often the heap is looked at. A look costs less than a millisecond where there is nothing to give back.
const EVERY: Duration = Duration::from_secs(3);

/// Gives back what is unused, again and again, after `settle` made it more. Never ends; drop it.
pub async fn give_back(settle: impl Fn()) {
    let mut turn = tokio::time::interval(EVERY);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        settle();
        trim();
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: it takes no pointer, locks each arena while it works on it, and only gives back pages that no block in use touches.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Other allocators do it themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
