//! The listening socket, which can be shut and opened again at the same port.
//!
//! Shutting takes effect before the call returns: whoever connects next is refused.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct Door {
    address: SocketAddr,
    listener: Mutex<Option<TcpListener>>,
    /// Whether it has a listener when it is open.
    listens: bool,
    open: watch::Sender<bool>,
    runtime: Handle,
}

impl Door {
    /// Opens a door; must be called inside a runtime.
    pub(crate) fn open_at(address: SocketAddr) -> io::Result<Self> {
        let listener = listen(address)?;
        Ok(Self {
            address: listener.local_addr()?,
            listener: Mutex::new(Some(listener)),
            listens: true,
            open: watch::Sender::new(true),
            runtime: Handle::current(),
        })
    }

    /// A door without a listener, for connections that are made within this process.
    pub(crate) fn within(address: SocketAddr) -> Self {
        let (listener, open) = (Mutex::new(None), watch::Sender::new(true));
        Self { address, listener, listens: false, open, runtime: Handle::current() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    pub(crate) fn shut(&self) {
        self.lock().take();
        self.open.send_replace(false);
    }

    /// Opens it again. If the port was taken by someone else in between, it stays shut.
    pub(crate) fn open(&self) {
        let _inside = self.runtime.enter();
        let mut listener = self.lock();
        if self.listens && listener.is_none() {
            *listener = listen(self.address).ok();
        }
        let open = !self.listens || listener.is_some();
        drop(listener);
        self.open.send_replace(open);
    }

    /// Ends when the door is shut.
    pub(crate) async fn shutting(&self) {
        // The sender is this door's own, so it cannot be gone.
        let _ = self.open.subscribe().wait_for(|open| !open).await;
    }

    /// The next connection, through however many times of being shut.
    pub(crate) async fn accept(&self) -> TcpStream {
        let mut change = self.open.subscribe();
        loop {
            let next = std::future::poll_fn(|context| match self.lock().as_ref() {
                Some(listener) => listener.poll_accept(context),
                None => Poll::Pending,
            });
            tokio::select! {
                // Whatever has changed, the listener must be looked at again.
                _ = change.changed() => {}
                accepted = next => match accepted {
                    Ok((stream, _)) => return stream,
                    // Out of file descriptors, most likely: give others time to close.
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                },
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<TcpListener>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
