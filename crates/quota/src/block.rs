//! Blocks: what bounds the use that a loss of power can make forgotten.
//!
//! A ledger that is not flushed with every request loses its last rows with the
//! power. So a limit is used up to a bound that *is* flushed, ahead of need and a
//! block at a time. After a loss of power, what the bound allowed and the ledger
//! does not know counts as used: nothing is overrun, and of each limit two blocks go
//! unused at most, besides what was asked for by requests that then went elsewhere.
//!
//! A bound belongs to a window: to one by the calendar, to the life of a credit,
//! or, of counts that slide, to a *stretch* of about one window's length, because a
//! bound that never ended could not be compared with a ledger that forgets. Windows
//! of ten minutes or less need none: after a loss of power they are taken to be full.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_types::{Metric, Now, Timestamp};

use crate::COUNT_LAG;
use crate::counter::Counter;
use crate::entry::Entry;
use crate::spec::{LimitSpec, Rule};

/// Windows up to this length are taken to be full after a loss of power: ten minutes, and what drift adds to them.
const SHORT: Duration = Duration::from_secs(601);
/// How long after the end of its window a charge may still be counted: an answer's tokens count when it ends.
const LATEST: Duration = Duration::from_secs(3600);
/// The most requests in a block.
const MOST_REQUESTS: u64 = 256;
/// Bounds of one limit that are remembered. One that is forgotten too early is asked for again.
const MOST_REMEMBERED: usize = 8;
/// Stretches that are remembered: the present one, and the one before.
const STRETCHES: usize = 2;

/// A bound that outlives a loss of power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The limit's name.
    pub limit: String,
    /// Where its window or stretch begins.
    pub since: Timestamp,
    /// What may be used in all since then, in units, tokens or picodollars.
    pub most: u64,
}

/// Use that may have been, and that no ledger knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The limit's name.
    pub limit: String,
    /// In units, tokens or picodollars.
    pub units: u64,
    /// The earliest instant at which it was sent.
    pub from: Timestamp,
    /// The latest instant at which it was counted.
    pub to: Timestamp,
}

/// The bounds of one limit.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// What is flushed, by the beginning of the window or stretch.
    secured: BTreeMap<Timestamp, u64>,
    /// What is asked for and not flushed yet.
    asked: BTreeMap<Timestamp, u64>,
    /// What was counted in each stretch. Only for counts that slide.
    stretches: BTreeMap<Timestamp, u64>,
}

/// Whether a limit's use is bounded by blocks.
pub(crate) fn is_bounded(spec: &LimitSpec) -> bool {
    spec.metric != Metric::Concurrency && spec.length().is_none_or(|length| length > SHORT)
}

/// Units of one block: a hundredth of the limit.
fn size(spec: &LimitSpec, amount: u64) -> u64 {
    let most = if spec.metric == Metric::Requests { MOST_REQUESTS } else { u64::MAX };
    (amount / 100).clamp(1, most)
}

/// Whether a limit has no windows that begin at fixed instants.
fn slides(spec: &LimitSpec) -> bool {
    matches!(spec.rule, Rule::Rolling(_) | Rule::Bucket(_))
}

fn bound(bounds: &BTreeMap<Timestamp, u64>, since: Timestamp) -> u64 {
    bounds.get(&since).copied().unwrap_or(0)
}

impl Blocks {
    /// The bounds that an earlier process left. What slides was counted in their stretches.
    pub(crate) fn left(spec: &LimitSpec, secured: BTreeMap<Timestamp, u64>) -> Self {
        let stretches = secured.keys().filter(|_| slides(spec)).map(|since| (*since, 0)).collect();
        Self { secured, asked: BTreeMap::new(), stretches }
    }

    /// Books what was sent at an instant, while use is replayed.
    pub(crate) fn replayed(&mut self, amount: u64, dispatched: Timestamp) {
        if let Some((_, counted)) = self.stretches.range_mut(..=dispatched).next_back() {
            *counted = counted.saturating_add(amount);
        }
    }

    /// Books what is counted now: in the present stretch, and in one that may begin before this is known to be flushed.
    pub(crate) fn counted(&mut self, amount: u64) {
        let present = self.present();
        for (since, counted) in &mut self.stretches {
            if present.is_none_or(|present| *since >= present) {
                *counted = counted.saturating_add(amount);
            }
        }
    }

    /// The stretch that counts: the latest whose bound is flushed.
    fn present(&self) -> Option<Timestamp> {
        self.stretches.keys().rev().find(|since| self.secured.contains_key(since)).copied()
    }

    /// Notes that a bound is asked for.
    fn ask(&mut self, spec: &LimitSpec, since: Timestamp, most: u64) -> Block {
        self.asked.insert(since, most);
        if slides(spec) {
            self.stretches.entry(since).or_default();
        }
        Block { limit: spec.name.clone(), since, most }
    }

    fn secure(&mut self, since: Timestamp, most: u64) {
        let secured = self.secured.entry(since).or_default();
        *secured = (*secured).max(most);
        if self.asked.get(&since).is_some_and(|asked| asked <= secured) {
            self.asked.remove(&since);
        }
        while self.stretches.len() > STRETCHES {
            self.stretches.pop_first();
        }
        while self.secured.len() > MOST_REMEMBERED {
            self.secured.pop_first();
        }
    }
}

impl Entry {
    /// Whether `need` more units, which the limit has left, lie within what is flushed. If not, more is asked for.
    pub(crate) fn is_secured(&mut self, need: u64, now: Now, wanted: &mut Vec<Block>) -> bool {
        let Some(amount) = self.spec.amount else { return true };
        let mut is_secured = true;
        self.each_level(now, |_, blocks, since, level| {
            is_secured &= level.saturating_add(need) <= bound(&blocks.secured, since);
        });
        if is_secured {
            return true;
        }
        let (block, left) = (size(&self.spec, amount), self.left(amount, now).max(need));
        self.each_level(now, |spec, blocks, since, level| {
            // Whoever waits adds his own, so that one flush is enough for all; but no more than can be used anyway.
            let most = bound(&blocks.asked, since).max(level.saturating_add(block)).saturating_add(need);
            wanted.push(blocks.ask(spec, since, most.min(level.saturating_add(left))));
        });
        false
    }

    /// Asks for more where less than a quarter of a block is left, and for the next stretch where this one has lasted.
    pub(crate) fn top_up(&mut self, now: Now, wanted: &mut Vec<Block>) {
        let Some(amount) = self.spec.amount else { return };
        let (block, in_flight) = (size(&self.spec, amount), self.counter.in_flight());
        self.each_level(now, |spec, blocks, since, level| {
            let known = bound(&blocks.secured, since).max(bound(&blocks.asked, since));
            if known.saturating_sub(level).saturating_mul(4) < block {
                wanted.push(blocks.ask(spec, since, level.saturating_add(block)));
            }
            let has_lasted = slides(spec) && spec.length().is_some_and(|length| now.wall.since(since) > length);
            if has_lasted && blocks.secured.contains_key(&since) && blocks.stretches.range(since..).count() == 1 {
                wanted.push(blocks.ask(spec, now.wall, in_flight.saturating_add(block)));
            }
        });
    }

    /// Takes in that a bound was flushed.
    pub(crate) fn secure(&mut self, block: &Block) {
        if let Some(blocks) = &mut self.blocks {
            blocks.secure(block.since, block.most);
        }
    }

    /// Begins new bounds, for a count of another kind.
    pub(crate) fn forget_bounds(&mut self) {
        if self.blocks.is_some() {
            self.blocks = Some(Blocks::default());
        }
    }

    /// Visits each bound that a request sent now would come under, with what is used of it.
    fn each_level(&mut self, now: Now, mut visit: impl FnMut(&LimitSpec, &mut Blocks, Timestamp, u64)) {
        let Some(blocks) = &mut self.blocks else { return };
        let (spec, in_flight) = (&self.spec, self.counter.in_flight());
        match (&mut self.counter, &spec.rule) {
            (Counter::Calendar(calendar), Rule::Calendar(civil, zone)) => {
                for (since, level) in calendar.levels(now, *civil, zone) {
                    visit(spec, blocks, since, level);
                }
            }
            (Counter::Purse(purse), _) => visit(spec, blocks, Timestamp::default(), purse.used()),
            _ => {
                // The first stretch of all is asked for once, however many wait for it.
                let since = blocks.present().or_else(|| blocks.stretches.keys().next_back().copied());
                let since = since.unwrap_or(now.wall);
                let counted = bound(&blocks.stretches, since);
                visit(spec, blocks, since, counted.saturating_add(in_flight));
            }
        }
    }

    /// What this limit lost with the power of a machine that came back at `back`: to be asked once, when all that the
    /// ledger knows is replayed. Its bounds begin anew.
    pub(crate) fn lost(&mut self, back: Timestamp, now: Now) -> Vec<Lost> {
        let Some(amount) = self.spec.amount else { return Vec::new() };
        let lost = |units, from, to| Lost { limit: self.spec.name.clone(), units, from, to };
        let Some(blocks) = self.blocks.take() else {
            let length = self.spec.length().unwrap_or(COUNT_LAG);
            let is_over = now.wall.since(back) > length.saturating_add(COUNT_LAG);
            return if is_over { Vec::new() } else { vec![lost(amount, back, back)] };
        };
        let unknown = |(since, most): (&Timestamp, &u64)| {
            let (known, to) = match (&self.counter, &self.spec.rule) {
                (Counter::Calendar(calendar), Rule::Calendar(civil, zone)) => {
                    let end = crate::civil::window(*since, *civil, zone).1;
                    (calendar.units(*since), back.min(end.after(LATEST)))
                }
                (Counter::Purse(purse), _) => (purse.used(), back),
                _ => (blocks.stretches.get(since).copied().unwrap_or(0), back),
            };
            let units = most.saturating_sub(known);
            (units > 0).then(|| lost(units, *since, to.max(*since)))
        };
        // Of what slides, older stretches are over.
        let kept = if blocks.stretches.is_empty() { usize::MAX } else { STRETCHES };
        let found = blocks.secured.iter().rev().take(kept).filter_map(unknown).collect();
        self.blocks = Some(Blocks::default());
        found
    }
}
