//! What arrived and what became of it.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// The newest entries that are kept.
const ENTRIES: usize = 200_000;
/// Bytes of bodies that are kept; later bodies are logged as empty.
const BODIES: usize = 256 << 20;

/// One request that arrived. In JSON, the body is a string.
#[derive(Clone, Debug, Default)]
pub struct LogEntry {
    /// Counts requests from 0.
    pub ordinal: u64,
    /// When it had been read, in milliseconds since the start.
    pub arrived_ms: u64,
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The key that came with it.
    pub key: Option<String>,
    /// The model it names.
    pub model: Option<String>,
    /// Whether it asks for a stream.
    pub streamed: bool,
    /// The status that was sent; none if no answer was begun.
    pub status: Option<u16>,
    /// Whether a limit was exceeded, whatever was answered.
    pub overrun: bool,
    /// The input and output tokens that it was booked with; none for what was refused, or is not over.
    pub booked: Option<(u64, u64)>,
    /// When the last byte was sent or the connection was given up, in milliseconds since the start.
    pub ended_ms: Option<u64>,
    /// When the client was seen to have closed before the end, in milliseconds since the start.
    pub cancelled_ms: Option<u64>,
    /// Names in lower case and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub body: Bytes,
}

impl LogEntry {
    /// Whether the client closed before the end.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.cancelled_ms.is_some()
    }

    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Serialize for LogEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entry = serializer.serialize_struct("LogEntry", 15)?;
        entry.serialize_field("ordinal", &self.ordinal)?;
        entry.serialize_field("arrived_ms", &self.arrived_ms)?;
        entry.serialize_field("method", &self.method)?;
        entry.serialize_field("path", &self.path)?;
        entry.serialize_field("key", &self.key)?;
        entry.serialize_field("model", &self.model)?;
        entry.serialize_field("streamed", &self.streamed)?;
        entry.serialize_field("status", &self.status)?;
        entry.serialize_field("overrun", &self.overrun)?;
        entry.serialize_field("booked", &self.booked)?;
        entry.serialize_field("ended_ms", &self.ended_ms)?;
        entry.serialize_field("cancelled", &self.cancelled())?;
        entry.serialize_field("cancelled_ms", &self.cancelled_ms)?;
        entry.serialize_field("headers", &self.headers)?;
        entry.serialize_field("body", &String::from_utf8_lossy(&self.body))?;
        entry.end()
    }
}

/// The entries, within bounds.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<LogEntry>,
    dropped: u64,
    body_bytes: usize,
}

impl Log {
    /// Adds an entry and gives it its ordinal.
    pub(crate) fn add(&mut self, mut entry: LogEntry) -> u64 {
        let ordinal = self.dropped + self.entries.len() as u64;
        entry.ordinal = ordinal;
        if self.body_bytes + entry.body.len() > BODIES {
            entry.body = Bytes::new();
        }
        self.body_bytes += entry.body.len();
        self.entries.push_back(entry);
        if self.entries.len() > ENTRIES
            && let Some(oldest) = self.entries.pop_front()
        {
            self.body_bytes -= oldest.body.len();
            self.dropped += 1;
        }
        ordinal
    }

    /// Changes an entry, if it is still kept.
    pub(crate) fn change(&mut self, ordinal: u64, change: impl FnOnce(&mut LogEntry)) {
        let place = ordinal.checked_sub(self.dropped).and_then(|place| usize::try_from(place).ok());
        if let Some(entry) = place.and_then(|place| self.entries.get_mut(place)) {
            change(entry);
        }
    }

    pub(crate) fn entries(&self) -> Vec<LogEntry> {
        self.entries.iter().cloned().collect()
    }
}
