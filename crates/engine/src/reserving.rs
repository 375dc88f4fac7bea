//! Holding what an attempt may use, within bounds that outlive a loss of power.

use std::sync::Arc;
use std::time::Duration;

use freeway_quota::{Block, Demand, ReservationId};
use freeway_router::Reason;
use freeway_store::{Legacy, StoreError};
use freeway_telemetry::Event;
use freeway_types::{DeploymentIndex, KeyIndex, Now};

use crate::engine::{Engine, Shared};
use crate::state::LiveState;

/// How long a request waits for a bound to be flushed, where more came at once than was secured ahead and another target
/// may serve …
const WAIT_BEFORE_OTHERS: Duration = Duration::from_millis(50);
/// … and where none may.
const WAIT_AT_THE_LAST: Duration = Duration::from_secs(2);

/// How an attempt comes to its target.
#[derive(Clone, Copy)]
pub(crate) struct Entrance {
    /// Whether its request uses more than plain text.
    pub(crate) featured: bool,
    /// Whether everything fails again and again, so that it may go there all the same.
    pub(crate) is_last_resort: bool,
    /// Whether its request has not been at this account before.
    pub(crate) is_first: bool,
}

impl Engine {
    /// Holds what an attempt may use; says when it began to. Waits only where more is wanted at once than the disk was
    /// told ahead.
    pub(crate) async fn reserve(
        &self,
        mut now: Now,
        index: DeploymentIndex,
        key: Option<KeyIndex>,
        demand: &Demand,
        entrance: Entrance,
        has_others: bool,
    ) -> Result<(ReservationId, Now), Reason> {
        let end = now.after(if has_others { WAIT_BEFORE_OTHERS } else { WAIT_AT_THE_LAST });
        loop {
            // It rings from here on, even while nobody waits for it yet.
            let secured = self.shared().secured.notified();
            match self.try_reserve(now, index, key, demand, entrance) {
                Ok(reservation) => return Ok((reservation, now)),
                Err(Reason::Unsecured { .. }) if now.monotonic < end.monotonic => {
                    let _ = tokio::time::timeout(end.monotonic.since(now.monotonic), secured).await;
                    now = self.now();
                }
                Err(reason) => return Err(reason),
            }
        }
    }

    /// Holds what an attempt may use, or says at once what stands in the way.
    pub(crate) fn try_reserve(
        &self,
        now: Now,
        index: DeploymentIndex,
        key: Option<KeyIndex>,
        demand: &Demand,
        entrance: Entrance,
    ) -> Result<ReservationId, Reason> {
        let deployment = self.snapshot.deployment(index);
        let ward = self.wards[index.get()];
        let mut state = self.state();
        if !state.in_force.contains(&deployment.name) {
            return Err(Reason::Off("removed or switched off by an edit of the configuration".to_owned()));
        }
        let live = LiveState { engine: self, state: &mut state, now };
        if let Some((until, why)) = live.held_back(index) {
            return Err(Reason::Paused { until, why });
        }
        if let (Some(until), false) = (state.health.open_until(ward, entrance.featured, now), entrance.is_last_resort) {
            return Err(Reason::Broken { until });
        }
        if !entrance.is_first && !state.health.retries(ward).again(now) {
            return Err(Reason::Failed("enough was sent there again for now".to_owned()));
        }
        let reserved = state.book.reserve_at(now, self.targets[index.get()], demand).map_err(|blocked| {
            let name = state.book.spec(blocked.limit).name.clone();
            match blocked.unsecured {
                true => Reason::Unsecured { name },
                false => {
                    let (limit, until, too_large) = (blocked.limit, blocked.until, blocked.too_large);
                    Reason::Quota { limit, name, until, too_large }
                }
            }
        });
        if let Ok(reservation) = reserved {
            if !state.health.admit(ward, entrance.featured, entrance.is_last_resort, now) {
                state.book.release(reservation);
                return Err(Reason::Broken { until: now.after(Duration::from_secs(1)) });
            }
            self.claim_pauses(&mut state, index, key, now);
            if entrance.is_first {
                state.health.retries(ward).first(now);
            }
        }
        let wanted = state.book.take_wanted();
        drop(state);
        self.shared().recorder.secure(wanted);
        reserved
    }

    /// Secures the first use of windows that are about to begin, so that no request has to wait for it. To be called
    /// every second.
    pub fn look_ahead(&self) {
        let now = self.now();
        let mut state = self.state();
        state.book.look_ahead(now);
        let wanted = state.book.take_wanted();
        drop(state);
        self.shared().recorder.secure(wanted);
    }

    /// Begins to bound use, once everything is counted that the ledger knows. What an earlier process may have used
    /// and lost with the power counts as used.
    pub(crate) fn begin_bounds(&self, legacy: &Legacy) -> Result<(), StoreError> {
        let shared = self.shared();
        if !shared.store.outlives_power() {
            return Ok(());
        }
        let (now, boot) = (self.now(), shared.clock.boot());
        let mut state = self.state();
        for lost in &legacy.lost {
            state.book.replay_lost(lost, now);
        }
        let is_same_boot = boot.id.is_some() && boot.id == legacy.boot;
        let was_power_lost = !legacy.is_whole && !is_same_boot;
        let lost = was_power_lost.then(|| state.book.lose_power(now.wall.before(boot.uptime), now));
        if let Some(lost) = &lost {
            self.telemetry().tell(now.wall, &Event::PowerLost { limits: lost.len() });
        }
        shared.store.begin(boot.id.as_deref().unwrap_or_default(), lost.as_deref())?;
        state.book.look_ahead(now);
        let wanted = state.book.take_wanted();
        shared.store.secure(&wanted)?;
        state.book.secured(&wanted);
        drop(state);
        let told = Arc::downgrade(shared);
        shared.recorder.when_secured(move |bounds: &[Block]| {
            if let Some(shared) = told.upgrade() {
                shared.state().book.secured(bounds);
                shared.secured.notify_waiters();
            }
        });
        Ok(())
    }
}

impl Shared {
    /// Reads what an earlier process left, and begins to count within it. To be called before limits are adopted.
    pub(crate) fn inherit_bounds(&self) -> Result<Legacy, StoreError> {
        if !self.store.outlives_power() {
            return Ok(Legacy::default());
        }
        let mut legacy = self.store.legacy()?;
        self.state().book.keep_bounds(std::mem::take(&mut legacy.bounds));
        Ok(legacy)
    }
}
