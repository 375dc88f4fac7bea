//! One limit's count, whatever its rule.

use freeway_types::{Monotonic, Now, Timestamp};

use crate::bucket::Bucket;
use crate::calendar::Calendar;
use crate::rolling::Rolling;
use crate::spec::{LimitSpec, Rule};

#[derive(Clone, Debug)]
pub(crate) enum Counter {
    Rolling(Rolling),
    Bucket(Bucket),
    Calendar(Calendar),
    /// What was ever counted, and what is in flight.
    Never {
        counted: u64,
        in_flight: u64,
    },
    /// Requests in flight.
    Concurrency(u64),
}

/// The interval in which the provider counted a charge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) dispatched: Now,
    pub(crate) receipt: Now,
}

impl Counter {
    pub(crate) fn new(spec: &LimitSpec, now: Now) -> Self {
        match &spec.rule {
            Rule::Rolling(_) => Self::Rolling(Rolling::default()),
            Rule::Bucket(window) => Self::Bucket(Bucket::full(spec.amount.unwrap_or(u64::MAX), *window, now.monotonic)),
            Rule::Calendar(..) => Self::Calendar(Calendar::default()),
            Rule::Never(_) => Self::Never { counted: 0, in_flight: 0 },
            Rule::Concurrency => Self::Concurrency(0),
        }
    }

    pub(crate) fn advance(&mut self, spec: &LimitSpec, now: Now) {
        match (self, &spec.rule) {
            (Self::Rolling(log), _) => log.advance(now.monotonic),
            (Self::Bucket(bucket), Rule::Bucket(window)) => {
                bucket.advance(now.monotonic, spec.amount.unwrap_or(u64::MAX), *window);
            }
            (Self::Calendar(calendar), Rule::Calendar(civil, zone)) => calendar.advance(now.wall, *civil, zone),
            _ => {}
        }
    }

    /// What is left at `now` of a limit of `amount`, after [`advance`](Self::advance).
    pub(crate) fn left(&mut self, spec: &LimitSpec, amount: u64, now: Now) -> u64 {
        match (self, &spec.rule) {
            (Self::Rolling(log), _) => amount.saturating_sub(log.used()),
            (Self::Bucket(bucket), Rule::Bucket(window)) => bucket.available(*window),
            (Self::Calendar(calendar), Rule::Calendar(civil, zone)) => {
                amount.saturating_sub(calendar.used(now.wall, *civil, zone))
            }
            (Self::Never { counted, in_flight }, Rule::Never(expires)) => {
                if expires.is_some_and(|instant| instant <= now.wall) {
                    0
                } else {
                    amount.saturating_sub(counted.saturating_add(*in_flight))
                }
            }
            (Self::Concurrency(active), _) => amount.saturating_sub(*active),
            _ => 0,
        }
    }

    /// Keeps what is used while the amount changes.
    pub(crate) fn resize(&mut self, from: &LimitSpec, to: &LimitSpec) {
        if let (Self::Bucket(bucket), Rule::Bucket(window)) = (self, &to.rule) {
            bucket.resize(from.amount.unwrap_or(u64::MAX), to.amount.unwrap_or(u64::MAX), *window);
        }
    }

    /// What is held for requests in flight.
    pub(crate) fn in_flight(&self) -> u64 {
        match self {
            Self::Rolling(log) => log.in_flight,
            Self::Bucket(bucket) => bucket.in_flight,
            Self::Calendar(calendar) => calendar.in_flight,
            Self::Never { in_flight, .. } => *in_flight,
            Self::Concurrency(active) => *active,
        }
    }

    pub(crate) fn hold(&mut self, amount: u64) {
        *self.in_flight_mut() += amount;
    }

    pub(crate) fn unhold(&mut self, amount: u64) {
        let in_flight = self.in_flight_mut();
        *in_flight = in_flight.saturating_sub(amount);
    }

    /// Books `amount` as counted in the given interval. Concurrency has nothing to book.
    pub(crate) fn count(&mut self, spec: &LimitSpec, amount: u64, when: Counted, now: Now) {
        match (self, &spec.rule) {
            (Self::Rolling(log), Rule::Rolling(window)) => {
                log.count(amount, when.receipt.monotonic, *window, spec.amount.unwrap_or(u64::MAX));
            }
            (Self::Bucket(bucket), Rule::Bucket(window)) => {
                bucket.advance(now.monotonic, spec.amount.unwrap_or(u64::MAX), *window);
                bucket.count(amount, *window);
            }
            (Self::Calendar(calendar), Rule::Calendar(civil, zone)) => {
                calendar.count(amount, when.dispatched.wall, when.receipt.wall, *civil, zone);
            }
            (Self::Never { counted, .. }, _) => *counted = counted.saturating_add(amount),
            _ => {}
        }
    }

    /// When `need` units fit, as far as that can be said.
    pub(crate) fn relief(&self, spec: &LimitSpec, amount: u64, need: u64, now: Now) -> Option<Now> {
        match (self, &spec.rule) {
            (Self::Rolling(log), Rule::Rolling(window)) => {
                let missing = log.used().saturating_add(need).saturating_sub(amount);
                let instant = log.relief(missing).unwrap_or_else(|| now.monotonic.after(*window));
                Some(at(now, instant))
            }
            (Self::Bucket(bucket), Rule::Bucket(window)) => Some(now.after(bucket.relief(need, amount, *window))),
            (Self::Calendar(calendar), Rule::Calendar(civil, zone)) => {
                let end: Timestamp = calendar.relief(now.wall, *civil, zone);
                Some(now.after(end.since(now.wall)))
            }
            _ => None,
        }
    }

    fn in_flight_mut(&mut self) -> &mut u64 {
        match self {
            Self::Rolling(log) => &mut log.in_flight,
            Self::Bucket(bucket) => &mut bucket.in_flight,
            Self::Calendar(calendar) => &mut calendar.in_flight,
            Self::Never { in_flight, .. } => in_flight,
            Self::Concurrency(active) => active,
        }
    }
}

/// Both clocks at a monotonic instant that is not before `now`.
fn at(now: Now, instant: Monotonic) -> Now {
    now.after(instant.since(now.monotonic))
}
