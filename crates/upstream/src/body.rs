//! Bodies: a request's, which says when it has been taken off our hands, and an answer's.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::leg::Leg;
use crate::pool::Pool;

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

/// The body of an answer, which moves its connection while it is read, and gives it back at its end. Dropped before,
/// it closes the connection.
pub struct AnswerBody {
    incoming: Incoming,
    /// `None` once the body is at its end.
    leg: Option<Leg>,
    pool: Arc<Pool>,
}

impl AnswerBody {
    pub(crate) fn new(incoming: Incoming, leg: Leg, pool: Arc<Pool>) -> Self {
        let mut body = Self { incoming, leg: Some(leg), pool };
        if body.incoming.is_end_stream() {
            body.give_back();
        }
        body
    }

    fn give_back(&mut self) {
        if let Some(mut leg) = self.leg.take()
            && leg.is_open()
        {
            self.pool.keep(leg);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { incoming, leg, .. } = &mut *self;
        let Some(moving) = leg else { return Poll::Ready(None) };
        let polled = moving.poll(context, |context| Pin::new(&mut *incoming).poll_frame(context));
        match &polled {
            Poll::Ready(None) => self.give_back(),
            Poll::Ready(Some(Err(_))) => self.leg = None,
            Poll::Ready(Some(Ok(_))) if self.incoming.is_end_stream() => self.give_back(),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.leg.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
