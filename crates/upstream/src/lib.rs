//! Sending one request to one configured upstream.
//!
//! A key is bound to its origin: the only address a [`Client`] can reach is the
//! one that the operator configured, checked on the address actually connected
//! to. Redirects are not followed, proxies of the environment are not used, and
//! of the client's headers none is passed on. What a status means is not this
//! crate's business.

#![forbid(unsafe_code)]

mod body;
mod client;
mod connect;
mod egress;
mod fetch;
mod leg;
mod origin;
mod pool;

pub use body::AnswerBody;
pub use client::{Client, Exchange, SendError};
pub use connect::{ConnectError, Dial, Dialled, Link, Resolver};
pub use egress::Reach;
pub use fetch::{Document, FetchError};
pub use origin::{Auth, Origin, OriginError};
