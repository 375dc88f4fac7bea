//! Passing a stream on, with a tap that sees how it ends and what it used.
//!
//! The client's server polls this body when the client can take more, and it polls
//! the upstream in turn: nothing is queued between the two. A stream is complete
//! when its end marker or all its finish reasons have passed; one that breaks off
//! earlier ends in an error event and without the marker, so that it can never be
//! taken for a whole one.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use freeway_dialect::openai_chat::{END_MARKER, Parted, Splice, Told, read_chunk};
use freeway_dialect::sse::{self, Decoder, Event};
use freeway_router::Fault;
use freeway_upstream::AnswerBody;
use http_body::Body;
use tokio::time::{Instant, Sleep};

use crate::timing::KEEP_ALIVE;
use crate::trace::{FlightId, Trace};

/// How long the rest of an ended stream is read, so that its connection can be used again.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
/// How long the usage and the end marker of a stream are waited for when nothing else is missing.
const AFTER_FINISH: Duration = Duration::from_secs(5);
/// Who breaks off is at fault.
const MODEL: Fault = Fault::Model { weight: 1 };
/// Sent while a stream that has begun is silent.
pub(crate) const STILL_THERE_COMMENT: &[u8] = b": waiting for the upstream\n\n";
/// Sent in the place of an event that cannot be read.
const LEFT_OUT_COMMENT: &[u8] = b": an unreadable event of the upstream was left out here\n\n";

/// What is to be known about a stream that is relayed.
pub(crate) struct Terms {
    /// The attempt it comes from.
    pub(crate) flight: FlightId,
    /// Leave out the usage event: the client did not ask for it.
    pub(crate) strip_usage: bool,
    /// Choices that have to finish.
    pub(crate) choices: u64,
    /// Choices that have, one bit for each.
    pub(crate) finished: u128,
    /// Longest silence.
    pub(crate) gap: Duration,
    /// When the request's time is over. A stream that is silent then ends; one that flows goes on.
    pub(crate) deadline: Instant,
    /// Whether its start does not fit what it is to be joined to.
    pub(crate) parted: bool,
    /// For events.
    pub(crate) account: String,
}

/// The upstream's side of a relay.
pub(crate) struct Relay {
    incoming: Option<AnswerBody>,
    decoder: Decoder,
    /// Bytes that were held until the commit point.
    held: Bytes,
    pub(crate) terms: Terms,
    /// What the client was told, where that may be needed.
    pub(crate) told: Option<Box<Told>>,
    /// Joins it to what another one has said.
    splice: Option<Box<Splice>>,
    /// When the last event came: after too long a silence the stream ends.
    heard: Instant,
    /// When the client last got something: a comment keeps everything between us from taking the stream for dead.
    said: Instant,
    /// Rings when one of the two may be due. It is not set anew with each event, only when it has rung.
    alarm: Pin<Box<Sleep>>,
}

/// What came of looking at the upstream once more.
pub(crate) enum Step {
    Bytes(Bytes),
    /// The end, with the last bytes.
    Complete(Bytes),
    /// Broken off, with what could still be passed.
    Broken(Bytes, String, Fault),
    /// The gateway does not wait for the rest.
    CutOff,
}

impl Relay {
    pub(crate) fn new(incoming: Option<AnswerBody>, decoder: Decoder, held: Bytes, terms: Terms) -> Self {
        let now = Instant::now();
        let alarm = Box::pin(tokio::time::sleep(terms.gap.min(KEEP_ALIVE)));
        Self { incoming, decoder, held, terms, told: None, splice: None, heard: now, said: now, alarm }
    }

    /// From now on, takes note of what the client is told.
    pub(crate) fn listen(&mut self) {
        let mut told = Box::<Told>::default();
        for event in events(&self.held) {
            event.data.iter().for_each(|data| told.note(data));
        }
        self.told = Some(told);
    }

    /// Joins it to what another stream has said.
    pub(crate) fn join(&mut self, mut splice: Splice) {
        let mut joined = BytesMut::new();
        for event in events(&self.held) {
            match event.data.as_ref().map(|data| splice.pass(data)) {
                Some(Ok(Some(chunk))) => joined.extend_from_slice(&sse::encode(&chunk)),
                Some(Ok(None)) => {}
                // It is found again where the stream is passed on, and ended there.
                Some(Err(Parted)) => self.terms.parted = true,
                None => joined.extend_from_slice(&event.raw),
            }
        }
        self.held = joined.freeze();
        self.splice = Some(Box::new(splice));
    }

    /// Sets something before its first bytes.
    pub(crate) fn precede(&mut self, first: &[u8]) {
        self.held = [first, &self.held].concat().into();
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>, trace: &Trace) -> Poll<Step> {
        let mut passed = BytesMut::from(&std::mem::take(&mut self.held)[..]);
        if self.terms.parted {
            return Poll::Ready(Step::Broken(passed.freeze(), Parted.to_string(), Fault::None));
        }
        loop {
            if let Some(step) = self.pass_events(&mut passed, trace) {
                return Poll::Ready(step);
            }
            if !passed.is_empty() {
                return Poll::Ready(Step::Bytes(passed.freeze()));
            }
            let Some(incoming) = &mut self.incoming else { return Poll::Ready(self.end(passed, trace)) };
            match Pin::new(incoming).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.decoder.push(&bytes);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    let cause = error.to_string();
                    return Poll::Ready(if self.is_finished() {
                        self.complete(passed)
                    } else {
                        Step::Broken(passed.freeze(), cause, MODEL)
                    });
                }
                Poll::Ready(None) => return Poll::Ready(self.end(passed, trace)),
                Poll::Pending => return self.poll_silence(context, passed),
            }
        }
    }

    /// Nothing has come: waits until that has lasted too long, or the client should hear that we are still there.
    fn poll_silence(&mut self, context: &mut Context<'_>, passed: BytesMut) -> Poll<Step> {
        // The alarm rings too late only where less is missing, or less time is left, than when it was set.
        let due = self.silence_ends().min(self.said + KEEP_ALIVE);
        if self.alarm.deadline() > due {
            self.alarm.as_mut().reset(due);
        }
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let now = Instant::now();
            if now >= self.silence_ends() {
                return Poll::Ready(if self.is_finished() {
                    self.complete(passed)
                } else if now >= self.heard + self.terms.gap {
                    Step::Broken(passed.freeze(), format!("silent for {} s", self.terms.gap.as_secs()), MODEL)
                } else {
                    // It may only be slow, and the client in a hurry.
                    Step::Broken(passed.freeze(), "silent until the deadline".to_owned(), Fault::None)
                });
            }
            let comment_is_due = now >= self.said + KEEP_ALIVE;
            if comment_is_due {
                self.said = now;
            }
            let due = self.silence_ends().min(self.said + KEEP_ALIVE);
            self.alarm.as_mut().reset(due);
            if comment_is_due {
                return Poll::Ready(Step::Bytes(Bytes::from_static(STILL_THERE_COMMENT)));
            }
        }
    }

    /// Until when the upstream may be silent.
    fn silence_ends(&self) -> Instant {
        let gap = if self.is_finished() { AFTER_FINISH.min(self.terms.gap) } else { self.terms.gap };
        (self.heard + gap).min(self.terms.deadline)
    }

    /// Passes on every event that has arrived. Gives a step when the stream ends with one of them.
    fn pass_events(&mut self, passed: &mut BytesMut, trace: &Trace) -> Option<Step> {
        loop {
            match self.decoder.next() {
                Ok(Some(event)) => {
                    if let Some(step) = self.pass(&event, passed, trace) {
                        return Some(step);
                    }
                }
                Ok(None) => return None,
                Err(_) if self.is_finished() => return Some(self.complete(std::mem::take(passed))),
                Err(error) => return Some(Step::Broken(std::mem::take(passed).freeze(), error.to_string(), MODEL)),
            }
        }
    }

    fn pass(&mut self, event: &Event, passed: &mut BytesMut, trace: &Trace) -> Option<Step> {
        let Some(data) = &event.data else {
            // A comment is no sign of life: it passes, and the silence goes on.
            if event.is_comment() {
                passed.extend_from_slice(&event.raw);
            }
            return None;
        };
        if event.name.as_deref() == Some(b"error") {
            let message = read_chunk(data).and_then(|chunk| chunk.error).map(|error| error.message);
            let cause = message.unwrap_or_else(|| "the provider sent an error".to_owned());
            return Some(Step::Broken(std::mem::take(passed).freeze(), cause, MODEL));
        }
        self.heard = Instant::now();
        self.said = self.heard;
        if data.starts_with(END_MARKER) {
            if !self.is_finished() {
                let cause = "the end marker came before every choice had its finish reason".to_owned();
                return Some(Step::Broken(std::mem::take(passed).freeze(), cause, MODEL));
            }
            passed.extend_from_slice(&event.raw);
            return Some(Step::Complete(std::mem::take(passed).freeze()));
        }
        let Some(chunk) = read_chunk(data) else {
            // One unreadable event does not end a good stream, and does not vanish without a word either.
            let told = freeway_telemetry::Event::MalformedEvent { account: &self.terms.account };
            trace.engine.telemetry().tell(trace.engine.now().wall, &told);
            trace.note(|record| record.error = Some("malformed_event".to_owned()));
            passed.extend_from_slice(LEFT_OUT_COMMENT);
            return None;
        };
        trace.saw(self.terms.flight, chunk.usage, chunk.text_bytes);
        if let Some(error) = chunk.error {
            return Some(Step::Broken(std::mem::take(passed).freeze(), error.message, MODEL));
        }
        self.terms.finished |= chunk.finished;
        if chunk.finish == Some(freeway_dialect::openai_chat::Finish::Error) {
            return Some(Step::Broken(
                std::mem::take(passed).freeze(),
                "the provider ended it with an error".to_owned(),
                MODEL,
            ));
        }
        if self.terms.strip_usage && chunk.usage_only {
            return None;
        }
        if let Some(told) = &mut self.told {
            told.note(data);
        }
        match self.splice.as_mut().map(|splice| splice.pass(data)) {
            None => passed.extend_from_slice(&event.raw),
            Some(Ok(chunk)) => passed.extend_from_slice(&chunk.map(|chunk| sse::encode(&chunk)).unwrap_or_default()),
            Some(Err(parted)) => {
                return Some(Step::Broken(std::mem::take(passed).freeze(), parted.to_string(), Fault::None));
            }
        }
        None
    }

    /// The upstream has closed the body properly.
    fn end(&mut self, mut passed: BytesMut, trace: &Trace) -> Step {
        self.incoming = None;
        // Some providers leave out the last line end. What is left of a cut line or comment goes nowhere: with
        // what we send next it would make one broken event.
        if let Some(event) = self.decoder.rest()
            && event.data.is_some()
            && let Some(step) = self.pass(&event.ended(), &mut passed, trace)
        {
            return step;
        }
        if self.is_finished() {
            self.complete(passed)
        } else {
            Step::Broken(passed.freeze(), "it ended without a finish reason".to_owned(), MODEL)
        }
    }

    /// Every choice has its finish reason: only the end marker is missing, and it is added.
    fn complete(&mut self, mut passed: BytesMut) -> Step {
        self.incoming = None;
        passed.extend_from_slice(&sse::encode(END_MARKER));
        Step::Complete(passed.freeze())
    }

    /// Ends the stream from our side: whole if every choice has its finish reason already.
    pub(crate) fn cut_off(&mut self) -> Step {
        if self.is_finished() {
            let passed = BytesMut::from(&std::mem::take(&mut self.held)[..]);
            self.complete(passed)
        } else {
            Step::CutOff
        }
    }

    fn is_finished(&self) -> bool {
        u64::from(self.terms.finished.count_ones()) >= self.terms.choices
    }

    /// Reads what is left of a stream that has ended, so that its connection can serve again.
    pub(crate) fn drain(&mut self) {
        let Some(mut incoming) = self.incoming.take() else { return };
        if incoming.is_end_stream() {
            return;
        }
        // Mostly the end is here already.
        let mut look = Context::from_waker(Waker::noop());
        while let Poll::Ready(piece) = Pin::new(&mut incoming).poll_frame(&mut look) {
            if !matches!(piece, Some(Ok(_))) {
                return;
            }
        }
        tokio::spawn(async move {
            let rest = std::future::poll_fn(|context| {
                while let Some(Ok(_)) = ready!(Pin::new(&mut incoming).poll_frame(context)) {}
                Poll::Ready(())
            });
            let _ = tokio::time::timeout(DRAIN_LIMIT, rest).await;
        });
    }
}

/// The events in bytes that were passed whole.
fn events(bytes: &Bytes) -> Vec<Event> {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    std::iter::from_fn(|| decoder.next().ok().flatten()).collect()
}
