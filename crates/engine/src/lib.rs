//! One request's life, from the client's bytes to the record of what happened.
//!
//! [`Engine::serve`] reads the request, has it admitted and planned, and drives it
//! through its targets: reserve, send, hold until the first content, relay, settle,
//! record. There is one attempt loop (`drive.rs`) for everything that is ever sent
//! upstream. A request that is dropped at any point, because its client left,
//! cancels its upstream leg and is still settled and recorded: the guards in
//! `trace.rs` see to that.

#![forbid(unsafe_code)]

mod asking;
mod attempt;
mod calibration;
mod chance;
mod clock;
mod closing;
mod course;
mod drive;
mod engine;
mod explain;
mod failure;
mod foresight;
mod health;
mod hearing;
mod job;
mod pausing;
mod race;
mod relay;
mod rescue;
mod reserving;
mod scrub;
mod sources;
mod state;
mod stream;
mod timing;
mod trace;
mod waiting;
mod warning;

pub use chance::seed_chance;
pub use clock::{Boot, Clock, Given};
pub use engine::{Answer, Ask, Engine, Reply, Setup};
pub use explain::{DeploymentReport, LimitReport, PauseReport, read_candidates};
pub use hearing::size_json;
pub use scrub::Scrubber;
pub use stream::StreamBody;
pub use warning::Warning;
