//! `leeward-model`, which `cargo xtask model` runs: every state of the protocol, or every mutant of it.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use comfy_table::Table;
use leeward_model::{Bounds, Cheats, Found, Mutant, check};

/// Half of what a state costs is memory that is taken and given back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Looks at every state that two regions and a quorum can come to. Exits 1 when an invariant does not hold in one, with the shortest way to it.
#[derive(Parser)]
#[command(name = "cargo xtask model")]
struct Options {
    /// Look at the protocol with each margin and comparison taken away, and say what is found. Exits 1 where nothing is.
    #[arg(long, conflicts_with_all = ["spare", "trace"])]
    mutants: bool,
    /// Look at the protocol without what something else is enough without; that takes as long as all of it, each time. Exits 1 where
    /// something is found.
    #[arg(long, conflicts_with = "trace")]
    spare: bool,
    /// Print what happens in a mutant until an invariant does not hold.
    #[arg(long, value_name = "MUTANT")]
    trace: Option<String>,
    /// A lease's time to live, in ticks.
    #[arg(long, default_value_t = Bounds::ALL.ticks.ttl, value_parser = clap::value_parser!(u8).range(3..=12))]
    ttl: u8,
}

impl Options {
    fn bounds(&self) -> Bounds {
        let mut bounds = Bounds::ALL;
        bounds.ticks.ttl = self.ttl;
        bounds
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let good = match &options.trace {
        Some(name) => trace(name, options.bounds()),
        None if options.mutants || options.spare => mutants(options.spare, options.bounds()),
        None => all(options.bounds()),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The protocol as it is.
fn all(bounds: Bounds) -> bool {
    let found = check(bounds, Cheats::default(), workers());
    let Found {
        unique,
        generated,
        depth,
        ..
    } = found;
    println!(
        "{unique} states ({generated} with repetitions), depth {depth}, {:.1} s",
        found.took.as_secs_f64()
    );
    for name in &found.never {
        println!("NEVER: {name}");
    }
    match found.violation {
        None => println!("no violation"),
        Some(_) => {
            // With several threads the way to it may be longer than need be.
            let shortest = check(bounds, Cheats::default(), 1);
            shortest
                .violation
                .iter()
                .flat_map(|v| &v.history)
                .for_each(|line| println!("{line}"));
            println!("VIOLATION");
            return false;
        }
    }
    found.never.is_empty()
}

/// Every mutant of a kind, and whether all are as they should be.
fn mutants(spare: bool, bounds: Bounds) -> bool {
    let mutants: Vec<_> = Mutant::ALL.iter().filter(|mutant| mutant.spare == spare).collect();
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(usize, Found)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(mutant) = mutants.get(index)
                {
                    let checked = check(bounds, mutant.cheats, 1);
                    eprintln!("{}: {:.1} s", mutant.name, checked.took.as_secs_f64());
                    found.lock().unwrap_or_else(|e| e.into_inner()).push((index, checked));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(|e| e.into_inner());
    found.sort_by_key(|(index, _)| *index);
    let mut table = Table::new();
    table.set_header(["mutant", "", "what did not hold", "things that happen", "states"]);
    for (index, found) in &found {
        let violation = found.violation.as_ref();
        table.add_row([
            mutants[*index].name.to_owned(),
            violation.map_or("NOT found", |_| "found").to_owned(),
            violation.map_or_else(String::new, |violation| violation.invariant.to_owned()),
            violation.map_or_else(String::new, |violation| violation.length.to_string()),
            found.unique.to_string(),
        ]);
    }
    println!("{table}");
    found.iter().all(|(_, found)| found.violation.is_none() == spare)
}

fn trace(name: &str, bounds: Bounds) -> bool {
    let Some(mutant) = Mutant::ALL.iter().find(|mutant| mutant.name == name) else {
        let names: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.name).collect();
        eprintln!("no mutant is called {name}; there are {}", names.join(", "));
        return false;
    };
    let found = check(bounds, mutant.cheats, 1);
    let Some(violation) = found.violation else {
        println!("every invariant holds in all {} states", found.unique);
        return mutant.spare;
    };
    violation.history.iter().for_each(|line| println!("{line}"));
    println!("does not hold: {}", violation.invariant);
    true
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
