//! The one place where the time is read.
//!
//! Lengths are measured on the clock that goes on while the machine sleeps: so do the windows of providers, and a wall
//! clock that stands otherwise against it was set by somebody.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use freeway_types::{Monotonic, Now, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// Where the monotonic clock starts: use of up to forty days before the start can be replayed behind it.
const ORIGIN_MICROS: u64 = 40 * 86_400 * 1_000_000;

/// How long a reading of the wall clock is good for.
const WALL_FOR_MICROS: u64 = 1_000;

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
        Self { id, uptime: Duration::from_micros(since_boot()) }
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
    /// The machine's, from so many microseconds after its beginning.
    Machine(u64),
    Given(Given),
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(Source::Machine(since_boot()))
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
            static LAST: Cell<Option<(u64, Timestamp)>> = const { Cell::new(None) };
        }
        let origin = match &self.0 {
            Source::Machine(origin) => *origin,
            Source::Given(given) => return (given.now)(),
        };
        let running = since_boot();
        let since_last = LAST.get().map(|(read_at, wall)| (running.saturating_sub(read_at), wall));
        let wall = match since_last {
            Some((since, wall)) if since < WALL_FOR_MICROS => wall.after(Duration::from_micros(since)),
            _ => {
                let (read_at, wall) = both();
                LAST.set(Some((read_at, wall)));
                return Now { wall, monotonic: placed(read_at, origin) };
            }
        };
        Now { wall, monotonic: placed(running, origin) }
    }
}

fn placed(running: u64, origin: u64) -> Monotonic {
    Monotonic::from_micros(ORIGIN_MICROS.saturating_add(running.saturating_sub(origin)))
}

/// Both clocks at one instant. A thread that is stopped between the two readings would make the wall clock look as if it
/// had been set.
fn both() -> (u64, Timestamp) {
    let mut before = since_boot();
    for _ in 0..8 {
        let wall = wall();
        let after = since_boot();
        if after - before < WALL_FOR_MICROS {
            return (before, wall);
        }
        before = after;
    }
    (before, wall())
}

/// Microseconds that the machine has run or slept.
fn since_boot() -> u64 {
    #[cfg(target_os = "linux")]
    const RUNNING: ClockId = ClockId::Boottime;
    /// Of other systems it is not verified that this one goes on while the machine sleeps.
    #[cfg(not(target_os = "linux"))]
    const RUNNING: ClockId = ClockId::Monotonic;
    let read = clock_gettime(RUNNING);
    let micros = u64::try_from(read.tv_sec).unwrap_or(0).saturating_mul(1_000_000);
    micros.saturating_add(u64::try_from(read.tv_nsec).unwrap_or(0) / 1_000)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place where the time is read")]
fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}
