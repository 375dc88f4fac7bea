//! What the ledger keeps of a request so that it can be decided again, under another configuration.

use crate::{FeatureSet, Quality};

/// What a request asked for, beyond the names of its model, tier and data class. It says nothing of what was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its input in tokens, as estimated before it was sent.
    pub input: u64,
    /// Most output tokens, if the client set a limit.
    pub max_output: Option<u64>,
    /// The least quality that will do.
    pub min_quality: Quality,
    /// What it uses.
    pub features: FeatureSet,
    /// Whether it named its tier; if not, it got the usual one.
    pub named_tier: bool,
    /// Whether it named its data class; if not, it got the usual one.
    pub named_data: bool,
}

/// What a target was known to do with a request, when one was sent there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handling {
    /// Whether it costs money.
    pub paid: bool,
    /// Whether its provider trains on it; `None` where nobody knows.
    pub trains: Option<bool>,
    /// Days until it is deleted there; `None` where nobody knows.
    pub retention_days: Option<u32>,
}
