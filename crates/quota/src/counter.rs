//! One limit's count, whatever its rule.

use std::time::Duration;

use freeway_types::{Monotonic, Now, Timestamp};

use crate::COUNT_LAG;
use crate::bucket::Bucket;
use crate::calendar::Calendar;
use crate::margins::Margins;
use crate::purse::Purse;
use crate::rolling::Rolling;
use crate::skew::Offset;
use crate::spec::{Grant, LimitSpec, Rule};

/// The wall clock is taken to have jumped if it went so much more or less than the monotonic one: more than it takes
/// to read both, less than any slack.
const JUMP_MICROS: u64 = 5_000;

#[derive(Clone, Debug)]
pub(crate) enum Counter {
    Rolling(Rolling),
    Bucket(Bucket),
    Calendar(Calendar),
    /// Credits that do not come back.
    Purse(Purse),
    /// Requests in flight, and places that an earlier process left taken: each comes back at its instant.
    Concurrency(Rolling),
}

/// One credit as it stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantView {
    /// What it is called.
    pub name: String,
    /// Its size in units, tokens or picodollars; zero where nobody knows it.
    pub amount: u64,
    /// What was charged to it.
    pub used: u64,
    /// What may still be spent of it now, before what is in flight is taken off; nothing once it has lapsed.
    pub left: u64,
    /// When the rest of it is gone.
    pub lapses: Option<Timestamp>,
}

/// The interval in which the provider counted a charge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) dispatched: Now,
    pub(crate) receipt: Now,
    /// Where the wall clock jumped in between: the same interval, as the clock is set now. Which of the two settings is
    /// right is not known.
    set_anew: Option<(Now, Now)>,
}

// === impl Counted ===

impl Counted {
    /// The interval of a charge that this process dispatched. `now` is not much later than its end.
    pub(crate) fn between(dispatched: Now, receipt: Now, now: Now) -> Self {
        let length = receipt.monotonic.since(dispatched.monotonic);
        let expected = dispatched.after(now.monotonic.since(dispatched.monotonic)).wall;
        let jump = expected.as_micros().abs_diff(now.wall.as_micros());
        if jump <= JUMP_MICROS {
            return Self { dispatched, receipt: dispatched.after(length), set_anew: None };
        }
        // The machine may have been suspended, while the provider's time went on.
        let set_anew = Some((placed(dispatched.monotonic, now), placed(receipt.monotonic, now)));
        Self { dispatched, receipt: dispatched.after(length + COUNT_LAG), set_anew }
    }

    /// The interval of a charge from before this process started, by the wall clock of then. It was counted at `latest`
    /// at the latest; what was written down as later than that was written by a clock that was ahead, and may have been
    /// counted in the present window.
    pub(crate) fn before(dispatched: Timestamp, receipt: Timestamp, latest: Now, now: Now) -> Self {
        // An instant before this process began has no place on its monotonic clock: the nearest one that has holds the
        // charge longer than needed, never shorter.
        let place = |wall: Timestamp| {
            let micros = u64::try_from(now.wall.since(wall).as_micros()).unwrap_or(u64::MAX);
            let monotonic = Monotonic::from_micros(now.monotonic.as_micros().saturating_sub(micros));
            Now { wall, monotonic: monotonic.after(wall.since(now.wall)).min(latest.monotonic) }
        };
        let is_ahead = receipt > latest.wall;
        Self { dispatched: place(dispatched), receipt: place(receipt), set_anew: is_ahead.then_some((now, latest)) }
    }

    /// The interval by each setting of the wall clock that may have been the right one.
    pub(crate) fn readings(&self) -> impl Iterator<Item = (Now, Now)> {
        std::iter::once((self.dispatched, self.receipt)).chain(self.set_anew)
    }

    /// Whether there are two settings.
    pub(crate) fn has_two_readings(&self) -> bool {
        self.set_anew.is_some()
    }
}

impl Counter {
    pub(crate) fn new(spec: &LimitSpec, margins: Margins, now: Now) -> Self {
        match &spec.rule {
            Rule::Rolling(_) => Self::Rolling(Rolling::new(margins.in_steps)),
            Rule::Bucket(window) => Self::Bucket(Bucket::full(spec.amount.unwrap_or(u64::MAX), *window, now.monotonic)),
            Rule::Calendar(..) => Self::Calendar(Calendar::new(margins.skew, now)),
            Rule::Never(grants) => Self::Purse(Purse::unspent(grants.len(), margins)),
            Rule::Concurrency => Self::Concurrency(Rolling::default()),
        }
    }

    pub(crate) fn advance(&mut self, spec: &LimitSpec, now: Now) {
        match (self, &spec.rule) {
            (Self::Rolling(log) | Self::Concurrency(log), _) => log.advance(now.monotonic),
            (Self::Bucket(bucket), _) => bucket.advance(now.monotonic, spec.amount.unwrap_or(u64::MAX)),
            (Self::Calendar(calendar), _) => calendar.advance(now.monotonic),
            _ => {}
        }
    }

    /// What is left at `now` of a limit of `amount`, after [`advance`](Self::advance).
    pub(crate) fn left(&mut self, spec: &LimitSpec, amount: u64, now: Now) -> u64 {
        match (self, &spec.rule) {
            (Self::Rolling(log) | Self::Concurrency(log), _) => amount.saturating_sub(log.used()),
            (Self::Bucket(bucket), _) => bucket.available(),
            (Self::Calendar(calendar), Rule::Calendar(civil, zone)) => {
                amount.saturating_sub(calendar.used(now, *civil, zone))
            }
            (Self::Purse(purse), Rule::Never(grants)) => purse.left(grants, now.wall),
            _ => 0,
        }
    }

    /// Keeps what is used while the amount changes.
    pub(crate) fn resize(&mut self, from: &LimitSpec, to: &LimitSpec) {
        if let Self::Bucket(bucket) = self {
            bucket.resize(from.amount.unwrap_or(u64::MAX), to.amount.unwrap_or(u64::MAX));
        }
    }

    /// One of the same kind in which nothing is counted. Of a calendar, what is known of the provider's clock stays.
    pub(crate) fn emptied(&self, spec: &LimitSpec, margins: Margins, now: Now) -> Self {
        match self {
            Self::Calendar(calendar) => Self::Calendar(calendar.emptied()),
            _ => Self::new(spec, margins, now),
        }
    }

    /// What is held for requests in flight.
    pub(crate) fn in_flight(&self) -> u64 {
        match self {
            Self::Rolling(log) | Self::Concurrency(log) => log.in_flight,
            Self::Bucket(bucket) => bucket.in_flight,
            Self::Calendar(calendar) => calendar.in_flight,
            Self::Purse(purse) => purse.in_flight,
        }
    }

    pub(crate) fn hold(&mut self, amount: u64) {
        *self.in_flight_mut() += amount;
    }

    pub(crate) fn unhold(&mut self, amount: u64) {
        let in_flight = self.in_flight_mut();
        *in_flight = in_flight.saturating_sub(amount);
    }

    /// Books `amount` as counted in the given interval. Of concurrency that is a place taken until the receipt.
    pub(crate) fn count(&mut self, spec: &LimitSpec, amount: u64, when: Counted, now: Now) {
        match (self, &spec.rule) {
            (Self::Rolling(log), Rule::Rolling(window)) => {
                log.count(amount, when.receipt.monotonic, *window, spec.amount.unwrap_or(u64::MAX));
            }
            (Self::Bucket(bucket), _) => {
                bucket.advance(now.monotonic, spec.amount.unwrap_or(u64::MAX));
                bucket.count(amount, when.receipt.monotonic);
            }
            (Self::Calendar(calendar), Rule::Calendar(civil, zone)) => {
                calendar.count(amount, &when, *civil, zone);
            }
            (Self::Purse(purse), Rule::Never(grants)) => {
                let from = when.readings().map(|(from, _)| from.wall).min().unwrap_or_default();
                let to = when.readings().map(|(_, to)| to.wall).max().unwrap_or_default();
                purse.count(amount, grants, from, to);
            }
            (Self::Concurrency(places), _) => {
                places.count(amount, when.receipt.monotonic, Duration::ZERO, spec.amount.unwrap_or(u64::MAX));
            }
            _ => {}
        }
    }

    /// When `need` units fit, as far as that can be said.
    pub(crate) fn relief(&mut self, spec: &LimitSpec, amount: u64, need: u64, now: Now) -> Option<Now> {
        match (self, &spec.rule) {
            (Self::Rolling(log), Rule::Rolling(window)) => {
                let missing = log.used().saturating_add(need).saturating_sub(amount);
                let instant = log.relief(missing).unwrap_or_else(|| now.monotonic.after(*window));
                Some(at(now, instant))
            }
            (Self::Bucket(bucket), _) => Some(now.after(bucket.relief(need, amount))),
            (Self::Calendar(calendar), Rule::Calendar(civil, zone)) => {
                let instant = calendar.relief(amount, need, now, *civil, zone);
                Some(now.after(instant.since(now.wall)))
            }
            _ => None,
        }
    }

    /// What each of the limit's credits was charged and what is left of it, as they stand at `now`.
    pub(crate) fn credits(&self, spec: &LimitSpec, now: Now) -> Vec<GrantView> {
        let (Self::Purse(purse), Rule::Never(grants)) = (self, &spec.rule) else { return Vec::new() };
        let view = |(place, grant): (usize, &Grant)| GrantView {
            name: grant.name(&spec.name),
            amount: grant.amount.unwrap_or_default(),
            used: purse.used_of(place),
            left: purse.left_of(grants, place, now.wall),
            lapses: grant.expires,
        };
        grants.iter().enumerate().map(view).collect()
    }

    /// What was charged or is held, of a credit that has lapsed in part.
    pub(crate) fn spent(&self) -> Option<u64> {
        if let Self::Purse(purse) = self { Some(purse.used()) } else { None }
    }

    /// What is known of the provider's clock from now on. Only civil windows care.
    pub(crate) fn set_offset(&mut self, offset: Offset) {
        if let Self::Calendar(calendar) = self {
            calendar.set_offset(offset);
        }
    }

    fn in_flight_mut(&mut self) -> &mut u64 {
        match self {
            Self::Rolling(log) | Self::Concurrency(log) => &mut log.in_flight,
            Self::Bucket(bucket) => &mut bucket.in_flight,
            Self::Calendar(calendar) => &mut calendar.in_flight,
            Self::Purse(purse) => &mut purse.in_flight,
        }
    }
}

/// Both clocks at a monotonic instant, as they are set at `now`.
fn placed(instant: Monotonic, now: Now) -> Now {
    let wall = now.wall.before(now.monotonic.since(instant)).after(instant.since(now.monotonic));
    Now { wall, monotonic: instant }
}

/// Both clocks at a monotonic instant that is not before `now`.
fn at(now: Now, instant: Monotonic) -> Now {
    now.after(instant.since(now.monotonic))
}
