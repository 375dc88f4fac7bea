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

/// When the machine began to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Names this run of the machine; `None` where the system does not say.
    pub id: Option<String>,
    /// How long it has run.
    pub uptime: Duration,
}

impl Boot {
    /// What Linux says. Elsewhere nothing is known, and a process that was killed is taken for a loss of power.
    fn read() -> Self {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned());
        let uptime = std::fs::read_to_string("/proc/uptime").ok();
        let seconds = uptime.and_then(|text| text.split_ascii_whitespace().next()?.parse().ok());
        Self { id, uptime: seconds.and_then(|secs| Duration::try_from_secs_f64(secs).ok()).unwrap_or_default() }
    }
}

/// Reads both clocks.
#[derive(Clone)]
pub struct Clock(Source);

/// Both clocks, and the machine's beginning, as somebody else gives them.
#[derive(Clone)]
pub struct Given {
    /// Reads both clocks.
    pub now: Arc<dyn Fn() -> Now + Send + Sync>,
    /// Says when the machine began to run.
    pub boot: Arc<dyn Fn() -> Boot + Send + Sync>,
}

#[derive(Clone)]
enum Source {
    /// The machine's, from an instant of its monotonic clock.
    Machine(Instant),
    Given(Given),
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(Source::Machine(Instant::now()))
    }

    /// Clocks of somebody else's: of a simulation.
    #[must_use]
    pub fn given(given: Given) -> Self {
        Self(Source::Given(given))
    }

    /// When the machine began to run.
    #[must_use]
    pub fn boot(&self) -> Boot {
        match &self.0 {
            Source::Machine(_) => Boot::read(),
            Source::Given(given) => (given.boot)(),
        }
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
            Source::Given(given) => return (given.now)(),
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
