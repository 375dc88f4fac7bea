//! What could have been served at the very most by somebody who knew everything ahead.
//!
//! A linear program of its own: requests by kind, size, patience and the block of time they come in, limits by what they
//! allow in a run of blocks, fractions of requests allowed. It is a bound on what whole requests at their instants can
//! reach, apart from one thing: requests of about one size count as of their mean.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_price::{Class, Forecast, Group, Precision};
use freeway_router::market_at_most;
use freeway_types::{Monotonic, Timestamp};

use crate::Scenario;
use crate::ahead::of_workload;
use crate::scene::Scene;

/// Most variables of the program.
const MOST_VARIABLES: usize = 60_000;
/// Lengths of blocks to choose from, in hours: the shortest that the program has room for.
const BLOCKS: [u64; 6] = [1, 2, 3, 6, 12, 24];
/// Most groups for each patience.
const MOST_GROUPS: usize = 24;
/// Most blocks that anybody waits for.
const MOST_PATIENCE: usize = 48;
const HOUR: u64 = 3_600;
/// Blocks that end so near to where a window does end with it.
const BESIDE: Duration = Duration::from_secs(1_200);

/// The value that could have been served at the very most. `None` where the program has no solution.
#[must_use]
pub fn bound(scenario: Scenario<'_>) -> Option<f64> {
    let arrivals = &scenario.workload.arrivals;
    let last = arrivals.iter().map(|arrival| arrival.deadline).max().unwrap_or_default();
    let hours = last.since(Monotonic::default()).as_secs() / HOUR + 1;
    let now = scenario.now(Monotonic::default());
    let mut scene = Scene::new(scenario);
    let resets = resets(&scene, hours);
    for block in BLOCKS {
        let ends = ends(scenario.start, hours, block, &resets);
        let mut by_patience: BTreeMap<Vec<usize>, Forecast> = BTreeMap::new();
        let mut known: BTreeMap<Duration, Vec<usize>> = BTreeMap::new();
        for arrival in arrivals {
            let wait = arrival.deadline.since(arrival.arrives);
            let patience = known.entry(wait).or_insert_with(|| patience(wait, scenario.start, &ends));
            if !by_patience.contains_key(patience) {
                by_patience.insert(patience.clone(), Forecast::unforgetting());
            }
            let Some(forecast) = by_patience.get_mut(patience) else { continue };
            let at = scenario.now(arrival.arrives).wall;
            forecast.observe(
                at,
                &of_workload(scenario.workload, scenario.snapshot, arrival),
                arrival.size.input,
                arrival.size.output,
            );
        }
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
                patiences.push(patience.clone());
            }
        }
        let Scene { book, targets, .. } = &mut scene;
        let mut market = market_at_most(scenario.snapshot, book, targets, now, &ends, &groups);
        for (class, patience) in market.classes.iter_mut().zip(patiences) {
            class.patience = patience;
        }
        let variables = |class: &Class| {
            let places: usize = class.patience.iter().map(|patience| patience + 1).sum();
            class.offers.len() * places
        };
        let variables: usize = market.classes.iter().map(variables).sum();
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

/// For how many blocks beyond its own a request waits that comes in each block: as many as the latest of it can reach.
fn patience(wait: Duration, start: Timestamp, ends: &[Timestamp]) -> Vec<usize> {
    let starts = || std::iter::once(&start).chain(ends);
    let reached = |(block, end): (usize, &Timestamp)| {
        let begun = starts().take(ends.len()).take_while(|start| **start < end.after(wait)).count();
        (begun - block - 1).min(MOST_PATIENCE)
    };
    ends.iter().enumerate().map(reached).collect()
}

/// Where windows of days and more end.
fn resets(scene: &Scene<'_>, hours: u64) -> Vec<Timestamp> {
    let (start, until) = (scene.scenario.start, scene.scenario.start.after(Duration::from_secs(hours * HOUR)));
    let limits = scene.targets.iter().flat_map(|target| scene.book.limits_of(*target));
    let mut resets: Vec<Timestamp> = limits.flat_map(|limit| scene.book.resets(*limit, start, until)).collect();
    resets.sort_unstable();
    resets.dedup();
    resets
}

/// Blocks that end at full hours, and where windows do: what is left of a window must not be there for the rest of a block
/// that outlasts it.
fn ends(start: Timestamp, hours: u64, block: u64, resets: &[Timestamp]) -> Vec<Timestamp> {
    let into_the_hour = Duration::from_secs(start.as_secs().unsigned_abs() % HOUR);
    let first = start.before(into_the_hour);
    let end = |number: u64| first.after(Duration::from_secs(number * block * HOUR));
    let apart = |one: Timestamp, other: Timestamp| one.since(other).max(other.since(one));
    let is_apart = |end: &Timestamp| resets.iter().all(|reset| apart(*end, *reset) >= BESIDE);
    let mut ends: Vec<Timestamp> =
        (1..=hours / block + 2).map(end).filter(is_apart).chain(resets.iter().copied()).collect();
    ends.sort_unstable();
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_secs(1_800_000_000 / 86_400 * 86_400 + hours * 3_600)
    }

    #[test]
    fn blocks_end_where_windows_do_and_others_near_to_that_do_not() {
        let hours = |block: u64, resets: &[Timestamp]| -> Vec<i64> {
            ends(at(0), 12, block, resets).iter().map(|end| (end.as_secs() - at(0).as_secs()) / 60).collect()
        };
        assert_eq!(hours(6, &[]), [360, 720, 1_080, 1_440]);
        let early = at(0).after(Duration::from_secs(3_900));
        let near = at(12).before(Duration::from_secs(600));
        assert_eq!(hours(6, &[early, near]), [65, 360, 710, 1_080, 1_440]);
    }

    #[test]
    fn who_waits_reaches_the_blocks_that_begin_in_that_time_and_no_more() {
        // Blocks of one, two, one and six hours.
        let ends = [at(1), at(3), at(4), at(10)];
        let blocks = |seconds: u64| patience(Duration::from_secs(seconds), at(0), &ends);
        assert_eq!(blocks(0), [0, 0, 0, 0]);
        assert_eq!(blocks(1), [1, 1, 1, 0]);
        assert_eq!(blocks(7_200), [1, 2, 1, 0]);
        assert_eq!(blocks(7_201), [2, 2, 1, 0]);
        assert_eq!(blocks(86_400), [3, 2, 1, 0]);
    }
}
