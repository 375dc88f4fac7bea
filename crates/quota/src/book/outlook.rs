//! What may be spent of a limit in times to come: what a forecast of prices is made from.
//!
//! Time ahead is cut into blocks. Of a limit, each allowance says how much may be spent in a run of blocks together. They
//! are as exact as blocks allow: what a limit that slides gives back within a block is given to the block that has most
//! of it. Nothing is sent by them; whether an attempt fits is for [`Book::fit`] alone to say.

use std::ops::Range;
use std::time::Duration;

use freeway_types::{LimitIndex, Now, Timestamp};

use super::Book;
use crate::calendar::Calendar;
use crate::civil::window;
use crate::counter::Counter;
use crate::rolling::Rolling;
use crate::spec::{Civil, Grant, LimitSpec, Rule, with_drift};

/// Windows at least so many times shorter than a block are taken to flow.
const SHORT: u32 = 2;

/// What may be spent of a limit in a run of blocks, all together.
#[derive(Clone, Debug, PartialEq)]
pub struct Allowance {
    /// The blocks.
    pub blocks: Range<usize>,
    /// Units, tokens or picodollars.
    pub units: f64,
}

/// The blocks that the time from some instant on is cut into.
struct Blocks<'a> {
    now: Timestamp,
    ends: &'a [Timestamp],
    /// How much of windows is used that are shorter than blocks.
    share: f64,
}

impl Blocks<'_> {
    fn start(&self, block: usize) -> Timestamp {
        if block == 0 { self.now } else { self.ends[block - 1] }
    }

    fn length(&self, block: usize) -> Duration {
        self.ends[block].since(self.start(block))
    }

    /// The block at whose beginning an instant is nearest: a run that begins there begins with it.
    fn nearest(&self, instant: Timestamp) -> usize {
        let after = self.ends.iter().take_while(|end| **end <= instant).count();
        match after < self.ends.len() && instant.since(self.start(after)) * 2 > self.length(after) {
            true => after + 1,
            false => after,
        }
    }
}

impl Book {
    /// What may be spent of a limit from `now` on, in blocks that end at `ends`, in their order; the first begins now.
    /// Nothing is said of what is not known to be bounded: an unknown size, and places that come back with their
    /// requests. `share` is how much is used of windows that are shorter than blocks, from 0 to 1: requests come by
    /// chance, and what a minute does not use is lost.
    #[must_use]
    pub fn outlook(&mut self, limit: LimitIndex, now: Now, ends: &[Timestamp], share: f64) -> Vec<Allowance> {
        self.pass_receipts(now);
        let entry = &mut self.limits[limit.get()];
        entry.refresh(now);
        let Some(amount) = entry.spec.amount else { return Vec::new() };
        entry.counter.advance(&entry.spec, now);
        let left = entry.left(amount, now);
        let blocks = Blocks { now: now.wall, ends, share };
        match (&entry.counter, &entry.spec.rule) {
            (Counter::Rolling(log), Rule::Rolling(length)) => sliding(&blocks, &entry.spec, log, amount, *length, now),
            (Counter::Bucket(_), Rule::Bucket(length)) => refilling(&blocks, amount, left, *length),
            (Counter::Calendar(calendar), Rule::Calendar(civil, zone)) => {
                if let Civil::Multiple(length) = civil
                    && let Some(flow) = flowing(&blocks, amount, *length)
                {
                    return flow;
                }
                civil_windows(&blocks, calendar, amount, left, |at| window(at, *civil, zone))
            }
            (Counter::Purse(purse), Rule::Never(grants)) => {
                let left_of = |place: usize| purse.left_of(grants, place, now.wall);
                credits(&blocks, grants, left_of)
            }
            _ => Vec::new(),
        }
    }
}

impl Book {
    /// The instants after `now`, up to `until`, at which windows of a limit end that go by the calendar, and shorter ones
    /// than a day not among them.
    #[must_use]
    pub fn resets(&self, limit: LimitIndex, now: Timestamp, until: Timestamp) -> Vec<Timestamp> {
        let Rule::Calendar(civil @ (Civil::Day | Civil::Week | Civil::Month), zone) =
            &self.limits[limit.get()].spec.rule
        else {
            return Vec::new();
        };
        let next = |at: &Timestamp| Some(window(*at, *civil, zone).1).filter(|end| end > at && *end <= until);
        std::iter::successors(next(&now), next).collect()
    }
}

/// Units by count: amounts are far below what a float holds exactly.
#[expect(clippy::cast_precision_loss, reason = "a share of a limit, not a count")]
fn units(amount: u64) -> f64 {
    amount as f64
}

/// Windows so short that each block has its part of them, if they are.
fn flowing(blocks: &Blocks<'_>, amount: u64, length: Duration) -> Option<Vec<Allowance>> {
    let shortest = (1..blocks.ends.len()).map(|block| blocks.length(block)).min().unwrap_or(Duration::MAX);
    if length * SHORT > shortest {
        return None;
    }
    let of = |block: usize| {
        let windows = blocks.length(block).as_secs_f64() / length.as_secs_f64().max(1e-6);
        Allowance { blocks: block..block + 1, units: units(amount) * windows * blocks.share }
    };
    Some((0..blocks.ends.len()).map(of).collect())
}

fn sliding(
    blocks: &Blocks<'_>,
    spec: &LimitSpec,
    log: &Rolling,
    amount: u64,
    length: Duration,
    now: Now,
) -> Vec<Allowance> {
    if let Some(flow) = flowing(blocks, amount, length) {
        return flow;
    }
    let length = if spec.undeclared { length } else { with_drift(length) };
    let until = |end: Timestamp| {
        // What was counted before and has not come back by then.
        let instant = now.monotonic.after(end.since(now.wall));
        let held: u64 = log.returns().filter(|(returns, _)| *returns > instant).map(|(_, counted)| counted).sum();
        amount.saturating_sub(held.saturating_add(log.in_flight))
    };
    let run = |block: usize| {
        let end = blocks.ends[block];
        let first = blocks.nearest(end.before(length).max(blocks.now)).min(block);
        // In a block that is longer than the window, it comes back within the block.
        let more = blocks.length(block).saturating_sub(length).as_secs_f64() / length.as_secs_f64().max(1e-6);
        Allowance { blocks: first..block + 1, units: units(until(end)) + units(amount) * more }
    };
    (0..blocks.ends.len()).map(run).collect()
}

fn refilling(blocks: &Blocks<'_>, amount: u64, left: u64, length: Duration) -> Vec<Allowance> {
    if let Some(flow) = flowing(blocks, amount, length) {
        return flow;
    }
    let refilled =
        |from: Timestamp, to: Timestamp| units(amount) * to.since(from).as_secs_f64() / length.as_secs_f64().max(1e-6);
    let count = blocks.ends.len();
    // From what is there now, and in no block more than a full store and what it gets meanwhile.
    let so_far = |block: usize| Allowance {
        blocks: 0..block + 1,
        units: units(left) + refilled(blocks.now, blocks.ends[block]),
    };
    let alone = |block: usize| Allowance {
        blocks: block..block + 1,
        units: units(amount) + refilled(blocks.start(block), blocks.ends[block]),
    };
    (0..count).map(so_far).chain((1..count).map(alone)).collect()
}

fn civil_windows(
    blocks: &Blocks<'_>,
    calendar: &Calendar,
    amount: u64,
    left: u64,
    window: impl Fn(Timestamp) -> (Timestamp, Timestamp),
) -> Vec<Allowance> {
    let mut allowances = Vec::new();
    let (mut first, mut at) = (0, blocks.now);
    // Of windows that end within one block, all go to that block.
    let mut units = 0.0;
    while first < blocks.ends.len() {
        let (start, end) = window(at);
        // The present window has what is left of it; later ones have all, less what they were charged already.
        let whole = if start <= blocks.now { left } else { amount.saturating_sub(calendar.units(start)) };
        units += self::units(whole);
        let next = blocks.nearest(end).clamp(first, blocks.ends.len());
        if next > first {
            allowances.push(Allowance { blocks: first..next, units });
            units = 0.0;
        }
        first = next;
        if end <= at {
            break;
        }
        at = end;
    }
    allowances
}

fn credits(blocks: &Blocks<'_>, grants: &[Grant], left_of: impl Fn(usize) -> u64) -> Vec<Allowance> {
    let count = blocks.ends.len();
    let lapse = |grant: &Grant| grant.expires.map_or(count, |expires| blocks.nearest(expires));
    let mut lapses: Vec<usize> = grants.iter().map(lapse).collect();
    lapses.push(0);
    lapses.sort_unstable();
    lapses.dedup();
    // From each instant on at which something lapses, only what lapses later can be spent.
    let from = |first: usize| {
        let alive = (0..grants.len()).filter(|place| lapse(&grants[*place]) > first).map(&left_of);
        Allowance { blocks: first..count, units: units(alive.fold(0, u64::saturating_add)) }
    };
    lapses.into_iter().filter(|first| *first < count).map(from).collect()
}

#[cfg(test)]
mod tests;
