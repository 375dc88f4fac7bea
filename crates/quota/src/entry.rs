//! One limit: what was declared, what is counted, and what the provider shows of it.

use std::time::Duration;

use freeway_types::Now;

use crate::block::Blocks;
use crate::book::Shown;
use crate::counter::{Counted, Counter};
use crate::demand::Demand;
use crate::drift::Drift;
use crate::learn::{Evidence, Size};
use crate::margins::Margins;
use crate::pace::Recent;
use crate::report::{Report, ReportSource};
use crate::skew::Offset;
use crate::spec::{LimitSpec, Rule};

#[derive(Debug)]
pub(crate) struct Entry {
    /// With the amount that counts, by what was declared and what was learned.
    pub(crate) spec: LimitSpec,
    /// The amount that was declared.
    pub(crate) declared: Option<u64>,
    /// Whose it is, of a limit that nobody declared: a target or an account.
    pub(crate) owner: Option<String>,
    pub(crate) counter: Counter,
    margins: Margins,
    /// What answers have said of its boundary.
    drift: Drift,
    /// While its boundary has moved: how it is documented to come back, and an empty count of that kind.
    aside: Option<(Rule, Counter)>,
    pub(crate) evidence: Evidence,
    pub(crate) recent: Recent,
    /// `None` where a loss of power needs no bound.
    pub(crate) blocks: Option<Blocks>,
}

impl Entry {
    pub(crate) fn new(spec: LimitSpec, margins: Margins, now: Now) -> Self {
        let (counter, recent) = (Counter::new(&spec, margins, now), Recent::new(now.monotonic));
        let (declared, drift, evidence) = (spec.amount, Drift::default(), Evidence::default());
        Self { declared, owner: None, counter, margins, drift, aside: None, evidence, recent, blocks: None, spec }
    }

    /// One that nobody declared, of which nothing is counted yet.
    pub(crate) fn shown(spec: LimitSpec, shown: &Shown, margins: Margins, now: Now) -> Self {
        let mut entry = Self { owner: Some(shown.owner.clone()), ..Self::new(spec, margins, now) };
        entry.evidence.restore(shown.size);
        entry.resize(now);
        entry
    }

    /// Books what is counted while this process runs.
    pub(crate) fn count(&mut self, amount: u64, when: Counted, now: Now) {
        self.recent.add(amount, now.monotonic);
        self.counter.count(&self.spec, amount, when, now);
        if let Some(blocks) = &mut self.blocks {
            blocks.counted(amount);
        }
    }

    /// What is left of an amount, ours and others' use taken off.
    pub(crate) fn left(&mut self, amount: u64, now: Now) -> u64 {
        self.counter.left(&self.spec, amount, now).saturating_sub(self.evidence.foreign(&self.spec, now))
    }

    /// `own` is what we counted or held when the request was sent. The provider counted somewhere between then and now:
    /// what it counts beyond the greater of the two is not ours.
    pub(crate) fn learn(
        &mut self,
        report: &Report,
        refused: Option<&Demand>,
        dispatched: Now,
        own: u64,
        now: Now,
    ) -> bool {
        self.counter.advance(&self.spec, now);
        let before = self.evidence.size();
        if let Some(amount) = report.amount {
            self.evidence.told(amount, report.source, refused.is_some(), now);
            self.resize(now);
        }
        if let Some(returns) = report.returns {
            self.observe(returns, now);
        }
        let size = report.amount.filter(|amount| *amount > 0).or(self.spec.amount);
        match (size, report.left, refused) {
            (Some(size), Some(left), _) if left <= size => {
                let own = self.own(now).max(own);
                self.evidence.counted(&self.spec, size - left, own, dispatched, report.returns, now);
            }
            (_, None, Some(demand)) if report.source == ReportSource::Refusal => {
                self.refuse(demand, report.returns, now);
            }
            _ => {}
        }
        let used = self.own(now);
        self.evidence.watch(&self.spec, self.declared, used, now);
        self.resize(now);
        let amount = |size: Option<Size>| size.map(|size| (size.amount, size.source));
        amount(self.evidence.size()) != amount(before)
    }

    /// Takes in what a quota endpoint says that was asked at `asked`, when we counted or held `own`.
    ///
    /// Such an answer may be older than it looks: providers keep it for a minute. What others use is therefore only
    /// known to lie between two bounds. It is at least what the provider counts beyond all that is ours by now, and at
    /// most what it counts beyond those charges of ours that are so old that it must have seen them.
    pub(crate) fn learn_answer(&mut self, report: &Report, asked: Now, own: u64, now: Now) -> bool {
        self.counter.advance(&self.spec, now);
        let before = self.evidence.size();
        if let Some(amount) = report.amount {
            self.evidence.told(amount, report.source, false, now);
            self.resize(now);
        }
        let size = report.amount.filter(|amount| *amount > 0).or(self.spec.amount);
        if let (Some(size), Some(left)) = (size, report.left)
            && left <= size
        {
            let own_now = self.own(now);
            let lately = self.recent.pace(now.monotonic).map_or(0, |pace| pace.units);
            let seen = own.min(own_now).saturating_sub(self.counter.in_flight()).saturating_sub(lately);
            self.evidence.counted_within(&self.spec, size - left, (seen, own.max(own_now)), asked, report.returns, now);
        }
        self.resize(now);
        let amount = |size: Option<Size>| size.map(|size| (size.amount, size.source));
        amount(self.evidence.size()) != amount(before)
    }

    /// Takes in when an answer says that it comes back, of a limit that is documented to come back by the calendar.
    fn observe(&mut self, returns: Duration, now: Now) {
        let documented = self.aside.as_ref().map_or(&self.spec.rule, |(rule, _)| rule);
        let Rule::Calendar(civil, zone) = documented else { return };
        self.drift.observe(*civil, zone, returns, now);
        if self.drift.has_moved() != self.aside.is_some() {
            self.realign(now);
        }
    }

    /// Counts on as the boundary's state wants it: as one that slides, or by the calendar again. What counts at this
    /// moment is taken over as if all of it were counted now, so that nothing of it comes back too early.
    fn realign(&mut self, now: Now) {
        let held = self.counter.in_flight();
        let used = self.own(now).saturating_sub(held);
        let (spec, mut counter, aside) = match self.aside.take() {
            None => {
                let spec = self.spec.slid();
                let aside = (self.spec.rule.clone(), self.counter.emptied(&self.spec, self.margins, now));
                let counter = Counter::new(&spec, self.margins, now);
                (spec, counter, Some(aside))
            }
            Some((rule, counter)) => (LimitSpec { rule, moved: false, ..self.spec.clone() }, counter, None),
        };
        counter.hold(held);
        counter.count(&spec, used, Counted::between(now, now, now), now);
        (self.spec, self.counter, self.aside) = (spec, counter, aside);
        self.forget_bounds();
    }

    /// Whether it counts in the way that a configuration says, as far as its boundary is where that says.
    pub(crate) fn counts_like(&self, spec: &LimitSpec) -> bool {
        match &self.aside {
            Some((rule, _)) => LimitSpec { rule: rule.clone(), ..self.spec.clone() }.counts_like(spec),
            None => self.spec.counts_like(spec),
        }
    }

    /// Takes in another declaration of the same limit.
    pub(crate) fn declare(&mut self, spec: LimitSpec, now: Now) {
        let declared = spec.amount;
        let spec = LimitSpec { amount: self.evidence.amount(&spec, declared, now.wall), ..spec };
        (self.declared, self.owner) = (declared, None);
        if self.counts_like(&spec) {
            // What answers have shown of its boundary still holds.
            let spec = match self.aside {
                Some(_) => LimitSpec { rule: self.spec.rule.clone(), moved: true, ..spec },
                None => spec,
            };
            self.counter.advance(&self.spec, now);
            self.counter.resize(&self.spec, &spec);
            self.spec = spec;
        } else {
            // It counts in another way now. What is in flight is still held.
            let held = self.counter.in_flight();
            (self.counter, self.drift, self.aside) = (Counter::new(&spec, self.margins, now), Drift::default(), None);
            self.forget_bounds();
            self.counter.hold(held);
            self.spec = spec;
        }
    }

    /// What is known of the provider's clock from now on.
    pub(crate) fn set_offset(&mut self, offset: Offset) {
        self.counter.set_offset(offset);
        if let Some((_, counter)) = &mut self.aside {
            counter.set_offset(offset);
        }
    }

    /// Takes in that the provider refused for want of this.
    pub(crate) fn refuse(&mut self, demand: &Demand, returns: Option<Duration>, now: Now) -> bool {
        let own = self.own(now).saturating_sub(demand.amount(&self.spec));
        self.evidence.refused(&self.spec, self.declared, own, returns, now);
        self.resize(now);
        true
    }

    /// What we count or hold ourselves.
    pub(crate) fn own(&mut self, now: Now) -> u64 {
        let amount = self.spec.amount.unwrap_or(u64::MAX);
        self.counter.spent().unwrap_or_else(|| amount.saturating_sub(self.counter.left(&self.spec, amount, now)))
    }

    /// Lets go of a size that was learned too long ago.
    pub(crate) fn refresh(&mut self, now: Now) {
        if self.evidence.size().is_some() {
            self.resize(now);
        }
    }

    /// Lets the amount count that is known by now.
    pub(crate) fn resize(&mut self, now: Now) {
        let amount = self.evidence.amount(&self.spec, self.declared, now.wall);
        if amount != self.spec.amount {
            let spec = LimitSpec { amount, ..self.spec.clone() };
            self.counter.resize(&self.spec, &spec);
            self.spec = spec;
        }
    }
}
