//! `ordered`: in the order of the list, the user's own. There are no ties.

use std::cmp::Ordering;

use super::Standing;

pub(super) fn compare(one: &Standing<'_>, other: &Standing<'_>) -> Ordering {
    one.position.cmp(&other.position)
}
