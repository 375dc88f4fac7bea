//! What a limit counts.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Attempts sent upstream.
    Requests,
    /// Input and output tokens together.
    Tokens,
    /// Input tokens only.
    InputTokens,
    /// Output tokens only.
    OutputTokens,
    /// Input tokens that no cache served, and output tokens.
    UncachedTokens,
    /// Money, in USD.
    Usd,
    /// A provider's own unit, at `units_per_mtok` for each model.
    Units,
    /// Requests in flight at the same time.
    Concurrency,
}

impl Metric {
    /// The word used in configuration and on every page.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::UncachedTokens => "uncached_tokens",
            Self::Usd => "usd",
            Self::Units => "units",
            Self::Concurrency => "concurrency",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
