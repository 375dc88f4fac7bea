//! Sending one request to one configured upstream.
//!
//! A key is bound to its origin: the only address a [`Client`] can reach is the
//! one that the operator configured, checked on the address actually connected
//! to. Redirects are not followed, proxies of the environment are not used (only one that the operator configured), and
//! of the client's headers none is passed on. What a status means is not this
//! crate's business.

#![forbid(unsafe_code)]

mod body;
mod client;
mod connect;
mod egress;
mod fetch;
mod leg;
mod multiplex;
mod origin;
mod pool;
mod progress;
mod proxy;
mod race;
mod socket;
mod stream;
mod trust;

pub use body::{AnswerBody, BodyError};
pub use client::{Client, Exchange, SendError};
pub use connect::{ConnectError, Dial, Dialled, Link, Resolver};
pub use egress::Reach;
pub use fetch::{Document, FetchError};
pub use origin::{Auth, Origin, OriginError};
pub use proxy::{Proxy, ProxyError};
pub use trust::{Roots, RootsError};
