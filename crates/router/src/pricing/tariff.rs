//! The table of prices: what requests are compared with.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use freeway_price::{Cell, Solution};
use freeway_quota::{Book, Demand, Target};
use freeway_types::{LimitIndex, Timestamp};

use super::score::float;

/// What one more unit of each limit is worth in times to come, and how many of each group are served by the solution that
/// says so.
#[derive(Debug, Default)]
pub struct Tariff {
    /// When the first block begins, and where each ends.
    begins: Timestamp,
    ends: Vec<Timestamp>,
    /// By limit, then by block.
    prices: Vec<Vec<f64>>,
    /// The group of each cell.
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
        groups: BTreeMap<Cell, usize>,
        solution: Solution,
    ) -> Self {
        let taken = solution.served.iter().map(|_| AtomicU32::default()).collect();
        Self { begins, ends, prices: solution.prices, groups, served: solution.served, taken }
    }

    /// The price of a limit's unit, in the unit of values. After the last block, that of the last.
    #[must_use]
    pub fn price(&self, limit: LimitIndex, now: Timestamp) -> f64 {
        let of_limit = self.prices.get(limit.get());
        of_limit.and_then(|prices| prices.get(self.block(now)).or(prices.last())).copied().unwrap_or(0.0)
    }

    /// What an attempt costs at these prices.
    #[must_use]
    pub fn toll(&self, book: &Book, target: Target, demand: &Demand, now: Timestamp) -> f64 {
        let of = |limit: &LimitIndex| match self.price(*limit, now) {
            0.0 => 0.0,
            price => price * float(demand.amount(book.spec(*limit))),
        };
        book.limits_of(target).iter().map(of).sum()
    }

    /// Whether fewer requests like this one were served so far than the solution serves by now. Of what it knows nothing
    /// of, any number.
    #[must_use]
    pub fn has_room(&self, cell: &Cell, now: Timestamp) -> bool {
        let Some(group) = self.groups.get(cell) else { return true };
        let block = self.block(now);
        let Some(of_block) = self.served[*group].get(block) else { return true };
        let begins = if block == 0 { self.begins } else { self.ends[block - 1] };
        let length = self.ends[block].since(begins).as_secs_f64().max(1.0);
        let part = (now.since(begins).as_secs_f64() / length).min(1.0);
        let before: f64 = self.served[*group][..block].iter().sum();
        // The first one is due in the middle of its time.
        f64::from(self.taken[*group].load(Ordering::Relaxed)) < before + of_block * part + 0.5
    }

    /// A request was served.
    pub fn take(&self, cell: &Cell) {
        if let Some(group) = self.groups.get(cell) {
            self.taken[*group].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn block(&self, now: Timestamp) -> usize {
        self.ends.partition_point(|end| *end <= now)
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
            tier: 0,
            min_quality: Quality::LOWEST,
            data: DataClass::Public,
            model: "auto".into(),
            features: FeatureSet::default(),
        };
        let solution = Solution { value: 1.0, prices: vec![vec![0.5, 0.25], Vec::new()], served: vec![vec![4.0, 2.0]] };
        let groups = BTreeMap::from([((kind.clone(), 10), 0)]);
        let tariff = Tariff::new(at(0), vec![at(1), at(3)], groups, solution);
        let of = |limit: usize, hours: u64| tariff.price(LimitIndex::new(limit), at(hours));
        assert_eq!([of(0, 0), of(0, 1), of(0, 2), of(0, 9)], [0.5, 0.25, 0.25, 0.25]);
        assert_eq!([of(1, 0), of(7, 0)], [0.0, 0.0]);
        // Four in the first hour, one each quarter of it; then one each hour.
        let half = at(0).after(Duration::from_secs(1_800));
        let mut served = 0;
        while tariff.has_room(&(kind.clone(), 10), half) {
            tariff.take(&(kind.clone(), 10));
            served += 1;
        }
        assert_eq!(served, 3);
        assert!(tariff.has_room(&(kind.clone(), 10), at(1)) && tariff.has_room(&(kind.clone(), 11), half));
        tariff.take(&(kind.clone(), 10));
        tariff.take(&(kind.clone(), 10));
        assert!(!tariff.has_room(&(kind.clone(), 10), at(1)) && tariff.has_room(&(kind, 10), at(2)));
    }
}
