//! Pauses: what an upstream asked us to leave alone, and until when.
//!
//! A pause holds back only what was refused. A later, shorter pause never ends a
//! longer one early.

use std::collections::BTreeMap;

use freeway_types::{KeyIndex, Now};

/// What a pause holds back, by the names of the configuration: a pause outlives an edit of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PauseScope {
    /// One key of an account.
    Key(String, KeyIndex),
    /// One model at one account, as `account/model`.
    Deployment(String),
    /// The whole account.
    Account(String),
}

/// All pauses in force.
#[derive(Debug, Default)]
pub struct Pauses {
    until: BTreeMap<PauseScope, (Now, Box<str>)>,
}

impl Pauses {
    /// Holds something back until an instant, and says why. An earlier pause that lasts longer stands.
    pub fn pause(&mut self, scope: PauseScope, until: Now, reason: &str) {
        let standing = self.until.get(&scope).is_some_and(|(other, _)| other.monotonic >= until.monotonic);
        if !standing {
            self.until.insert(scope, (until, reason.into()));
        }
    }

    /// Until when something is held back and why, if it is.
    pub fn get(&self, scope: &PauseScope, now: Now) -> Option<(Now, &str)> {
        let (until, reason) = self.until.get(scope)?;
        (until.monotonic > now.monotonic).then_some((*until, &**reason))
    }

    /// Whether nothing was ever paused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    /// Forgets the pauses of an account's keys: they are other keys now.
    pub fn forget_keys(&mut self, account: &str) {
        self.until.retain(|scope, _| !matches!(scope, PauseScope::Key(owner, _) if owner == account));
    }

    /// Every pause in force.
    pub fn iter(&self, now: Now) -> impl Iterator<Item = (&PauseScope, Now, &str)> {
        self.until
            .iter()
            .filter(move |(_, (until, _))| until.monotonic > now.monotonic)
            .map(|(scope, (until, reason))| (scope, *until, &**reason))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_shorter_pause_never_ends_a_longer_one() {
        let start = Now::default();
        let scope = PauseScope::Account("lab".to_owned());
        let mut pauses = Pauses::default();
        pauses.pause(scope.clone(), start.after(Duration::from_secs(3600)), "an hour, by header");
        pauses.pause(scope.clone(), start.after(Duration::from_secs(600)), "ten minutes, by guess");
        let later = start.after(Duration::from_secs(601));
        assert_eq!(pauses.get(&scope, later).unwrap().1, "an hour, by header");
        assert_eq!(pauses.get(&scope, start.after(Duration::from_secs(3600))), None);
    }
}
