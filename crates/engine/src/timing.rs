//! How long each phase may take.

use std::time::Duration;

use freeway_router::{Deployment, Times};

/// Answers are held back until their first content, but no longer than this.
pub(crate) const HOLD: Duration = Duration::from_secs(10);
/// Keep-alive comments while an answer is held.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A request that names no deadline of its own.
pub(crate) const DEADLINE: Duration = Duration::from_secs(600);
/// Attempts for one request.
pub(crate) const MOST_ATTEMPTS: usize = 8;

const FIRST_CONTENT: Duration = Duration::from_secs(10);
const FIRST_CONTENT_REASONING: Duration = Duration::from_secs(60);
const FIRST_CONTENT_MOST: Duration = Duration::from_secs(120);
const FIRST_CONTENT_LEAST: Duration = Duration::from_secs(5);
/// So many times what 99 in a hundred answers take.
const USUAL: u32 = 4;
const HEDGE_LEAST: Duration = Duration::from_millis(300);
const HEDGE_MOST: Duration = Duration::from_secs(10);
const GAP: Duration = Duration::from_secs(60);
const GAP_REASONING: Duration = Duration::from_secs(120);
/// Tokens a second that a whole answer is expected to be written at.
const TOKENS_PER_SECOND: u64 = 50;

/// How long an attempt may take to its first content; of a whole answer, to its end. What is usual there decides, once
/// it is known. Where there is nobody else to turn to, it is never less than for a stranger, and longer each time that
/// nothing came: some hosts are that slow.
pub(crate) fn first_content(deployment: &Deployment, stream: bool, most_output: u64, outlook: Outlook) -> Duration {
    let base = if deployment.reasoning { FIRST_CONTENT_REASONING } else { FIRST_CONTENT };
    let writing = if stream { 0 } else { most_output / TOKENS_PER_SECOND };
    of_stranger(base.saturating_add(Duration::from_secs(writing)).min(FIRST_CONTENT_MOST), outlook)
}

/// The limit where that of a stranger is `cold`.
fn of_stranger(cold: Duration, outlook: Outlook) -> Duration {
    let known = outlook.times.map(|times| (times.p99 * USUAL).clamp(FIRST_CONTENT_LEAST, FIRST_CONTENT_MOST));
    match (known, outlook.has_others) {
        (Some(known), true) => known,
        (None, true) => cold,
        (known, false) => known.map_or(cold, |known| known.max(cold)).saturating_mul(1 << outlook.silences.min(4)),
    }
    .min(FIRST_CONTENT_MOST)
}

/// When an attempt has been silent for so long that a second one is worth its price.
pub(crate) fn hedge(times: &Times) -> Duration {
    times.p95.clamp(HEDGE_LEAST, HEDGE_MOST)
}

/// What an attempt's target is like.
#[derive(Clone, Copy)]
pub(crate) struct Outlook {
    /// How long it takes, once that is known.
    pub(crate) times: Option<Times>,
    /// Attempts in a row that were given up for their silence.
    pub(crate) silences: u32,
    /// Whether there are others to turn to.
    pub(crate) has_others: bool,
}

/// How long an attempt may take.
pub(crate) struct Limits {
    /// After this, another target is tried beside it.
    pub(crate) relief: Option<Duration>,
    /// After this, it is given up.
    pub(crate) end: Duration,
    /// Whether that is so soon that silence until then says nothing of the target.
    pub(crate) is_hurried: bool,
}

impl Limits {
    /// Those of an attempt that should have its first content, or its whole answer, within `limit`. While there are
    /// others to turn to, half of the remaining time is theirs, so that an attempt that eats its whole budget leaves
    /// one for the next. A whole answer that is late may still come: others are tried beside it.
    pub(crate) fn new(limit: Duration, remaining: Duration, others: bool, stream: bool) -> Self {
        let enough = limit.min(FIRST_CONTENT_LEAST);
        let limit = limit.min(if others { remaining / 2 } else { remaining });
        let (relief, end) = match others && !stream {
            true => (Some(limit), (limit * 2).min(remaining)),
            false => (None, limit),
        };
        Self { relief, end, is_hurried: end < enough }
    }
}

/// How long a stream may be silent once it has begun.
pub(crate) fn gap(deployment: &Deployment) -> Duration {
    if deployment.reasoning { GAP_REASONING } else { GAP }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn half_of_the_time_is_for_the_others() {
        let all = |stream: bool, others: bool| {
            let limits = Limits::new(secs(40), secs(60), others, stream);
            (limits.relief, limits.end)
        };
        assert_eq!(all(true, true), (None, secs(30)));
        assert_eq!(all(true, false), (None, secs(40)));
        // A whole answer may still come when somebody else is asked.
        assert_eq!(all(false, true), (Some(secs(30)), secs(60)));
        assert_eq!(all(false, false), (None, secs(40)));
    }

    #[test]
    fn who_is_given_next_to_no_time_is_not_blamed_for_his_silence() {
        let is_hurried = |limit: u64, remaining: u64| Limits::new(secs(limit), secs(remaining), false, true).is_hurried;
        assert!(is_hurried(10, 4) && !is_hurried(10, 5) && !is_hurried(10, 60));
        assert!(is_hurried(3, 2) && !is_hurried(3, 3), "who is always fast had time enough");
    }

    #[test]
    fn what_is_usual_decides_and_who_is_alone_gets_more() {
        let second = |count: u64| Some(Times { p50: secs(1), p95: secs(count), p99: secs(count) });
        let limit = |times: Option<Times>, silences: u32, has_others: bool| {
            of_stranger(FIRST_CONTENT, Outlook { times, silences, has_others }).as_secs()
        };
        assert_eq!([limit(None, 0, true), limit(second(1), 0, true), limit(second(3), 0, true)], [10, 5, 12]);
        assert_eq!(limit(second(99), 0, true), 120);
        assert_eq!([limit(second(1), 0, false), limit(second(3), 0, false)], [10, 12]);
        assert_eq!([0, 1, 2, 3, 9].map(|silences| limit(None, silences, false)), [10, 20, 40, 80, 120]);
        assert_eq!(limit(None, 9, true), 10, "there are others to turn to");
        let hedge = |p95_ms: u64| hedge(&Times { p50: secs(0), p95: Duration::from_millis(p95_ms), p99: secs(0) });
        assert_eq!([hedge(1), hedge(700), hedge(60_000)].map(|wait| wait.as_millis()), [300, 700, 10_000]);
    }
}
