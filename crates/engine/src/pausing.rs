//! Pauses: laying them, lifting them, and keeping them through a restart.

use std::time::Duration;

use freeway_quota::{PauseScope, Shortage};
use freeway_store::{Learned, StoreError};
use freeway_types::{DeploymentIndex, KeyIndex, Now, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Shared};
use crate::state::State;

/// The kind under which they are stored.
const KIND: &str = "pause";
/// Shorter ones are not worth writing down.
const REMEMBERED_FROM: Duration = Duration::from_secs(10);

/// A pause as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    account: Option<String>,
    deployment: Option<String>,
    key: Option<usize>,
    until: Timestamp,
    why: String,
    inferred: bool,
    /// What was used up.
    #[serde(default)]
    shortage: Option<Shortage>,
}

/// Why something is paused.
#[derive(Clone, Copy)]
pub(crate) struct Cause<'a> {
    /// In one word.
    pub(crate) why: &'a str,
    /// Whether nobody stated the length.
    pub(crate) inferred: bool,
    /// What was used up, for a pause that a quota endpoint can end.
    pub(crate) shortage: Option<Shortage>,
}

impl Engine {
    /// Lays a pause, and writes it down if it is long.
    pub(crate) fn lay_pause(&self, state: &mut State, scope: PauseScope, length: Duration, cause: Cause<'_>) {
        let now = self.now();
        let until = now.after(length);
        if length >= REMEMBERED_FROM {
            let stored = Stored::of(&scope, until.wall, cause);
            self.shared().remember_pause(&scope, serde_json::to_string(&stored).ok(), now);
        }
        state.pauses.pause_short(scope, until, cause.why, cause.inferred, cause.shortage, now);
    }

    /// A request is on its way to a deployment: if it tries a pause, others wait for what comes of it.
    pub(crate) fn claim_pauses(&self, state: &mut State, deployment: DeploymentIndex, key: Option<KeyIndex>, now: Now) {
        if !state.pauses.is_empty() {
            self.scopes(deployment, key).for_each(|scope| state.pauses.claim(&scope, now));
        }
    }

    /// A deployment has answered: what held it back is over.
    pub(crate) fn lift_pauses(&self, state: &mut State, deployment: DeploymentIndex, key: Option<KeyIndex>, sent: Now) {
        if state.pauses.is_empty() {
            return;
        }
        let now = self.now();
        for scope in self.scopes(deployment, key) {
            if state.pauses.lift(&scope, sent) {
                self.shared().remember_pause(&scope, None, now);
            }
        }
    }

    fn scopes(&self, deployment: DeploymentIndex, key: Option<KeyIndex>) -> impl Iterator<Item = PauseScope> {
        let here = self.snapshot.deployment(deployment);
        let account = self.snapshot.accounts[here.account.get()].id.clone();
        let of_key = key.map(|key| PauseScope::Key(account.clone(), key));
        [PauseScope::Deployment(here.name.clone()), PauseScope::Account(account)].into_iter().chain(of_key)
    }
}

impl Shared {
    /// Writes a pause down, or that it is over.
    pub(crate) fn remember_pause(&self, scope: &PauseScope, value: Option<String>, now: Now) {
        let name = match scope {
            PauseScope::Key(account, key) => format!("key {} of {account}", key.get()),
            PauseScope::Deployment(name) => format!("model {name}"),
            PauseScope::Account(name) => format!("account {name}"),
        };
        self.recorder.learn(vec![Learned { kind: KIND.to_owned(), name, value, at: now.wall }]);
    }

    /// Takes over the pauses of an earlier process that are not over.
    pub(crate) fn load_pauses(&self, state: &mut State, now: Now) -> Result<(), StoreError> {
        for row in self.store.learned(KIND)? {
            let stored = row.value.as_ref().and_then(|value| serde_json::from_str::<Stored>(value).ok());
            let left = stored.as_ref().map_or(Duration::ZERO, |stored| stored.until.since(now.wall));
            match stored.and_then(|stored| Some((stored.scope()?, stored))) {
                Some((scope, stored)) if !left.is_zero() => {
                    let (until, Stored { why, inferred, shortage, .. }) = (now.after(left), stored);
                    state.pauses.pause_short(scope, until, &why, inferred, shortage, now);
                }
                _ => self.recorder.learn(vec![Learned { value: None, ..row }]),
            }
        }
        Ok(())
    }
}

impl Stored {
    fn of(scope: &PauseScope, until: Timestamp, cause: Cause<'_>) -> Self {
        let Cause { why, inferred, shortage } = cause;
        let (account, deployment, key) = match scope {
            PauseScope::Key(account, key) => (Some(account.clone()), None, Some(key.get())),
            PauseScope::Deployment(name) => (None, Some(name.clone()), None),
            PauseScope::Account(account) => (Some(account.clone()), None, None),
        };
        Self { account, deployment, key, until, why: why.to_owned(), inferred, shortage }
    }

    fn scope(&self) -> Option<PauseScope> {
        match (&self.account, &self.deployment, self.key) {
            (Some(account), None, Some(key)) => Some(PauseScope::Key(account.clone(), KeyIndex::new(key))),
            (None, Some(name), None) => Some(PauseScope::Deployment(name.clone())),
            (Some(account), None, None) => Some(PauseScope::Account(account.clone())),
            _ => None,
        }
    }
}
