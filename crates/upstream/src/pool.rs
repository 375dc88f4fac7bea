//! Connections that wait for their next request, and those that several requests share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::connect::ConnectError;
use crate::leg::Leg;
use crate::multiplex::{Multiplex, Slot};

/// Connections unused for this long are closed by us, before most servers do.
const IDLE_LIMIT: Duration = Duration::from_secs(4);

/// The connections of one upstream, but for those of HTTP/1.1 that are in use.
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    /// Whether connections are shared here, as far as is known. Only then it is worth waiting for one that another
    /// request is making.
    is_shared: AtomicBool,
    turn: tokio::sync::Mutex<Turn>,
}

#[derive(Default)]
struct Idle {
    /// The one that was used last is used next, so that those beyond need fall idle.
    legs: Vec<(Instant, Leg)>,
    /// The first with room is used, for the same reason.
    shared: Vec<Multiplex>,
    /// Whether somebody looks after them.
    is_swept: bool,
}

/// The right to make a connection that may be shared: one at a time.
#[derive(Default)]
pub(crate) struct Turn {
    /// When the last one who had it failed, and how.
    failed: Option<(Instant, ConnectError)>,
}

/// A way to send one request.
pub(crate) enum Way {
    /// A connection of its own.
    Leg(Leg),
    /// A place on a shared one.
    Slot(Slot),
}

impl Pool {
    pub(crate) fn new(may_share: bool) -> Self {
        Self { idle: Mutex::default(), is_shared: AtomicBool::new(may_share), turn: tokio::sync::Mutex::default() }
    }

    /// A connection that can take a request.
    pub(crate) fn take(&self) -> Option<Way> {
        loop {
            let mut idle = self.idle();
            if let Some(slot) = idle.slot() {
                return Some(Way::Slot(slot));
            }
            let (since, mut leg) = idle.legs.pop()?;
            drop(idle);
            if since.elapsed() < IDLE_LIMIT && leg.is_open() {
                return Some(Way::Leg(leg));
            }
        }
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(crate) fn keep(self: &Arc<Self>, leg: Leg) {
        let mut idle = self.idle();
        idle.legs.push((Instant::now(), leg));
        self.look_after(idle);
    }

    /// Takes up a fresh connection for sharing; gives a place on it, unless it has ended already.
    pub(crate) fn share(self: &Arc<Self>, mut fresh: Multiplex) -> Option<Slot> {
        let slot = fresh.slot()?;
        let mut idle = self.idle();
        idle.shared.push(fresh);
        self.look_after(idle);
        Some(slot)
    }

    /// Whether connections are shared here, as far as is known.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    /// Notes whether the newest connection was for sharing.
    pub(crate) fn found(&self, is_shared: bool) {
        self.is_shared.store(is_shared, Ordering::Relaxed);
    }

    /// Waits for the right to make a connection.
    ///
    /// # Errors
    /// How somebody else's attempt failed meanwhile: another one right behind it would fail as well.
    pub(crate) async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, Turn>, ConnectError> {
        let since = Instant::now();
        let turn = self.turn.lock().await;
        match &turn.failed {
            Some((at, error)) if *at > since => Err(error.clone()),
            _ => Ok(turn),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_after(self: &Arc<Self>, mut idle: MutexGuard<'_, Idle>) {
        if !std::mem::replace(&mut idle.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }
}

impl Idle {
    fn slot(&mut self) -> Option<Slot> {
        self.shared.iter_mut().filter(|shared| shared.idle_for() < IDLE_LIMIT).find_map(Multiplex::slot)
    }
}

impl Turn {
    /// Notes a failure for those who wait.
    pub(crate) fn failed(&mut self, error: &ConnectError) {
        self.failed = Some((Instant::now(), error.clone()));
    }
}

/// Closes connections that nobody has used for long, until there are none.
async fn sweep(pool: std::sync::Weak<Pool>) {
    loop {
        tokio::time::sleep(IDLE_LIMIT / 4).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle();
        let stale = idle.legs.partition_point(|(since, _)| since.elapsed() >= IDLE_LIMIT);
        let closed: Vec<_> = idle.legs.drain(..stale).collect();
        let ended: Vec<_> =
            idle.shared.extract_if(.., |shared| shared.idle_for() >= IDLE_LIMIT || !shared.is_open()).collect();
        idle.is_swept = !(idle.legs.is_empty() && idle.shared.is_empty());
        let is_done = !idle.is_swept;
        drop(idle);
        drop((closed, ended));
        if is_done {
            return;
        }
    }
}
