//! What a provider shows of its limits, by what it says and by what it refuses.
//!
//! Our own count is what we sent. What the provider says can differ for three reasons: somebody else uses the same
//! account, the limit has another size than was thought, or its answer is older than what we have sent since. So what
//! it says can take away at once, and gives back only if it is surely newer than what took away. Sizes from the facts
//! are replaced by what the provider says; a size from the user's own configuration is only ever tightened.

use std::time::Duration;

use freeway_types::{Monotonic, Now, Timestamp};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::civil::window;
use crate::report::ReportSource;
use crate::spec::{Civil, LimitSpec, Rule};

/// After so long without a word, a size that was learned is not held against what was declared any more.
const SIZE_HOLDS: Duration = Duration::from_secs(86_400);
/// Refusals at a count that should have been allowed, in windows of their own, until the size is taken to be smaller.
const REFUSED_WINDOWS: u32 = 2;
/// Windows used to nearly their end without a refusal, until a size that refusals showed is tried a little larger.
const CLEAN_WINDOWS: u32 = 3;
/// A window counts as used to nearly its end from this share on, in percent.
const NEARLY: u64 = 95;
/// A size that was refused at twice within this time is not tried again before it has passed.
const NOT_AGAIN: Duration = Duration::from_secs(86_400);

/// The most that a provider's clock is taken to be behind ours where what others use ends with a civil window.
const BEHIND: Duration = Duration::from_secs(5);

/// What is known of one limit beyond what was declared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    size: Option<Size>,
    foreign: Option<Foreign>,
    /// When the last answer came back that was believed.
    heard: Option<Monotonic>,
    /// The least count at which it refused although more was thought to be left, and in how many windows.
    short: Option<(u64, u32, Monotonic)>,
    /// The window under way, for [`Evidence::watch`].
    watched: Watched,
}

/// A size that was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// In the units in which the limit is counted.
    pub amount: u64,
    /// How it was learned; `None`: from the count at which the provider refused.
    pub source: Option<ReportSource>,
    /// When it was last confirmed.
    pub at: Timestamp,
}

/// Where the size of a limit is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// The configuration: the user's own word.
    Configuration,
    /// The facts about the provider.
    Facts,
    /// What the provider showed.
    Learned(Size),
}

/// Use of a limit that is not ours.
#[derive(Clone, Copy, Debug)]
struct Foreign {
    units: u64,
    since: Monotonic,
    /// When it is gone; `None`: never, as with a credit.
    until: Option<Monotonic>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    begun: Option<Monotonic>,
    peak: u64,
    refused: bool,
    clean: u32,
    /// Refusals at the size as it is, and when the last one was.
    refusals: u32,
    refused_at: Option<Monotonic>,
}

impl Evidence {
    /// The size that counts: what was declared, as far as nothing better is known.
    pub(crate) fn amount(&self, spec: &LimitSpec, declared: Option<u64>, now: Timestamp) -> Option<u64> {
        let known = self.size.filter(|size| size.is_fresh(spec, declared, now)).map(|size| size.amount);
        match (declared, known) {
            (Some(declared), Some(known)) if spec.own => Some(declared.min(known)),
            (declared, known) => known.or(declared),
        }
    }

    /// What was learned about the size.
    pub(crate) fn size(&self) -> Option<Size> {
        self.size
    }

    /// Where the size is from that counts.
    pub(crate) fn provenance(&self, spec: &LimitSpec, declared: Option<u64>, now: Timestamp) -> Provenance {
        let tightens = |size: &Size| !spec.own || declared.is_none_or(|declared| size.amount < declared);
        match self.size.filter(|size| size.is_fresh(spec, declared, now)).filter(tightens) {
            Some(size) => Provenance::Learned(size),
            None if spec.own => Provenance::Configuration,
            None => Provenance::Facts,
        }
    }

    /// When the last answer came back whose figures were believed.
    pub(crate) fn heard(&self, now: Now) -> Option<Timestamp> {
        self.heard.map(|heard| now.wall.before(now.monotonic.since(heard)))
    }

    /// Takes over what an earlier process learned.
    pub(crate) fn restore(&mut self, size: Size) {
        self.size = Some(size);
    }

    /// The provider said how large the limit is. On an answer that succeeded, nothing is no size.
    pub(crate) fn told(&mut self, amount: u64, source: ReportSource, refused: bool, now: Now) {
        if amount > 0 || refused {
            self.size = Some(Size { amount, source: Some(source), at: now.wall });
            self.short = None;
        }
    }

    /// The provider counts `theirs` where we count `own`, what is in flight included. `dispatched` is when the request
    /// was sent that was answered so, `returns` when it said that its count comes back.
    pub(crate) fn counted(
        &mut self,
        spec: &LimitSpec,
        theirs: u64,
        own: u64,
        dispatched: Now,
        returns: Option<Duration>,
        now: Now,
    ) {
        let gap = theirs.saturating_sub(own);
        let is_newer = self.heard.is_none_or(|heard| dispatched.monotonic >= heard);
        if is_newer {
            self.heard = Some(now.monotonic);
        }
        if gap > self.foreign(spec, now) || is_newer {
            // A bucket's return is when it is full again; its foreign use drains with it.
            let length = returns.filter(|_| !matches!(spec.rule, Rule::Bucket(_))).or(spec.length());
            let until = length.map(|length| now.monotonic.after(length));
            self.foreign = (gap > 0).then_some(Foreign { units: gap, since: now.monotonic, until });
        }
    }

    /// An endpoint that was asked at `asked` counts `theirs`, of which between `own.0` and `own.1` are ours. What is
    /// known of others' use is moved no further than into those bounds, and down only by the newest word.
    pub(crate) fn counted_within(
        &mut self,
        spec: &LimitSpec,
        theirs: u64,
        own: (u64, u64),
        asked: Now,
        returns: Option<Duration>,
        now: Now,
    ) {
        let (least, most) = (theirs.saturating_sub(own.1), theirs.saturating_sub(own.0));
        let known = self.foreign(spec, now);
        let is_newer = self.heard.is_none_or(|heard| asked.monotonic >= heard);
        if is_newer {
            self.heard = Some(now.monotonic);
        }
        let units = if is_newer { known.clamp(least, most) } else { known.max(least) };
        if units == known {
            return;
        }
        let length = returns.filter(|_| !matches!(spec.rule, Rule::Bucket(_))).or_else(|| match &spec.rule {
            Rule::Calendar(civil, zone) => Some(rest(*civil, zone, now)),
            _ => spec.length(),
        });
        let until = length.map(|length| now.monotonic.after(length));
        self.foreign = (units > 0).then_some(Foreign { units, since: now.monotonic, until });
    }

    /// Units that others use.
    pub(crate) fn foreign(&self, spec: &LimitSpec, now: Now) -> u64 {
        let Some(foreign) = self.foreign else { return 0 };
        if foreign.until.is_some_and(|until| until <= now.monotonic) {
            return 0;
        }
        match (&spec.rule, spec.amount) {
            (Rule::Bucket(window), Some(amount)) => {
                let passed = now.monotonic.since(foreign.since).as_micros();
                let refilled = passed.saturating_mul(u128::from(amount)) / window.as_micros().max(1);
                foreign.units.saturating_sub(u64::try_from(refilled).unwrap_or(u64::MAX))
            }
            _ => foreign.units,
        }
    }

    /// When what others use is gone: now, if nothing is; `None` if never.
    pub(crate) fn relief(&self, spec: &LimitSpec, now: Now) -> Option<Now> {
        if self.foreign(spec, now) == 0 {
            return Some(now);
        }
        Some(now.after(self.foreign?.until?.since(now.monotonic)))
    }

    /// The provider refused because of this limit when `own` was counted or held before the attempt, and did not say
    /// how much it counts itself.
    pub(crate) fn refused(
        &mut self,
        spec: &LimitSpec,
        declared: Option<u64>,
        own: u64,
        returns: Option<Duration>,
        now: Now,
    ) {
        self.watched.refused = true;
        self.watched.refusals = if self.was_refused_lately(now) { self.watched.refusals.saturating_add(1) } else { 1 };
        self.watched.refused_at = Some(now.monotonic);
        let Some(amount) = self.amount(spec, declared, now.wall) else {
            if spec.undeclared {
                return;
            }
            // Nothing was known but that there is a limit: what got through is its size.
            self.size = Some(Size { amount: own.max(1), source: None, at: now.wall });
            return;
        };
        // The rest of this window is gone, to whomever. Refused so in several windows, the limit is smaller.
        self.counted(spec, amount, own, now, returns, now);
        let window = spec.length().unwrap_or(SIZE_HOLDS);
        let (least, windows, last) = self.short.unwrap_or((own, 0, now.monotonic));
        let is_another = windows == 0 || now.monotonic.since(last) >= window;
        let short = (least.min(own), windows + u32::from(is_another), if is_another { now.monotonic } else { last });
        self.short = Some(short);
        let is_learned_so = self.size.is_some_and(|size| size.source.is_none());
        if short.1 >= REFUSED_WINDOWS || is_learned_so {
            self.size = Some(Size { amount: short.0.max(1), source: None, at: now.wall });
            self.short = None;
        }
    }

    /// Looks at how much of the limit is counted or held, and tries a size that refusals showed a little larger once it
    /// was used to nearly its end several times without one. To be called after each charge.
    pub(crate) fn watch(&mut self, spec: &LimitSpec, declared: Option<u64>, used: u64, now: Now) {
        let Some(size) = self.size.filter(|size| size.source.is_none()) else { return };
        let window = spec.length().unwrap_or(SIZE_HOLDS);
        let watched = &mut self.watched;
        let begun = *watched.begun.get_or_insert(now.monotonic);
        watched.peak = watched.peak.max(used);
        if now.monotonic.since(begun) < window {
            return;
        }
        let was_full = watched.peak.saturating_mul(100) >= size.amount.saturating_mul(NEARLY);
        watched.clean = match (watched.refused, was_full) {
            (true, _) => 0,
            (false, true) => watched.clean + 1,
            (false, false) => watched.clean,
        };
        (watched.begun, watched.peak, watched.refused) = (Some(now.monotonic), used, false);
        let is_barred = watched.refusals >= 2 && self.was_refused_lately(now);
        if self.watched.clean >= CLEAN_WINDOWS && !is_barred {
            self.watched.clean = 0;
            let larger = size.amount.saturating_add((size.amount / 50).max(1));
            self.size =
                Some(Size { amount: declared.map_or(larger, |declared| larger.min(declared)), at: now.wall, ..size });
        }
    }

    fn was_refused_lately(&self, now: Now) -> bool {
        self.watched.refused_at.is_some_and(|at| now.monotonic.since(at) < NOT_AGAIN)
    }
}

/// How long a civil window lasts from now on, by a provider's clock that may be a little behind. An endpoint says how a
/// window stands and not when it ends; held for a whole window more, an account that others have used up would be
/// neither used nor asked about again long after it is back.
fn rest(civil: Civil, zone: &TimeZone, now: Now) -> Duration {
    window(now.wall, civil, zone).1.since(now.wall) + BEHIND
}

impl Size {
    /// Whether it still counts against what was declared. A size that nobody declared stays, if the
    /// limit is declared: there is no better one.
    fn is_fresh(self, spec: &LimitSpec, declared: Option<u64>, now: Timestamp) -> bool {
        declared.is_none() && !spec.undeclared && self.amount > 0 || now.since(self.at) < SIZE_HOLDS
    }
}
