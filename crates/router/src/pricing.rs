//! The greatest value less price: quota goes to whom it is worth most.
//!
//! ```text
//! arrivals ──► Ahead: forecast ──► Question: market ──► Tariff: prices, shares ──► score, choose
//!              (when is it due?)    (counts, facts)      (solved off the hot path)   (each request)
//! ```
//!
//! [`Ahead`] counts who comes and says when prices are due. A [`Question`] takes from the book what there is to give;
//! answering it takes a fraction of a second and needs neither of them. The [`Tariff`] that comes of it is all that a
//! request is compared with.

mod ahead;
mod score;
mod supply;
mod tariff;

pub use ahead::{Ahead, Question, cell};
pub use score::{Score, choose, scores};
pub use supply::market_at_most;
pub use tariff::Tariff;
