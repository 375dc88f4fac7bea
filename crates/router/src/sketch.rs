//! A distribution kept in little room: how often each value was seen, values taken together that lie close.
//!
//! Values of less than 64 are kept exactly. Above, each power of two is cut into 32 equal parts, so that the upper end
//! of a part, which is what a quantile gives, is less than a thirty-second (3.2 %) above every value in it, and never
//! below. Parts that hold nothing take no room. All of it is whole numbers: the same values give the same sketch on
//! every machine, in any order.

use serde::{Deserialize, Serialize};

/// Parts of a power of two, as a power of two.
const PRECISION: u32 = 5;

/// Counts of values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Sketch {
    /// Parts with what they hold, in the order of their values.
    parts: Vec<(u16, u32)>,
}

impl Sketch {
    /// Counts a value.
    pub(crate) fn add(&mut self, value: u64) {
        self.add_part(part(value), 1);
    }

    /// Counts everything that another sketch has counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (part, count) in &other.parts {
            self.add_part(*part, *count);
        }
    }

    fn add_part(&mut self, part: u16, count: u32) {
        match self.parts.binary_search_by_key(&part, |(own, _)| *own) {
            Ok(place) => self.parts[place].1 = self.parts[place].1.saturating_add(count),
            Err(place) => self.parts.insert(place, (part, count)),
        }
    }

    /// How many values were counted.
    #[must_use]
    pub(crate) fn count(&self) -> u64 {
        self.parts.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Whether the parts are such as [`Self::add`] makes them; what was read from a file may not be.
    #[must_use]
    pub(crate) fn is_sound(&self) -> bool {
        self.parts.is_sorted_by(|one, other| one.0 < other.0)
            && self.parts.iter().all(|(part, count)| *part <= part_of_most() && *count > 0)
    }
}

/// The value that all but `above` of the values in two sketches reach at most: at least the true one, and less than a
/// thirty-second more. `None` where that many were never counted.
#[must_use]
pub(crate) fn all_but(above: u64, one: &Sketch, other: &Sketch) -> Option<u64> {
    let (mut one, mut other) = (one.parts.as_slice(), other.parts.as_slice());
    let mut passed = 0;
    // From the greatest down: a high quantile is found in the first few parts.
    loop {
        let part = match (one.last(), other.last()) {
            (Some((a, _)), Some((b, _))) => *a.max(b),
            (Some((part, _)), None) | (None, Some((part, _))) => *part,
            (None, None) => return None,
        };
        for parts in [&mut one, &mut other] {
            if let Some(((last, count), rest)) = parts.split_last()
                && *last == part
            {
                passed += u64::from(*count);
                *parts = rest;
            }
        }
        if passed > above {
            return Some(upper_end(part));
        }
    }
}

/// The part that a value is in.
#[expect(clippy::cast_possible_truncation, reason = "64 powers of two of 32 parts are 2,048")]
fn part(value: u64) -> u16 {
    let shift = value.max(1).ilog2().saturating_sub(PRECISION);
    ((u64::from(shift) << PRECISION) + (value >> shift)) as u16
}

fn part_of_most() -> u16 {
    part(u64::MAX)
}

/// The greatest value of a part.
fn upper_end(part: u16) -> u64 {
    let shift = (u32::from(part) >> PRECISION).saturating_sub(1);
    let lead = u64::from(part) - (u64::from(shift) << PRECISION);
    (lead << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_part_ends_where_the_next_begins() {
        for part_before in 0..part_of_most() {
            let end = upper_end(part_before);
            assert_eq!((part(end), part(end + 1)), (part_before, part_before + 1));
        }
        assert_eq!(upper_end(part_of_most()), u64::MAX);
    }

    proptest! {
        #[test]
        fn quantiles_are_never_below_and_little_above(
            values in prop::collection::vec(prop_oneof![0..100_u64, 0..1_000_000_u64, any::<u64>()], 1..400),
            cut in any::<prop::sample::Index>(),
            above in 0..20_usize,
        ) {
            let (mut one, mut other, mut all) = (Sketch::default(), Sketch::default(), Sketch::default());
            let cut = cut.index(values.len());
            values[..cut].iter().for_each(|value| one.add(*value));
            values[cut..].iter().for_each(|value| other.add(*value));
            all.merge(&one);
            all.merge(&other);
            prop_assert!(all.is_sound());
            prop_assert_eq!(all.count(), values.len() as u64);
            let mut sorted = values;
            sorted.sort_unstable_by(|a, b| b.cmp(a));
            let found = all_but(above as u64, &one, &other);
            prop_assert_eq!(found, all_but(above as u64, &all, &Sketch::default()));
            let truth = sorted.get(above).copied();
            prop_assert_eq!(found.is_some(), truth.is_some());
            if let (Some(found), Some(truth)) = (found, truth) {
                prop_assert!(found >= truth && found - truth <= truth / 32, "{} for {}", found, truth);
            }
        }
    }
}
