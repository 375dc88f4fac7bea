//! Connections that wait for their next request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::leg::Leg;

/// Connections unused for this long are closed by us, before most servers do.
const IDLE_LIMIT: Duration = Duration::from_secs(4);

/// The idle connections of one upstream.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Idle>);

#[derive(Default)]
struct Idle {
    /// The one that was used last is used next, so that those beyond need fall idle.
    legs: Vec<(Instant, Leg)>,
    /// Whether somebody looks after them.
    is_swept: bool,
}

impl Pool {
    /// A connection that can take a request.
    pub(crate) fn take(&self) -> Option<Leg> {
        loop {
            let (since, mut leg) = self.idle().legs.pop()?;
            if since.elapsed() < IDLE_LIMIT && leg.is_open() {
                return Some(leg);
            }
        }
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(crate) fn keep(self: &Arc<Self>, leg: Leg) {
        let mut idle = self.idle();
        idle.legs.push((Instant::now(), leg));
        if !std::mem::replace(&mut idle.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        idle.is_swept = !idle.legs.is_empty();
        let is_done = !idle.is_swept;
        drop(idle);
        drop(closed);
        if is_done {
            return;
        }
    }
}
