//! Simulated LLM providers: real HTTP/1.1 on loopback, the limits of a provider
//! file, and things that go wrong on command.
//!
//! This is the measuring instrument that the gateway is held against, so it
//! shares no arithmetic with it: it reads the same facts, and counts by itself
//! (`window`, `limits`). It speaks HTTP by hand (`wire`), because a server of a
//! library will not send half a header.
//!
//! ```no_run
//! # async fn run() -> std::io::Result<()> {
//! use freeway_sim::{Fault, Sim, SimConfig};
//!
//! let facts = freeway_catalog::Provider::default();
//! let sim = Sim::start(SimConfig::new("groq", facts)).await?;
//! sim.set_faults(vec![Fault::status(503)]);
//! println!("{}/chat/completions", sim.base_url());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod answer;
mod bodies;
mod clock;
mod config;
mod control;
mod decide;
mod door;
mod examples;
mod exchange;
mod fault;
mod headers;
mod limits;
mod log;
mod play;
mod quota;
mod request;
mod rules;
mod schema;
mod script;
mod sim;
mod stopping;
#[cfg(test)]
mod tests;
pub mod window;
mod wire;

pub use config::SimConfig;
pub use fault::{Fault, FaultKind, Position, Stop};
pub use limits::{Charge, LimitState};
pub use log::LogEntry;
pub use sim::Sim;
pub use wire::Line;
