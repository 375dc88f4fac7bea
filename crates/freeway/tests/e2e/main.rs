//! The real program between a client by hand and simulated providers.
//!
//! Each test starts a gateway of its own with a configuration of its own, so that
//! tests share nothing and run side by side. `gateway`, `http`, `upstream` and
//! `patience` are the harness; each other module is one family of promises, most
//! of them a table of cases and one function that checks a case.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod asking;
mod breakers;
mod bytes;
mod catalogue;
mod commands;
mod cooldowns;
mod cuts;
mod documents;
mod drain;
mod explain;
mod failover;
mod fastest;
mod faults;
mod framing;
mod gates;
mod gateway;
mod gone;
mod hedging;
mod http;
mod intake;
mod last_word;
mod learning;
mod leaving;
mod ledger;
mod limits;
mod matrix;
mod outbound;
mod overload;
mod patience;
mod plan;
mod policy;
mod pressure;
mod prices;
mod quotas;
mod recorded;
mod reload;
mod rescue;
mod simulate;
mod stalled;
mod streams;
mod upstream;
mod waiting;
