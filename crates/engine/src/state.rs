//! What changes from request to request: counts, pauses, what was heard of clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use freeway_catalog::{Charges, Counts};
use freeway_quota::{Book, COUNT_LAG, Demand, Fit, PauseScope, Pauses, Skew, used};
use freeway_router::{Account, Class, Deployment, Expectation, Live, Pricing, Shape, Tariff};
use freeway_store::Spent;
use freeway_types::{DeploymentIndex, FeatureSet, KeyIndex, LimitIndex, Metric, Now, Usage};

use crate::engine::Engine;
use crate::health::{Health, is_featured};

/// What changes from request to request.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) book: Book,
    pub(crate) pauses: Pauses,
    /// Breakers, times, and how often something may be sent twice.
    pub(crate) health: Health,
    /// Refusals without a hint in a row, by deployment.
    pub(crate) strikes: BTreeMap<String, u32>,
    /// Deployments that have answered 404 once.
    pub(crate) missing: BTreeSet<String>,
    /// The providers' clocks, by account.
    pub(crate) skews: BTreeMap<String, Skew>,
    /// The prices of limits, once there are some.
    pub(crate) tariff: Option<Arc<Tariff>>,
    /// Deployments that the configuration in force allows.
    pub(crate) in_force: BTreeSet<String>,
}

impl State {
    /// Counts an attempt of the past against one limit, as it was counted when it was settled.
    pub(crate) fn count_spent(&mut self, limit: LimitIndex, spent: &Spent, now: Now) {
        let spec = self.book.spec(limit);
        let picos = u64::try_from(spent.cost.as_picos()).unwrap_or(0);
        let ended = spent.ended_at.after(COUNT_LAG);
        let was_used = used(spec.metric, spent.usage, picos, spent.units);
        let (amount, counted_at) = match (spec.metric, &spent.held) {
            // The connection died with the process that made it, and the provider gives the place back when it sees that.
            (Metric::Concurrency, _) => (u64::from(spent.interrupted), ended),
            (Metric::Requests, _) => {
                let is_refusal = !spent.answered && spent.known && spent.usage == Usage::default();
                (u64::from(!is_refusal || spec.charging.counts == Counts::All), spent.counted_at)
            }
            (_, Some(held)) if !spent.known => (held.amount(spec), ended),
            (_, Some(held)) if spec.charging.charges == Charges::Requested => (held.amount(spec).max(was_used), ended),
            _ => (was_used, ended),
        };
        if amount > 0 {
            self.book.replay(limit, amount, spent.sent_at, counted_at, now);
        }
    }
}

/// The state of the moment, for a plan.
pub(crate) struct LiveState<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) state: &'a mut State,
    pub(crate) now: Now,
}

impl Live for LiveState<'_> {
    fn fit(&mut self, index: DeploymentIndex, _: &Deployment, demand: &Demand) -> Fit {
        self.state.book.fit_at(self.now, self.engine.targets[index.get()], demand)
    }

    fn paused(&mut self, deployment: DeploymentIndex) -> Option<(Now, String)> {
        self.held_back(deployment)
    }

    fn broken(&mut self, deployment: DeploymentIndex, features: FeatureSet) -> Option<Now> {
        self.state.health.open_until(self.engine.wards[deployment.get()], is_featured(features), self.now)
    }

    fn first_content(&mut self, deployment: DeploymentIndex, class: Class) -> Option<Duration> {
        self.state.health.lately(self.engine.wards[deployment.get()], class, self.now)
    }

    fn reliability(&self, deployment: DeploymentIndex) -> f64 {
        self.state.health.reliability(self.engine.wards[deployment.get()], self.now)
    }

    fn prices(&self) -> Option<Pricing<'_>> {
        let tariff = self.state.tariff.as_deref()?;
        Some(Pricing::new(tariff, &self.state.book, &self.engine.targets, self.now))
    }

    fn limit_name(&self, limit: LimitIndex) -> String {
        self.state.book.spec(limit).name.clone()
    }

    fn expect(&mut self, deployment: DeploymentIndex, shape: Shape) -> Expectation {
        self.engine.calibrated[deployment.get()].expect(shape)
    }
}

impl LiveState<'_> {
    pub(crate) fn held_back(&self, deployment: DeploymentIndex) -> Option<(Now, String)> {
        let pauses = &self.state.pauses;
        if pauses.is_empty() {
            return None;
        }
        let here = self.engine.snapshot.deployment(deployment);
        let account = &self.engine.snapshot.accounts[here.account.get()];
        let found = pauses
            .get(&PauseScope::Deployment(here.name.clone()), self.now)
            .or_else(|| pauses.get(&PauseScope::Account(account.id.clone()), self.now));
        if let Some((until, why)) = found {
            return Some((until, why.to_owned()));
        }
        self.all_keys_paused(account)
    }

    fn all_keys_paused(&self, account: &Account) -> Option<(Now, String)> {
        let mut first: Option<(Now, &str)> = None;
        for position in 0..account.keys {
            let scope = PauseScope::Key(account.id.clone(), KeyIndex::new(position));
            let paused = self.state.pauses.get(&scope, self.now)?;
            if first.is_none_or(|(until, _)| paused.0.monotonic < until.monotonic) {
                first = Some(paused);
            }
        }
        first.map(|(until, why)| (until, why.to_owned()))
    }
}
