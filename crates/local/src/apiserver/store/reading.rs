//! The state while somebody reads it.
//!
//! A second reading on the same thread would wait for a writer that waits for the first one, and then nothing goes on any more. That takes a
//! writer at the right moment; so that any test finds it, a debug build panics at every second reading.

use std::{
    cell::Cell,
    marker::PhantomData,
    ops::Deref,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use super::State;

thread_local! {
    static READS: Cell<bool> = const { Cell::new(false) };
}

/// The published state, until dropped. Stays on its thread.
pub(crate) struct Reading<'a> {
    guard: RwLockReadGuard<'a, State>,
    on_this_thread: PhantomData<*const ()>,
}

impl<'a> Reading<'a> {
    pub(super) fn begin(state: &'a RwLock<State>) -> Self {
        let before = READS.replace(true);
        debug_assert!(
            !before,
            "the state is read while it is read already, on the same thread"
        );
        Self {
            guard: state.read().unwrap_or_else(PoisonError::into_inner),
            on_this_thread: PhantomData,
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        READS.set(false);
    }
}

impl Deref for Reading<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.guard
    }
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use super::{Reading, State};
    use crate::apiserver::store::disk::Loaded;

    #[test]
    #[should_panic(expected = "read already")]
    fn a_second_reading_is_found_without_a_writer() {
        let state = RwLock::new(State::load(Loaded::default()));
        let _first = Reading::begin(&state);
        let _second = Reading::begin(&state);
    }
}
