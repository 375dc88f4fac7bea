//! The body of an answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use freeway_engine::StreamBody;
use http_body::{Body, Frame, SizeHint};

use crate::overload::Place;

/// The body of an answer. Until it is dropped, at its end or when the client leaves, its request is under way.
pub(crate) struct Reply {
    content: Content,
    place: Option<Place>,
}

/// A whole body, or a stream.
enum Content {
    Whole(Option<Bytes>),
    Stream(Box<StreamBody>),
}

impl Reply {
    pub(crate) const fn whole(bytes: Bytes) -> Self {
        Self { content: Content::Whole(Some(bytes)), place: None }
    }

    pub(crate) const fn stream(stream: Box<StreamBody>) -> Self {
        Self { content: Content::Stream(stream), place: None }
    }

    /// Keeps the request's place until the end of its answer.
    pub(crate) fn keep(&mut self, place: Place) {
        self.place = Some(place);
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Stream(stream) => Pin::new(&mut **stream).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Content::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Content::Stream(_) => SizeHint::default(),
        }
    }
}
