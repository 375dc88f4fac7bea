//! What one more unit of each limit is worth.
//!
//! Scarce quota is kept for the work that needs it by giving it a price: what a unit could still earn before it comes
//! back. A [`Market`] says what will be asked for and what there is to give, in blocks of time; [`Market::solve`] finds
//! what is served at best, which is a linear program, and with it the price of each limit in each block: the program's
//! duals. A [`Forecast`] learns what will be asked for from what was.
//!
//! All are functions of values. Solving takes up to a second, and belongs on a thread of its own.

#![forbid(unsafe_code)]

mod demand;
mod forecast;
mod horizon;
mod market;
mod solve;

pub use demand::{Cell, Group, Kind, Sums, size};
pub use forecast::Forecast;
pub use horizon::horizon;
pub use market::{Class, Market, Offer};
pub use solve::{Precision, Solution, SolveError};
