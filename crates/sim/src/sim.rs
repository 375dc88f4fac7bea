//! A running simulated provider: its door, its books, its log, and what can be
//! done to it from outside.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use crate::clock::Clock;
use crate::config::SimConfig;
use crate::door::Door;
use crate::exchange;
use crate::fault::{Fault, FaultKind, Faults};
use crate::limits::{Book, Charge, LimitState};
use crate::log::{Log, LogEntry};
use crate::wire::{Line, Wire};

/// A running simulated provider. It stops when it is dropped.
#[derive(Debug)]
pub struct Sim {
    inner: Arc<Inner>,
    /// `None` for one that is reached within this process.
    accepting: Option<AbortHandle>,
}

/// What connections share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: SimConfig,
    pub(crate) clock: Clock,
    pub(crate) door: Door,
    pub(crate) book: Mutex<Book>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) log: Mutex<Log>,
    revoked: Mutex<BTreeSet<String>>,
    overruns: AtomicU64,
    /// Counts lists of faults, so that a timed `refuse` of an old list opens no door of a new one.
    lists: AtomicU64,
    itself: Weak<Inner>,
}

/// Takes a lock. A panic elsewhere does not make the data unusable here: every change is one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Sim ===

impl Sim {
    /// Starts a provider on the current runtime.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(config: SimConfig) -> io::Result<Self> {
        let door = Door::open_at(config.listen)?;
        let inner = Inner::new(config, Clock::start(), door);
        let accepting = tokio::spawn(accept(Arc::clone(&inner))).abort_handle();
        Ok(Self { inner, accepting: Some(accepting) })
    }

    /// A provider that listens nowhere: whoever makes its connections gives them to [`Sim::serve`]. `wall` is its
    /// clock, in microseconds since 1970, which must not go backwards. To be called inside a runtime.
    #[must_use]
    pub fn within(config: SimConfig, wall: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        let door = Door::within(config.listen);
        Self { inner: Inner::new(config, Clock::given(wall), door), accepting: None }
    }

    /// Serves one connection until a side closes it. A provider whose door is shut breaks it at once.
    pub fn serve(&self, line: impl Line + 'static) -> impl Future<Output = ()> + Send + 'static {
        let (inner, wire) = (Arc::clone(&self.inner), Wire::new(line));
        async move { exchange::serve(&inner, wire).await }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.inner.door.address()
    }

    /// The root of its interface: `http://127.0.0.1:PORT/v1`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address())
    }

    /// Everything that arrived, oldest first. Requests under `/sim/` are not in it.
    #[must_use]
    pub fn log(&self) -> Vec<LogEntry> {
        lock(&self.inner.log).entries()
    }

    /// Replaces the list of faults; an empty list ends them all. A `refuse` in it shuts the door before this
    /// returns, a list without one opens it.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.inner.set_faults(faults);
    }

    /// Takes a key back: from now on it is refused.
    pub fn revoke_key(&self, key: &str) {
        self.inner.revoke(key);
    }

    /// Takes back so much of the use of a limit, by its place in [`Sim::limits`] and in its units, as when somebody
    /// pays in.
    pub fn give_back(&self, limit: usize, units: u64) {
        lock(&self.inner.book).give_back(self.inner.clock.now(), limit, units);
    }

    /// How many requests exceeded a limit.
    #[must_use]
    pub fn overruns(&self) -> u64 {
        self.inner.overruns()
    }

    /// The state of every limit, with the most that was ever used of it.
    #[must_use]
    pub fn limits(&self) -> Vec<LimitState> {
        lock(&self.inner.book).states(self.inner.clock.now())
    }

    /// What was charged to a limit and given back, by its place in [`Sim::limits`], oldest first. Of a refusal nothing is
    /// entered.
    #[must_use]
    pub fn charges(&self, limit: usize) -> Vec<Charge> {
        lock(&self.inner.book).charges(limit)
    }

    /// Stops listening and closes every connection, for good.
    pub fn stop(&self) {
        self.inner.door.shut();
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(inner: Arc<Inner>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            stream = inner.door.accept() => {
                let inner = Arc::clone(&inner);
                connections.spawn(async move {
                    if stream.set_nodelay(true).is_ok() {
                        exchange::serve(&inner, Wire::new(stream)).await;
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

// === impl Inner ===

impl Inner {
    fn new(config: SimConfig, clock: Clock, door: Door) -> Arc<Self> {
        let book = Book::new(config.provider.clone(), &config.plan);
        Arc::new_cyclic(|itself| Self {
            config,
            clock,
            door,
            book: Mutex::new(book),
            faults: Mutex::default(),
            log: Mutex::default(),
            revoked: Mutex::default(),
            overruns: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            itself: Weak::clone(itself),
        })
    }

    pub(crate) fn set_faults(&self, faults: Vec<Fault>) {
        let list = self.lists.fetch_add(1, Ordering::SeqCst) + 1;
        let refused = faults.iter().find_map(|fault| match fault.kind {
            FaultKind::Refuse { for_ms } => Some(for_ms),
            _ => None,
        });
        lock(&self.faults).set(faults);
        match refused {
            None => self.door.open(),
            Some(for_ms) => {
                self.door.shut();
                if let Some(for_ms) = for_ms {
                    self.open_in(Duration::from_millis(for_ms), list);
                }
            }
        }
    }

    fn open_in(&self, wait: Duration, list: u64) {
        let inner = Weak::clone(&self.itself);
        self.door.runtime().spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(inner) = inner.upgrade().filter(|inner| inner.lists.load(Ordering::SeqCst) == list) {
                inner.door.open();
            }
        });
    }

    pub(crate) fn revoke(&self, key: &str) {
        lock(&self.revoked).insert(key.to_owned());
    }

    pub(crate) fn accepts(&self, key: Option<&str>) -> bool {
        let known = |key: &str| self.config.keys.iter().any(|known| known == key);
        match key {
            None => self.config.keys.is_empty(),
            Some(key) => (self.config.keys.is_empty() || known(key)) && !lock(&self.revoked).contains(key),
        }
    }

    /// The id of a model by its id or alias. Without models in the facts, any name is one.
    pub(crate) fn canonical<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let models = &self.config.provider.models;
        if models.is_empty() {
            return Some(name);
        }
        let named = |alias: &String| alias == name;
        models.iter().find(|model| model.id == name || model.aliases.iter().any(named)).map(|model| model.id.as_str())
    }

    pub(crate) fn count_overrun(&self) {
        self.overruns.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn overruns(&self) -> u64 {
        self.overruns.load(Ordering::SeqCst)
    }
}
