//! Whether what came with a good status is an answer that a client should get, and if not, what is wrong with it.
//!
//! A status of 200 promises little: providers and what stands in front of them send pages, errors and nothing at all
//! under it. Only what the protocol structures decides, never words in free text. What helps against a flaw is not
//! known here.

use bytes::{Bytes, BytesMut};
use freeway_types::Usage;

use super::answer::{Answer, END_MARKER, Finish, read_answer, read_chunk};
use crate::sse::{Event, TooLong};

/// Most bytes of events that are held before the first content.
const MOST_HELD_BYTES: usize = 256 * 1024;
/// Beyond so many held bytes, comments are left out.
const MOST_HELD_COMMENTS: usize = 16 * 1024;

/// What is wrong with an answer that began well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Its status means success, and is not the one that answers come with.
    #[error("a status that no answer comes with")]
    Status,
    /// It is compressed, which was not asked for.
    #[error("the answer is compressed, which was not asked for")]
    Compressed,
    /// An error stands in the place of an answer or in the middle of one. What the provider says in it is for those to
    /// read who know the provider's rules.
    #[error("the answer is an error")]
    Error,
    /// It says of itself, in its finish reason, that it ended in an error.
    #[error("the provider ended the answer with an error")]
    EndedInError,
    /// It would be a good answer, but under a content type that is not JSON's.
    #[error("the answer has the content type of something else")]
    ContentType,
    /// It is a good answer, but whole, where a stream was asked for.
    #[error("a stream was asked for, and the answer is not one")]
    NotStream,
    /// It has no bytes.
    #[error("the answer has no bytes")]
    NoBytes,
    /// It is a page for people to look at, such as a proxy puts there.
    #[error("a page came instead of an answer")]
    Page,
    /// It is not an answer and does not claim to be JSON.
    #[error("the answer is not JSON")]
    NotJson,
    /// It claims to be JSON and is not, or is JSON of another kind.
    #[error("the answer is cut short or not a completion")]
    Unreadable,
    /// It is whole and has no content.
    #[error("the answer has no content")]
    Empty {
        /// What it used nevertheless, if a whole answer says so. Events have told theirs already.
        usage: Option<Usage>,
    },
    /// It is whole, but the most output allowed went by without content, as happens when a model only thinks.
    #[error("all the output allowed went by without content")]
    NoRoom {
        /// As for an empty one.
        usage: Option<Usage>,
    },
    /// An event of the stream is not JSON or not a chunk.
    #[error("an event of the stream cannot be read")]
    Event,
    /// An event of the stream is longer than any that is taken.
    #[error(transparent)]
    EventTooLong(#[from] TooLong),
    /// So much came before the first content that it is not held any longer.
    #[error("too much came before the first content")]
    TooMuch,
    /// The stream ended before its first content and without saying why.
    #[error("the stream ended before its first content")]
    NoEnd,
}

/// What is known of an answer before its first byte.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Its status, one that means success.
    pub status: u16,
    /// Its content type; empty where it has none.
    pub content_type: &'a [u8],
    /// Its content coding; empty where it has none.
    pub content_coding: &'a [u8],
    /// Whether a stream was asked for.
    pub streamed: bool,
}

/// How an answer has to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All of it, and then [`Head::judge`].
    Whole,
    /// Event by event, with an [`Opening`].
    Stream,
}

impl Head<'_> {
    /// How the answer has to be read.
    ///
    /// # Errors
    /// When no answer comes with such a head.
    pub fn form(&self) -> Result<Form, Flaw> {
        const EVENTS: &[u8] = b"text/event-stream";
        let is_plain = self.content_coding.is_empty() || self.content_coding.eq_ignore_ascii_case(b"identity");
        let is_events = self.content_type.get(..EVENTS.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS));
        match () {
            () if self.status != 200 => Err(Flaw::Status),
            () if !is_plain => Err(Flaw::Compressed),
            () if self.streamed && is_events => Ok(Form::Stream),
            () => Ok(Form::Whole),
        }
    }

    /// Judges an answer of which all bytes are here.
    ///
    /// # Errors
    /// When it is none that a client should get.
    pub fn judge(&self, body: &[u8]) -> Result<Answer, Flaw> {
        match read_answer(body) {
            Ok(_) if !self.content_type.is_empty() && !self.is_json() => Err(Flaw::ContentType),
            Ok(_) if self.streamed => Err(Flaw::NotStream),
            Ok(answer) if answer.finish == Some(Finish::Error) => Err(Flaw::EndedInError),
            Ok(answer) if is_empty(answer.content, answer.finish) => Err(without_content(answer.finish, answer.usage)),
            Ok(answer) => Ok(answer),
            Err(Some(_)) => Err(Flaw::Error),
            Err(None) if body.is_empty() => Err(Flaw::NoBytes),
            Err(None) if body.trim_ascii_start().starts_with(b"<") => Err(Flaw::Page),
            Err(None) if !self.is_json() => Err(Flaw::NotJson),
            Err(None) => Err(Flaw::Unreadable),
        }
    }

    fn is_json(&self) -> bool {
        self.content_type.windows(4).any(|part| part.eq_ignore_ascii_case(b"json"))
    }
}

/// A stream up to its first content. It holds what comes before, for a client that then gets all of it.
#[derive(Debug, Default)]
pub struct Opening {
    /// The events so far, in their own bytes.
    held: BytesMut,
    /// Leave out events that are there for the usage alone.
    strip_usage: bool,
    finish: Option<Finish>,
    finished: u128,
}

/// What one event of an opening says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Whether it is the first with content, with which the opening is over. An answer that its provider withholds has
    /// none and is over all the same.
    pub content: bool,
    /// What was used so far, if it says so.
    pub usage: Option<Usage>,
    /// Bytes of text in it.
    pub text_bytes: u64,
}

impl Opening {
    /// A stream of which nothing has come. `strip_usage`: leave out events that are there for the usage alone.
    #[must_use]
    pub fn new(strip_usage: bool) -> Self {
        Self { strip_usage, ..Self::default() }
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// When no answer comes of this stream. Nobody has seen anything yet: better none than one with a piece missing.
    pub fn take(&mut self, event: &Event) -> Result<Heard, Flaw> {
        let Some(data) = &event.data else {
            // Comments are the upstream's bytes too, but not worth any memory.
            if self.held.len() < MOST_HELD_COMMENTS && event.is_comment() {
                self.held.extend_from_slice(&event.raw);
            }
            return Ok(Heard::default());
        };
        if data.starts_with(END_MARKER) {
            return Err(without_content(self.finish, None));
        }
        let chunk = read_chunk(data).ok_or(Flaw::Event)?;
        if chunk.error.is_some() || event.name.as_deref() == Some(b"error") {
            return Err(Flaw::Error);
        }
        if chunk.finish == Some(Finish::Error) {
            return Err(Flaw::EndedInError);
        }
        if self.held.len() > MOST_HELD_BYTES {
            return Err(Flaw::TooMuch);
        }
        if !(self.strip_usage && chunk.usage_only) {
            self.held.extend_from_slice(&event.raw);
        }
        self.finish = chunk.finish.or(self.finish);
        self.finished |= chunk.finished;
        let content = !is_empty(chunk.content, chunk.finish);
        Ok(Heard { content, usage: chunk.usage, text_bytes: chunk.text_bytes })
    }

    /// What is wrong with a stream that properly ends here.
    #[must_use]
    pub fn end(&self) -> Flaw {
        self.finish.map_or(Flaw::NoEnd, |finish| without_content(Some(finish), None))
    }

    /// The events that were held, the one with the first content among them, and the choices that have ended, one bit
    /// for each index.
    #[must_use]
    pub fn finish(self) -> (Bytes, u128) {
        (self.held.freeze(), self.finished)
    }
}

/// Whether there is nothing to show. That a provider withholds its answer is an answer: the client has to know.
fn is_empty(content: bool, finish: Option<Finish>) -> bool {
    !content && finish != Some(Finish::ContentFilter)
}

fn without_content(finish: Option<Finish>, usage: Option<Usage>) -> Flaw {
    match finish {
        Some(Finish::Length) => Flaw::NoRoom { usage },
        _ => Flaw::Empty { usage },
    }
}

#[cfg(test)]
mod tests;
