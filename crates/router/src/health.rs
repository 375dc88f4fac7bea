//! What was seen of targets: whether and how often they fail, how long they take, and how often something was sent twice.
//!
//! Refusals for want of quota and requests that are at fault themselves say nothing here: the first are counted and
//! paused, the second are the client's.

mod breaker;
mod budget;
mod fault;
mod latency;
mod latest;
mod reliability;
mod ring;

pub use breaker::{Breaker, Standing, StoredBreaker};
pub use budget::{HedgeBudget, RetryBudget};
pub use fault::Fault;
pub use latency::{Class, Latency, Times};
pub use reliability::Reliability;
