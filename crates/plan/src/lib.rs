//! Whether what is configured carries a need, for how long, and what the rest would take.
//!
//! ```text
//! sentence, flags ──► Need ──► Carry      what each target carries alone, and all together
//!                          ├─► Course     what comes of it day by day: the gateway's own decisions in virtual time
//!                          ├─► Cover      what the rest costs with each paid model
//!                          └─► NextKey    which further free key would serve most of the rest
//! ```
//!
//! Facts that are shaky give ranges: the lower figure counts nothing that rests on them (`doubt.rs`), the upper one takes
//! them for true. Nothing here reads a clock, draws a random number or does I/O.

#![forbid(unsafe_code)]

mod answer;
mod carry;
mod course;
mod cover;
mod doubt;
mod ground;
mod need;
mod next_key;
mod sentence;
mod span;
mod watch;

pub use answer::{Answer, Facts, Question, Trials, answer};
pub use carry::{Carry, fits};
pub use course::{Choosing, Course, Day, TierDay};
pub use cover::Cover;
pub use doubt::doubt;
pub use need::{Need, NeedError, TierShare};
pub use next_key::NextKey;
pub use sentence::Draft;
pub use span::Range;
pub use watch::RunOut;

#[cfg(test)]
mod tests;
