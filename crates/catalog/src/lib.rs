//! What is known of providers: the schema of a provider file, the files that are
//! built in, and the checks that a file must pass.
//!
//! A provider is data. One TOML file in `catalog/providers` says where it is, how
//! it is spoken to, what it gives away and under which limits, how its refusals
//! are to be read, and what it does with what it is sent. The `[providers.*]`
//! tables of a configuration use the same schema, so that a user can correct or
//! add anything without a release.

#![forbid(unsafe_code)]

mod capacity;
mod embedded;
mod facts;
mod limit;
mod refusal;
mod report;
mod validate;

pub use capacity::{Daily, daily};
pub use embedded::{Catalog, FileProblem, built_in, files_of, parse};
pub use facts::{
    Allowed, Asked, Auth, AuthScheme, Confidence, DataPolicy, Dispute, Kind, Modality, Model, ModelPrice, Offer,
    OtherEndpoint, Plan, Prefill, Provider, STALE_DAYS, Source, Status, StreamUsage, Terms, TrainClass, Trains,
    UnsupportedEffect,
};
pub use limit::{Charges, Counts, Estimate, Limit, LimitScope, RateHeader, RateHeaderFormat, RateHeaderSays, Reset};
pub use refusal::{Action, ErrorRule, Example, ExampleOrigin, Match, Pause};
pub use report::{BodyReport, ExpectedReport, ReportExample};
pub use validate::{Problem, validate, window_seconds};
