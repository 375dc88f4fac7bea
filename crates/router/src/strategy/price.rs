//! `price`, while there are no prices: the lowest quality that will do, so that good models are kept for what needs them. The
//! most headroom, then the order of the list, break ties. With prices, candidates are weighed (`pricing/score.rs`).

use std::cmp::Ordering;

use super::{Standing, headroom};

pub(super) fn compare(one: &Standing<'_>, other: &Standing<'_>) -> Ordering {
    one.deployment.quality.cmp(&other.deployment.quality).then_with(|| headroom::compare(one, other))
}
