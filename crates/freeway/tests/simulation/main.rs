//! The whole engine in virtual time: real configuration, real router, real counting, real HTTP, real ledger; providers
//! that count by themselves, clients, faults, clocks that are set, and lives that end at any step.
//!
//! A seed decides everything. Each scenario runs on one thread and one clock that jumps from one event to the next, so
//! that the same seed takes the same steps. `FREEWAY_SEEDS=FROM..TO` runs other seeds than the usual ones, and
//! `FREEWAY_SEEDS=N` one alone; seeds that ever failed are kept in `seeds.txt` and run first.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod asking;
mod chance;
mod checks;
mod client;
mod limit;
mod network;
mod pipe;
mod process;
mod reached;
mod run;
mod scenario;
mod stage;
mod trace;
mod waiting;
mod world;

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use reached::Reached;
use run::{Report, home, run};
use scenario::Scenario;

/// The seeds of the usual test.
const SEEDS: Range<u64> = 0..2_000;
/// Threads that run seeds, each one seed at a time.
const THREADS: usize = 2;
/// Failures that are shown.
const MOST_SHOWN: usize = 3;

/// Seeds that once failed, each with what was wrong. A seed means what it meant as long as scenarios are drawn in the
/// same way; after a change of that, what failed is kept by the tests beside the code that was mended.
const KEPT: &str = include_str!("seeds.txt");

fn play(seed: u64) -> (Scenario, Report) {
    let folder = tempfile::Builder::new().prefix("freeway-simulation").tempdir_in(home()).expect("a folder");
    let scenario = Scenario::draw(seed);
    let report = catch_unwind(AssertUnwindSafe(|| run(&scenario, folder.path())));
    let report = report.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map_or("it fell over", String::as_str);
        Report { failure: Some(words.to_owned()), ..Report::default() }
    });
    (scenario, report)
}

fn kept() -> impl Iterator<Item = u64> {
    KEPT.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

/// The seeds to run, and whether they are the usual ones.
#[expect(clippy::disallowed_methods, reason = "which seeds are run is said in the environment")]
fn seeds() -> (VecDeque<u64>, bool) {
    let Ok(text) = std::env::var("FREEWAY_SEEDS") else { return (kept().chain(SEEDS).collect(), true) };
    let number = |text: &str| text.trim().parse::<u64>().expect("FREEWAY_SEEDS is a number or FROM..TO");
    let seeds = match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&text)..number(&text) + 1,
    };
    (seeds.collect(), false)
}

/// How many seeds went how.
#[derive(Default)]
struct Sum {
    seeds: u64,
    steps: u64,
    requests: usize,
    reached: Reached,
    failed: Vec<u64>,
    shown: String,
}

impl Sum {
    fn add(&mut self, scenario: &Scenario, report: &Report) {
        self.seeds += 1;
        self.steps += report.trace.steps();
        self.requests += report.requests;
        self.reached.add(&report.reached);
        let Some(failure) = &report.failure else { return };
        self.failed.push(scenario.seed);
        if self.failed.len() <= MOST_SHOWN {
            let Report { trace, .. } = report;
            self.shown.push_str(&format!(
                "\n=== seed {seed} fails {failure}\n{scenario}\nits last steps:\n{trace}\nseed {seed} fails {failure}\n\
                 alone: FREEWAY_SEEDS={seed} cargo test -p freeway --test simulation whatever\n",
                seed = scenario.seed,
            ));
        }
    }
}

#[test]
fn whatever_the_seed_nothing_is_overrun_lost_or_cut_in_silence() {
    let (seeds, usual) = seeds();
    let (seeds, sum) = (Mutex::new(seeds), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.lock().unwrap().pop_front() else { return };
                    let (scenario, report) = play(seed);
                    sum.lock().unwrap().add(&scenario, &report);
                }
            });
        }
    });
    let Sum { seeds, steps, requests, reached, mut failed, shown } = sum.into_inner().unwrap();
    failed.sort_unstable();
    println!("{seeds} seeds, {requests} requests, {steps} steps; seeds that reached each rare thing:\n{reached}");
    assert!(failed.is_empty(), "{} of {seeds} seeds fail: {failed:?}\n{shown}", failed.len());
    assert!(!usual || reached.missing().is_empty(), "never reached: {:?}", reached.missing());
}

#[test]
fn the_same_seed_takes_the_same_steps() {
    for seed in 0..20 {
        let ((_, first), (_, second)) = (play(seed), play(seed));
        assert_eq!(first.trace.hash(), second.trace.hash(), "seed {seed}:\n{}\n{}", first.trace, second.trace);
    }
    assert_ne!(play(0).1.trace.hash(), play(1).1.trace.hash());
}
