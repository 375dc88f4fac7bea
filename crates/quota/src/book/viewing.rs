//! How limits stand, for people.

use freeway_types::{Now, Timestamp};

use super::{Book, later};
use crate::counter::GrantView;
use crate::entry::Entry;
use crate::learn::{Provenance, Size};
use crate::pace::{Pace, runs_dry};
use crate::spec::LimitSpec;

/// One limit as it stands, for people.
#[derive(Clone, Debug)]
pub struct LimitView<'a> {
    /// Which one.
    pub spec: &'a LimitSpec,
    /// Its size in units, tokens or picodollars, if known.
    pub amount: Option<u64>,
    /// The size that was declared.
    pub declared: Option<u64>,
    /// What the provider showed of its size.
    pub learned: Option<Size>,
    /// Counted or held, in the present window.
    pub used: u64,
    /// What others use of it, as far as the provider's figures show.
    pub foreign: u64,
    /// Of that, held for attempts in flight.
    pub held: u64,
    /// What may be sent now.
    pub left: u64,
    /// When the next unit comes back, if anything is used.
    pub returns: Option<Timestamp>,
    /// Of credits that do not come back, each one.
    pub credits: Vec<GrantView>,
    /// Where its size is from.
    pub provenance: Provenance,
    /// When the provider last told of its own count.
    pub heard: Option<Timestamp>,
    /// How fast we use it, if we do.
    pub pace: Option<Pace>,
    /// When its rest is used up at that pace, if that is before it comes back.
    pub dry: Option<Timestamp>,
}

impl Book {
    /// Every limit as it stands.
    pub fn view(&mut self, now: Now) -> impl Iterator<Item = LimitView<'_>> {
        self.pass_receipts(now);
        self.limits.iter_mut().map(move |entry| {
            entry.refresh(now);
            entry.counter.advance(&entry.spec, now);
            let amount = entry.spec.amount;
            let foreign = entry.evidence.foreign(&entry.spec, now);
            let left = amount.map_or(0, |amount| entry.left(amount, now));
            let Entry { spec, declared, counter, evidence, recent, .. } = entry;
            let used = match amount {
                Some(amount) => {
                    counter.spent().unwrap_or_else(|| amount.saturating_sub(counter.left(spec, amount, now)))
                }
                None => counter.in_flight(),
            };
            let returns = amount
                .filter(|_| used > 0 || foreign > 0)
                .and_then(|amount| later(counter.relief(spec, amount, left + 1, now), evidence.relief(spec, now)))
                .map(|instant| instant.wall);
            let credits = counter.credits(spec, now);
            let (held, declared, learned) = (counter.in_flight(), *declared, evidence.size());
            let provenance = evidence.provenance(spec, declared, now.wall);
            let heard = evidence.heard(now);
            let pace = recent.pace(now.monotonic);
            let dry = amount.zip(pace).and_then(|(amount, pace)| runs_dry(counter, spec, amount, left, pace, now));
            LimitView {
                held,
                spec,
                amount,
                declared,
                learned,
                used,
                foreign,
                left,
                returns,
                credits,
                provenance,
                heard,
                pace,
                dry,
            }
        })
    }
}
