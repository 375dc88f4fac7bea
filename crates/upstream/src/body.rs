//! A request body that says when it has been taken off our hands.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

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
