//! The table of prices: what requests are compared with.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use freeway_price::{Cell, Solution};
use freeway_quota::{Book, Demand, Target};
use freeway_types::{DeploymentIndex, LimitIndex, Now, Timestamp};

use super::score::float;

/// Who is not worth the price now is asked about again after this.
const AGAIN: Duration = Duration::from_secs(60);
/// Clocks go by whole microseconds: an instant is taken so much later, to be surely past what was reckoned.
const MOMENT: Duration = Duration::from_millis(1);

/// The prices in force, and what they are read with.
#[derive(Clone, Copy, Debug)]
pub struct Pricing<'a> {
    tariff: &'a Tariff,
    book: &'a Book,
    targets: &'a [Target],
    now: Now,
    /// The block that the instant is in.
    block: usize,
}

/// What an attempt takes of one limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Toll {
    /// The limit.
    pub limit: LimitIndex,
    /// How many of its units.
    pub amount: u64,
    /// The price of one, in the unit of values.
    pub price: f64,
}

/// What one more unit of each limit is worth in times to come, and how many of each group are served by the solution that
/// says so.
#[derive(Debug, Default)]
pub struct Tariff {
    /// When the first block begins, and where each ends.
    begins: Timestamp,
    ends: Vec<Timestamp>,
    /// By limit, then by block.
    prices: Vec<Vec<f64>>,
    /// Whether anything is kept for anybody: whether of the expected requests some are worth more than others.
    keeps: bool,
    /// The group of each cell; of those that are worth most, none: they are not made to wait for one another.
    groups: BTreeMap<Cell, usize>,
    /// By group, then by block: how many are served.
    served: Vec<Vec<f64>>,
    /// How many of each group were served so far.
    taken: Vec<AtomicU32>,
}

impl Tariff {
    pub(super) fn new(
        begins: Timestamp,
        ends: Vec<Timestamp>,
        keeps: bool,
        groups: BTreeMap<Cell, usize>,
        solution: Solution,
    ) -> Self {
        let taken = solution.served.iter().map(|_| AtomicU32::default()).collect();
        Self { begins, ends, prices: solution.prices, keeps, groups, served: solution.served, taken }
    }

    /// The price of a limit's unit, in the unit of values. After the last block, that of the last.
    #[must_use]
    pub fn price(&self, limit: LimitIndex, now: Timestamp) -> f64 {
        self.price_in(limit, self.block(now))
    }

    fn price_in(&self, limit: LimitIndex, block: usize) -> f64 {
        let of_limit = self.prices.get(limit.get());
        of_limit.and_then(|prices| prices.get(block).or(prices.last())).copied().unwrap_or(0.0)
    }

    /// Of how many limits a unit is worth anything.
    #[must_use]
    pub fn scarce(&self, now: Timestamp) -> usize {
        (0..self.prices.len()).filter(|limit| self.price(LimitIndex::new(*limit), now) > 0.0).count()
    }

    /// When fewer requests like this one will have been served than the solution serves by then: in the block of `now`, or at its
    /// end. Of what it knows nothing of, and of what is worth most, any number is served, so that this is always so.
    #[must_use]
    pub fn room_at(&self, cell: &Cell, now: Timestamp) -> Timestamp {
        let Some(group) = self.groups.get(cell) else { return now };
        let block = self.block(now);
        let Some(of_block) = self.served[*group].get(block) else { return now };
        let (begins, end) = (if block == 0 { self.begins } else { self.ends[block - 1] }, self.ends[block]);
        let length = end.since(begins).as_secs_f64().max(1.0);
        let part = (now.since(begins).as_secs_f64() / length).min(1.0);
        let before: f64 = self.served[*group][..block].iter().sum();
        // The first one is due in the middle of its time.
        let ahead = f64::from(self.taken[*group].load(Ordering::Relaxed)) - 0.5 - before;
        if ahead < of_block * part {
            return now;
        }
        // Later by a moment, so that it is less then.
        let later =
            Duration::try_from_secs_f64(length * ahead / of_block).unwrap_or(Duration::MAX).saturating_add(MOMENT);
        begins.after(later.min(end.since(begins))).max(now.after(MOMENT))
    }

    /// A request was served.
    pub fn take(&self, cell: &Cell) {
        if let Some(group) = self.groups.get(cell) {
            self.taken[*group].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One that was to be served is not. Prices may have been worked out anew since.
    pub fn give_back(&self, cell: &Cell) {
        if let Some(group) = self.groups.get(cell) {
            let less = |taken: u32| taken.checked_sub(1);
            let _ = self.taken[*group].fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    fn block(&self, now: Timestamp) -> usize {
        self.ends.partition_point(|end| *end <= now)
    }
}

impl Clone for Tariff {
    fn clone(&self) -> Self {
        let Self { begins, ends, prices, keeps, groups, served, taken } = self;
        let taken = taken.iter().map(|taken| AtomicU32::new(taken.load(Ordering::Relaxed))).collect();
        let (ends, prices, groups, served) = (ends.clone(), prices.clone(), groups.clone(), served.clone());
        Self { begins: *begins, ends, prices, keeps: *keeps, groups, served, taken }
    }
}

// === impl Pricing ===

impl<'a> Pricing<'a> {
    /// The prices of a table at an instant. `book` is where limits are counted, `targets` are the deployments in it.
    #[must_use]
    pub fn new(tariff: &'a Tariff, book: &'a Book, targets: &'a [Target], now: Now) -> Self {
        Self { tariff, book, targets, now, block: tariff.block(now.wall) }
    }

    /// Whether anything is kept for anybody.
    pub(super) fn keeps(&self) -> bool {
        self.tariff.keeps
    }

    /// How long it takes until a request like this one is to be served although it gains next to nothing; zero if it is now.
    pub(super) fn until_room(&self, cell: &Cell) -> Duration {
        self.tariff.room_at(cell, self.now.wall).since(self.now.wall)
    }

    /// The name of a limit.
    #[must_use]
    pub fn name(&self, limit: LimitIndex) -> &'a str {
        &self.book.spec(limit).name
    }

    /// What an attempt costs, in the unit of values.
    #[must_use]
    pub fn toll(&self, deployment: DeploymentIndex, demand: &Demand) -> f64 {
        self.tolls(deployment, demand).map(|toll| toll.price * float(toll.amount)).sum()
    }

    /// The same, limit by limit; those that cost nothing are left out.
    pub fn tolls(&self, deployment: DeploymentIndex, demand: &Demand) -> impl Iterator<Item = Toll> {
        let limits = self.book.limits_of(self.targets[deployment.get()]).iter();
        limits.filter_map(|limit| match self.tariff.price_in(*limit, self.block) {
            0.0 => None,
            price => Some(Toll { limit: *limit, amount: demand.amount(self.book.spec(*limit)), price }),
        })
    }

    /// When somebody who is not worth the price may ask again; sooner if it is only that there is no room for so long.
    #[must_use]
    pub(super) fn again(&self, until_room: Option<Duration>) -> Now {
        self.now.after(until_room.map_or(AGAIN, |wait| wait.min(AGAIN)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use freeway_price::Kind;
    use freeway_types::{DataClass, FeatureSet, Quality};

    use super::*;

    #[test]
    fn a_price_holds_for_its_block_and_the_last_one_for_ever() {
        let at = |hours: u64| Timestamp::from_secs(1_000_000_000).after(Duration::from_secs(hours * 3_600));
        let kind = Kind {
            tier: "batch".into(),
            min_quality: Quality::LOWEST,
            data: DataClass::Public,
            model: "auto".into(),
            features: FeatureSet::default(),
        };
        let solution = Solution { value: 1.0, prices: vec![vec![0.5, 0.25], Vec::new()], served: vec![vec![4.0, 2.0]] };
        let groups = BTreeMap::from([((kind.clone(), 10), 0)]);
        let tariff = Tariff::new(at(0), vec![at(1), at(3)], true, groups, solution);
        let of = |limit: usize, hours: u64| tariff.price(LimitIndex::new(limit), at(hours));
        assert_eq!([of(0, 0), of(0, 1), of(0, 2), of(0, 9)], [0.5, 0.25, 0.25, 0.25]);
        assert_eq!([of(1, 0), of(7, 0)], [0.0, 0.0]);
        // Four in the first hour, one each quarter of it; then one each hour.
        let half = at(0).after(Duration::from_secs(1_800));
        let mut served = 0;
        let has_room = |tariff: &Tariff, cell: &Cell, at: Timestamp| tariff.room_at(cell, at) == at;
        while has_room(&tariff, &(kind.clone(), 10), half) {
            tariff.take(&(kind.clone(), 10));
            served += 1;
        }
        assert_eq!(served, 3);
        let due = tariff.room_at(&(kind.clone(), 10), half);
        assert!(
            (2_250..2_251).contains(&due.since(at(0)).as_secs()),
            "the next one is due in the middle of its quarter"
        );
        assert!(has_room(&tariff, &(kind.clone(), 10), due) && has_room(&tariff, &(kind.clone(), 11), half));
        tariff.take(&(kind.clone(), 10));
        tariff.take(&(kind.clone(), 10));
        let full = tariff.room_at(&(kind.clone(), 10), at(1).before(Duration::from_secs(1)));
        assert_eq!(full, at(1), "more was served than is to be: nobody has room before the next block");
        let none = Solution { value: 0.0, prices: Vec::new(), served: vec![vec![0.0]] };
        let none = Tariff::new(at(0), vec![at(1)], true, BTreeMap::from([((kind.clone(), 10), 0)]), none);
        none.take(&(kind.clone(), 10));
        assert_eq!(none.room_at(&(kind.clone(), 10), half), at(1));
        assert!(!has_room(&tariff, &(kind.clone(), 10), at(1)) && has_room(&tariff, &(kind, 10), at(2)));
    }
}
