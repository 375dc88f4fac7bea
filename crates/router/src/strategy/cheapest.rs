//! `cheapest`: the least expected cost; an unknown price counts as the highest. The most headroom, then the order of the
//! list, break ties.

use std::cmp::Ordering;

use super::{Standing, headroom};

pub(super) fn compare(one: &Standing<'_>, other: &Standing<'_>) -> Ordering {
    let key = |standing: &Standing<'_>| (standing.expected_cost.is_none(), standing.expected_cost);
    key(one).cmp(&key(other)).then_with(|| headroom::compare(one, other))
}
