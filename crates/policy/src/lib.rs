//! Who may send what where.
//!
//! Two questions are answered here, as plain functions of values. May this caller
//! ask for this tier and this data class ([`admit`])? May a request of this class
//! go to a provider that treats data in this way ([`permits`])? Unknown always
//! counts as the worst.

#![forbid(unsafe_code)]

mod admit;
mod data;

pub use admit::{Admission, Caller, ClientKeyRule, Denial, Rules, Tier, Wish, admit};
pub use data::{Clause, DataFacts, permits};
