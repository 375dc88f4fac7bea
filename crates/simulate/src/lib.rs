//! What a configuration would have made of a workload, in virtual time.
//!
//! The decisions are the gateway's own: [`admit`](freeway_policy::admit), [`plan`](freeway_router::plan) and a
//! [`Book`](freeway_quota::Book) that counts. Only providers are not there: an answer is immediate, is counted at the
//! instant at which its request is sent, and uses exactly what the workload says. So limits bind exactly, concurrency
//! never does, and what is learned from answers plays no part.
//!
//! What is asked for is a written [`Workload`], or a day of the ledger: a [`Replay`], which [`compare`] holds against what
//! was recorded.
//!
//! [`simulate`] makes the decisions, [`recount`] checks them by arithmetic of its own, and [`Summary`] says what came of
//! them. Nothing here reads a clock, draws a random number or does I/O.

#![forbid(unsafe_code)]

mod ahead;
mod bound;
mod compare;
mod recorded;
mod recount;
mod run;
mod scene;
mod summary;
mod workload;

pub use bound::bound;
pub use compare::{Change, Comparison, LatencyClass, Shift, Side, TargetPair, compare};
pub use recorded::{Assumed, CLIENT_LEFT, Fate, Recorded, Replay};
pub use recount::{Broken, LimitUse, Recount, recount};
pub use run::{Decision, Refused, Run, Watcher, decision_lines, simulate, watched};
pub use scene::Scene;
pub use summary::{Summary, TargetRow, TierRow};
pub use workload::{Arrival, Workload, WorkloadError};

use std::time::Duration;

use freeway_quota::LimitSpec;
use freeway_router::Snapshot;
use freeway_types::{Monotonic, Now, Timestamp};

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Scenario<'a> {
    /// The configuration, resolved.
    pub snapshot: &'a Snapshot,
    /// Its limits, in the order of the deployments' indices.
    pub limits: &'a [LimitSpec],
    /// What is asked for.
    pub workload: &'a Workload,
    /// The instant that the workload's times begin at.
    pub start: Timestamp,
    /// How often whoever looks ahead works its prices out anew. Means nothing to strategies that rank.
    pub resolve: Duration,
}

impl Scenario<'_> {
    /// Both clocks at an instant of the simulation, given in microseconds from its start.
    #[must_use]
    pub fn now(&self, at: Monotonic) -> Now {
        let since_start = at.since(Monotonic::default());
        Now { wall: self.start.after(since_start), monotonic: at }
    }
}

#[cfg(test)]
mod tests;
