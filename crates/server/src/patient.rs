//! A socket whose patience with a client that does not read is bounded, and which reads along with request heads.
//!
//! While a client takes nothing, its answer, its reservation and its upstream
//! connection are held. After a minute without progress the connection is closed,
//! and everything behind it settles as it does for a client that left.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::head::HeadReader;

/// Longest time in which nothing can be written.
const LIMIT: Duration = Duration::from_secs(60);

/// A socket that gives up on a client that does not read.
pub(crate) struct Patient<S> {
    socket: S,
    head: HeadReader,
    /// Runs while a write is waiting.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(crate) fn new(socket: S, head: HeadReader) -> Self {
        Self { socket, head, waiting: None }
    }

    /// The outcome of a write, or the end of our patience.
    fn bounded<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(LIMIT)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.socket).poll_read(context, buffer);
        let arrived = &buffer.filled()[before..];
        if !arrived.is_empty() {
            self.head.read(arrived);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.bounded(outcome, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.socket).poll_flush(context);
        self.bounded(outcome, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.socket).poll_shutdown(context);
        self.bounded(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(context, buffers);
        self.bounded(outcome, context)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body::{Body, Frame};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::*;

    /// Bytes that are on their way between the two ends at most.
    const BETWEEN: usize = 1024;

    fn patient<S>(socket: S) -> Patient<S> {
        Patient::new(socket, HeadReader::new(std::sync::Arc::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_for_a_minute_is_given_up() {
        let (near, _far) = duplex(BETWEEN);
        let mut near = patient(near);
        let begun = Instant::now();
        let error = near.write_all(&[0; 2 * BETWEEN]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_little_each_minute_is_not() {
        let (near, mut far) = duplex(BETWEEN);
        let reading = tokio::spawn(async move {
            let mut read = 0;
            while read < 20 * BETWEEN {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                read += far.read(&mut [0; BETWEEN]).await.unwrap();
            }
        });
        let begun = Instant::now();
        patient(near).write_all(&[0; 20 * BETWEEN]).await.unwrap();
        assert!(begun.elapsed() > LIMIT * 15, "{:?}", begun.elapsed());
        reading.await.unwrap();
    }

    /// An answer without an end, which tells when it is dropped, and how much was asked of it.
    struct Endless {
        asked: usize,
        dropped: Option<oneshot::Sender<usize>>,
    }

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.asked += BETWEEN;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; BETWEEN])))))
        }
    }

    impl Drop for Endless {
        fn drop(&mut self) {
            let _ = self.dropped.take().map(|dropped| dropped.send(self.asked));
        }
    }

    /// What an answer holds (its reservation, its upstream) is given back when it is dropped.
    #[tokio::test(start_paused = true)]
    async fn the_answer_to_a_reader_that_stalls_waits_and_is_then_dropped() {
        let (near, mut far) = duplex(BETWEEN);
        let (dropped, is_dropped) = oneshot::channel();
        let body = std::cell::RefCell::new(Some(Endless { asked: 0, dropped: Some(dropped) }));
        let service = service_fn(move |_: Request<Incoming>| {
            let body = body.take().unwrap();
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        let begun = Instant::now();
        let serving = tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(patient(near)), service));
        far.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let asked = is_dropped.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), LIMIT.as_secs());
        // What was taken from the upstream for it stays within what the HTTP library gathers for one write.
        assert!(asked < 512 * 1024, "{asked} bytes are held for a reader that takes none");
        assert!(serving.await.unwrap().is_err());
    }
}
