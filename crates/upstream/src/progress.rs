//! Whether what is written gets through: seen at the socket, beneath the encryption.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Writing that stands still for this long is given up.
pub(crate) const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// How writing to one connection goes. Whoever writes is the only one to change it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    bytes: AtomicU64,
    is_blocked: AtomicBool,
}

impl Progress {
    /// How many bytes the system has taken so far, if it takes no more at the moment.
    pub(crate) fn blocked_at(&self) -> Option<u64> {
        self.is_blocked.load(Ordering::Relaxed).then(|| self.bytes.load(Ordering::Relaxed))
    }

    fn saw(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.is_blocked.store(written.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Ok(bytes)) = &written {
            self.bytes.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        written
    }
}

/// A connection whose writing is watched.
pub(crate) struct Watched<S> {
    stream: S,
    progress: Arc<Progress>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, progress: Arc::default() }
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.progress.saw(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.progress.saw(written)
    }
}

/// Waits as long as writing moves. It has a timer only from the first moment at which something could not be written.
#[derive(Default)]
pub(crate) struct Patience {
    timer: Option<Pin<Box<Sleep>>>,
    seen: u64,
}

impl Patience {
    /// Ready once writing has stood still for [`WRITE_LIMIT`]. `blocked_at` is how far it came, `None` if nothing is
    /// left to write.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, blocked_at: Option<u64>) -> Poll<()> {
        let Some(bytes) = blocked_at else {
            self.timer = None;
            return Poll::Pending;
        };
        if std::mem::replace(&mut self.seen, bytes) != bytes
            && let Some(timer) = &mut self.timer
        {
            timer.as_mut().reset(Instant::now() + WRITE_LIMIT);
        }
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_LIMIT))).as_mut().poll(context)
    }
}
