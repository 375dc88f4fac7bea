//! What answers tell beside their content: how limits stand, and how the provider's clock goes.

use freeway_quota::{Demand, Fit, Heard, LimitSpec, ReservationId, Rule, Shown, Skew, parse_http_date};
use freeway_router::{PauseOrder, Refusal, Scope, read_headers, read_refusal_report};
use freeway_store::{Learned, StoreError};
use freeway_types::{DeploymentIndex, LimitIndex, Now};
use http::HeaderMap;
use http::header::DATE;
use serde_json::{Value, json};

use crate::engine::{Engine, Shared};
use crate::state::State;

/// The kind under which the sizes of limits are stored.
const KIND: &str = "limit size";

/// The kind under which limits are stored that nobody declared.
const SHOWN: &str = "shown limit";

/// The attempt that brought an answer.
#[derive(Clone, Copy)]
pub(crate) struct Heading<'a> {
    pub(crate) deployment: DeploymentIndex,
    pub(crate) reservation: ReservationId,
    pub(crate) sent: Now,
    pub(crate) demand: &'a Demand,
}

impl Engine {
    /// Learns from the head of an answer that is none of quota's refusals.
    pub(crate) fn hear(&self, attempt: Heading<'_>, headers: &HeaderMap) {
        self.listen(attempt, headers, None);
    }

    /// Learns from a refusal for want of quota. Says whether the counts hold such attempts back by themselves for at
    /// least as long as a pause of the model would, so that none is needed.
    pub(crate) fn hear_refusal(
        &self,
        attempt: Heading<'_>,
        headers: &HeaderMap,
        refusal: &Refusal<'_>,
        pause: Option<PauseOrder>,
    ) -> bool {
        self.listen(attempt, headers, Some(refusal));
        let now = self.now();
        let target = self.targets[attempt.deployment.get()];
        let Some(PauseOrder { scope: Scope::Deployment, length, .. }) = pause else { return false };
        // What this attempt itself still holds is back before long, and does not count for this.
        let lasts = |until: Option<Now>| until.is_none_or(|until| until.monotonic >= now.after(length).monotonic);
        matches!(self.state().book.fit_at(now, target, attempt.demand), Fit::Blocked(blocked) if lasts(blocked.until))
    }

    fn listen(&self, attempt: Heading<'_>, headers: &HeaderMap, refusal: Option<&Refusal<'_>>) {
        let now = self.now();
        let here = self.snapshot.deployment(attempt.deployment);
        self.want(here.account);
        let account = &self.snapshot.accounts[here.account.get()];
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let calendars = &self.calendars[here.account.get()];
        let says = !account.headers.is_empty() || headers.keys().any(|name| name.as_str().starts_with("ratelimit"));
        if !says && calendars.is_empty() && refusal.is_none() {
            return;
        }
        let date = header(DATE.as_str()).and_then(parse_http_date);
        let mut said = match says {
            true => read_headers(account, &header, date.unwrap_or(now.wall), refusal.is_some()),
            false => freeway_router::Said::default(),
        };
        if let Some(refusal) = refusal {
            // What the body names is surer than what stands in the headers of every answer.
            let mut named = read_refusal_report(account, refusal);
            for header in said.reports {
                let known = |report: &&mut freeway_quota::Report| {
                    report.metric == header.metric && report.window == header.window
                };
                match named.iter_mut().find(known) {
                    Some(report) => report.fill(&header),
                    None => named.push(header),
                }
            }
            said.reports = named;
        }
        let mut state = self.state();
        if let (Some(date), false) = (date, calendars.is_empty()) {
            state.learn_clock(&account.id, calendars, date, attempt.sent, now);
        }
        if said.reports.is_empty() && refusal.is_none() {
            return;
        }
        let heard = Heard {
            reports: &said.reports,
            attempt: attempt.reservation,
            now,
            refused: refusal.map(|_| attempt.demand),
        };
        if state.book.learn_at(self.targets[attempt.deployment.get()], &heard) {
            self.shared().remember_sizes(&state, &here.limits, now);
            self.shared().remember_shown(&state, &here.name, &account.id, now);
        }
    }

    /// Where each account's limits stand that go by the provider's clock.
    pub(crate) fn calendars_of(snapshot: &freeway_router::Snapshot, state: &State) -> Vec<Vec<LimitIndex>> {
        let mut calendars = vec![Vec::new(); snapshot.accounts.len()];
        for deployment in &snapshot.deployments {
            let of_account: &mut Vec<LimitIndex> = &mut calendars[deployment.account.get()];
            for limit in &deployment.limits {
                if matches!(state.book.spec(*limit).rule, Rule::Calendar(..)) && !of_account.contains(limit) {
                    of_account.push(*limit);
                }
            }
        }
        calendars
    }
}

impl Engine {
    /// Takes over the limits that nobody declared and an earlier process was shown, with what the ledger knows of their
    /// use. What is too old or cannot be read is shown anew.
    pub(crate) fn load_shown(&self, now: Now) -> Result<(), StoreError> {
        let mut limits = Vec::new();
        for row in self.shared().store.learned(SHOWN)? {
            let shown = row.value.as_ref().and_then(|value| serde_json::from_str::<Shown>(value).ok());
            match shown.and_then(|shown| self.state().book.restore_shown(&shown, now)) {
                Some(limit) => limits.push(limit),
                None => self.shared().recorder.learn(vec![Learned { value: None, ..row }]),
            }
        }
        let specs: Vec<LimitSpec> = limits.iter().map(|limit| self.state().book.spec(*limit).clone()).collect();
        let spent = self.shared().spent_before(specs.iter())?;
        let mut state = self.state();
        for (deployment, target) in self.snapshot.deployments.iter().zip(&self.targets) {
            let counts: Vec<LimitIndex> =
                limits.iter().copied().filter(|limit| state.book.limits_of(*target).contains(limit)).collect();
            for spent in spent.iter().filter(|spent| deployment.name == format!("{}/{}", spent.account, spent.model)) {
                counts.iter().for_each(|limit| state.count_spent(*limit, spent, now));
            }
        }
        Ok(())
    }
}

impl State {
    fn learn_clock(
        &mut self,
        account: &str,
        calendars: &[LimitIndex],
        date: freeway_types::Timestamp,
        sent: Now,
        now: Now,
    ) {
        let skew = match self.skews.get_mut(account) {
            Some(skew) => skew,
            None => self.skews.entry(account.to_owned()).or_default(),
        };
        if skew.learn(date, sent, now)
            && let Some(offset) = skew.offset()
        {
            self.book.learn_clock(calendars, offset);
        }
    }

    /// Lets the limits of a new configuration know what was learned of the providers' clocks.
    pub(crate) fn tell_clocks(&mut self, snapshot: &freeway_router::Snapshot, calendars: &[Vec<LimitIndex>]) {
        for (account, limits) in snapshot.accounts.iter().zip(calendars) {
            if let Some(offset) = self.skews.get(&account.id).and_then(Skew::offset) {
                self.book.learn_clock(limits, offset);
            }
        }
    }
}

impl Shared {
    /// Writes down what is known of limits that nobody declared, of a target and of its account.
    fn remember_shown(&self, state: &State, target: &str, account: &str, now: Now) {
        let row = |(name, shown): (&str, Shown)| Learned {
            kind: SHOWN.to_owned(),
            name: name.to_owned(),
            value: serde_json::to_string(&shown).ok(),
            at: now.wall,
        };
        let theirs = state.book.shown().filter(|(_, shown)| [target, account].contains(&&*shown.owner));
        let rows: Vec<Learned> = theirs.map(row).collect();
        if !rows.is_empty() {
            self.recorder.learn(rows);
        }
    }

    /// Writes down what is known of the sizes of these limits.
    pub(crate) fn remember_sizes(&self, state: &State, limits: &[LimitIndex], now: Now) {
        let names: Vec<&str> = limits.iter().map(|limit| state.book.spec(*limit).name.as_str()).collect();
        let row = |(name, size): (&str, freeway_quota::Size)| Learned {
            kind: KIND.to_owned(),
            name: name.to_owned(),
            value: serde_json::to_string(&size).ok(),
            at: now.wall,
        };
        self.recorder.learn(state.book.sizes().filter(|(name, _)| names.contains(name)).map(row).collect());
    }

    /// What an earlier process learned of the sizes of limits. What cannot be read is learned anew.
    pub(crate) fn load_sizes(&self, state: &mut State, now: Now) -> Result<(), StoreError> {
        for row in self.store.learned(KIND)? {
            if let Some(size) = row.value.and_then(|value| serde_json::from_str(&value).ok()) {
                state.book.restore(&row.name, size, now);
            }
        }
        Ok(())
    }
}

/// What was learned of a limit's size, for people.
#[must_use]
pub fn size_json(size: freeway_quota::Size, shown: impl Fn(u64) -> Value) -> Value {
    let source = match size.source {
        Some(freeway_quota::ReportSource::Header) => "headers",
        Some(freeway_quota::ReportSource::Refusal) => "a refusal's words",
        Some(freeway_quota::ReportSource::Endpoint) => "the quota endpoint",
        None => "refusals",
    };
    json!({"amount": shown(size.amount), "source": source, "at": size.at.to_string()})
}
