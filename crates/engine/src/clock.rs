//! The one place where the time is read.

use std::time::{SystemTime, UNIX_EPOCH};

use freeway_types::{Monotonic, Now, Timestamp};
use tokio::time::Instant;

/// Where the monotonic clock starts: use of up to forty days before the start can be replayed behind it.
const ORIGIN_MICROS: u64 = 40 * 86_400 * 1_000_000;

/// Reads both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Both clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place where the time is read")]
    pub fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let elapsed = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        Now {
            wall: Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)),
            monotonic: Monotonic::from_micros(ORIGIN_MICROS.saturating_add(elapsed)),
        }
    }
}
