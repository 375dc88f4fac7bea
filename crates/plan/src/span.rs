//! Figures that are not known exactly, and instants as they are written for programs.

use freeway_types::Timestamp;
use serde::{Serialize, Serializer};

/// A figure between two, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Range {
    /// What is sure.
    pub least: u64,
    /// What it is if every shaky fact is true. `None`: nothing is known that bounds it.
    pub most: Option<u64>,
}

impl Range {
    /// A figure that is known.
    #[must_use]
    pub const fn exactly(figure: u64) -> Self {
        Self { least: figure, most: Some(figure) }
    }
}

/// An instant as text, as the gateway's other pages have it.
pub(crate) fn as_text<S: Serializer>(instant: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(instant)
}

pub(crate) fn as_text_if_any<S: Serializer>(instant: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match instant {
        Some(instant) => serializer.collect_str(instant),
        None => serializer.serialize_none(),
    }
}
