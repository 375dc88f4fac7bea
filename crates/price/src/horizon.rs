//! The blocks that time ahead is cut into.

use std::time::Duration;

use freeway_types::Timestamp;

const HOUR: i64 = 3_600;
/// How far ahead blocks of which length go, in hours from now.
const STEPS: [(i64, i64); 4] = [(24, 1), (48, 6), (96, 12), (31 * 24, 72)];
/// No end of a later block is nearer to a reset than this …
const BESIDE: Duration = Duration::from_secs(3 * 3_600);
/// … of which so many are told apart, the first ones.
const MOST_RESETS: usize = 12;
/// What is left of an hour belongs to the next block where it is shorter than this.
const LEAST: Duration = Duration::from_secs(60);

/// The ends of the blocks from `now` on: hours for a day, because that is how demand and most windows go, then coarser
/// ones, as far as `length` and 31 days at most; a day at least. Where a window ends on one of the next days, as `resets`
/// say, a block ends as well: a window that is cut differently from hour to hour would have another price each time.
#[must_use]
pub fn horizon(now: Timestamp, length: Duration, resets: &[Timestamp]) -> Vec<Timestamp> {
    let hour = now.after(LEAST).as_secs().div_euclid(HOUR);
    let last = i64::try_from(length.as_secs()).unwrap_or(i64::MAX) / HOUR + 1;
    let mut ends = Vec::new();
    let mut ahead = 0;
    for (until, step) in STEPS {
        while ahead < until && (ahead < STEPS[0].0 || ahead < last) {
            ahead += step;
            ends.push(Timestamp::from_secs((hour + ahead).saturating_mul(HOUR)));
        }
    }
    let day = ends[usize::try_from(STEPS[0].0).unwrap_or(0) - 1];
    let within = |reset: &&Timestamp| **reset > day && ends.last().is_some_and(|last| *reset < last);
    let mut near: Vec<Timestamp> = resets.iter().filter(within).copied().collect();
    near.sort_unstable();
    near.dedup();
    near.truncate(MOST_RESETS);
    let apart = |one: Timestamp, other: Timestamp| one.since(other).max(other.since(one));
    ends.retain(|end| *end <= day || near.iter().all(|reset| apart(*end, *reset) >= BESIDE));
    ends.extend(near);
    ends.sort_unstable();
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_first_and_then_longer() {
        let hours = |now: i64, days: u64| -> Vec<i64> {
            let ends = horizon(Timestamp::from_secs(now), Duration::from_secs(days * 86_400), &[]);
            ends.iter().map(|end| end.as_secs() / 60).collect()
        };
        let day: Vec<i64> = (1..=24).map(|hour| hour * 60).collect();
        assert_eq!(hours(0, 0), day);
        assert_eq!(hours(1_800, 0), day, "the first block is what is left of an hour");
        assert_eq!(hours(3_590, 0)[0], 120, "unless next to nothing is left of it");
        assert_eq!(
            hours(0, 2).len(),
            24 + 4 + 1,
            "six hours a block on the second day, twelve then, and a little more than was asked"
        );
        assert_eq!(hours(0, 31).len(), 24 + 4 + 4 + 9);
        assert_eq!(hours(0, 365).len(), 24 + 4 + 4 + 9, "a month at most");
    }
    #[test]
    fn blocks_end_where_windows_do() {
        let at = |hours: i64| Timestamp::from_secs(hours * HOUR);
        let resets = [at(8), at(32), at(56), at(56), at(32), at(2_000)];
        let ends = horizon(at(0), Duration::from_secs(3 * 86_400), &resets);
        let later: Vec<i64> = ends.iter().map(|end| end.as_secs() / HOUR).filter(|hour| *hour > 24).collect();
        assert_eq!(later, [32, 36, 42, 48, 56, 60, 72, 84]);
        assert_eq!(ends.iter().filter(|end| **end <= at(24)).count(), 24);
    }
}
