//! All limits together: reserve, settle, release.

use std::collections::VecDeque;

use freeway_catalog::{Charges, Counts};
use freeway_types::{LimitIndex, Metric, Now, Timestamp, Usage, Usd};

use crate::counter::Counted;
use crate::demand::{Demand, used};
use crate::entry::Entry;
use crate::margins::Margins;
use crate::skew::Offset;
use crate::spec::LimitSpec;
use targets::Enlisted;

mod learning;
mod outlook;
mod securing;
mod targets;
mod viewing;

pub use learning::{Asked, Heard};
pub use outlook::Allowance;
pub use targets::{Shown, Target};
pub use viewing::LimitView;

use securing::Bounds;

/// The counts of all limits.
#[derive(Debug, Default)]
pub struct Book {
    limits: Vec<Entry>,
    margins: Margins,
    targets: Vec<Enlisted>,
    reservations: Vec<Option<Reservation>>,
    free: Vec<usize>,
    /// Reservations whose request is written, by the instant after which it must have been counted.
    written: VecDeque<(Now, ReservationId)>,
    /// Distinguishes reservations that use the same place one after the other.
    generation: u64,
    bounds: Bounds,
    /// When this book was last asked or told something.
    seen: Option<Now>,
}

/// Names one reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationId {
    place: usize,
    generation: u64,
}

/// Why an attempt may not be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The limit that stands in the way; of several, the one that lasts longest.
    pub limit: LimitIndex,
    /// When it will fit again. `None`: not by waiting.
    pub until: Option<Now>,
    /// Whether the attempt is larger than the whole limit.
    pub too_large: bool,
    /// Whether it fits, and only the bound is missing that outlives a loss of power: it was asked for.
    pub unsecured: bool,
}

/// Whether an attempt fits into its limits now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fit {
    /// It does; the scarcest limit has this share of its amount left, from 0 to 1. `None`: no limit's size is known.
    Fits(Option<f64>),
    /// It does not.
    Blocked(Blocked),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Actual {
    /// What it used; `None` where nobody knows, so that the reservation stands as used.
    pub usage: Option<Usage>,
    /// What it cost.
    pub cost: Usd,
    /// What it used of the provider's own units.
    pub units: u64,
    /// Whether it was answered; a refusal charges the request and no tokens.
    pub answered: bool,
}

impl Actual {
    /// Whether the provider is known to have refused: it neither answered nor used anything. An answer that broke off
    /// is none, even if nobody knows what it used.
    fn is_refusal(&self) -> bool {
        !self.answered && self.usage.is_some_and(|usage| usage == Usage::default())
    }
}

#[derive(Debug)]
struct Reservation {
    generation: u64,
    dispatched: Now,
    /// The latest instant at which the provider can have counted the request, once that is known.
    receipt: Option<Now>,
    held: Vec<Held>,
    /// What it is for, where that is known: limits that are shown later take it in.
    of: Option<(Target, Demand)>,
}

/// What one attempt holds of one limit.
#[derive(Clone, Copy, Debug)]
struct Held {
    limit: LimitIndex,
    amount: u64,
    /// What we counted or held of it then, this included.
    own: u64,
}

impl Book {
    /// A book in which nothing is used.
    #[must_use]
    pub fn new(specs: Vec<LimitSpec>, now: Now) -> Self {
        Self::with_margins(specs, Margins::LIVE, now)
    }

    /// A book in which nothing is used, and that leaves room for other margins than the live gateway's.
    #[must_use]
    pub fn with_margins(specs: Vec<LimitSpec>, margins: Margins, now: Now) -> Self {
        let limits = specs.into_iter().map(|spec| Entry::new(spec, margins, now)).collect();
        Self { limits, margins, ..Self::default() }
    }

    /// Whether a limit of this name is counted in the way that `spec` says.
    #[must_use]
    pub fn counts(&self, spec: &LimitSpec) -> bool {
        self.limits.iter().any(|entry| entry.spec.name == spec.name && entry.counts_like(spec))
    }

    /// Takes the limits of a configuration in, and gives the index of each. One that is [counted](Self::counts) already
    /// keeps its count: a smaller amount takes effect at once, a larger one resets nothing. Limits that are gone keep
    /// theirs too, in case they come back.
    pub fn adopt(&mut self, specs: Vec<LimitSpec>, now: Now) -> Vec<LimitIndex> {
        let adopt = |spec: LimitSpec| {
            let known = self.limits.iter_mut().position(|entry| entry.spec.name == spec.name);
            let Some(place) = known else {
                let mut entry = Entry::new(spec, self.margins, now);
                self.bounds.take_up(&mut entry);
                self.limits.push(entry);
                return LimitIndex::new(self.limits.len() - 1);
            };
            self.limits[place].declare(spec, now);
            LimitIndex::new(place)
        };
        specs.into_iter().map(adopt).collect()
    }

    /// The limit at an index.
    #[must_use]
    pub fn spec(&self, limit: LimitIndex) -> &LimitSpec {
        &self.limits[limit.get()].spec
    }

    /// Whether an attempt would fit now. Changes no count.
    pub fn fit(&mut self, now: Now, limits: &[LimitIndex], demand: &Demand) -> Fit {
        self.pass_receipts(now);
        let mut scarcest: Option<f64> = None;
        let mut worst: Option<Blocked> = None;
        for limit in limits {
            let entry = &mut self.limits[limit.get()];
            entry.refresh(now);
            let Some(amount) = entry.spec.amount else { continue };
            entry.counter.advance(&entry.spec, now);
            let need = match self.margins.are_estimates {
                true => demand.room(&entry.spec, amount),
                false => demand.amount(&entry.spec),
            };
            let left = entry.left(amount, now);
            let Entry { spec, counter, evidence, .. } = entry;
            if need <= left {
                let share = share(left, amount);
                scarcest = Some(scarcest.map_or(share, |other| other.min(share)));
                continue;
            }
            let too_large = need > amount;
            let until = match spec.metric {
                _ if too_large => None,
                // It comes back as soon as another request ends.
                Metric::Concurrency => Some(now),
                _ => later(counter.relief(spec, amount, need, now), evidence.relief(spec, now)),
            };
            let blocked = Blocked { limit: *limit, until, too_large, unsecured: false };
            worst = Some(match worst {
                Some(other) if lasts_longer(other, blocked) => other,
                _ => blocked,
            });
        }
        worst.map_or(Fit::Fits(scarcest), Fit::Blocked)
    }

    /// Holds what an attempt may use, of all its limits or of none. Call it at dispatch:
    /// from now on the provider may count.
    ///
    /// # Errors
    /// When a limit has not enough left; nothing is held then.
    pub fn reserve(&mut self, now: Now, limits: &[LimitIndex], demand: &Demand) -> Result<ReservationId, Blocked> {
        if let Fit::Blocked(blocked) = self.fit(now, limits, demand) {
            return Err(blocked);
        }
        if self.bounds.are_kept {
            self.secure_ahead(now, limits, demand)?;
        }
        let mut held = Vec::with_capacity(limits.len());
        for limit in limits {
            let entry = &mut self.limits[limit.get()];
            let amount = demand.amount(&entry.spec);
            entry.counter.hold(amount);
            held.push(Held { limit: *limit, amount, own: entry.own(now) });
            if self.bounds.are_kept {
                entry.top_up(now, &mut self.bounds.wanted);
            }
        }
        self.generation += 1;
        let reservation = Reservation { generation: self.generation, dispatched: now, receipt: None, held, of: None };
        let place = self.free.pop().unwrap_or_else(|| {
            self.reservations.push(None);
            self.reservations.len() - 1
        });
        self.reservations[place] = Some(reservation);
        Ok(ReservationId { place, generation: self.generation })
    }

    /// The request is written to its last byte: it will have been counted one [lag](Margins::lag) from now, if the machine does not
    /// sleep meanwhile. That it does not is seen by a book that is asked something every second or two.
    pub fn written(&mut self, id: ReservationId, now: Now) {
        if self.get(id).is_some_and(|reservation| reservation.receipt.is_none()) {
            self.written.push_back((now.after(self.margins.lag), id));
        }
    }

    /// The first byte came back: the request has been counted.
    pub fn received(&mut self, id: ReservationId, now: Now) {
        self.pass_receipts(now);
        self.count_request(id, now, now);
    }

    /// The attempt is over. Gives the latest instant at which the provider can have counted the request. Idempotent:
    /// a second call for the same reservation changes nothing, and gives nothing.
    pub fn settle(&mut self, id: ReservationId, now: Now, actual: &Actual) -> Option<Now> {
        self.pass_receipts(now);
        let reservation = self.take(id)?;
        let receipt = reservation.receipt.unwrap_or_else(|| now.after(self.margins.lag));
        for Held { limit, amount: held, .. } in reservation.held {
            let entry = &mut self.limits[limit.get()];
            let Entry { spec, counter, .. } = entry;
            counter.advance(spec, now);
            if counts_on_receipt(spec) && reservation.receipt.is_some() {
                continue;
            }
            counter.unhold(held);
            let amount = settled(spec, held, actual);
            let receipt = if spec.metric == Metric::Requests { receipt } else { now.after(self.margins.lag) };
            entry.count(amount, Counted::between(reservation.dispatched, receipt, now), now);
        }
        Some(receipt)
    }

    /// Nothing was sent: everything is given back.
    pub fn release(&mut self, id: ReservationId) {
        let Some(reservation) = self.take(id) else { return };
        for Held { limit, amount: held, .. } in reservation.held {
            self.limits[limit.get()].counter.unhold(held);
        }
    }

    /// Books use from before this process started: what an attempt sent at `dispatched` was charged, at `counted` at
    /// the latest, by the wall clock of then. What has left its window by now is passed over. No charge is held for
    /// longer than if it were counted now, however far ahead the clock of then was; against a clock that was behind
    /// nothing can be done here, since its charges look old.
    pub fn replay(&mut self, limit: LimitIndex, amount: u64, dispatched: Timestamp, counted: Timestamp, now: Now) {
        let Entry { spec, counter, blocks, .. } = &mut self.limits[limit.get()];
        if let Some(blocks) = blocks {
            blocks.replayed(amount, dispatched);
        }
        if let Some(length) = spec.length()
            && now.wall.since(counted) > length
        {
            return;
        }
        let when = Counted::before(dispatched, counted, now.after(self.margins.lag), now);
        counter.count(spec, amount, when, now);
    }

    /// Takes in what an answer taught about the clock of the provider that counts these limits: where civil windows
    /// begin and end there. Call it when [`Skew::learn`](crate::Skew::learn) says that it changed.
    pub fn learn_clock(&mut self, limits: &[LimitIndex], offset: Offset) {
        for limit in limits {
            self.limits[limit.get()].set_offset(offset);
        }
    }

    /// Turns "written and long enough ago" into "counted".
    fn pass_receipts(&mut self, now: Now) {
        let last = self.seen.replace(now);
        if last.is_some_and(|last| now.monotonic.since(last.monotonic) > self.margins.lag) {
            // The machine may have slept, and what was written may lie in its memory still.
            for (deadline, _) in &mut self.written {
                if deadline.monotonic <= now.monotonic {
                    *deadline = now.after(self.margins.lag);
                }
            }
        }
        while let Some((deadline, id)) = self.written.front().copied() {
            if deadline.monotonic > now.monotonic {
                break;
            }
            self.written.pop_front();
            self.count_request(id, deadline, now);
        }
    }

    fn count_request(&mut self, id: ReservationId, receipt: Now, now: Now) {
        let Some(reservation) = self.reservations.get_mut(id.place).and_then(Option::as_mut) else { return };
        if reservation.generation != id.generation || reservation.receipt.is_some() {
            return;
        }
        reservation.receipt = Some(receipt);
        for Held { limit, amount: held, .. } in &reservation.held {
            let entry = &mut self.limits[limit.get()];
            if counts_on_receipt(&entry.spec) {
                entry.counter.unhold(*held);
                entry.count(*held, Counted::between(reservation.dispatched, receipt, now), now);
            }
        }
    }

    fn get(&self, id: ReservationId) -> Option<&Reservation> {
        self.reservations.get(id.place)?.as_ref().filter(|reservation| reservation.generation == id.generation)
    }

    fn take(&mut self, id: ReservationId) -> Option<Reservation> {
        self.get(id)?;
        self.free.push(id.place);
        self.reservations[id.place].take()
    }
}

/// The later of two returns; `None` is never.
fn later(one: Option<Now>, other: Option<Now>) -> Option<Now> {
    match (one?, other?) {
        (one, other) if one.monotonic >= other.monotonic => Some(one),
        (_, other) => Some(other),
    }
}

/// Whether a charge is certain as soon as the provider has the request, however it ends.
fn counts_on_receipt(spec: &LimitSpec) -> bool {
    spec.metric == Metric::Requests && spec.charging.counts == Counts::All
}

fn settled(spec: &LimitSpec, held: u64, actual: &Actual) -> u64 {
    let picos = u64::try_from(actual.cost.as_picos()).unwrap_or(0);
    match spec.metric {
        Metric::Requests if spec.charging.counts == Counts::Successes && actual.is_refusal() => 0,
        Metric::Requests => held,
        Metric::Concurrency => 0,
        // What was asked for stands, and so does more than was expected of the rest.
        _ if spec.charging.charges == Charges::Requested => match actual.usage {
            Some(usage) => held.max(used(spec.metric, usage, picos, actual.units)),
            None => held,
        },
        _ => match actual.usage {
            Some(usage) => used(spec.metric, usage, picos, actual.units),
            None => held,
        },
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share for ranking, not a count")]
fn share(left: u64, amount: u64) -> f64 {
    if amount == 0 { 0.0 } else { left as f64 / amount as f64 }
}

/// Whether `one` stands in the way longer than `other`.
fn lasts_longer(one: Blocked, other: Blocked) -> bool {
    match (one.until, other.until) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(one), Some(other)) => one.monotonic >= other.monotonic,
    }
}

#[cfg(test)]
mod tests;
