//! Wire formats. One folder a dialect; what they share (event streams, JSON
//! helpers, error shapes) stands beside them.
//!
//! Nothing here knows a provider, a limit or a socket: bytes come in, facts and
//! bytes go out.

#![forbid(unsafe_code)]

pub mod openai_chat;

mod error;
pub mod sse;
mod text;

pub use error::{ClientError, UpstreamError};
pub use text::{Script, TextMeasure};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// OpenAI's chat completions.
    OpenaiChat,
    /// OpenAI's responses.
    OpenaiResponses,
    /// Anthropic's messages.
    Anthropic,
    /// Google's generateContent.
    Gemini,
}

impl Dialect {
    /// The name used in configuration and pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai-chat",
            Self::OpenaiResponses => "openai-responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }
}
