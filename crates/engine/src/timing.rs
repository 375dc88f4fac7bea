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

/// The part of the remaining time that one attempt may use: half while there are others to turn to,
/// so that an attempt that eats its whole budget leaves one for the next.
pub(crate) fn share(limit: Duration, remaining: Duration, others: bool) -> Duration {
    limit.min(if others { remaining / 2 } else { remaining })
}

/// How long a stream may be silent once it has begun.
pub(crate) fn gap(deployment: &Deployment) -> Duration {
    if deployment.reasoning { GAP_REASONING } else { GAP }
}
