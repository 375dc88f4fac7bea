//! The greatest value less price: quota goes to whom it is worth most.
//!
//! ```text
//! arrivals ──► Ahead ──► Prospect ──► Expected ──► Question ──► Tariff ──► weigh
//!          (when due?)  (a copy)   (forecast)   (counts, facts) (solved)  (each request)
//! ```
//!
//! [`Ahead`] counts who comes and says when prices are due. What follows is made step by step, so that only those steps
//! hold the book that need it: where blocks end, and what there is to give. Solving takes a fraction of a second and
//! needs neither. The [`Tariff`] that comes of it is all that a request is compared with.

mod ahead;
mod score;
mod supply;
mod tariff;

pub use ahead::{Ahead, Expected, Prospect, Question, kind};
pub use score::Score;
pub(crate) use score::{Scored, weigh};
pub use supply::market_at_most;
pub use tariff::{Pricing, Tariff, Toll};
