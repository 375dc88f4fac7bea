//! What was seen of targets, where every plan reads it: breakers, times, and how often something may be sent twice.
//!
//! A failure counts against what failed. A connection that cannot be made speaks for the account's address; everything
//! else for the one model, because the models of a provider often share nothing but the address. Requests that use
//! tools, images or formats have a breaker of their own at each target: what fails only for them leaves plain ones
//! alone.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_router::{
    Breaker, Class, Fault, HedgeBudget, Latency, Reliability, RetryBudget, Standing, StoredBreaker, Times,
};
use freeway_store::{Learned, StoreError};
use freeway_telemetry::Event;
use freeway_types::{DeploymentIndex, Feature, FeatureSet, Now};

use crate::chance::random;
use crate::engine::{Engine, Shared};
use crate::timing::Outlook;

/// The kind under which open breakers are stored.
const KIND: &str = "breaker";

/// What was seen of everything that requests go to. Places are kept through edits of the configuration.
#[derive(Default)]
pub(crate) struct Health {
    pub(crate) hedges: HedgeBudget,
    targets: Vec<Target>,
    accounts: Vec<Account>,
    target_places: BTreeMap<String, usize>,
    account_places: BTreeMap<String, usize>,
    /// Breakers that are not closed: with none, nobody has to look.
    open: usize,
}

#[derive(Default)]
struct Target {
    plain: Breaker,
    featured: Breaker,
    latency: Latency,
    reliability: Reliability,
}

#[derive(Default)]
struct Account {
    breaker: Breaker,
    retries: RetryBudget,
}

/// Where a deployment stands among what was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ward {
    target: usize,
    account: usize,
}

/// Which of a ward's breakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Account,
    Plain,
    Featured,
}

/// How an attempt ended, for what is seen of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Content came.
    Answers,
    /// It came to a good end.
    Worked,
    /// It failed.
    Failed(Fault),
    /// It says nothing: its client left, or another attempt was faster.
    Unclear,
}

/// Whether a request uses more than plain text.
pub(crate) fn is_featured(features: FeatureSet) -> bool {
    features.iter().any(|feature| !matches!(feature, Feature::Stream | Feature::Reasoning))
}

impl Health {
    /// The place of a deployment.
    pub(crate) fn enlist(&mut self, deployment: &str, account: &str) -> Ward {
        fn place<T: Default>(places: &mut BTreeMap<String, usize>, list: &mut Vec<T>, name: &str) -> usize {
            if let Some(place) = places.get(name) {
                return *place;
            }
            list.push(T::default());
            places.insert(name.to_owned(), list.len() - 1);
            list.len() - 1
        }
        Ward {
            target: place(&mut self.target_places, &mut self.targets, deployment),
            account: place(&mut self.account_places, &mut self.accounts, account),
        }
    }

    /// Until when requests should not go there, if they should not.
    pub(crate) fn open_until(&self, ward: Ward, featured: bool, now: Now) -> Option<Now> {
        if self.open == 0 {
            return None;
        }
        let until = |which: Which| match self.breaker(ward, which).standing(now) {
            Standing::Open { until } => Some(until),
            Standing::Closed | Standing::HalfOpen => None,
        };
        let (account, target) = (until(Which::Account), until(Which::of(featured)));
        [account, target].into_iter().flatten().max_by_key(|until| until.monotonic)
    }

    /// Whether nothing speaks against a target, not even that it has to be tried first.
    pub(crate) fn is_well(&self, ward: Ward, featured: bool, now: Now) -> bool {
        let is_closed = |which: Which| self.breaker(ward, which).standing(now) == Standing::Closed;
        self.open == 0 || (is_closed(Which::Account) && is_closed(Which::of(featured)))
    }

    /// Whether a request may go there now; if something is half open there, as the one that tries.
    pub(crate) fn admit(&mut self, ward: Ward, featured: bool, is_last_resort: bool, now: Now) -> bool {
        if self.open == 0 {
            return true;
        }
        if is_last_resort {
            return self.breaker_mut(ward, Which::of(featured)).admit_last_resort(now);
        }
        self.open_until(ward, featured, now).is_none()
            && self.breaker_mut(ward, Which::Account).admit(now)
            && self.breaker_mut(ward, Which::of(featured)).admit(now)
    }

    /// Takes note of how an attempt ended. Gives the breakers that opened or closed by it.
    fn see(&mut self, ward: Ward, featured: bool, sight: Sight, now: Now) -> Vec<Which> {
        // What works with more works without it; what fails without it fails with more.
        let both = [Which::Plain, Which::Featured];
        let (concerned, own): (&[Which], Which) = match (&sight, featured) {
            (Sight::Answers | Sight::Worked, true) => (&both, Which::Featured),
            (Sight::Answers | Sight::Worked, false) => (&both[..1], Which::Plain),
            (Sight::Failed(_), true) => (&both[1..], Which::Featured),
            _ => (&both, Which::of(featured)),
        };
        let mut changed = Vec::new();
        let chance = || u64::try_from(random() & u128::from(u64::MAX)).unwrap_or(0);
        match sight {
            Sight::Failed(Fault::Address) => {
                self.targets[ward.target].reliability.failed(now.monotonic);
                if self.breaker_mut(ward, Which::Account).failed(now, 1, chance()) {
                    changed.push(Which::Account);
                }
                self.breaker_mut(ward, own).unclear();
            }
            Sight::Failed(Fault::Model { weight }) => {
                self.targets[ward.target].reliability.failed(now.monotonic);
                let chance = chance();
                for which in concerned {
                    if self.breaker_mut(ward, *which).failed(now, weight, chance) {
                        changed.push(*which);
                    }
                }
                // Somebody is there.
                self.lives(ward, now, &mut changed);
            }
            Sight::Failed(Fault::None) => {
                self.breaker_mut(ward, own).unclear();
                self.lives(ward, now, &mut changed);
            }
            Sight::Unclear => {
                self.breaker_mut(ward, own).unclear();
                self.breaker_mut(ward, Which::Account).unclear();
            }
            Sight::Answers | Sight::Worked => {
                if sight == Sight::Worked {
                    self.targets[ward.target].reliability.answered(now.monotonic);
                }
                for which in concerned {
                    let breaker = self.breaker_mut(ward, *which);
                    let has_closed = if sight == Sight::Worked { breaker.worked(now) } else { breaker.answers(now) };
                    if has_closed {
                        changed.push(*which);
                    }
                }
                self.lives(ward, now, &mut changed);
            }
        }
        if !changed.is_empty() {
            self.count_open();
        }
        changed
    }

    fn lives(&mut self, ward: Ward, now: Now, changed: &mut Vec<Which>) {
        if self.breaker_mut(ward, Which::Account).worked(now) {
            changed.push(Which::Account);
        }
    }

    fn count_open(&mut self) {
        let targets = self.targets.iter().flat_map(|target| [&target.plain, &target.featured]);
        let all = targets.chain(self.accounts.iter().map(|account| &account.breaker));
        self.open = all.filter(|breaker| breaker.stored().is_some()).count();
    }

    fn breaker(&self, ward: Ward, which: Which) -> &Breaker {
        match which {
            Which::Account => &self.accounts[ward.account].breaker,
            Which::Plain => &self.targets[ward.target].plain,
            Which::Featured => &self.targets[ward.target].featured,
        }
    }

    fn breaker_mut(&mut self, ward: Ward, which: Which) -> &mut Breaker {
        match which {
            Which::Account => &mut self.accounts[ward.account].breaker,
            Which::Plain => &mut self.targets[ward.target].plain,
            Which::Featured => &mut self.targets[ward.target].featured,
        }
    }

    pub(crate) fn latency(&mut self, ward: Ward) -> &mut Latency {
        &mut self.targets[ward.target].latency
    }

    pub(crate) fn times(&self, ward: Ward, class: Class) -> Option<Times> {
        self.targets[ward.target].latency.times(class)
    }

    pub(crate) fn lately(&self, ward: Ward, class: Class, now: Now) -> Option<Duration> {
        self.targets[ward.target].latency.lately(class, now)
    }

    pub(crate) fn reliability(&self, ward: Ward, now: Now) -> f64 {
        self.targets[ward.target].reliability.share(now.monotonic)
    }

    pub(crate) fn silences(&self, ward: Ward) -> u32 {
        self.targets[ward.target].latency.silences()
    }

    pub(crate) fn retries(&mut self, ward: Ward) -> &mut RetryBudget {
        &mut self.accounts[ward.account].retries
    }
}

impl Which {
    const fn of(featured: bool) -> Self {
        if featured { Self::Featured } else { Self::Plain }
    }

    /// The name under which it is stored and told.
    fn name(self, deployment: &str, account: &str) -> String {
        match self {
            Self::Account => format!("account {account}"),
            Self::Plain => format!("model {deployment}"),
            Self::Featured => format!("features of model {deployment}"),
        }
    }
}

impl Engine {
    /// Takes note of how an attempt ended.
    pub(crate) fn see(&self, index: DeploymentIndex, featured: bool, sight: Sight) {
        let now = self.now();
        let mut state = self.state();
        let ward = self.wards[index.get()];
        let changed = state.health.see(ward, featured, sight, now);
        for which in changed {
            let deployment = self.snapshot.deployment(index);
            let name = which.name(&deployment.name, &self.snapshot.accounts[deployment.account.get()].id);
            let breaker = state.health.breaker(ward, which);
            let value = breaker.stored().and_then(|stored| serde_json::to_string(&stored).ok());
            let event = match breaker.standing(now) {
                Standing::Open { until } => {
                    let seconds = until.monotonic.since(now.monotonic).as_secs_f64();
                    Event::BreakerOpened { what: &name, seconds }
                }
                Standing::Closed | Standing::HalfOpen => Event::BreakerClosed { what: &name },
            };
            self.telemetry().tell(now.wall, &event);
            self.shared().recorder.learn(vec![Learned { kind: KIND.to_owned(), name, value, at: now.wall }]);
        }
    }

    /// An attempt had its first content, or was beaten, after `took`.
    pub(crate) fn observe(&self, index: DeploymentIndex, class: Class, took: Duration) {
        let now = self.now();
        self.state().health.latency(self.wards[index.get()]).observe(class, took, now);
    }

    /// A target was silent for as long as it was given.
    pub(crate) fn silent(&self, index: DeploymentIndex) {
        self.state().health.latency(self.wards[index.get()]).silent();
    }

    /// What is to be expected of an attempt.
    pub(crate) fn outlook(&self, index: DeploymentIndex, class: Class, has_others: bool) -> Outlook {
        let state = self.state();
        let ward = self.wards[index.get()];
        Outlook { times: state.health.times(ward, class), silences: state.health.silences(ward), has_others }
    }

    /// The first attempt of a request begins, which is expected to use so many tokens.
    pub(crate) fn begins(&self, index: DeploymentIndex, class: Class, tokens: u64) {
        let now = self.now();
        let mut state = self.state();
        state.health.hedges.request(tokens, now);
        state.health.latency(self.wards[index.get()]).began(class, now);
    }

    /// An attempt is slow. Says whether that is an exception there.
    pub(crate) fn is_exception(&self, index: DeploymentIndex, class: Class) -> bool {
        let now = self.now();
        self.state().health.latency(self.wards[index.get()]).is_exception(class, now)
    }
}

impl Shared {
    /// Takes over the breakers that an earlier process left open. To be called when all that is configured is enlisted.
    pub(crate) fn load_breakers(&self, now: Now) -> Result<(), StoreError> {
        let mut state = self.state();
        let health = &mut state.health;
        for row in self.store.learned(KIND)? {
            let stored = row.value.as_ref().and_then(|value| serde_json::from_str::<StoredBreaker>(value).ok());
            let found = match row.name.split_once(' ') {
                Some(("account", name)) => {
                    health.account_places.get(name).map(|place| &mut health.accounts[*place].breaker)
                }
                Some(("model", name)) => health.target_places.get(name).map(|place| &mut health.targets[*place].plain),
                Some(("features", rest)) => rest
                    .strip_prefix("of model ")
                    .and_then(|name| health.target_places.get(name))
                    .map(|place| &mut health.targets[*place].featured),
                _ => None,
            };
            match (found, stored) {
                (Some(breaker), Some(stored)) => *breaker = Breaker::restore(&stored, now),
                _ => self.recorder.learn(vec![Learned { value: None, ..row }]),
            }
        }
        health.count_open();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use freeway_types::{Monotonic, Timestamp};

    fn at(millis: u64) -> Now {
        Now { wall: Timestamp::default(), monotonic: Monotonic::from_micros(millis * 1_000) }
    }

    const MODEL: Sight = Sight::Failed(Fault::Model { weight: 1 });

    #[test]
    fn a_broken_model_does_not_take_its_siblings_along() {
        let mut health = Health::default();
        let (one, other) = (health.enlist("lab/one", "lab"), health.enlist("lab/other", "lab"));
        (0..9).for_each(|_| drop(health.see(one, false, MODEL, at(0))));
        assert!(health.open_until(one, false, at(1)).is_some());
        assert_eq!(health.open_until(other, false, at(1)), None);
        // An address at which nobody is takes all of them along.
        (0..5).for_each(|_| drop(health.see(one, false, Sight::Failed(Fault::Address), at(2))));
        assert!(health.open_until(other, false, at(3)).is_some());
    }

    #[test]
    fn what_fails_only_with_features_leaves_plain_requests_alone() {
        let mut health = Health::default();
        let ward = health.enlist("lab/one", "lab");
        (0..9).for_each(|_| drop(health.see(ward, true, MODEL, at(0))));
        assert!(health.open_until(ward, true, at(1)).is_some());
        assert_eq!(health.open_until(ward, false, at(1)), None);
        // What fails for plain ones fails for all.
        let ward = health.enlist("lab/two", "lab");
        (0..5).for_each(|_| drop(health.see(ward, false, MODEL, at(0))));
        assert!(health.open_until(ward, true, at(1)).is_some() && health.open_until(ward, false, at(1)).is_some());
    }

    #[test]
    fn quota_and_the_clients_own_mistakes_open_nothing_and_free_the_one_that_tries() {
        let mut health = Health::default();
        let ward = health.enlist("lab/one", "lab");
        (0..100).for_each(|_| drop(health.see(ward, false, Sight::Failed(Fault::None), at(0))));
        assert_eq!(health.open_until(ward, false, at(1)), None);
        (0..5).for_each(|_| drop(health.see(ward, false, MODEL, at(0))));
        assert!(health.admit(ward, false, false, at(5_000)));
        assert!(!health.admit(ward, false, false, at(5_000)));
        health.see(ward, false, Sight::Failed(Fault::None), at(5_001));
        assert!(health.admit(ward, false, false, at(5_002)));
        assert_eq!(health.see(ward, false, Sight::Worked, at(5_003)), [Which::Plain]);
        assert!(health.admit(ward, false, false, at(5_004)) && health.admit(ward, false, false, at(5_004)));
    }
}
