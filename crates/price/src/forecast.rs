//! What will be asked for, from what was.
//!
//! Requests are counted by kind, size and hour. An hour to come is expected to be like the same hour of the days before,
//! the last one most, each with its neighbours, because few requests make an uneven hour; and then as much more or less
//! as the last hours were more or less than was expected of them. On the first day, when there is no day before, every
//! hour is expected to be like those so far or like the last two, whichever were more, and then some: who begins at night
//! does not know the day. To keep too much costs little, because there is always somebody who takes what is left over;
//! to keep too little costs what is worth most.

use std::collections::BTreeMap;

use freeway_types::Timestamp;

use crate::demand::{Cell, Group, Kind, Sums, merged, size};

const HOUR: i64 = 3_600;
const DAY: i64 = 24;
/// Days of which hours are remembered, and what each counts against the one after it.
const DAYS: i64 = 7;
const FADES: f64 = 0.4;
/// What the hours beside one say of it.
const NEAR: f64 = 0.5;
/// The latest hours that tell whether more comes than was expected, and how many requests weigh as much as what they tell.
const LATEST: i64 = 4;
const DOUBT: f64 = 30.0;
/// Neither more nor less than this is made of what was expected.
const LEAST_TREND: f64 = 0.5;
const MOST_TREND: f64 = 2.0;
/// The hours whose level is that of the moment, on the first day.
const RECENT: f64 = 2.0;
/// Twice as much is expected as was seen when nothing was seen yet; after so many hours, half of that is added.
const NEW: f64 = 3.0;
/// Requests are taken to have come for so long at least: the first minute says little.
const LEAST_HOURS: f64 = 0.25;

/// What was asked for, by kind, size and hour.
#[derive(Clone, Debug, Default)]
pub struct Forecast {
    /// When the first request came.
    begun: Option<Timestamp>,
    hours: BTreeMap<Cell, BTreeMap<i64, Sums>>,
    forgets_nothing: bool,
}

impl Forecast {
    /// One that remembers every hour, for looking back.
    #[must_use]
    pub fn unforgetting() -> Self {
        Self { forgets_nothing: true, ..Self::default() }
    }

    /// When the first request came.
    #[must_use]
    pub const fn begun(&self) -> Option<Timestamp> {
        self.begun
    }

    /// How many requests are remembered.
    #[must_use]
    pub fn seen(&self) -> f64 {
        self.hours.values().flat_map(BTreeMap::values).map(|sums| sums.count).sum()
    }

    /// What is remembered of one hour, counted from 1970, for keeping it.
    pub fn hour(&self, hour: i64) -> impl Iterator<Item = (&Cell, Sums)> {
        self.hours.iter().filter_map(move |(cell, hours)| Some((cell, *hours.get(&hour)?)))
    }

    /// Takes in what was kept of an hour.
    pub fn restore(&mut self, hour: i64, cell: Cell, sums: Sums) {
        let starts = Timestamp::from_secs(hour * HOUR);
        self.begun = Some(self.begun.map_or(starts, |begun| begun.min(starts)));
        self.hours.entry(cell).or_default().insert(hour, sums);
    }

    /// A request came.
    pub fn observe(&mut self, now: Timestamp, kind: &Kind, input: u64, output: u64) {
        self.begun.get_or_insert(now);
        let hour = now.as_secs().div_euclid(HOUR);
        let hours = self.hours.entry((kind.clone(), size(input, output))).or_default();
        let sums = hours.entry(hour).or_default();
        sums.count += 1.0;
        sums.input += float(input);
        sums.output += float(output);
        while !self.forgets_nothing && hours.first_key_value().is_some_and(|(first, _)| *first < hour - DAYS * DAY) {
            hours.pop_first();
        }
    }

    /// Those who came, in `most` groups at most.
    #[must_use]
    pub fn groups(&self, most: usize) -> Vec<Group> {
        let all = |hours: &BTreeMap<i64, Sums>| {
            hours.values().fold(Sums::default(), |all, hour| Sums {
                count: all.count + hour.count,
                input: all.input + hour.input,
                output: all.output + hour.output,
            })
        };
        merged(&self.hours.iter().map(|(cell, hours)| (cell.clone(), all(hours))).collect(), most)
    }

    /// How many of a group are expected in each of the blocks that end at `ends`; the first one begins now.
    #[must_use]
    pub fn expect(&self, group: &Group, now: Timestamp, ends: &[Timestamp]) -> Vec<f64> {
        let Some(begun) = self.begun else { return vec![0.0; ends.len()] };
        let past = Past { counts: self.counts(group), begun: seconds(begun), now: seconds(now) };
        let trend = past.trend();
        let mut from = seconds(now);
        let mut expected = Vec::with_capacity(ends.len());
        for end in ends.iter().map(|end| seconds(*end)) {
            expected.push(past.between(from, end) * trend);
            from = end;
        }
        expected
    }

    /// How many of a group came from one instant to another, both in the past; hours that they cut count in part.
    #[must_use]
    pub fn came(&self, group: &Group, from: Timestamp, to: Timestamp) -> f64 {
        let counts = self.counts(group);
        spread(seconds(from), seconds(to), |hour| counts.get(&hour).copied().unwrap_or(0.0))
    }

    fn counts(&self, group: &Group) -> BTreeMap<i64, f64> {
        let mut counts: BTreeMap<i64, f64> = BTreeMap::new();
        for (hour, sums) in group.cells.iter().filter_map(|cell| self.hours.get(cell)).flatten() {
            *counts.entry(*hour).or_default() += sums.count;
        }
        counts
    }
}

/// What is known of one group.
struct Past {
    counts: BTreeMap<i64, f64>,
    begun: f64,
    now: f64,
}

impl Past {
    /// What came in an hour of the past. Of the present one, what came so far, brought up to a whole one.
    fn hour(&self, hour: i64) -> f64 {
        let count = self.counts.get(&hour).copied().unwrap_or(0.0);
        let (start, end) = (whole(hour), whole(hour + 1));
        let seen = (self.now.min(end) - self.begun.max(start)).max(0.0) / whole(1);
        if seen <= 0.0 { 0.0 } else { count / seen.max(LEAST_HOURS) }
    }

    /// Whether enough of an hour was seen to say what it was like.
    fn was_seen(&self, hour: i64) -> bool {
        self.begun <= whole(hour) && whole(hour + 1) <= self.now
    }

    /// What an hour is expected to be when there is no day before.
    fn first_day(&self) -> f64 {
        let hours = ((self.now - self.begun) / whole(1)).max(LEAST_HOURS);
        let mean = self.counts.values().sum::<f64>() / hours;
        let begun = self.begun.max(self.now - RECENT * whole(1));
        // Of an hour that is still going on, all that came in it came so far.
        let so_far = |hour: i64| {
            let seen = (self.now.min(whole(hour + 1)) - self.begun.max(whole(hour))).max(1.0);
            self.counts.get(&hour).copied().unwrap_or(0.0) * whole(1) / seen
        };
        let recent = spread(begun, self.now, so_far) / RECENT.min(hours);
        mean.max(recent) * (1.0 + NEW / (NEW + hours))
    }

    /// What is expected of an hour, by the days before the present one, with their neighbours in so far as `near` says.
    fn expected(&self, hour: i64, near: f64) -> f64 {
        let (mut sum, mut weights) = (0.0, 0.0);
        let mut weight = 1.0;
        let mut like = hour - DAY;
        while like >= self.present() {
            like -= DAY;
        }
        for _ in 0..DAYS {
            for (hour, part) in [(like - 1, near / 2.0), (like, 1.0 - near), (like + 1, near / 2.0)] {
                if self.was_seen(hour) {
                    sum += weight * part * self.hour(hour);
                    weights += weight * part;
                }
            }
            like -= DAY;
            weight *= FADES;
        }
        if weights > 0.25 { sum / weights } else { self.first_day() }
    }

    fn present(&self) -> i64 {
        hour_of(self.now)
    }

    /// By how much the latest hours were more than was expected of them.
    fn trend(&self) -> f64 {
        let present = self.present();
        if !self.was_seen(present - DAY - LATEST) {
            return 1.0;
        }
        let (mut came, mut expected) = (0.0, 0.0);
        for hour in present - LATEST..present {
            came += self.hour(hour);
            expected += self.expected(hour, 0.0);
        }
        ((came + DOUBT) / (expected + DOUBT)).clamp(LEAST_TREND, MOST_TREND)
    }

    fn between(&self, from: f64, to: f64) -> f64 {
        spread(from, to, |hour| self.expected(hour, NEAR))
    }
}

/// The sum of what hours have between two instants, an hour that is cut in part.
fn spread(from: f64, to: f64, of: impl Fn(i64) -> f64) -> f64 {
    let mut sum = 0.0;
    for hour in hour_of(from)..=hour_of(to) {
        let part = (to.min(whole(hour + 1)) - from.max(whole(hour))) / whole(1);
        if part > 0.0 {
            sum += part * of(hour);
        }
    }
    sum
}

#[expect(clippy::cast_possible_truncation, reason = "instants of this millennium")]
fn hour_of(seconds: f64) -> i64 {
    (seconds / whole(1)).floor() as i64
}

#[expect(clippy::cast_precision_loss, reason = "instants of this millennium")]
fn whole(hours: i64) -> f64 {
    (hours * HOUR) as f64
}

#[expect(clippy::cast_precision_loss, reason = "microseconds matter to nobody here")]
fn seconds(instant: Timestamp) -> f64 {
    instant.as_micros() as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "tokens, of which a mean is taken")]
fn float(tokens: u64) -> f64 {
    tokens as f64
}

#[cfg(test)]
mod tests;
