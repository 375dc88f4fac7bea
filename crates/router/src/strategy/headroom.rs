//! `headroom`: the most that is left of the scarcest limit. The order of the list breaks ties.

use std::cmp::Ordering;

use super::Standing;

pub(super) fn compare(one: &Standing<'_>, other: &Standing<'_>) -> Ordering {
    other.headroom.total_cmp(&one.headroom).then(one.position.cmp(&other.position))
}
