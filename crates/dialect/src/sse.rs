//! Event streams (WHATWG server-sent events), decoded from bytes that arrive in any pieces.
//!
//! The decoder hands out each event together with the very bytes it came in, so
//! that a relay can pass an event on unchanged, or leave it out. However the
//! stream is cut, the events are the same and their bytes, put together, are the
//! stream. Work is linear in the bytes; memory is bounded by one event.

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

/// Longest event that is taken. A stream with a longer one is broken.
pub const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;

/// Decodes one stream.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// How much of the buffer holds complete lines of the event under way.
    complete: usize,
    /// How much of the buffer has been searched for a line's end.
    searched: usize,
    /// Whether the stream's first bytes have been looked at for a byte-order mark.
    begun: bool,
    /// Length of the byte-order mark before the event under way: only the first can have one.
    mark: usize,
    /// The last line ended in a carriage return at the end of what had arrived: a line feed that comes next
    /// belongs to it.
    after_return: bool,
}

/// One event, or a block of comments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The bytes it came in, with the empty line that ends it.
    pub raw: Bytes,
    /// The `data` lines, joined; `None` for a block without any, such as a keep-alive comment.
    pub data: Option<Bytes>,
    /// The `event` field.
    pub name: Option<Bytes>,
}

impl Event {
    /// Whether a block without data is comments and empty lines. Anything else says nothing to a client, and may be a page
    /// that something in front of the provider put there.
    #[must_use]
    pub fn is_comment(&self) -> bool {
        let is_blank_or_comment = |line: &[u8]| matches!(line.first(), None | Some(b':'));
        self.data.is_none() && self.raw.split(|byte| matches!(byte, b'\n' | b'\r')).all(is_blank_or_comment)
    }

    /// The same, with the empty line that was missing where its stream ended.
    #[must_use]
    pub fn ended(self) -> Self {
        let mut raw = BytesMut::from(&self.raw[..]);
        raw.extend_from_slice(b"\n\n");
        Self { raw: raw.freeze(), ..self }
    }
}

/// An event is longer than [`MAX_EVENT_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {MAX_EVENT_BYTES} bytes")]
pub struct TooLong;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Decoder {
    /// Takes the next piece of the stream.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next complete event.
    ///
    /// # Errors
    /// When the event under way is too long to be taken.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not be pushed to between events")]
    pub fn next(&mut self) -> Result<Option<Event>, TooLong> {
        if !self.begun {
            if self.buffer.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(&self.buffer) {
                return Ok(None);
            }
            self.begun = true;
            if self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.mark = BYTE_ORDER_MARK.len();
                self.complete = self.mark;
                self.searched = self.mark;
            }
        }
        if self.after_return && !self.buffer.is_empty() && self.searched < self.buffer.len() {
            self.after_return = false;
            if self.buffer[self.searched] == b'\n' {
                self.searched += 1;
                self.complete = self.searched;
            }
        }
        while let Some(at) = memchr2(b'\n', b'\r', &self.buffer[self.searched..]) {
            let end = self.searched + at;
            let returned = self.buffer[end] == b'\r';
            let next = if returned && self.buffer.get(end + 1) == Some(&b'\n') { end + 2 } else { end + 1 };
            self.after_return = returned && next == self.buffer.len() && next == end + 1;
            let blank = end == self.complete;
            self.complete = next;
            self.searched = next;
            if blank {
                let raw = self.buffer.split_to(next).freeze();
                self.complete = 0;
                self.searched = 0;
                return Ok(Some(read(raw, std::mem::take(&mut self.mark))));
            }
        }
        self.searched = self.buffer.len();
        if self.buffer.len() > MAX_EVENT_BYTES { Err(TooLong) } else { Ok(None) }
    }

    /// What stands in the buffer when the stream has ended: an event without its empty line. The standard
    /// has it thrown away; some providers leave the last line end out, so the caller may look at it.
    #[must_use]
    pub fn rest(&mut self) -> Option<Event> {
        let raw = self.buffer.split().freeze();
        (self.complete, self.searched, self.after_return) = (0, 0, false);
        (!raw.is_empty()).then(|| read(raw, std::mem::take(&mut self.mark)))
    }
}

/// Reads the lines of one event, from `start` on.
fn read(raw: Bytes, start: usize) -> Event {
    let mut data: Option<Bytes> = None;
    let mut joined: Option<Vec<u8>> = None;
    let mut name = None;
    let mut at = start;
    while at < raw.len() {
        let end = memchr2(b'\n', b'\r', &raw[at..]).map_or(raw.len(), |offset| at + offset);
        let line = raw.slice(at..end);
        at = end + 1;
        let (field, value) = split(&line);
        match field {
            b"data" => match (&mut joined, &data) {
                (Some(joined), _) => {
                    joined.push(b'\n');
                    joined.extend_from_slice(&value);
                }
                (None, Some(first)) => {
                    let mut both = first.to_vec();
                    both.push(b'\n');
                    both.extend_from_slice(&value);
                    joined = Some(both);
                }
                (None, None) => data = Some(value),
            },
            b"event" => name = Some(value),
            _ => {}
        }
    }
    Event { data: joined.map(Bytes::from).or(data), name, raw }
}

/// Field and value of one line, without the one space that may follow the colon.
fn split(line: &Bytes) -> (&[u8], Bytes) {
    match memchr::memchr(b':', line) {
        Some(colon) => {
            let start = if line.get(colon + 1) == Some(&b' ') { colon + 2 } else { colon + 1 };
            (&line[..colon], line.slice(start..))
        }
        None => (line, Bytes::new()),
    }
}

/// Writes one event with a single line of data.
#[must_use]
pub fn encode(data: &[u8]) -> Bytes {
    let mut event = Vec::with_capacity(data.len() + 8);
    event.extend_from_slice(b"data: ");
    event.extend_from_slice(data);
    event.extend_from_slice(b"\n\n");
    Bytes::from(event)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Data of all events, and all bytes, for a stream that arrives in the given pieces.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, Vec<u8>) {
        let mut decoder = Decoder::default();
        let (mut events, mut bytes) = (Vec::new(), Vec::new());
        let mut note = |event: Event| {
            bytes.extend_from_slice(&event.raw);
            if let Some(data) = event.data {
                let name = event.name.map(|name| format!("{}:", String::from_utf8_lossy(&name))).unwrap_or_default();
                events.push(format!("{name}{}", String::from_utf8_lossy(&data)));
            }
        };
        for piece in pieces {
            decoder.push(piece);
            while let Some(event) = decoder.next().unwrap() {
                note(event);
            }
        }
        if let Some(event) = decoder.rest() {
            note(event);
        }
        assert_eq!(decoder.next(), Ok(None), "a decoder whose rest was taken is empty");
        (events, bytes)
    }

    fn check(stream: &[u8], expected: &[&str]) {
        let whole = decode([stream]);
        assert_eq!(whole.0, expected);
        assert_eq!(whole.1, stream);
        for cut in 0..=stream.len() {
            assert_eq!(decode([&stream[..cut], &stream[cut..]]), whole, "cut at {cut}");
        }
        assert_eq!(decode(stream.chunks(1)), whole, "byte by byte");
    }

    #[test]
    fn the_standards_cases_at_every_cut() {
        check(b"data: a\n\ndata: b\n\n", &["a", "b"]);
        check(b"data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]);
        check(b"data: a\r\rdata: b\r\r", &["a", "b"]);
        check(b"data:a\r\n\ndata: b\n\r\n", &["a", "b"]);
        check(b"\xef\xbb\xbfdata: a\n\n", &["a"]);
        check(b": comment\n\ndata: a\n\n: keep-alive\n\n", &["a"]);
        check(b"\xef\xbb\xbf\ndata: a\n\n\xef\xbb\xbfdata: b\n\n", &["a"]);
        check(b"data: a\ndata: b\ndata\n\n", &["a\nb\n"]);
        check(b"event: error\nid: 7\nretry: 10\nunknown: x\ndata: {}\n\n", &["error:{}"]);
        check(b"data:  two spaces\n\n", &[" two spaces"]);
        check(b"data: gr\xc3\xbc\xc3\x9fe \xe2\x9c\x93\n\n", &["gr\u{fc}\u{df}e \u{2713}"]);
        check(b"data: [DONE]", &["[DONE]"]);
        check(b"\n\n\ndata: a\n\n\n\ndata: b\n\n", &["a", "b"]);
        check(b"", &[]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut decoder = Decoder::default();
        let piece = vec![b'x'; 1024 * 1024];
        let mut refused = false;
        for _ in 0..9 {
            decoder.push(&piece);
            refused |= decoder.next() == Err(TooLong);
        }
        assert!(refused);
    }

    proptest! {
        #[test]
        fn cuts_never_change_what_is_decoded(
            lines in prop::collection::vec(
                (prop::sample::select(vec!["data: x", "data:", "event: e", ": c", "", "", "data: {\"a\":1}"]),
                 prop::sample::select(vec!["\n", "\r\n", "\r"])), 0..30),
            cuts in prop::collection::vec(0_usize..400, 0..12),
        ) {
            let stream: String = lines.iter().map(|(line, end)| format!("{line}{end}")).collect();
            let whole = decode([stream.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &stream.as_bytes()[pair[0]..pair[1]]);
            prop_assert_eq!(decode(pieces), whole);
        }
    }
}
