//! Connections within the process: bytes arrive after a delay, and a connection may be cut or fall silent after so many.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use freeway_sim::Line;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::world::World;

/// What goes wrong with one direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Both directions break.
    Cut,
    /// Nothing arrives any more.
    Stall,
}

/// One direction.
pub(crate) struct Way {
    delay: Duration,
    queue: VecDeque<(Instant, Vec<u8>)>,
    /// When the end arrives, and whether it is a reset.
    closed: Option<(Instant, bool)>,
    /// Whoever waits for bytes.
    reader: Option<Waker>,
    passed: usize,
    /// After so many bytes.
    trouble: Option<(usize, Trouble)>,
}

/// One end of a connection.
pub(crate) struct End {
    incoming: Arc<Mutex<Way>>,
    outgoing: Arc<Mutex<Way>>,
    alarm: Pin<Box<Sleep>>,
    resets: bool,
    /// The gateway's end: each read and write is a step of this life.
    watched: Option<(Arc<World>, u64)>,
}

fn lock(way: &Mutex<Way>) -> MutexGuard<'_, Way> {
    way.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Way {
    pub(crate) fn new(delay: Duration, trouble: Option<(usize, Trouble)>) -> Arc<Mutex<Self>> {
        let (queue, closed, reader, passed) = (VecDeque::new(), None, None, 0);
        Arc::new(Mutex::new(Self { delay, queue, closed, reader, passed, trouble }))
    }

    fn close(&mut self, resets: bool) {
        let at = Instant::now() + self.delay;
        self.closed.get_or_insert((at, resets));
        self.wake();
    }

    /// Nobody reads here any more, or the reader is not to get anything more.
    fn abandon(&mut self) {
        self.queue.clear();
        self.closed = Some((Instant::now(), true));
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Takes bytes; says whether they cut the connection.
    fn push(&mut self, bytes: &[u8]) -> bool {
        let (room, trouble) = match self.trouble {
            Some((after, trouble)) => (after.saturating_sub(self.passed), Some(trouble)),
            None => (usize::MAX, None),
        };
        let arriving = &bytes[..bytes.len().min(room)];
        self.passed += bytes.len();
        if !arriving.is_empty() {
            self.queue.push_back((Instant::now() + self.delay, arriving.to_vec()));
            self.wake();
        }
        arriving.len() < bytes.len() && trouble == Some(Trouble::Cut)
    }
}

/// A connection: the gateway's end first.
pub(crate) fn connection(up: &Arc<Mutex<Way>>, down: &Arc<Mutex<Way>>, world: &Arc<World>, life: u64) -> (End, End) {
    let end = |incoming: &Arc<Mutex<Way>>, outgoing: &Arc<Mutex<Way>>, watched| End {
        incoming: Arc::clone(incoming),
        outgoing: Arc::clone(outgoing),
        alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
        resets: false,
        watched,
    };
    (end(down, up, Some((Arc::clone(world), life))), end(up, down, None))
}

/// The process at the gateway's end is gone: what it had sent still arrives, then the end.
pub(crate) fn sever(up: &Mutex<Way>, down: &Mutex<Way>) {
    lock(up).close(false);
    lock(down).abandon();
}

impl End {
    fn step(&self, what: &'static str, bytes: usize) -> io::Result<()> {
        match &self.watched {
            Some((world, life)) if !world.step(*life, what, bytes as u64) => Err(ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = loop {
            let mut way = lock(&this.incoming);
            let due = way.queue.front().map(|(due, _)| *due).or(way.closed.map(|(due, _)| due));
            let Some(due) = due.filter(|due| *due <= Instant::now()) else {
                way.reader = Some(context.waker().clone());
                drop(way);
                let Some(due) = due else { return Poll::Pending };
                this.alarm.as_mut().reset(due);
                ready!(this.alarm.as_mut().poll(context));
                continue;
            };
            let Some((_, mut bytes)) = way.queue.pop_front() else {
                match way.closed {
                    Some((_, true)) => return Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
                    _ => return Poll::Ready(Ok(())),
                }
            };
            let read = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..read]);
            if read < bytes.len() {
                way.queue.push_front((due, bytes.split_off(read)));
            }
            break read;
        };
        Poll::Ready(this.step("reads", read))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.step("writes", bytes.len())?;
        let mut way = lock(&self.outgoing);
        if way.closed.is_some() {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let is_cut = way.push(bytes);
        if is_cut {
            way.close(true);
        }
        drop(way);
        if is_cut {
            lock(&self.incoming).close(true);
        }
        self.step("has written", bytes.len())?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.outgoing).close(false);
        Poll::Ready(Ok(()))
    }
}

impl Line for End {
    fn reset(&mut self) {
        self.resets = true;
    }
}

impl Drop for End {
    fn drop(&mut self) {
        lock(&self.outgoing).close(self.resets);
        lock(&self.incoming).abandon();
    }
}
