//! One limit: what was declared, what is counted, and what the provider shows of it.

use std::time::Duration;

use freeway_types::Now;

use crate::block::Blocks;
use crate::book::Shown;
use crate::counter::{Counted, Counter};
use crate::demand::Demand;
use crate::learn::{Evidence, Size};
use crate::pace::Recent;
use crate::report::{Report, ReportSource};
use crate::spec::LimitSpec;

#[derive(Debug)]
pub(crate) struct Entry {
    /// With the amount that counts, by what was declared and what was learned.
    pub(crate) spec: LimitSpec,
    /// The amount that was declared.
    pub(crate) declared: Option<u64>,
    /// Whose it is, of a limit that nobody declared: a target or an account.
    pub(crate) owner: Option<String>,
    pub(crate) counter: Counter,
    pub(crate) evidence: Evidence,
    pub(crate) recent: Recent,
    /// `None` where a loss of power needs no bound.
    pub(crate) blocks: Option<Blocks>,
}

impl Entry {
    pub(crate) fn new(spec: LimitSpec, now: Now) -> Self {
        let (counter, recent) = (Counter::new(&spec, now), Recent::new(now.monotonic));
        Self { declared: spec.amount, owner: None, counter, evidence: Evidence::default(), recent, blocks: None, spec }
    }

    /// One that nobody declared, of which nothing is counted yet.
    pub(crate) fn shown(spec: LimitSpec, shown: &Shown, now: Now) -> Self {
        let mut entry = Self { owner: Some(shown.owner.clone()), ..Self::new(spec, now) };
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
