//! Where a request goes, and why.
//!
//! [`Snapshot`] is all that is configured, resolved and cross-checked. [`plan`]
//! turns a snapshot, a request and the state of the moment into an ordered list of
//! targets, with a reason for every deployment that was left out. [`read_refusal`]
//! says what an upstream's refusal means and what helps; [`read_headers`] and its
//! neighbours, what an answer says of limits. All are functions of values: they see
//! neither clock nor socket.

#![forbid(unsafe_code)]

mod backing;
mod calibration;
mod estimate;
mod health;
mod plan;
mod pricing;
mod reason;
mod refusal;
mod report;
mod sketch;
mod snapshot;
mod strategy;
mod waiting;

pub use backing::{Risk, RiskKind, risks};
pub use calibration::{Calibration, Expectation, INPUTS, Learned, OUTPUTS, Rate, Sample, Shape};
pub use estimate::{cost, demand, units};
pub use health::{
    Breaker, Class, Fault, HedgeBudget, Latency, Reliability, RetryBudget, Standing, StoredBreaker, Times,
};
pub use plan::{Candidate, Live, Plan, Request, Verdict, plan};
pub use pricing::{Ahead, Expected, Pricing, Prospect, Question, Score, Tariff, Toll, kind, market_at_most};
pub use reason::{Bar, Reason};
pub use refusal::{Domain, Meaning, PauseOrder, Refusal, Remedy, Scope, read_refusal};
pub use report::{Said, read_headers, read_quota_endpoint, read_refusal_report};
pub use snapshot::{Account, Alias, Deployment, NameError, Named, Prices, Rescue, Snapshot};
pub use strategy::Strategy;
pub use waiting::{Desk, Place, Size, Unserved, Waiting};
