//! What admission costs: holding all four limits of an attempt within bounds that outlive a loss of power, hearing that
//! it was written and received, and settling it. Without a ledger.
//!
//!     cargo run --release -p freeway-quota --example admission
//!
//! Prints nanoseconds for one attempt, on one thread: in the fastest, the middle and the slowest of eleven rounds.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement talks to its terminal")]

use std::time::Duration;

use freeway_catalog::Limit;
use freeway_quota::{Actual, Book, Bound, Demand, LimitSpec};
use freeway_types::{LimitIndex, Monotonic, Now, Timestamp, Usage};

/// So large that none binds, and of enough kinds that each costs what its kind costs.
const LIMITS: [&str; 4] = [
    "metric = \"requests\"\nwindow = \"minute\"\namount = 10000000",
    "metric = \"requests\"\nwindow = \"day\"\namount = 1000000000\nreset = \"calendar\"",
    "metric = \"tokens\"\nwindow = \"minute\"\namount = 100000000000\nreset = \"bucket\"",
    "metric = \"tokens\"\nwindow = \"day\"\namount = 10000000000000",
];
const TARGETS: usize = 10;
const ROUNDS: usize = 11;
const REQUESTS: u64 = 200_000;

fn main() {
    let spec = |target: usize, toml: &str| {
        let limit: Limit = toml::from_str(toml).unwrap();
        LimitSpec::read(&format!("lab/model-{target}"), &limit).unwrap()
    };
    let specs = (0..TARGETS).flat_map(|target| LIMITS.map(|toml| spec(target, toml))).collect();
    let mut now =
        Now { wall: Timestamp::from_secs(1_792_569_600), monotonic: Monotonic::from_micros(40 * 86_400_000_000) };
    let mut book = Book::default();
    book.keep_bounds(Vec::new());
    let places: Vec<LimitIndex> = book.adopt(specs, now);
    let target = book.enlist("lab/model-0", "lab", &places[..LIMITS.len()]);
    let demand = Demand { input: Bound::exactly(250), output: Bound::exactly(256), ..Demand::default() };
    let usage = Usage { input: 250, output: 40, ..Usage::default() };

    let mut rounds: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            #[expect(clippy::disallowed_methods, reason = "this is a stopwatch")]
            let begun = std::time::Instant::now();
            for _ in 0..REQUESTS {
                now = now.after(Duration::from_micros(100));
                book.look_ahead(now);
                let reservation = loop {
                    match book.reserve_at(now, target, &demand) {
                        Ok(reservation) => break reservation,
                        // What the writer of the ledger does beside requests.
                        Err(_) => secure(&mut book),
                    }
                };
                secure(&mut book);
                book.written(reservation, now);
                book.received(reservation, now);
                book.settle(reservation, now, &Actual { usage: Some(usage), answered: true, ..Actual::default() });
            }
            begun.elapsed().as_nanos() / u128::from(REQUESTS)
        })
        .collect();
    rounds.sort_unstable();
    println!("{} … {} … {} ns", rounds[0], rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
}

fn secure(book: &mut Book) {
    let wanted = book.take_wanted();
    book.secured(&wanted);
}
