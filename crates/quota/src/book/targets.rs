//! Targets, and limits that nobody declared: made from what a provider says of itself.
//!
//! A target is a model at an account. Its limits are the declared ones, and those that its answers have shown: a size
//! and a window for a metric of which nothing was declared. Such a limit is counted from the answer on that showed it,
//! and forgotten a day after it was last shown.

use std::time::Duration;

use freeway_types::{LimitIndex, Metric, Now};
use serde::{Deserialize, Serialize};

use super::{Blocked, Book, Fit, Heard, Held, ReservationId, counts_on_receipt};
use crate::counter::Counted;
use crate::demand::Demand;
use crate::entry::Entry;
use crate::learn::Size;
use crate::report::{Report, ReportScope, ReportSource, ReportWindow};
use crate::spec::{LimitSpec, Rule};

/// The most limits of one target that nobody declared.
const MOST_SHOWN: usize = 16;
/// The longest window that is believed.
const LONGEST_WINDOW: Duration = Duration::from_secs(31 * 86_400);

/// Names a target in a [`Book`]. It outlives edits of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target(usize);

/// A limit that nobody declared, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// What it counts for: a target or an account, by its name.
    pub owner: String,
    /// Whether that is a target.
    pub of_model: bool,
    /// What it counts.
    pub metric: Metric,
    /// Its window, in seconds.
    pub window_s: u64,
    /// Its size, and when that was last said.
    pub size: Size,
}

#[derive(Debug)]
pub(super) struct Enlisted {
    name: String,
    account: String,
    declared: Vec<LimitIndex>,
    /// The declared limits, and then those that were shown.
    all: Vec<LimitIndex>,
}

impl Shown {
    /// What a report shows, if that is enough for a limit.
    ///
    /// Where it is not said what a limit belongs to, it is taken to be the model's. Both readings are safe against
    /// overrunning: if it is the account's, what other models use of it shows in the next answer as use by others. Read
    /// as the account's, though, a model's limit would hold back models that have one of their own, and two models of
    /// different sizes would overwrite each other's with every answer.
    fn by(report: &Report, target: &Enlisted, now: Now) -> Option<Self> {
        let ReportWindow::Length(window) = report.window else { return None };
        let amount = report.amount.filter(|amount| *amount > 0 && report.left.is_none_or(|left| left <= *amount))?;
        let is_window = window >= Duration::from_secs(1) && window <= LONGEST_WINDOW;
        if report.source == ReportSource::Endpoint || report.metric == Metric::Concurrency || !is_window {
            return None;
        }
        let of_model = report.scope != ReportScope::Account;
        let owner = if of_model { target.name.clone() } else { target.account.clone() };
        let size = Size { amount, source: Some(report.source), at: now.wall };
        Some(Self { owner, of_model, metric: report.metric, window_s: window.as_secs(), size })
    }

    fn spec(&self) -> LimitSpec {
        let window = match self.window_s {
            1 => "second".to_owned(),
            60 => "minute".to_owned(),
            3_600 => "hour".to_owned(),
            86_400 => "day".to_owned(),
            604_800 => "week".to_owned(),
            2_678_400 => "month".to_owned(),
            seconds => format!("{seconds}s"),
        };
        LimitSpec {
            name: format!("{} {} per {window}", self.owner, self.metric),
            metric: self.metric,
            amount: None,
            // Nobody says how it comes back: what slides is safe for every phase.
            rule: Rule::Rolling(Duration::from_secs(self.window_s)),
            charging: crate::Charging::default(),
            window,
            reset_unknown: true,
            own: false,
            undeclared: true,
            moved: false,
            of_model: self.of_model,
            confidence: None,
            as_of: None,
        }
    }
}

impl Enlisted {
    fn owns(&self, entry: &Entry) -> bool {
        entry
            .owner
            .as_ref()
            .is_some_and(|owner| *owner == if entry.spec.of_model { &*self.name } else { &*self.account })
    }
}

impl Book {
    /// Takes in a target of a configuration, with its declared limits. What its answers have shown before stays.
    pub fn enlist(&mut self, name: &str, account: &str, declared: &[LimitIndex]) -> Target {
        let known = self.targets.iter().position(|target| target.name == name);
        let place = known.unwrap_or(self.targets.len());
        let (name, account) = (name.to_owned(), account.to_owned());
        let target = Enlisted { name, account, declared: declared.to_vec(), all: Vec::new() };
        match known {
            Some(place) => self.targets[place] = target,
            None => self.targets.push(target),
        }
        self.gather(place);
        Target(place)
    }

    /// Every limit that an attempt at a target counts against.
    #[must_use]
    pub fn limits_of(&self, target: Target) -> &[LimitIndex] {
        &self.targets[target.0].all
    }

    /// Whether an attempt at a target would fit now. Changes no count.
    pub fn fit_at(&mut self, now: Now, target: Target, demand: &Demand) -> Fit {
        let limits = std::mem::take(&mut self.targets[target.0].all);
        let fit = self.fit(now, &limits, demand);
        self.targets[target.0].all = limits;
        fit
    }

    /// Holds what an attempt at a target may use, of all its limits or of none: see [`Self::reserve`].
    ///
    /// # Errors
    /// When a limit has not enough left; nothing is held then.
    pub fn reserve_at(&mut self, now: Now, target: Target, demand: &Demand) -> Result<ReservationId, Blocked> {
        let limits = std::mem::take(&mut self.targets[target.0].all);
        let reserved = self.reserve(now, &limits, demand);
        self.targets[target.0].all = limits;
        if let Ok(id) = &reserved
            && let Some(reservation) = &mut self.reservations[id.place]
        {
            reservation.of = Some((target, *demand));
        }
        reserved
    }

    /// Learns from what came back of an attempt at a target, limits that nobody declared included. Gives whether
    /// something is known now that should be remembered.
    pub fn learn_at(&mut self, target: Target, heard: &Heard<'_>) -> bool {
        let limits = std::mem::take(&mut self.targets[target.0].all);
        let mut changed = self.learn(&limits, heard);
        self.targets[target.0].all = limits;
        if self.get(heard.attempt).is_none() {
            return changed;
        }
        for report in heard.reports {
            let Some(limit) = self.show(target, report, heard.now) else { continue };
            let entry = &mut self.limits[limit.get()];
            let own = entry.own(heard.now);
            // What it counts beyond what is ours and still held may be ours of before. It is gone after a window, too.
            entry.learn(report, heard.refused, heard.now, own, heard.now);
            changed = true;
        }
        changed
    }

    /// Takes over a limit that an earlier process was shown. Gives its index, unless it is too old, or declared by now.
    pub fn restore_shown(&mut self, shown: &Shown, now: Now) -> Option<LimitIndex> {
        let limit = self.make(shown, now)?;
        let is_used = self.targets.iter().any(|target| target.all.contains(&limit));
        (is_used && self.limits[limit.get()].spec.amount.is_some()).then_some(limit)
    }

    /// The limits that nobody declared, as they stand.
    pub fn shown(&self) -> impl Iterator<Item = (&str, Shown)> {
        self.limits.iter().filter_map(|entry| {
            let Rule::Rolling(window) = entry.spec.rule else { return None };
            let (owner, size) = (entry.owner.clone()?, entry.evidence.size()?);
            let LimitSpec { of_model, metric, .. } = entry.spec;
            Some((entry.spec.name.as_str(), Shown { owner, of_model, metric, window_s: window.as_secs(), size }))
        })
    }

    /// Makes a limit of what a report shows, if nothing of the kind is known at the target.
    fn show(&mut self, target: Target, report: &Report, now: Now) -> Option<LimitIndex> {
        let shown = Shown::by(report, &self.targets[target.0], now)?;
        self.forget_shown(target, now);
        let Enlisted { declared, all, .. } = &self.targets[target.0];
        let is_known = all.iter().any(|limit| self.limits[limit.get()].spec.is_spoken_of(report));
        if is_known || all.len() - declared.len() >= MOST_SHOWN {
            return None;
        }
        let limit = self.make(&shown, now)?;
        self.targets[target.0].all.contains(&limit).then_some(limit)
    }

    /// Puts a limit that nobody declared in its place, empty, and holds what is in flight of it.
    fn make(&mut self, shown: &Shown, now: Now) -> Option<LimitIndex> {
        let spec = shown.spec();
        let mut entry = Entry::shown(spec, shown, self.margins, now);
        self.bounds.take_up(&mut entry);
        let of_name = self.limits.iter().position(|known| known.spec.name == entry.spec.name);
        let place = match of_name {
            Some(place) => (!self.is_in_use(place)).then_some(place)?,
            // The places of forgotten ones are used again, so that there are never more than there are names for.
            None => {
                let is_free = |place: &usize| self.limits[*place].spec.undeclared && !self.is_in_use(*place);
                (0..self.limits.len()).find(is_free).unwrap_or(self.limits.len())
            }
        };
        match self.limits.get_mut(place) {
            Some(old) => *old = entry,
            None => self.limits.push(entry),
        }
        let owners: Vec<usize> =
            (0..self.targets.len()).filter(|target| self.targets[*target].owns(&self.limits[place])).collect();
        owners.iter().for_each(|target| self.gather(*target));
        let limit = LimitIndex::new(place);
        self.hold_in_flight(limit, now);
        Some(limit)
    }

    /// Takes what is in flight at the targets of a new limit into it.
    fn hold_in_flight(&mut self, limit: LimitIndex, now: Now) {
        let Entry { spec, counter, .. } = &mut self.limits[limit.get()];
        for reservation in self.reservations.iter_mut().flatten() {
            let Some((target, demand)) = reservation.of else { continue };
            if !self.targets[target.0].all.contains(&limit) {
                continue;
            }
            let amount = demand.amount(spec);
            match reservation.receipt {
                // It has been counted already, as far as that depends on its having arrived.
                Some(receipt) if counts_on_receipt(spec) => {
                    counter.count(spec, amount, Counted::between(reservation.dispatched, receipt, now), now);
                }
                _ => counter.hold(amount),
            }
            reservation.held.push(Held { limit, amount, own: amount });
        }
    }

    /// Whether something still counts on the limit at a place.
    fn is_in_use(&self, place: usize) -> bool {
        let is_it = |limit: &LimitIndex| limit.get() == place;
        self.targets.iter().any(|target| target.all.iter().any(is_it))
            || self.reservations.iter().flatten().any(|one| one.held.iter().any(|held| is_it(&held.limit)))
    }

    /// Lets go of what a target's answers have not shown for a day.
    fn forget_shown(&mut self, target: Target, now: Now) {
        let all = std::mem::take(&mut self.targets[target.0].all);
        for limit in &all {
            let entry = &mut self.limits[limit.get()];
            if entry.spec.undeclared {
                entry.resize(now);
            }
        }
        let is_fresh = |limit: &LimitIndex| {
            let LimitSpec { undeclared, amount, .. } = self.limits[limit.get()].spec;
            !undeclared || amount.is_some()
        };
        self.targets[target.0].all = all.into_iter().filter(is_fresh).collect();
    }

    /// Puts together what a target counts against: nothing that was shown goes beside what was declared of its kind.
    fn gather(&mut self, place: usize) {
        let target = &self.targets[place];
        let mut all = target.declared.clone();
        for (position, entry) in self.limits.iter().enumerate() {
            let spec = &entry.spec;
            let is_alike = |limit: &LimitIndex| {
                let declared = &self.limits[limit.get()].spec;
                declared.metric == spec.metric && declared.nominal() == spec.nominal()
            };
            let is_shown = spec.undeclared && spec.amount.is_some() && target.owns(entry);
            if is_shown && !target.declared.iter().any(is_alike) && all.len() - target.declared.len() < MOST_SHOWN {
                all.push(LimitIndex::new(position));
            }
        }
        self.targets[place].all = all;
    }
}

#[cfg(test)]
mod tests;
