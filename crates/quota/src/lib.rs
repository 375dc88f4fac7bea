//! Counting what may still be sent.
//!
//! A provider counts a request at an instant that nobody here sees: it lies
//! between the moment the first byte may have left and the moment the first byte
//! came back. Every rule below therefore holds a charge for the whole of that
//! uncertainty: from dispatch until the *latest possible receipt*, and from there
//! for one window. That is why a known limit is never overrun, and why almost all
//! of it can still be used: the uncertainty is as long as a round trip.
//!
//! All limits of an attempt are reserved at once or not at all. What a provider
//! says of a limit comes as a [`Report`], and what it refuses as [`Heard`]; how
//! they are read from headers and bodies is somebody else's business, like clocks
//! (callers bring [`Now`](freeway_types::Now)) and storage.

#![forbid(unsafe_code)]

mod alarm;
mod block;
mod book;
mod bucket;
mod calendar;
mod civil;
mod counter;
mod demand;
mod drift;
mod entry;
mod hint;
mod inquiry;
mod learn;
mod margins;
mod pace;
mod pause;
mod purse;
mod ratelimit;
mod report;
mod rolling;
mod skew;
mod spec;

pub use alarm::CreditAlarm;
pub use block::{Block, Lost};
pub use book::{Actual, Allowance, Asked, Blocked, Book, Fit, Heard, LimitView, ReservationId, Shown, Target};
pub use counter::GrantView;
pub use demand::{Bound, Demand, used};
pub use hint::{duration_in, parse_duration, parse_http_date, parse_retry_after, parse_retry_after_ms};
pub use inquiry::{Inquiry, Shortage};
pub use learn::{Provenance, Size};
pub use margins::Margins;
pub use pace::Pace;
pub use pause::{PauseScope, Pauses};
pub use ratelimit::RateLimitFields;
pub use report::{Report, ReportScope, ReportSource, ReportWindow, figure, parse_figure};
pub use skew::{Offset, Skew};
pub use spec::{Charging, Civil, Grant, LimitSpec, Rule, SpecError};

use std::time::Duration;

/// Longest time between the end of our write and the provider's count, until it is learned.
pub const COUNT_LAG: Duration = Duration::from_secs(2);
