//! One request on a shared connection, and its answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body::Frame;

use crate::body::{BodyError, Outgoing};
use crate::multiplex::{End, Seat, Slot};
use crate::progress::Patience;

/// Why there is no answer.
pub(crate) enum Unanswered {
    /// The provider has surely done nothing with the request.
    Unread(String),
    /// It could not be written.
    Stuck,
    /// The connection or the stream broke.
    Broken(String),
}

/// An answer under way. Dropped before its end, it resets the stream.
pub(crate) struct Stream {
    incoming: RecvStream,
    /// What of the request is still to be written, where the answer began before its end.
    sending: Option<Sending>,
    /// `None` once the answer is at its end.
    seat: Option<Seat>,
}

/// A request's body on its way.
struct Sending {
    stream: SendStream<Bytes>,
    body: Outgoing,
    written: u64,
}

impl Slot {
    /// Sends a request and waits for the head of the answer. The request is left as it was, so that it can be sent
    /// again.
    ///
    /// # Errors
    /// When the stream ends before it.
    pub(crate) async fn send(
        self,
        request: &mut Request<Outgoing>,
        authority: &Authority,
    ) -> Result<Response<Stream>, Unanswered> {
        let Self { mut sender, seat } = self;
        let head = head(request, authority).map_err(|error| Unanswered::Broken(error.to_string()))?;
        let has_no_body = request.body().is_empty();
        let begun = sender.send_request(head, has_no_body);
        // Refused here, nothing has been written.
        let (mut answer, stream) = begun.map_err(|error| match error.is_io() || error.is_go_away() {
            true => Unanswered::Unread(cause(&error)),
            false => Unanswered::Broken(error.to_string()),
        })?;
        let mut sending = Sending { stream, body: request.body_mut().again(), written: 0 };
        let (mut is_open, mut is_over) = (false, false);
        let mut patience = Patience::default();
        let answered = std::future::poll_fn(|context| {
            if let Poll::Ready(answered) = Pin::new(&mut answer).poll(context) {
                return Poll::Ready(answered.map_err(|error| unanswered(&error, &seat)));
            }
            // More streams than the provider takes at once wait until one of them ends.
            is_open = is_open || !sender.poll_ready(context).is_pending();
            // That it broke, the answer tells.
            is_over = is_over || is_open && sending.poll(context).is_ready();
            let blocked_at = (!is_over).then_some(sending.written);
            patience.poll(context, blocked_at).map(|()| Err(Unanswered::Stuck))
        });
        match answered.await {
            Ok(answered) => {
                let sending = (!is_over).then_some(sending);
                Ok(answered.map(|incoming| Stream { incoming, sending, seat: Some(seat) }.settled()))
            }
            Err(why) => {
                request.body_mut().give_back(sending.body);
                Err(why)
            }
        }
    }
}

/// The head of a request as HTTP/2 has it.
fn head(request: &Request<Outgoing>, authority: &Authority) -> Result<Request<()>, http::Error> {
    let mut uri = request.uri().clone().into_parts();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = Some(authority.clone());
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = Uri::from_parts(uri)?;
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = request.headers().clone();
    head.headers_mut().remove(HOST);
    if !request.body().is_empty() {
        head.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(request.body().len()));
    }
    Ok(head)
}

impl Sending {
    /// Ready when everything is handed over to the connection, or the stream takes no more.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while !self.body.is_empty() {
            self.stream.reserve_capacity(self.body.len());
            let room = match self.stream.capacity() {
                0 => match ready!(self.stream.poll_capacity(context)) {
                    Some(Ok(0)) => continue,
                    Some(Ok(room)) => room,
                    Some(Err(_)) | None => return Poll::Ready(()),
                },
                room => room,
            };
            let piece = self.body.take(room);
            self.written += piece.len() as u64;
            if self.stream.send_data(piece, self.body.is_empty()).is_err() {
                return Poll::Ready(());
            }
        }
        self.body.written();
        Poll::Ready(())
    }
}

impl Stream {
    /// Moves the answer; ready with its next part, or with `None` at its end.
    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(seat) = &self.seat else { return Poll::Ready(None) };
        if self.sending.as_mut().is_some_and(|sending| sending.poll(context).is_ready()) {
            self.sending = None;
        }
        let part = match ready!(self.incoming.poll_data(context)) {
            // It is the reader's now, and the provider may send as much again.
            Some(Ok(bytes)) => match self.incoming.flow_control().release_capacity(bytes.len()) {
                Ok(()) => Some(Ok(Frame::data(bytes))),
                Err(error) => Some(Err(broken(&error, seat))),
            },
            // The provider has said all, and does not want the rest of the request (RFC 9113, section 8.1).
            Some(Err(error)) if error.is_reset() && error.reason() == Some(Reason::NO_ERROR) => None,
            Some(Err(error)) => Some(Err(broken(&error, seat))),
            None => None,
        };
        if !matches!(part, Some(Ok(_))) || self.incoming.is_end_stream() {
            self.seat = None;
        }
        Poll::Ready(part)
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.seat.is_none()
    }

    /// One without a body is at its end from the beginning.
    fn settled(mut self) -> Self {
        if self.incoming.is_end_stream() {
            self.seat = None;
        }
        self
    }
}

/// What a request without an answer ended by. A stream above the last one that a GOAWAY names, and one that was
/// refused, the provider has not looked at (RFC 9113, sections 6.8 and 8.7).
fn unanswered(error: &h2::Error, seat: &Seat) -> Unanswered {
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    match seat.end() {
        _ if error.is_remote() && (is_refused || error.is_go_away()) => Unanswered::Unread(cause(error)),
        End::Stuck => Unanswered::Stuck,
        end => Unanswered::Broken(end.cause().unwrap_or_else(|| cause(error))),
    }
}

fn broken(error: &h2::Error, seat: &Seat) -> BodyError {
    BodyError(seat.end().cause().unwrap_or_else(|| cause(error)))
}

/// What went wrong, without the free text that may come with it.
fn cause(error: &h2::Error) -> String {
    match (error.get_io(), error.reason()) {
        (Some(io), _) => io.to_string(),
        (None, Some(reason)) if error.is_go_away() => format!("the connection was ended: {reason}"),
        (None, Some(reason)) => format!("the stream was reset: {reason}"),
        (None, None) => error.to_string(),
    }
}
