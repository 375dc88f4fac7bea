//! Bodies: a request's, which says when it has been taken off our hands, and an answer's.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::leg::Leg;
use crate::pool::Pool;
use crate::stream::Stream;

/// Pieces in which a large body is handed over, so that the last one leaves only when most of it is written.
const PIECE: usize = 64 * 1024;

/// A body in memory. `on_written` runs once, when its last piece is taken to be written.
pub(crate) struct Outgoing {
    rest: Bytes,
    on_written: Option<Box<dyn FnOnce() + Send>>,
}

impl Outgoing {
    pub(crate) fn new(body: Bytes, on_written: Box<dyn FnOnce() + Send>) -> Self {
        Self { rest: body, on_written: Some(on_written) }
    }

    /// None at all.
    pub(crate) fn none() -> Self {
        Self { rest: Bytes::new(), on_written: None }
    }

    /// Bytes that are left of it.
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The same once more, for an attempt that may have to be made again. Until it is given back, only this one tells
    /// when it has been written.
    pub(crate) fn again(&mut self) -> Self {
        Self { rest: self.rest.clone(), on_written: self.on_written.take() }
    }

    /// Takes back the right to tell, if it was not used.
    pub(crate) fn give_back(&mut self, again: Self) {
        self.on_written = again.on_written;
    }

    /// Its next bytes, at most so many.
    pub(crate) fn take(&mut self, most: usize) -> Bytes {
        self.rest.split_to(self.rest.len().min(most))
    }

    /// Tells that it has been written.
    pub(crate) fn written(&mut self) {
        if let Some(on_written) = self.on_written.take() {
            on_written();
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        if self.rest.is_empty()
            && let Some(on_written) = self.on_written.take()
        {
            on_written();
        }
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.on_written.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// Why an answer broke off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(pub(crate) String);

/// The body of an answer. One that has its connection to itself moves it while it is read, and gives it back at its
/// end. Dropped before, it closes the connection, or resets its stream on one that is shared.
pub struct AnswerBody(Way);

enum Way {
    Own {
        incoming: Incoming,
        /// `None` once the body is at its end.
        leg: Option<Leg>,
        pool: Arc<Pool>,
    },
    Shared(Stream),
}

impl AnswerBody {
    pub(crate) fn new(incoming: Incoming, leg: Leg, pool: Arc<Pool>) -> Self {
        let is_at_end = incoming.is_end_stream();
        let mut leg = Some(leg);
        if is_at_end {
            give_back(&mut leg, &pool);
        }
        Self(Way::Own { incoming, leg, pool })
    }

    pub(crate) fn shared(stream: Stream) -> Self {
        Self(Way::Shared(stream))
    }
}

fn give_back(leg: &mut Option<Leg>, pool: &Arc<Pool>) {
    if let Some(mut leg) = leg.take()
        && leg.is_open()
    {
        pool.keep(leg);
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (incoming, leg, pool) = match &mut self.0 {
            Way::Own { incoming, leg, pool } => (incoming, leg, pool),
            Way::Shared(stream) => return stream.poll_frame(context),
        };
        let Some(moving) = leg else { return Poll::Ready(None) };
        let polled = moving.poll(context, |context| Pin::new(&mut *incoming).poll_frame(context));
        match &polled {
            Poll::Ready(None) => give_back(leg, pool),
            Poll::Ready(Some(Err(_))) => *leg = None,
            Poll::Ready(Some(Ok(_))) if incoming.is_end_stream() => give_back(leg, pool),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled.map_err(|error| BodyError(error.to_string()))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Way::Own { leg, .. } => leg.is_none(),
            Way::Shared(stream) => stream.is_at_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Way::Own { incoming, .. } => incoming.size_hint(),
            Way::Shared(_) => SizeHint::default(),
        }
    }
}
