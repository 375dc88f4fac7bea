//! Attempts of one request that are under way at the same time: mostly one, a second where the first is slow.
//!
//! All of them run in the request's own task. Whoever is dropped here is closed upstream at that instant.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use freeway_router::Class;
use freeway_types::{KeyIndex, Now};
use tokio::time::{Instant, Sleep};

use crate::attempt::{Committed, Failure};
use crate::course::Turn;
use crate::trace::FlightId;

/// Attempts under way.
pub(crate) struct Race<'a>(Vec<Leg<'a>>);

/// An attempt that is sent when it is polled, and closed upstream when it is dropped.
pub(crate) type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Committed, Failure>> + Send + 'a>>;

struct Leg<'a> {
    entry: Entry,
    attempt: Attempt<'a>,
}

/// What is known of an attempt under way.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) turn: Turn,
    pub(crate) key: Option<KeyIndex>,
    pub(crate) flight: FlightId,
    pub(crate) class: Class,
    pub(crate) sent: Now,
    pub(crate) begun: Instant,
    /// When it has been silent for so long that a second one is worth its price.
    pub(crate) hedge_at: Option<Instant>,
    /// When another target is tried, although this one may still answer.
    pub(crate) relief_at: Option<Instant>,
    /// Whether that has come.
    pub(crate) is_late: bool,
    /// When it is given up.
    pub(crate) ends_at: Instant,
    /// Whether its request leaves it so little time that its silence says nothing of the target.
    pub(crate) was_hurried: bool,
}

/// What happened next.
pub(crate) enum Happening {
    /// An attempt came to its end.
    Landed(Entry, Result<Committed, Failure>),
    /// One was given up, because it had its time.
    Silent(Entry),
    /// One is slow.
    HedgeDue(Entry),
    /// One is late.
    ReliefDue,
}

impl<'a> Race<'a> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is nobody from whom an answer is expected soon.
    pub(crate) fn is_idle(&self) -> bool {
        self.entries().all(|entry| entry.is_late)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().map(|leg| &leg.entry)
    }

    pub(crate) fn enter(&mut self, entry: Entry, attempt: Attempt<'a>) {
        self.0.push(Leg { entry, attempt });
    }

    /// What happens next, for as long as anybody is under way.
    pub(crate) async fn next(&mut self, mut alarm: Pin<&mut Sleep>) -> Happening {
        std::future::poll_fn(|context| self.poll(context, alarm.as_mut())).await
    }

    fn poll(&mut self, context: &mut Context<'_>, mut alarm: Pin<&mut Sleep>) -> Poll<Happening> {
        for place in 0..self.0.len() {
            if let Poll::Ready(result) = self.0[place].attempt.as_mut().poll(context) {
                return Poll::Ready(Happening::Landed(self.0.remove(place).entry, result));
            }
        }
        loop {
            let now = Instant::now();
            for (place, leg) in self.0.iter_mut().enumerate() {
                let is_due = |at: &Option<Instant>| at.is_some_and(|at| at <= now);
                if leg.entry.ends_at <= now {
                    return Poll::Ready(Happening::Silent(self.0.remove(place).entry));
                }
                if is_due(&leg.entry.hedge_at) {
                    leg.entry.hedge_at = None;
                    return Poll::Ready(Happening::HedgeDue(leg.entry));
                }
                if is_due(&leg.entry.relief_at) {
                    leg.entry.relief_at = None;
                    leg.entry.is_late = true;
                    return Poll::Ready(Happening::ReliefDue);
                }
            }
            let Some(next) = self.0.iter().map(|leg| leg.entry.next_due()).min() else { return Poll::Pending };
            if alarm.deadline() != next {
                alarm.as_mut().reset(next);
            }
            ready!(alarm.as_mut().poll(context));
        }
    }
}

impl Entry {
    fn next_due(&self) -> Instant {
        [self.hedge_at, self.relief_at].into_iter().flatten().fold(self.ends_at, Instant::min)
    }
}
