//! The simulated provider's clock. By default it starts at the wall's time and then
//! only follows the monotonic clock, so that no step of the wall can bend a window.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

pub(crate) struct Clock {
    origin: Instant,
    wall: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a simulated provider has a clock of its own; this is it")]
    pub(crate) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(wall.as_micros()).unwrap_or(0);
        let origin = Instant::now();
        Self::given(move || wall.saturating_add(i64::try_from(origin.elapsed().as_micros()).unwrap_or(i64::MAX)))
    }

    /// A clock that somebody else reads. It must not go backwards.
    pub(crate) fn given(wall: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self { origin: Instant::now(), wall: Box::new(wall) }
    }

    /// Microseconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        (self.wall)()
    }

    /// Milliseconds since the clock was started.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
