//! The simulated provider's clock: it starts at the wall's time and then only
//! follows the monotonic clock, so that no step of the wall can bend a window.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    wall_micros: i64,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a simulated provider has a clock of its own; this is it")]
    pub(crate) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { origin: Instant::now(), wall_micros: i64::try_from(wall.as_micros()).unwrap_or(0) }
    }

    /// Microseconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        let passed = i64::try_from(self.origin.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.wall_micros.saturating_add(passed)
    }

    /// Milliseconds since the clock was started.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
