//! One HTTP/2 connection to an upstream, shared by many requests.
//!
//! Unlike an HTTP/1.1 connection it has a task of its own, which moves its bytes. The requests write their bodies and
//! read their answers themselves, each in its own task, and one that is dropped resets its stream and nothing else.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

use crate::progress::{Patience, Progress, WRITE_LIMIT};
use crate::socket::Encrypted;

/// Most requests at once on one connection, even if the provider takes more: what breaks it breaks them all.
const MOST_STREAMS: usize = 100;
/// Most bytes of one answer that are read ahead, as on a connection of its own.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Most bytes of all answers that are read ahead: one that nobody reads holds up no other.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 100;
/// Most bytes of an answer's headers.
const MOST_HEADER_BYTES: u32 = 256 * 1024;
/// Streams of which is remembered that we reset them, so that what still comes for them is no mistake of the provider.
const MOST_RESETS: usize = 1024;
/// How often a connection in use is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long it has for its answer.
const PING_LIMIT: Duration = Duration::from_secs(10);

/// A connection, as it is kept in the pool. It ends by itself once it is dropped and its last request is over.
pub(crate) struct Multiplex {
    sender: SendRequest<Bytes>,
    life: Arc<Life>,
}

/// A place for one request on a connection.
pub(crate) struct Slot {
    pub(crate) sender: SendRequest<Bytes>,
    pub(crate) seat: Seat,
}

/// What counts a request as being on its connection, until it is dropped.
pub(crate) struct Seat(Arc<Life>);

/// What the pool, the requests and the connection's task know of each other.
struct Life {
    /// Requests that are on it.
    seats: AtomicUsize,
    /// When the last one left it.
    idle_since: Mutex<Instant>,
    end: AtomicU8,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum End {
    /// It has not.
    Open,
    /// By itself, or because the provider wanted it.
    Closed,
    /// Nothing could be written for too long.
    Stuck,
    /// A ping was not answered.
    Silent,
}

impl Multiplex {
    /// Begins to speak HTTP/2 on a connection.
    ///
    /// # Errors
    /// When the preface cannot be written.
    pub(crate) async fn new(stream: Box<Encrypted>) -> Result<Self, h2::Error> {
        let progress = Arc::clone(stream.get_ref().0.progress());
        let handshake = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(MOST_STREAMS)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MOST_HEADER_BYTES)
            .max_concurrent_reset_streams(MOST_RESETS)
            .handshake(*stream);
        let (sender, mut connection) = handshake.await?;
        let life = Arc::new(Life {
            seats: AtomicUsize::new(0),
            idle_since: Mutex::new(Instant::now()),
            end: AtomicU8::new(End::Open as u8),
        });
        let pings = connection.ping_pong().map(Pings::new);
        let mover = Mover { connection, pings, progress, patience: Patience::default(), life: Arc::clone(&life) };
        tokio::spawn(mover);
        Ok(Self { sender, life })
    }

    /// A place on it, if it has one and is not ending.
    pub(crate) fn slot(&mut self) -> Option<Slot> {
        let most = MOST_STREAMS.min(self.sender.current_max_send_streams());
        if self.life.seats.load(Ordering::Acquire) >= most || !self.is_open() {
            return None;
        }
        self.life.seats.fetch_add(1, Ordering::AcqRel);
        Some(Slot { sender: self.sender.clone(), seat: Seat(Arc::clone(&self.life)) })
    }

    /// Whether it takes requests, as far as is known: one that the provider wants to end does not.
    pub(crate) fn is_open(&mut self) -> bool {
        let refused = self.sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        self.life.end() == End::Open && !matches!(refused, Poll::Ready(Err(_)))
    }

    /// How long nobody has used it.
    pub(crate) fn idle_for(&self) -> Duration {
        match self.life.seats.load(Ordering::Acquire) {
            0 => self.life.idle_since.lock().unwrap_or_else(PoisonError::into_inner).elapsed(),
            _ => Duration::ZERO,
        }
    }
}

impl Seat {
    /// Why the connection ended, if it has.
    pub(crate) fn end(&self) -> End {
        self.0.end()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // First the time: whoever sees that nobody is left sees since when.
        *self.0.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.seats.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Life {
    fn end(&self) -> End {
        let ends = [End::Open, End::Closed, End::Stuck, End::Silent];
        ends[usize::from(self.end.load(Ordering::Acquire))]
    }
}

impl End {
    /// In words, where there is more to say than what the connection said itself.
    pub(crate) fn cause(self) -> Option<String> {
        match self {
            Self::Open | Self::Closed => None,
            Self::Stuck => Some(format!("nothing could be written for {} s", WRITE_LIMIT.as_secs())),
            Self::Silent => Some(format!("no sign of life within {} s", PING_LIMIT.as_secs())),
        }
    }
}

/// The task that moves a connection.
struct Mover {
    connection: Connection<Encrypted, Bytes>,
    pings: Option<Pings>,
    progress: Arc<Progress>,
    patience: Patience,
    life: Arc<Life>,
}

impl Future for Mover {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { connection, pings, progress, patience, life } = self.get_mut();
        let is_used = || life.seats.load(Ordering::Acquire) > 0;
        let end = if pings.as_mut().is_some_and(|pings| pings.poll(context, is_used).is_ready()) {
            End::Silent
        } else if Pin::new(connection).poll(context).is_ready() {
            End::Closed
        } else if patience.poll(context, progress.blocked_at()).is_ready() {
            End::Stuck
        } else {
            return Poll::Pending;
        };
        // Before the requests learn of it, which they do when the connection is dropped.
        life.end.store(end as u8, Ordering::Release);
        Poll::Ready(())
    }
}

/// Asks the other side whether it is there.
struct Pings {
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl Pings {
    fn new(pings: PingPong) -> Self {
        Self { pings, timer: Box::pin(tokio::time::sleep(PING_EVERY)), is_waiting: false }
    }

    /// Ready once a ping was not answered in time.
    fn poll(&mut self, context: &mut Context<'_>, is_used: impl Fn() -> bool) -> Poll<()> {
        loop {
            // That a connection has ended, it tells itself.
            if self.is_waiting && matches!(self.pings.poll_pong(context), Poll::Ready(Ok(_))) {
                self.is_waiting = false;
                self.timer.as_mut().reset(Instant::now() + PING_EVERY);
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if self.is_waiting {
                return Poll::Ready(());
            }
            self.is_waiting = is_used() && self.pings.send_ping(Ping::opaque()).is_ok();
            let wait = if self.is_waiting { PING_LIMIT } else { PING_EVERY };
            self.timer.as_mut().reset(Instant::now() + wait);
        }
    }
}
