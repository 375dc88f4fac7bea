//! The HTTP side: listening, deciding who may ask, and turning requests into work
//! for the engine.
//!
//! `route.rs` lists every route there is with who may call it; `face/` holds one
//! file for each dialect that clients speak; `operator.rs` is the operator's API.
//! Nothing here knows a provider.

#![forbid(unsafe_code)]

mod auth;
mod body;
mod face;
mod framing;
mod head;
mod intake;
mod listen;
mod openapi;
mod operator;
mod origin;
mod overload;
mod patient;
mod quotas;
mod respond;
mod route;

pub use auth::{ClientKey, Keys};
pub use listen::{Bounds, Editions, Server, Shutdown};
pub use route::{Access, ROUTES, Route};
