//! Requests by what they have in common: few enough classes that prices are found in a second.

use std::collections::BTreeMap;
use std::sync::Arc;

use freeway_types::{DataClass, FeatureSet, Quality};

/// What decides where a request may go and what it is worth, besides its size.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The name of its tier.
    pub tier: Arc<str>,
    /// The least quality that will do.
    pub min_quality: Quality,
    /// Its data class.
    pub data: DataClass,
    /// The model it asks for.
    pub model: Arc<str>,
    /// Features it uses.
    pub features: FeatureSet,
}

/// Requests of one kind and of about one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What they have in common; of a group that was merged, the larger part.
    pub kind: Kind,
    /// Input tokens of one, on average.
    pub input: f64,
    /// Output tokens of one, on average.
    pub output: f64,
    /// How many there were.
    pub count: f64,
    /// The cells of the history that are in it.
    pub cells: Vec<Cell>,
}

/// Most groups of which each is compared with each.
const MOST_PAIRED: usize = 128;

/// A kind, and a [size](size).
pub type Cell = (Kind, u32);

/// The size of a request by powers of two.
#[must_use]
pub fn size(input: u64, output: u64) -> u32 {
    input.saturating_add(output).checked_ilog2().unwrap_or(0)
}

/// What a history knows of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// How many requests there were.
    pub count: f64,
    /// Their input tokens.
    pub input: f64,
    /// Their output tokens.
    pub output: f64,
}

/// Puts cells together until there are `most` at most: always the two by whose confusion least is lost.
#[must_use]
pub(crate) fn merged(cells: &BTreeMap<Cell, Sums>, most: usize) -> Vec<Group> {
    let group = |(cell, sums): (&Cell, &Sums)| Group {
        kind: cell.0.clone(),
        input: sums.input / sums.count,
        output: sums.output / sums.count,
        count: sums.count,
        cells: vec![cell.clone()],
    };
    let mut groups: Vec<Group> = cells.iter().filter(|(_, sums)| sums.count > 0.0).map(group).collect();
    if groups.len() > MOST_PAIRED {
        // Comparing each with each takes too long: the rare ones go to what is most like them among the others.
        groups.sort_by(|one, other| other.count.total_cmp(&one.count));
        for rare in groups.split_off(MOST_PAIRED) {
            let like = groups.iter_mut().min_by(|one, other| distance(one, &rare).total_cmp(&distance(other, &rare)));
            if let Some(like) = like {
                like.take_in(rare);
            }
        }
    }
    while groups.len() > most.max(1) {
        let pairs = (1..groups.len()).flat_map(|later| (0..later).map(move |earlier| (earlier, later)));
        let harm = |(one, other): &(usize, usize)| harm(&groups[*one], &groups[*other]);
        let Some((one, other)) = pairs.min_by(|pair, other| harm(pair).total_cmp(&harm(other))) else { break };
        let group = groups.remove(other);
        groups[one].take_in(group);
    }
    groups
}

/// What is lost by taking two groups for one: so many requests are taken for what they are not, and so unlike are they.
fn harm(one: &Group, other: &Group) -> f64 {
    one.count.min(other.count) * distance(one, other)
}

/// How unlike two groups are: first by kind, then by size.
fn distance(one: &Group, other: &Group) -> f64 {
    let (kind, like) = (&one.kind, &other.kind);
    let mut distance = (one.tokens().max(1.0) / other.tokens().max(1.0)).log2().abs();
    distance += 6.0 * f64::from(kind.min_quality.get().abs_diff(like.min_quality.get()));
    let differs = [kind.features != like.features, kind.data != like.data, kind.model != like.model];
    distance += 30.0 * f64::from(u8::try_from(differs.iter().filter(|differs| **differs).count()).unwrap_or(0));
    // A tier is what a request is worth: to confuse two is the worst.
    if kind.tier == like.tier { distance } else { distance + 200.0 }
}

impl Group {
    fn tokens(&self) -> f64 {
        self.input + self.output
    }

    fn take_in(&mut self, other: Self) {
        let count = self.count + other.count;
        self.input = (self.input * self.count + other.input * other.count) / count;
        self.output = (self.output * self.count + other.output * other.count) / count;
        if other.count > self.count {
            self.kind = other.kind;
        }
        self.count = count;
        self.cells.extend(other.cells);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(tier: usize, quality: u8) -> Kind {
        let min_quality = Quality::try_from(quality).unwrap();
        Kind {
            tier: tier.to_string().into(),
            min_quality,
            data: DataClass::Public,
            model: "auto".into(),
            features: FeatureSet::default(),
        }
    }

    fn sums(count: f64, input: f64) -> Sums {
        Sums { count, input: count * input, output: count * 100.0 }
    }

    #[test]
    fn the_smallest_goes_to_its_like() {
        let cells = BTreeMap::from([
            ((kind(0, 1), 8), sums(10.0, 300.0)),
            ((kind(0, 1), 10), sums(100.0, 1_000.0)),
            ((kind(0, 1), 13), sums(90.0, 9_000.0)),
            ((kind(0, 2), 8), sums(50.0, 300.0)),
            ((kind(1, 1), 8), sums(50.0, 300.0)),
        ]);
        let groups = merged(&cells, 4);
        assert_eq!(groups.len(), 4);
        let grown = groups.iter().find(|group| group.cells.len() == 2).unwrap();
        assert_eq!((grown.count, grown.kind.clone()), (110.0, kind(0, 1)));
        assert!((grown.input - 103_000.0 / 110.0).abs() < 1e-6);
        assert_eq!(merged(&cells, 100).len(), 5);
        let one = merged(&cells, 1);
        assert_eq!((one.len(), one[0].count), (1, 300.0));
        assert_eq!(merged(&BTreeMap::new(), 5), []);
    }

    #[test]
    fn of_very_many_the_rare_ones_join_the_others_first() {
        let cell = |number: u32| {
            let model = format!("m{}", number % 300).as_str().into();
            let kind = Kind { model, ..kind(usize::from(number.is_multiple_of(2)), 1) };
            ((kind, 5 + number % 10), sums(f64::from(number + 1), 100.0))
        };
        let cells: BTreeMap<Cell, Sums> = (0..2_000).map(cell).collect();
        let groups = merged(&cells, 24);
        assert_eq!(groups.len(), 24);
        assert_eq!(groups.iter().map(|group| group.cells.len()).sum::<usize>(), cells.len());
        let all = |groups: &[Group]| groups.iter().map(|group| group.count).sum::<f64>();
        assert!((all(&groups) - cells.values().map(|sums| sums.count).sum::<f64>()).abs() < 1e-6);
        let is_pure = |group: &Group| group.cells.iter().all(|(kind, _)| kind.tier == group.cells[0].0.tier);
        assert!(groups.iter().all(is_pure), "no two tiers are taken for one");
    }

    #[test]
    fn tiers_are_the_last_to_be_mixed() {
        let cells = BTreeMap::from([
            ((kind(0, 1), 8), sums(1.0, 300.0)),
            ((kind(0, 5), 14), sums(100.0, 16_000.0)),
            ((kind(1, 1), 8), sums(100.0, 300.0)),
        ]);
        let groups = merged(&cells, 2);
        let tiers = |group: &Group| group.cells.iter().map(|(kind, _)| kind.tier.clone()).collect::<Vec<_>>();
        assert!(groups.iter().all(|group| tiers(group).windows(2).all(|pair| pair[0] == pair[1])));
    }
}
