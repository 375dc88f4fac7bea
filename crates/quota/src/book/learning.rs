//! Learning from what comes back.

use freeway_types::{LimitIndex, Now};

use super::{Book, ReservationId};
use crate::demand::Demand;
use crate::learn::Size;
use crate::report::{Report, ReportScope, ReportSource};

/// What came back of an attempt, as far as it tells of limits.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// What the provider said of its limits.
    pub reports: &'a [Report],
    /// The attempt.
    pub attempt: ReservationId,
    /// When the head of the answer came.
    pub now: Now,
    /// What the attempt was charged, if the provider refused it for want of quota.
    pub refused: Option<&'a Demand>,
}

/// How limits stood when a quota endpoint was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    at: Now,
    /// What we counted or held of each limit.
    own: Vec<(LimitIndex, u64)>,
}

impl Asked {
    /// When that was.
    #[must_use]
    pub const fn at(&self) -> Now {
        self.at
    }
}

impl Book {
    /// A quota endpoint is about to be asked: notes how the limits stand of which it may speak.
    pub fn ask(&mut self, limits: &[LimitIndex], now: Now) -> Asked {
        self.pass_receipts(now);
        let own = |limit: &LimitIndex| {
            let entry = &mut self.limits[limit.get()];
            entry.counter.advance(&entry.spec, now);
            (*limit, entry.own(now))
        };
        Asked { at: now, own: limits.iter().map(own).collect() }
    }

    /// Learns from the answer of a quota endpoint. Gives whether something is known now that should be remembered.
    pub fn learn_answer(&mut self, asked: &Asked, reports: &[Report], now: Now) -> bool {
        self.pass_receipts(now);
        let limits: Vec<LimitIndex> = asked.own.iter().map(|(limit, _)| *limit).collect();
        let mut changed = false;
        for report in reports {
            let Some(limit) = self.spoken_of(&limits, report) else { continue };
            let own = asked.own.iter().find(|(known, _)| *known == limit).map_or(0, |(_, own)| *own);
            changed |= self.limits[limit.get()].learn_answer(report, asked.at, own, now);
        }
        changed
    }

    /// Learns from what came back. Gives whether something is known now that should be remembered.
    pub fn learn(&mut self, limits: &[LimitIndex], heard: &Heard<'_>) -> bool {
        self.pass_receipts(heard.now);
        let Some(attempt) = self.get(heard.attempt) else { return false };
        let (dispatched, held) = (attempt.dispatched, attempt.held.clone());
        let mut changed = false;
        let mut is_named = false;
        for report in heard.reports {
            let Some(limit) = self.spoken_of(limits, report) else { continue };
            let own = held.iter().find(|held| held.limit == limit).map_or(0, |held| held.own);
            changed |= self.limits[limit.get()].learn(report, heard.refused, dispatched, own, heard.now);
            is_named |= report.left.is_some() || report.source == ReportSource::Refusal;
        }
        if let Some(demand) = heard.refused
            && !is_named
            && let Some(limit) = self.suspect(limits, demand, heard.now)
        {
            changed |= self.limits[limit.get()].refuse(demand, None, heard.now);
        }
        changed
    }

    /// Takes over what an earlier process learned about the size of a limit.
    pub fn restore(&mut self, name: &str, size: Size, now: Now) {
        if let Some(entry) = self.limits.iter_mut().find(|entry| entry.spec.name == name) {
            entry.evidence.restore(size);
            entry.resize(now);
        }
    }

    /// What was learned about sizes, by limit.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, Size)> {
        self.limits.iter().filter_map(|entry| Some((entry.spec.name.as_str(), entry.evidence.size()?)))
    }

    /// The limit that a report speaks of, if that is clear.
    fn spoken_of(&self, limits: &[LimitIndex], report: &Report) -> Option<LimitIndex> {
        let spec = |limit: &LimitIndex| &self.limits[limit.get()].spec;
        // An endpoint answers for an account. Of a limit of one model it speaks only if it says so.
        let can_mean = |limit: &LimitIndex| {
            let is_wider = report.source == ReportSource::Endpoint && report.scope == ReportScope::Account;
            !(is_wider && spec(limit).of_model)
        };
        let mut found: Vec<LimitIndex> =
            limits.iter().copied().filter(|limit| spec(limit).is_spoken_of(report) && can_mean(limit)).collect();
        let narrowings: [&dyn Fn(&LimitIndex) -> bool; 2] = [
            &|limit| {
                report.scope == ReportScope::Unknown || (report.scope == ReportScope::Model) == spec(limit).of_model
            },
            &|limit| report.amount.is_none() || report.amount == spec(limit).amount,
        ];
        for fits in narrowings {
            if found.len() > 1 && found.iter().any(fits) {
                found.retain(fits);
            }
        }
        match found[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The limit that a refusal without any name must have meant: the only one of unknown size, where no other is near
    /// its end.
    fn suspect(&mut self, limits: &[LimitIndex], demand: &Demand, now: Now) -> Option<LimitIndex> {
        let mut unknown = None;
        for limit in limits {
            let entry = &mut self.limits[limit.get()];
            let is_unsized = entry.declared.is_none() && !entry.spec.undeclared;
            match entry.spec.amount {
                _ if is_unsized && unknown.is_some() => return None,
                _ if is_unsized => unknown = Some(*limit),
                Some(amount) => {
                    entry.counter.advance(&entry.spec, now);
                    if entry.left(amount, now) < demand.amount(&entry.spec) {
                        return None;
                    }
                }
                None => {}
            }
        }
        unknown
    }
}

#[cfg(test)]
mod tests;
