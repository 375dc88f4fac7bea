//! Requests over real sockets on this machine: what is spoken, over how many connections, and through what.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod faults;
mod http2;
mod proxy;
mod server;
mod writing;
