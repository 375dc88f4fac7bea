//! What is worth telling: events as types, each with its own log line and counters.
//!
//! The code that does the work says what happened, once; what becomes of it is
//! decided here. Prompts, answers and keys have no place in any event. This crate
//! stands above the crates that perform work, so that they can speak its types.

#![forbid(unsafe_code)]

mod event;
mod metrics;
pub mod names;

use std::io::Write;
use std::sync::Mutex;

use freeway_types::Timestamp;

pub use event::{Event, Level};
pub use metrics::Metrics;

/// Takes events and keeps counts.
#[derive(Debug)]
pub struct Telemetry {
    least: Level,
    metrics: Mutex<Metrics>,
}

impl Telemetry {
    /// Writes lines of at least this level to standard error.
    #[must_use]
    pub fn new(least: Level) -> Self {
        Self { least, metrics: Mutex::new(Metrics::default()) }
    }

    /// Tells an event: counts it, and writes its line if it is grave enough.
    pub fn tell(&self, at: Timestamp, event: &Event<'_>) {
        if let Ok(mut metrics) = self.metrics.lock() {
            event.count(&mut metrics);
        }
        if event.level() >= self.least {
            let line = format!("{at} {} {} {}\n", event.level().as_str(), event.name(), event.fields());
            // A log that cannot be written must not stop the gateway.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }

    /// All counts, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.metrics.lock().map(|metrics| metrics.render()).unwrap_or_default()
    }
}
