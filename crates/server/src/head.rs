//! Looking at request heads as they arrive, for what the HTTP library lets pass without a word: a length beside
//! chunks, of which it drops one, and lines that end in a bare line feed. Between two servers that read such a head
//! differently, one request can become two; here it is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use freeway_dialect::ClientError;
use memchr::memchr;

const LENGTH: u8 = 1;
const CODING: u8 = 2;
const BARE_LINE_FEED: u8 = 4;

/// What was seen in the head of the request under way. Shared by the socket, which sees bytes, and the service,
/// which sees requests.
#[derive(Debug, Default)]
pub(crate) struct HeadNotes {
    seen: AtomicU8,
    /// The request under way is answered: what comes next is another head.
    answered: AtomicBool,
}

/// Reads along with a connection.
#[derive(Debug)]
pub(crate) struct HeadReader {
    notes: Arc<HeadNotes>,
    in_head: bool,
    /// The line under way, as far as it arrived in earlier pieces; only its beginning matters.
    line: Vec<u8>,
    last: u8,
}

/// No header that matters here has a longer name.
const LONGEST_NAME: usize = 20;

impl HeadNotes {
    /// Refuses the request under way if its head was flawed.
    pub(crate) fn check(&self) -> Result<(), ClientError> {
        let seen = self.seen.load(Ordering::Acquire);
        let invalid = |message: &str| Err(ClientError::new(400, "invalid_request", message));
        if seen & BARE_LINE_FEED != 0 {
            return invalid("the lines of a head end in carriage return and line feed");
        }
        if seen & LENGTH != 0 && seen & CODING != 0 {
            return invalid("a request has a content-length or a transfer-encoding, not both");
        }
        Ok(())
    }

    /// The request under way is answered.
    pub(crate) fn answered(&self) {
        self.answered.store(true, Ordering::Release);
    }
}

impl HeadReader {
    pub(crate) fn new(notes: Arc<HeadNotes>) -> Self {
        Self { notes, in_head: true, line: Vec::with_capacity(LONGEST_NAME), last: 0 }
    }

    /// Takes the next bytes of the connection.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        if !self.in_head && self.notes.answered.swap(false, Ordering::AcqRel) {
            self.in_head = true;
            self.line.clear();
            self.notes.seen.store(0, Ordering::Release);
        }
        while self.in_head && !bytes.is_empty() {
            let end = memchr(b'\n', bytes);
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            let room = LONGEST_NAME.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            self.last = piece.last().copied().unwrap_or(self.last);
            let Some(end) = end else { return };
            self.end_of_line();
            bytes = &bytes[end + 1..];
        }
    }

    fn end_of_line(&mut self) {
        let mut seen = 0;
        if self.last != b'\r' {
            seen |= BARE_LINE_FEED;
        }
        let is_blank = matches!(self.line.as_slice(), b"" | b"\r");
        let named = |name: &[u8]| self.line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        if named(b"content-length:") {
            seen |= LENGTH;
        } else if named(b"transfer-encoding:") {
            seen |= CODING;
        }
        self.notes.seen.fetch_or(seen, Ordering::AcqRel);
        self.in_head = !is_blank;
        self.line.clear();
        self.last = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(head: &str) -> bool {
        // However the head is cut, the verdict is the same.
        let verdicts: Vec<bool> = (0..=head.len())
            .map(|cut| {
                let notes = Arc::new(HeadNotes::default());
                let mut reader = HeadReader::new(Arc::clone(&notes));
                reader.read(&head.as_bytes()[..cut]);
                reader.read(&head.as_bytes()[cut..]);
                notes.check().is_ok()
            })
            .collect();
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{head:?}: {verdicts:?}");
        verdicts[0]
    }

    #[test]
    fn flaws_of_a_head() {
        assert!(accepts("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na\nb"));
        assert!(accepts("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n0\r\n\r\n"));
        assert!(!accepts("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"));
        assert!(!accepts("POST / HTTP/1.1\r\nCONTENT-LENGTH: 3\r\ntransfer-encoding: chunked\r\n\r\n"));
        assert!(!accepts("GET / HTTP/1.1\nHost: x\n\n"));
        assert!(!accepts("GET / HTTP/1.1\r\nHost: x\n\r\n"));
    }

    #[test]
    fn the_next_request_of_a_connection_is_looked_at_on_its_own() {
        let notes = Arc::new(HeadNotes::default());
        let mut reader = HeadReader::new(Arc::clone(&notes));
        reader.read(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
        notes.answered();
        reader.read(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(notes.check().is_ok());
        notes.answered();
        reader.read(b"GET / HTTP/1.1\n\n");
        assert!(notes.check().is_err());
    }
}
