//! The one place where the time is read.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use freeway_types::{Monotonic, Now, Timestamp};
use tokio::time::Instant;

/// Where the monotonic clock starts: use of up to forty days before the start can be replayed behind it.
const ORIGIN_MICROS: u64 = 40 * 86_400 * 1_000_000;

/// How long a reading of the wall clock is good for.
const WALL_FOR: Duration = Duration::from_millis(1);

/// Reads both clocks.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    /// The machine's, from an instant of its monotonic clock.
    Machine(Instant),
    Given(Arc<dyn Fn() -> Now + Send + Sync>),
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(Source::Machine(Instant::now()))
    }

    /// Clocks of somebody else's: of a simulation.
    #[must_use]
    pub fn given(read: Arc<dyn Fn() -> Now + Send + Sync>) -> Self {
        Self(Source::Given(read))
    }

    /// Both clocks. The wall clock is read once a millisecond at most, and goes on with the other one between: a
    /// request asks for the time a dozen times.
    #[must_use]
    pub fn now(&self) -> Now {
        thread_local! {
            static LAST: Cell<Option<(Instant, Timestamp)>> = const { Cell::new(None) };
        }
        let origin = match &self.0 {
            Source::Machine(origin) => *origin,
            Source::Given(read) => return read(),
        };
        let instant = Instant::now();
        let elapsed = u64::try_from(instant.duration_since(origin).as_micros()).unwrap_or(u64::MAX);
        let since_last = LAST.get().map(|(read_at, wall)| (instant.saturating_duration_since(read_at), wall));
        let wall = match since_last {
            Some((since, wall)) if since < WALL_FOR => wall.after(since),
            _ => {
                let wall = wall();
                LAST.set(Some((instant, wall)));
                wall
            }
        };
        Now { wall, monotonic: Monotonic::from_micros(ORIGIN_MICROS.saturating_add(elapsed)) }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place where the time is read")]
fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}
