//! The words that every other crate shares: identifiers, money, tokens, time,
//! and the small enumerations of policy.
//!
//! Nothing here reads a clock, draws a random number or does I/O. Money, tokens
//! and instants are newtypes so that no two of them can be added by mistake.

#![forbid(unsafe_code)]

mod asked;
mod class;
mod feature;
mod id;
mod metric;
mod money;
mod secret;
mod time;
mod tokens;

pub use asked::{Asked, Handling};
pub use class::{CostClass, DataClass, Group, Quality};
pub use feature::{Feature, FeatureSet, Features};
pub use id::{AccountIndex, DeploymentIndex, KeyIndex, LimitIndex, RequestId};
pub use metric::Metric;
pub use money::{Price, Usd};
pub use secret::Secret;
pub use time::{Monotonic, Now, Timestamp};
pub use tokens::{Usage, UsageSource};
