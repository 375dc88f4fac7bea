//! Pauses: what an upstream asked us to leave alone, and until when.
//!
//! A pause holds back only what was refused. A later, shorter pause never ends a
//! longer one early.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use freeway_types::{KeyIndex, Monotonic, Now};

use crate::inquiry::Shortage;
use crate::report::Report;

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

impl fmt::Display for PauseScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(account, key) => write!(f, "key {} of {account}", key.get() + 1),
            Self::Deployment(name) | Self::Account(name) => f.write_str(name),
        }
    }
}

/// All pauses in force.
#[derive(Debug, Default)]
pub struct Pauses {
    until: BTreeMap<PauseScope, Pause>,
}

#[derive(Debug)]
struct Pause {
    laid: Monotonic,
    until: Now,
    reason: Box<str>,
    /// What was used up, for a pause that ends when there is some of it again.
    shortage: Option<Shortage>,
    /// When the next request may try whether it still holds; `None` where nobody should.
    probe: Option<Probe>,
}

/// Trying whether a pause that was only inferred still holds.
#[derive(Clone, Copy, Debug)]
struct Probe {
    every: Duration,
    next: Monotonic,
}

/// A pause that is longer than this, and only inferred, is tried now and then.
const PROBED_FROM: Duration = Duration::from_secs(10 * 60);
/// How often at most, or each fiftieth of the pause if that is longer.
const PROBED_EVERY: Duration = Duration::from_secs(15 * 60);

impl Pauses {
    /// Holds something back until an instant, and says why. An earlier pause that lasts longer stands. `inferred` says
    /// that nobody stated the length: then single requests try whether it still holds, if it is long.
    pub fn pause(&mut self, scope: PauseScope, until: Now, reason: &str, inferred: bool, now: Now) {
        self.pause_short(scope, until, reason, inferred, None, now);
    }

    /// The same, of something that is held back because this is used up: see [`Self::lift_short`].
    pub fn pause_short(
        &mut self,
        scope: PauseScope,
        until: Now,
        reason: &str,
        inferred: bool,
        shortage: Option<Shortage>,
        now: Now,
    ) {
        let length = until.monotonic.since(now.monotonic);
        let every = PROBED_EVERY.max(length / 50);
        let probe = (inferred && length > PROBED_FROM).then(|| Probe { every, next: now.monotonic.after(every) });
        match self.until.get_mut(&scope) {
            Some(standing) if standing.until.monotonic >= until.monotonic => {
                // Refused again while it was tried: the next try comes no sooner.
                if let Some(probe) = &mut standing.probe {
                    probe.next = probe.next.max(now.monotonic.after(probe.every));
                }
            }
            _ => {
                let laid = now.monotonic;
                self.until.insert(scope, Pause { laid, until, reason: reason.into(), shortage, probe });
            }
        }
    }

    /// Until when something is held back and why, if it is. While somebody may try it, it is not.
    pub fn get(&self, scope: &PauseScope, now: Now) -> Option<(Now, &str)> {
        let pause = self.until.get(scope).filter(|pause| pause.until.monotonic > now.monotonic)?;
        let is_tried = pause.probe.is_some_and(|probe| probe.next <= now.monotonic);
        (!is_tried).then_some((pause.until, &*pause.reason))
    }

    /// A request is about to be sent that these pauses concern. Of a pause that may be tried, it is the one that tries:
    /// for others, the pause holds until the next turn.
    pub fn claim(&mut self, scope: &PauseScope, now: Now) {
        if let Some(Pause { probe: Some(probe), .. }) = self.until.get_mut(scope) {
            probe.next = probe.next.max(now.monotonic.after(probe.every));
        }
    }

    /// What was held back has answered a request sent at `sent`: if that was one that tried the pause, it is over. Says
    /// so. An answer to what was sent before the pause says nothing about it.
    pub fn lift(&mut self, scope: &PauseScope, sent: Now) -> bool {
        let tried = |pause: &Pause| pause.probe.is_some() && sent.monotonic > pause.laid;
        self.until.get(scope).is_some_and(tried) && self.until.remove(scope).is_some()
    }

    /// A quota endpoint that was asked at `asked` with one of an account's keys says that this is left. Ends the pauses
    /// of the account, of its models and of that key that were laid before, for want of what there is again; gives
    /// them.
    pub fn lift_short(
        &mut self,
        account: &str,
        key: Option<KeyIndex>,
        asked: Now,
        reports: &[Report],
    ) -> Vec<(PauseScope, Box<str>)> {
        let is_its = |scope: &PauseScope| match scope {
            PauseScope::Account(name) => name == account,
            PauseScope::Deployment(name) => name.strip_prefix(account).is_some_and(|model| model.starts_with('/')),
            PauseScope::Key(owner, paused) => owner == account && Some(*paused) == key,
        };
        let is_over = |(scope, pause): &(&PauseScope, &Pause)| {
            let is_back = pause.shortage.is_some_and(|shortage| shortage.is_over(reports));
            is_back && is_its(scope) && pause.laid <= asked.monotonic
        };
        let over: Vec<PauseScope> = self.until.iter().filter(is_over).map(|(scope, _)| scope.clone()).collect();
        over.into_iter().filter_map(|scope| Some((scope.clone(), self.until.remove(&scope)?.reason))).collect()
    }

    /// The key of an account that is held back for want of something, if one is.
    #[must_use]
    pub fn short_key(&self, account: &str, now: Now) -> Option<KeyIndex> {
        self.until.iter().find_map(|(scope, pause)| match scope {
            PauseScope::Key(owner, key) if owner == account && pause.shortage.is_some() => {
                (pause.until.monotonic > now.monotonic).then_some(*key)
            }
            _ => None,
        })
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
            .filter(move |(_, pause)| pause.until.monotonic > now.monotonic)
            .map(|(scope, pause)| (scope, pause.until, &*pause.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> PauseScope {
        PauseScope::Account("lab".to_owned())
    }

    fn after(minutes: u64) -> Now {
        Now::default().after(Duration::from_secs(60 * minutes))
    }

    #[test]
    fn a_shorter_pause_never_ends_a_longer_one() {
        let mut pauses = Pauses::default();
        pauses.pause(account(), after(60), "an hour, by header", false, after(0));
        pauses.pause(account(), after(10), "ten minutes, by guess", true, after(0));
        assert_eq!(pauses.get(&account(), after(11)).unwrap().1, "an hour, by header");
        assert_eq!(pauses.get(&account(), after(60)), None);
    }

    #[test]
    fn a_long_pause_that_was_inferred_is_tried_by_one_request_at_a_time() {
        let mut pauses = Pauses::default();
        pauses.pause(account(), after(24 * 60), "nobody said how long", true, after(0));
        // A fiftieth of a day is 28.8 minutes.
        assert!(pauses.get(&account(), after(28)).is_some());
        assert!(pauses.get(&account(), after(29)).is_none(), "one may try");
        pauses.claim(&account(), after(29));
        assert!(pauses.get(&account(), after(29)).is_some(), "and no other");
        assert!(pauses.get(&account(), after(57)).is_some());
        assert!(pauses.get(&account(), after(58)).is_none());
        pauses.claim(&account(), after(58));
        pauses.pause(account(), after(58 + 60), "refused again", true, after(59));
        assert_eq!(pauses.get(&account(), after(80)).unwrap().1, "nobody said how long");
        assert!(!pauses.lift(&account(), after(0)), "this was sent before");
        assert!(pauses.lift(&account(), after(80)));
        assert!(pauses.get(&account(), after(80)).is_none());
    }

    #[test]
    fn a_pause_for_want_of_credit_ends_when_there_is_some_again() {
        use crate::report::{ReportScope, ReportSource, ReportWindow};
        let blank = Report::blank(
            freeway_types::Metric::Usd,
            ReportWindow::Never,
            ReportScope::Account,
            ReportSource::Endpoint,
        );
        let says = |left| [Report { left: Some(left), ..blank }];
        let model = |name: &str| PauseScope::Deployment(name.to_owned());
        let mut pauses = Pauses::default();
        let mut short = |scope, shortage| pauses.pause_short(scope, after(99), "it is empty", true, shortage, after(1));
        short(account(), Some(Shortage::Credit));
        short(model("lab/small"), Some(Shortage::Credit));
        short(model("lab/daily"), Some(Shortage::Quota));
        short(model("lab/slow"), None);
        short(model("laboratory/small"), Some(Shortage::Credit));
        short(PauseScope::Key("lab".to_owned(), KeyIndex::new(1)), Some(Shortage::Credit));
        assert_eq!(pauses.short_key("lab", after(2)), Some(KeyIndex::new(1)));
        assert!(pauses.lift_short("lab", None, after(2), &says(0)).is_empty(), "there is nothing");
        assert!(pauses.lift_short("lab", None, after(0), &says(1)).is_empty(), "it was asked before the refusal");
        let key = KeyIndex::new(0);
        let lifted = pauses.lift_short("lab", Some(key), after(2), &says(1));
        let lifted: Vec<PauseScope> = lifted.into_iter().map(|(scope, _)| scope).collect();
        assert_eq!(lifted, [model("lab/small"), account()], "another key's own limit is another one");
        assert_eq!(pauses.iter(after(2)).count(), 4);
        assert_eq!(pauses.lift_short("lab", Some(KeyIndex::new(1)), after(2), &says(1)).len(), 1);
    }

    #[test]
    fn nobody_tries_a_pause_that_was_stated_or_is_short() {
        let mut pauses = Pauses::default();
        pauses.pause(account(), after(24 * 60), "a day, by header", false, after(0));
        assert!((1..24 * 60).all(|minute| pauses.get(&account(), after(minute)).is_some()));
        let mut pauses = Pauses::default();
        pauses.pause(account(), after(10), "ten minutes, by guess", true, after(0));
        assert!((1..10).all(|minute| pauses.get(&account(), after(minute)).is_some()));
    }
}
