//! Bounds that outlive a loss of power, of all limits together.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_types::{LimitIndex, Now, Timestamp};

use super::{Blocked, Book};
use crate::COUNT_LAG;
use crate::block::{Block, Blocks, Lost, is_bounded};
use crate::demand::Demand;
use crate::entry::Entry;
use crate::spec::Rule;

/// How long before a window begins its first block is asked for.
const AHEAD: Duration = Duration::from_secs(3);

/// What a book knows of bounds beside those of each limit.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// Whether use is bounded at all: whether there is a store that can outlive a loss of power.
    pub(super) are_kept: bool,
    /// Asked for since they were last taken.
    pub(super) wanted: Vec<Block>,
    /// What an earlier process left, by limit, until the limit is adopted.
    left: BTreeMap<String, BTreeMap<Timestamp, u64>>,
}

impl Bounds {
    pub(super) fn take_up(&mut self, entry: &mut Entry) {
        if self.are_kept && is_bounded(&entry.spec) {
            let left = self.left.remove(&entry.spec.name).unwrap_or_default();
            entry.blocks = Some(Blocks::left(&entry.spec, left));
        }
    }
}

impl Book {
    /// From now on, use is bounded by what is [secured](Self::secured), to begin with by what an earlier process left.
    /// To be called before limits are adopted.
    pub fn keep_bounds(&mut self, left: Vec<Block>) {
        self.bounds.are_kept = true;
        for Block { limit, since, most } in left {
            self.bounds.left.entry(limit).or_default().insert(since, most);
        }
    }

    /// The bounds that were asked for since the last call. They hold once they are [secured](Self::secured).
    pub fn take_wanted(&mut self) -> Vec<Block> {
        std::mem::take(&mut self.bounds.wanted)
    }

    /// These bounds outlive a loss of power now.
    pub fn secured(&mut self, blocks: &[Block]) {
        for block in blocks {
            if let Some(entry) = self.limits.iter_mut().find(|entry| entry.spec.name == block.limit) {
                entry.secure(block);
            }
        }
    }

    /// Asks for what the next requests will need: the first block of each window that has begun or is about to.
    pub fn look_ahead(&mut self, now: Now) {
        self.pass_receipts(now);
        for entry in self.limits.iter_mut().filter(|entry| entry.blocks.is_some()) {
            entry.top_up(now, &mut self.bounds.wanted);
            if matches!(entry.spec.rule, Rule::Calendar(..)) {
                entry.top_up(now.after(AHEAD), &mut self.bounds.wanted);
            }
        }
    }

    /// After a loss of power, when all that the ledger knows is [replayed](Self::replay): counts as used what may have
    /// been used beyond that, and says what that is. `back` is when the machine came back.
    pub fn lose_power(&mut self, back: Timestamp, now: Now) -> Vec<Lost> {
        // What was on its way when the power went may have been counted a little later.
        let back = back.after(COUNT_LAG);
        let mut all = Vec::new();
        for place in 0..self.limits.len() {
            let lost = self.limits[place].lost(back, now);
            for lost in &lost {
                self.replay(LimitIndex::new(place), lost.units, lost.from, lost.to, now);
            }
            all.extend(lost);
        }
        all
    }

    /// Counts what an earlier process found lost, as far as the limit is still there.
    pub fn replay_lost(&mut self, lost: &Lost, now: Now) {
        if let Some(place) = self.limits.iter().position(|entry| entry.spec.name == lost.limit) {
            self.replay(LimitIndex::new(place), lost.units, lost.from, lost.to, now);
        }
    }

    /// Whether an attempt lies within all bounds.
    pub(super) fn secure_ahead(&mut self, now: Now, limits: &[LimitIndex], demand: &Demand) -> Result<(), Blocked> {
        let mut missing = None;
        for limit in limits {
            let entry = &mut self.limits[limit.get()];
            let need = demand.amount(&entry.spec);
            if !entry.is_secured(need, now, &mut self.bounds.wanted) {
                missing = Some(*limit);
            }
        }
        match missing {
            Some(limit) => Err(Blocked { limit, until: Some(now), too_large: false, unsecured: true }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
