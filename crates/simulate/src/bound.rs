//! What could have been served at the very most by somebody who knew everything ahead.
//!
//! A linear program of its own: requests by kind, size, patience and the block of time they come in, limits by what they
//! allow in a run of blocks, fractions of requests allowed. It is a bound on what whole requests at their instants can
//! reach, apart from one thing: requests of about one size count as of their mean.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_price::{Forecast, Group, Precision};
use freeway_router::market_at_most;
use freeway_types::{Monotonic, Timestamp};

use crate::Scenario;
use crate::ahead::of_workload;
use crate::scene::Scene;

/// Most variables of the program.
const MOST_VARIABLES: usize = 20_000;
/// Lengths of blocks to choose from, in hours: the shortest that the program has room for.
const BLOCKS: [u64; 6] = [1, 2, 3, 6, 12, 24];
/// Most groups for each patience.
const MOST_GROUPS: usize = 24;
/// Most blocks that anybody waits for.
const MOST_PATIENCE: usize = 48;
const HOUR: u64 = 3_600;

/// The value that could have been served at the very most. `None` where the program has no solution.
#[must_use]
pub fn bound(scenario: Scenario<'_>) -> Option<f64> {
    let arrivals = &scenario.workload.arrivals;
    let last = arrivals.iter().map(|arrival| arrival.deadline).max().unwrap_or_default();
    let hours = last.since(Monotonic::default()).as_secs() / HOUR + 1;
    let now = scenario.now(Monotonic::default());
    for block in BLOCKS {
        let mut by_patience: BTreeMap<usize, Forecast> = BTreeMap::new();
        for arrival in arrivals {
            let wait = arrival.deadline.since(arrival.arrives);
            let forecast = by_patience.entry(patience(wait, block)).or_insert_with(Forecast::unforgetting);
            let at = scenario.now(arrival.arrives).wall;
            forecast.observe(
                at,
                &of_workload(scenario.workload, scenario.snapshot, arrival),
                arrival.size.input,
                arrival.size.output,
            );
        }
        let ends = ends(scenario.start, hours, block);
        let mut groups: Vec<(Group, Vec<f64>)> = Vec::new();
        let mut patiences = Vec::new();
        for (patience, forecast) in &by_patience {
            for group in forecast.groups(MOST_GROUPS) {
                let mut from = scenario.start;
                let mut counts = Vec::with_capacity(ends.len());
                for end in &ends {
                    counts.push(forecast.came(&group, from, *end));
                    from = *end;
                }
                groups.push((group, counts));
                patiences.push(*patience);
            }
        }
        let mut scene = Scene::new(scenario);
        let Scene { book, targets, .. } = &mut scene;
        let mut market = market_at_most(scenario.snapshot, book, targets, now, &ends, &groups);
        for (class, patience) in market.classes.iter_mut().zip(patiences) {
            class.patience = patience;
        }
        let variables: usize =
            market.classes.iter().map(|class| class.offers.len() * (class.patience + 1) * ends.len()).sum();
        if variables <= MOST_VARIABLES || block == BLOCKS[BLOCKS.len() - 1] {
            for class in &mut market.classes {
                // The value is bounded, whatever it costs.
                class.offers.iter_mut().for_each(|offer| offer.loss = 0.0);
            }
            return market.solve(Precision::Exact).ok().map(|solution| solution.value);
        }
    }
    None
}

/// Blocks for which a request waits beyond its own: as many as the latest of its block can reach.
fn patience(wait: Duration, block: u64) -> usize {
    usize::try_from(wait.as_secs().div_ceil(block * HOUR)).unwrap_or(usize::MAX).min(MOST_PATIENCE)
}

/// Blocks that end at full hours.
fn ends(start: Timestamp, hours: u64, block: u64) -> Vec<Timestamp> {
    let into_the_hour = Duration::from_secs(start.as_secs().unsigned_abs() % HOUR);
    let first = start.before(into_the_hour);
    let end = |number: u64| first.after(Duration::from_secs(number * block * HOUR));
    (1..=hours / block + 2).map(end).collect()
}
