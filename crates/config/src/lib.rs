//! Configuration: from a file's text to something the rest of the program can trust.
//!
//! Raw text is first held against the very JSON Schema that editors use
//! (`check.rs`), so that every unknown key and wrong type is found at once, with
//! its place. What passes is read into plain structs (`raw.rs`), one for each
//! section, and then resolved against the catalogue (`resolve.rs`). Nothing that
//! is wrong is guessed at: all of a file is taken, or none.

#![forbid(unsafe_code)]

mod check;
mod diagnostic;
mod diff;
mod inventory;
mod offer;
mod outbound;
mod provider;
mod providers_page;
mod raw;
mod reference;
mod resolve;
mod schema;
mod trial;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use diff::{Change, Changes, Difference, Values, What, diff};
pub use freeway_catalog::STALE_DAYS;
pub use freeway_router::Risk;
pub use inventory::{Inventory, Kind, needs_restart};
pub use offer::{Card, ModelCard, PlanCard, Total, cards, number, total};
pub use provider::Endpoint;
pub use providers_page::providers_page;
pub use raw::Raw;
pub use reference::Surroundings;
pub use resolve::{ClientKeySetting, Found, Loaded, Settings, StoreUrl, load, load_with_more, read_catalog};
pub use schema::{reference_page, schema};
