//! `fastest`: the least time to the first content, as measured of requests of this size. The most headroom, then the
//! order of the list, break ties.
//!
//! A target that is not measured, or not any more, comes first, because only requests can measure it: three answers do
//! (`health/latest.rs`), and it is left alone until they are forgotten. To take it for as fast as the others in their
//! middle would not do: next to a single measured one that is a tie, which the order of the list could decide against it
//! for ever. One that fails instead of answering is dropped by its breaker or paused, as everywhere.

use std::cmp::Ordering;

use super::{Standing, headroom};

pub(super) fn compare(one: &Standing<'_>, other: &Standing<'_>) -> Ordering {
    // `None` comes before all times.
    one.first_content.cmp(&other.first_content).then_with(|| headroom::compare(one, other))
}
