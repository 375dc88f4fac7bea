//! How long each phase may take.

use std::time::Duration;

use freeway_router::Deployment;

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
const GAP: Duration = Duration::from_secs(60);
const GAP_REASONING: Duration = Duration::from_secs(120);
/// Tokens a second that a whole answer is expected to be written at.
const TOKENS_PER_SECOND: u64 = 50;

/// How long an attempt may take to its first content; of a whole answer, to its end. Until latencies are
/// learned, one figure holds for all.
pub(crate) fn first_content(deployment: &Deployment, stream: bool, most_output: u64) -> Duration {
    let base = if deployment.reasoning { FIRST_CONTENT_REASONING } else { FIRST_CONTENT };
    if stream {
        return base;
    }
    base.saturating_add(Duration::from_secs(most_output / TOKENS_PER_SECOND)).min(FIRST_CONTENT_MOST)
}

/// How long an attempt may take.
pub(crate) struct Limits {
    /// After this, another target is tried beside it.
    pub(crate) relief: Option<Duration>,
    /// After this, it is given up.
    pub(crate) end: Duration,
}

impl Limits {
    /// Those of an attempt that should have its first content, or its whole answer, within `limit`. While there are
    /// others to turn to, half of the remaining time is theirs, so that an attempt that eats its whole budget leaves
    /// one for the next. A whole answer that is late may still come: others are tried beside it.
    pub(crate) fn new(limit: Duration, remaining: Duration, others: bool, stream: bool) -> Self {
        let limit = limit.min(if others { remaining / 2 } else { remaining });
        match others && !stream {
            true => Self { relief: Some(limit), end: (limit * 2).min(remaining) },
            false => Self { relief: None, end: limit },
        }
    }
}

/// How long a stream may be silent once it has begun.
pub(crate) fn gap(deployment: &Deployment) -> Duration {
    if deployment.reasoning { GAP_REASONING } else { GAP }
}
