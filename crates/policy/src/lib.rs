//! Who may send what where.
//!
//! Three questions are answered here, as plain functions of values. May this caller
//! ask for this tier and this data class ([`admit`])? May a request of this class
//! go to a provider that treats data in this way ([`permits`])? Whose requests are
//! refused when there are more than can be served ([`standings`])? Unknown always
//! counts as the worst.

#![forbid(unsafe_code)]

mod admit;
mod data;
mod shed;

pub use admit::{Admission, Caller, ClientKeyRule, Denial, Rules, Tier, Wish, admit, claim};
pub use data::{Clause, DataFacts, permits};
pub use shed::{Standing, standings};
