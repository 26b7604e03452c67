//! `leeward-sim`, which `cargo xtask sim` runs: many seeds, or one with its history.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use clap::Parser;
use leeward_sim::{
    Mutant, Outcome, Run, run,
    table::{self, OPERATIONS},
};

/// A third of the time goes to small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Plays runs of regions that fail, each from its seed. Exits 1 at a violation, and prints the shortest history that shows it.
#[derive(Parser)]
#[command(name = "cargo xtask sim")]
struct Options {
    /// How many seeds: 10,000, with `--steps` 10.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Play this one only, and print what happened.
    #[arg(long)]
    seed: Option<u64>,
    /// How long things go wrong in a run, in seconds of its own time.
    #[arg(long, default_value_t = 12)]
    seconds: u64,
    /// Play each step of each operation cut short at each moment and done twice, from each seed.
    #[arg(long, conflicts_with = "mutants")]
    steps: bool,
    /// Play with each safety check taken away, and say after how many seeds that is noticed.
    #[arg(long)]
    mutants: bool,
    /// With `--mutants`: only those with this in their name.
    #[arg(long, requires = "mutants", default_value = "", hide_default_value = true)]
    only: String,
}

impl Options {
    fn seeds(&self) -> u64 {
        let usual = if self.steps { 10 } else { 10_000 };
        self.seeds.unwrap_or(usual)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let of = |seed| Run {
        seed,
        mutant: None,
        seconds: options.seconds,
        script: None,
    };
    if let Some(seed) = options.seed {
        let outcome = run(&of(seed));
        show(seed, &outcome);
        return code(outcome.violation.is_none());
    }
    if options.steps {
        return code(steps(&options));
    }
    if options.mutants {
        return code(mutants(&options));
    }
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let totals = [const { AtomicU64::new(0) }; 6];
    let failed = std::sync::Mutex::new(None);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= options.seeds() {
                        return;
                    }
                    let seed = options.from + index;
                    let outcome = run(&of(seed));
                    for (total, count) in totals.iter().zip(outcome.counts()) {
                        total.fetch_add(count, Ordering::Relaxed);
                    }
                    if outcome.violation.is_some() {
                        next.store(options.seeds(), Ordering::Relaxed);
                        if let Ok(mut failed) = failed.lock() {
                            *failed = Some(seed);
                        }
                        return;
                    }
                }
            });
        }
    });
    let [events, acknowledged, moves, cancels, failed_ones, pauses] = totals.map(AtomicU64::into_inner);
    println!(
        "{} seeds from {}: {events} events, {acknowledged} acknowledged writes, {moves} changes of the writer, {cancels} switchovers \
         called off, {failed_ones} operations that failed, {pauses} pauses in {:.1} s",
        options.seeds(),
        options.from,
        began.elapsed().as_secs_f64()
    );
    let Ok(Some(seed)) = failed.into_inner() else {
        println!("no violation");
        return ExitCode::SUCCESS;
    };
    let (seconds, outcome) = shrink(seed, options.seconds);
    show(seed, &outcome);
    println!("replay: cargo xtask sim --seed {seed} --seconds {seconds}");
    ExitCode::FAILURE
}

/// The shortest time of faults after which the seed still fails.
fn shrink(seed: u64, most: u64) -> (u64, Outcome) {
    let play = |seconds| {
        run(&Run {
            seed,
            mutant: None,
            seconds,
            script: None,
        })
    };
    let shorter = (1..most).find_map(|seconds| Some((seconds, play(seconds))).filter(|(_, o)| o.violation.is_some()));
    shorter.unwrap_or_else(|| (most, play(most)))
}

fn show(seed: u64, outcome: &Outcome) {
    for line in &outcome.history {
        println!("{line}");
    }
    println!(
        "seed {seed}: {} events, {} acknowledged writes, {} changes of the writer",
        outcome.events, outcome.acknowledged, outcome.moves
    );
    match &outcome.violation {
        None => println!("no violation"),
        Some(violation) => println!(
            "VIOLATION at {:.6} s of \"{}\": {}",
            violation.at as f64 / 1e6,
            violation.invariant,
            violation.what
        ),
    }
}

/// Whether every row of the table ends well.
fn steps(options: &Options) -> bool {
    let began = Instant::now();
    let rows: Vec<_> = OPERATIONS
        .iter()
        .flat_map(|operation| table::rows(*operation))
        .collect();
    let all: Vec<_> = (options.from..options.from + options.seeds())
        .flat_map(|seed| rows.iter().map(move |row| (seed, *row)))
        .collect();
    let next = AtomicUsize::new(0);
    let bad = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((seed, row)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = table::play(*row, *seed, None);
                    if let Err(wrong) = table::judge(*row, &outcome) {
                        println!("{}\nseed {seed}, {row:?}: {wrong}\n", outcome.history.join("\n"));
                        bad.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let bad = bad.into_inner();
    let (rows, seeds, took) = (rows.len(), options.seeds(), began.elapsed().as_secs_f64());
    println!("{rows} rows from {seeds} seeds: {bad} end badly, in {took:.1} s");
    bad == 0
}

/// Whether every mutant is noticed.
fn mutants(options: &Options) -> bool {
    let next = AtomicUsize::new(0);
    let all = AtomicBool::new(true);
    let named = |mutant: &&Mutant| format!("{mutant:?}").contains(&options.only);
    let chosen: Vec<&Mutant> = Mutant::ALL.iter().filter(named).collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(mutant) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    all.fetch_and(is_noticed(**mutant, options), Ordering::Relaxed);
                }
            });
        }
    });
    all.into_inner()
}

fn is_noticed(mutant: Mutant, options: &Options) -> bool {
    let play = |seed| {
        if mutant.is_of_steps() {
            let rows = OPERATIONS.iter().flat_map(|operation| table::rows(*operation));
            let mut outcomes = rows.map(|row| table::play(row, seed, Some(mutant)));
            return outcomes.find_map(|outcome| outcome.violation);
        }
        run(&Run {
            seed,
            mutant: Some(mutant),
            seconds: options.seconds,
            script: None,
        })
        .violation
    };
    let seeds = options.from..options.from + options.seeds();
    let noticed = seeds.into_iter().find_map(|seed| Some((seed, play(seed)?)));
    let name = format!("{mutant:?}");
    match &noticed {
        Some((seed, violation)) => println!(
            "{name:<28} noticed with seed {seed}: {}: {}",
            violation.invariant, violation.what
        ),
        None => println!("{name:<28} NOT noticed in {} seeds", options.seeds()),
    }
    noticed.is_some()
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
