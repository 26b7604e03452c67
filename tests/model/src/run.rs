//! One check from its beginning to its end.

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    model::{ALWAYS, Protocol},
    mutant::Cheats,
    show,
    time::Bounds,
};

/// What a check found.
#[derive(Debug, Clone)]
pub struct Found {
    /// States, each counted once.
    pub unique: usize,
    /// States as often as they were come to.
    pub generated: usize,
    /// The longest way to one; with several threads not always the shortest there is.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// What should happen at some time and never did.
    pub never: Vec<&'static str>,
}

/// An invariant that did not hold.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// How many things happened until then.
    pub length: usize,
    /// What, one a line.
    pub history: Vec<String>,
}

/// Looks at every state, or until an invariant does not hold. With one thread, what led there is as short as can be.
pub fn check(bounds: Bounds, cheats: Cheats, threads: usize) -> Found {
    let began = Instant::now();
    let checker = Protocol::new(bounds, cheats).checker().threads(threads);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let discoveries = checker.discoveries();
    let violation = ALWAYS.iter().find_map(|(name, _)| {
        let path = discoveries.get(name)?.clone().into_vec();
        Some(Violation {
            invariant: name,
            length: path.len() - 1,
            history: show::history(&path),
        })
    });
    let never = checker.model().properties().into_iter().map(|property| property.name);
    let never = never.filter(|name| !discoveries.contains_key(name) && ALWAYS.iter().all(|(always, _)| always != name));
    Found {
        unique: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
        violation,
        never: never.collect(),
    }
}
