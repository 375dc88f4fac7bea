//! One connection to an upstream, moved by whoever uses it.
//!
//! The library splits a connection into a handle that sends requests and a future that moves the bytes, and expects
//! that future to run as a task of its own. Here the task that waits for the answer moves it: nothing is handed from
//! task to task, and a request that is dropped closes its connection at that instant.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};

use crate::body::Outgoing;
use crate::progress::{Patience, Progress};
use crate::socket::Socket;

/// Most bytes of an answer's head, and of what is read ahead. What is read is then copied twice on its way to a client, so
/// that a client which does not read holds four times as much.
const MOST_BUFFERED: usize = 64 * 1024;

/// A connection and the half that moves it.
pub(crate) struct Leg {
    sender: SendRequest<Outgoing>,
    connection: Pin<Box<Connection<Socket, Outgoing>>>,
    progress: Arc<Progress>,
    bell: Arc<Bell>,
    /// What the library is woken by: the bell.
    waker: Waker,
    ended: bool,
}

/// Why a leg gave no answer.
pub(crate) enum Unanswered {
    /// It broke. The request, if nothing of it was written.
    Broken(hyper::Error, Option<Box<Request<Outgoing>>>),
    /// It could not be written.
    Stuck,
}

impl Leg {
    /// A leg on a fresh connection.
    ///
    /// # Errors
    /// When the library refuses it; it does not talk to the other side here.
    pub(crate) async fn new(socket: Socket) -> Result<Self, hyper::Error> {
        let progress = Arc::clone(socket.progress());
        let (sender, connection) = Builder::new().max_buf_size(MOST_BUFFERED).handshake(socket).await?;
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        Ok(Self { sender, connection: Box::pin(connection), progress, bell, waker, ended: false })
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// When the connection breaks before it, or the request cannot be written.
    pub(crate) async fn send(&mut self, request: Request<Outgoing>) -> Result<Response<Incoming>, Unanswered> {
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let (connection, bell, waker) = (&mut self.connection, &self.bell, &self.waker);
        let (ended, progress) = (&mut self.ended, &self.progress);
        let mut patience = Patience::default();
        let answered = std::future::poll_fn(|context| {
            let polled = bell.listen(
                context,
                || answer.as_mut().poll(&mut Context::from_waker(waker)),
                || {
                    turn(connection, ended, waker);
                },
            );
            match polled {
                Poll::Ready(answered) => Poll::Ready(answered.map_err(|mut error: TrySendError<_>| {
                    let unsent = error.take_message().map(Box::new);
                    Unanswered::Broken(error.into_error(), unsent)
                })),
                Poll::Pending => patience.poll(context, progress.blocked_at()).map(|()| Err(Unanswered::Stuck)),
            }
        });
        answered.await
    }

    /// Polls a part of the answer, moving the connection as long as that helps.
    pub(crate) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        mut part: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let (connection, bell, waker) = (&mut self.connection, &self.bell, &self.waker);
        let ended = &mut self.ended;
        bell.listen(context, || part(&mut Context::from_waker(waker)), || turn(connection, ended, waker))
    }

    /// Whether another request can be sent, as far as can be seen now: a connection that the other side has closed
    /// shows it here. For a leg that nobody is using.
    pub(crate) fn is_open(&mut self) -> bool {
        *self.bell.task() = None;
        turn(&mut self.connection, &mut self.ended, &self.waker);
        !self.ended && self.sender.is_ready()
    }
}

/// Moves a connection as far as it goes.
fn turn(connection: &mut Pin<Box<Connection<Socket, Outgoing>>>, ended: &mut bool, waker: &Waker) {
    if !*ended {
        // How it ended, the answer tells.
        *ended = connection.as_mut().poll(&mut Context::from_waker(waker)).is_ready();
    }
}

/// Wakes the task that uses a leg, unless that task is at the leg already: the two halves of a connection wake each
/// other all the time.
#[derive(Default)]
struct Bell {
    task: Mutex<Option<Waker>>,
    /// Whether the task is at it.
    attended: AtomicBool,
    rung: AtomicBool,
}

impl Bell {
    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls one half and moves the other until the first is ready or nothing stirs.
    fn listen<T>(
        &self,
        context: &mut Context<'_>,
        mut part: impl FnMut() -> Poll<T>,
        mut turn: impl FnMut(),
    ) -> Poll<T> {
        self.attended.store(true, Ordering::SeqCst);
        loop {
            if let Poll::Ready(ready) = part() {
                self.attended.store(false, Ordering::SeqCst);
                return Poll::Ready(ready);
            }
            // What the first half has rung for, the second looks at now.
            self.rung.store(false, Ordering::SeqCst);
            turn();
            if self.rung.swap(false, Ordering::SeqCst) {
                continue;
            }
            let mut task = self.task();
            if !task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
                *task = Some(context.waker().clone());
            }
            drop(task);
            self.attended.store(false, Ordering::SeqCst);
            // Another thread may have rung before it could see that nobody is here any more.
            if !self.rung.swap(false, Ordering::SeqCst) {
                return Poll::Pending;
            }
            self.attended.store(true, Ordering::SeqCst);
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        if !self.attended.load(Ordering::SeqCst)
            && let Some(task) = &*self.task()
        {
            task.wake_by_ref();
        }
    }
}
