//! The one writer. Requests are handed over without waiting; a thread of its own
//! commits them, everything that queued within a moment in one. What is about to be sent
//! is written at once, by whoever sends it: that is why what became of it can wait.
//! What was learned goes with the requests; of it only the latest is kept, and it may be lost.
//! Bounds of use are flushed, and whoever asked for them is told when they are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use freeway_quota::Block;
use freeway_telemetry::{Event, Telemetry};
use freeway_types::Timestamp;

use crate::record::{Dispatch, Learned, RequestRecord};
use crate::{Store, StoreError};

/// Most requests in one commit.
const BATCH: usize = 512;
/// How long the first request of a batch waits for others. A commit costs as much as ten rows, and waking the writer
/// as much as one.
const GATHER: Duration = Duration::from_millis(25);
/// With more than this unwritten, no new request is taken.
const MOST_UNWRITTEN: usize = 20_000;
/// Tries that a process which is stopping still makes.
const MOST_TRIES_AT_THE_END: u32 = 20;
/// How long a dispatch that could not be written speaks for the next one.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Pause before a commit that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Hands requests to the writer thread.
pub struct Recorder {
    store: Arc<dyn Store>,
    telemetry: Arc<Telemetry>,
    queue: Mutex<Option<Sender<Handed>>>,
    progress: Arc<Progress>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Called when bounds are handed over.
    hurry: Box<dyn Fn() + Send + Sync>,
}

/// What is queued for the writer.
#[expect(clippy::large_enum_variant, reason = "nearly all are requests, and a box would cost each an allocation")]
enum Handed {
    /// A request that is over.
    Request(RequestRecord),
    /// There is something among what was learned.
    Learned,
    /// Bounds of use. Somebody may be waiting for them.
    Bounds(Vec<Block>),
}

/// What is to be done when bounds are flushed.
type WhenSecured = Box<dyn Fn(&[Block]) + Send + Sync>;

/// What was learned and is not written yet, by kind and name.
type Unwritten = Mutex<BTreeMap<(String, String), Learned>>;

/// What the writer thread and those who hand over tell each other.
#[derive(Default)]
struct Progress {
    when_secured: OnceLock<WhenSecured>,
    learned: Unwritten,
    unwritten: AtomicUsize,
    finishing: AtomicBool,
    /// Whether the last commit failed.
    commit_failed: AtomicBool,
    /// When a dispatch could not be written down, in microseconds since 1970; 0 after one that could.
    dispatch_failed_at: AtomicI64,
}

impl Recorder {
    /// Starts the writer.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(store: Arc<dyn Store>, telemetry: Arc<Telemetry>) -> std::io::Result<Self> {
        let (queue, received) = channel();
        let progress = Arc::new(Progress::default());
        let writer = {
            let (store, telemetry, progress) = (Arc::clone(&store), Arc::clone(&telemetry), Arc::clone(&progress));
            std::thread::Builder::new()
                .name("ledger".to_owned())
                .spawn(move || write_all(&*store, &telemetry, &received, &progress))?
        };
        let thread = writer.thread().clone();
        let (queue, writer) = (Mutex::new(Some(queue)), Mutex::new(Some(writer)));
        Ok(Self { store, telemetry, queue, progress, writer, hurry: Box::new(move || thread.unpark()) })
    }

    /// A recorder without a thread: what was handed over is written by [`Queued::write`] alone. For a
    /// simulation, in which nothing happens at its own time. `hurry` is called when somebody may wait for it.
    #[must_use]
    pub fn unattended(
        store: Arc<dyn Store>,
        telemetry: Arc<Telemetry>,
        hurry: Box<dyn Fn() + Send + Sync>,
    ) -> (Self, Queued) {
        let (queue, received) = channel();
        let progress = Arc::new(Progress::default());
        let queued = Queued { store: Arc::clone(&store), received, progress: Arc::clone(&progress) };
        let (queue, writer) = (Mutex::new(Some(queue)), Mutex::new(None));
        (Self { store, telemetry, queue, progress, writer, hurry }, queued)
    }

    /// Writes down that an attempt is about to be sent. Takes microseconds.
    ///
    /// # Errors
    /// When it cannot be written: the attempt must not be sent.
    pub fn dispatched(&self, dispatch: &Dispatch<'_>) -> Result<(), StoreError> {
        let written = self.store.dispatched(dispatch);
        let failed_at = if written.is_err() { dispatch.sent_at.as_micros() } else { 0 };
        let failed_before = self.progress.dispatch_failed_at.swap(failed_at, Ordering::Relaxed) != 0;
        if let Err(error) = &written
            && !failed_before
        {
            self.telemetry.tell(dispatch.sent_at, &Event::LedgerFailed { error: &error.to_string() });
        }
        written
    }

    /// Whether the ledger could not be written when that was last tried. A dispatch that failed is remembered for a
    /// while only: who asks whether to send requests here would otherwise never send the one that ends it.
    #[must_use]
    pub fn is_failing(&self, now: Timestamp) -> bool {
        let failed_at = self.progress.dispatch_failed_at.load(Ordering::Relaxed);
        self.progress.commit_failed.load(Ordering::Relaxed)
            || (failed_at != 0 && now.since(Timestamp::from_micros(failed_at)) < REMEMBERED)
    }

    /// Hands over a request that is over. Never waits.
    pub fn record(&self, request: RequestRecord) {
        self.hand_over(Handed::Request(request));
    }

    /// Hands over what was learned, to be written with the next requests. Of what has the same kind and name only the
    /// latest is written. Never waits; what cannot be written is lost.
    pub fn learn(&self, learned: Vec<Learned>) {
        let Ok(mut unwritten) = self.progress.learned.lock() else { return };
        let wake = unwritten.is_empty() && !learned.is_empty();
        unwritten.extend(learned.into_iter().map(|fact| ((fact.kind.clone(), fact.name.clone()), fact)));
        drop(unwritten);
        if wake {
            self.hand_over(Handed::Learned);
        }
    }

    /// Says whom to tell which bounds are flushed. Only the first one is told.
    pub fn when_secured(&self, tell: impl Fn(&[Block]) + Send + Sync + 'static) {
        let _ = self.progress.when_secured.set(Box::new(tell));
    }

    /// Hands bounds of use over, to be flushed at once. Never waits.
    pub fn secure(&self, bounds: Vec<Block>) {
        if !bounds.is_empty() {
            self.hand_over(Handed::Bounds(bounds));
            (self.hurry)();
        }
    }

    fn hand_over(&self, handed: Handed) {
        if let Ok(queue) = self.queue.lock()
            && let Some(queue) = queue.as_ref()
        {
            self.progress.unwritten.fetch_add(1, Ordering::Relaxed);
            if queue.send(handed).is_err() {
                self.progress.unwritten.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether so much is unwritten that no new request should be taken.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.progress.unwritten.load(Ordering::Relaxed) > MOST_UNWRITTEN
    }

    /// Waits until everything that was handed over is written, for a second at most. Blocks its thread.
    pub fn flush(&self) {
        for _ in 0..200 {
            if self.progress.unwritten.load(Ordering::Relaxed) == 0 {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Writes what is queued and ends the writer. What is recorded afterwards is lost.
    pub fn finish(&self) {
        self.progress.finishing.store(true, Ordering::Relaxed);
        if let Ok(mut queue) = self.queue.lock() {
            queue.take();
        }
        if let Ok(mut writer) = self.writer.lock()
            && let Some(writer) = writer.take()
        {
            writer.thread().unpark();
            let _ = writer.join();
        }
        // What the writer gave up is not written.
        if self.progress.commit_failed.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.store.end() {
            self.telemetry.tell(Timestamp::default(), &Event::LedgerFailed { error: &error.to_string() });
        }
    }
}

/// What an unattended recorder was given.
pub struct Queued {
    store: Arc<dyn Store>,
    received: Receiver<Handed>,
    progress: Arc<Progress>,
}

impl Queued {
    /// Writes what is there, in one commit; says how many requests.
    ///
    /// # Errors
    /// When the store cannot be written: what was there is lost then.
    pub fn write(&self) -> Result<usize, StoreError> {
        let mut batch = Batch::default();
        self.received.try_iter().for_each(|handed| batch.add(handed));
        self.progress.unwritten.fetch_sub(batch.handed, Ordering::Relaxed);
        let learned = taken(&self.progress);
        if !batch.requests.is_empty() || !learned.is_empty() {
            self.store.write(&batch.requests, &learned)?;
        }
        batch.secure(&*self.store, &self.progress)?;
        Ok(batch.requests.len())
    }
}

/// What was learned and is to be written now.
fn taken(progress: &Progress) -> Vec<Learned> {
    let learned = progress.learned.lock().map(|mut unwritten| std::mem::take(&mut *unwritten)).unwrap_or_default();
    learned.into_values().collect()
}

/// What goes into one commit.
#[derive(Default)]
struct Batch {
    handed: usize,
    requests: Vec<RequestRecord>,
    bounds: Vec<Block>,
}

impl Batch {
    fn add(&mut self, handed: Handed) {
        self.handed += 1;
        match handed {
            Handed::Request(request) => self.requests.push(request),
            Handed::Learned => {}
            Handed::Bounds(mut bounds) => self.bounds.append(&mut bounds),
        }
    }

    /// Flushes the bounds and tells of it.
    fn secure(&mut self, store: &dyn Store, progress: &Progress) -> Result<(), StoreError> {
        if !self.bounds.is_empty() {
            store.secure(&self.bounds)?;
            if let Some(tell) = progress.when_secured.get() {
                tell(&self.bounds);
            }
            self.bounds.clear();
        }
        Ok(())
    }
}

fn write_all(store: &dyn Store, telemetry: &Telemetry, received: &Receiver<Handed>, progress: &Progress) {
    let mut batch = Batch { requests: Vec::with_capacity(BATCH), ..Batch::default() };
    while let Ok(first) = received.recv() {
        batch.add(first);
        if batch.bounds.is_empty() && !progress.finishing.load(Ordering::Relaxed) {
            std::thread::park_timeout(GATHER);
        }
        received.try_iter().take(BATCH - 1).for_each(|handed| batch.add(handed));
        write(store, telemetry, &mut batch, taken(progress), progress);
        progress.unwritten.fetch_sub(batch.handed, Ordering::Relaxed);
        batch.requests.clear();
        batch.handed = 0;
    }
}

/// Writes a batch. One that cannot be written is tried again without end, while what queues behind it keeps
/// new requests out; only a process that is stopping gives it up after a while. What was learned is tried once: no
/// request waits for it.
fn write(store: &dyn Store, telemetry: &Telemetry, batch: &mut Batch, mut learned: Vec<Learned>, progress: &Progress) {
    let mut tries_at_the_end = 0;
    let mut has_nothing = batch.requests.is_empty() && learned.is_empty();
    loop {
        let written = if has_nothing { Ok(()) } else { store.write(&batch.requests, &learned) };
        has_nothing |= written.is_ok();
        let Err(error) = written.and_then(|()| batch.secure(store, progress)) else { break };
        progress.commit_failed.store(true, Ordering::Relaxed);
        let at = batch.requests.last().map(|request| request.received_at).or(learned.last().map(|fact| fact.at));
        telemetry.tell(at.unwrap_or_default(), &Event::LedgerFailed { error: &error.to_string() });
        learned.clear();
        tries_at_the_end += u32::from(progress.finishing.load(Ordering::Relaxed));
        if tries_at_the_end > MOST_TRIES_AT_THE_END {
            return;
        }
        std::thread::park_timeout(RETRY_AFTER);
    }
    progress.commit_failed.store(false, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{learned, sample};
    use crate::{Legacy, Page, Spent, Sqlite, UsageKey, UsageRow};
    use freeway_quota::Lost;
    use freeway_telemetry::Level;
    use freeway_types::RequestId;

    /// A store whose first write fails.
    struct FailsOnce {
        inner: Sqlite,
        failed: AtomicBool,
    }

    impl Store for FailsOnce {
        fn dispatched(&self, dispatch: &Dispatch<'_>) -> Result<(), StoreError> {
            self.inner.dispatched(dispatch)
        }
        fn recover(&self, now: Timestamp) -> Result<usize, StoreError> {
            self.inner.recover(now)
        }
        fn write(&self, requests: &[RequestRecord], learned: &[Learned]) -> Result<(), StoreError> {
            if self.failed.swap(true, Ordering::Relaxed) {
                self.inner.write(requests, learned)
            } else {
                Err(StoreError::Full)
            }
        }
        fn outlives_power(&self) -> bool {
            true
        }
        fn secure(&self, bounds: &[Block]) -> Result<(), StoreError> {
            self.inner.secure(bounds)
        }
        fn legacy(&self) -> Result<Legacy, StoreError> {
            self.inner.legacy()
        }
        fn begin(&self, boot: &str, lost: Option<&[Lost]>) -> Result<(), StoreError> {
            self.inner.begin(boot, lost)
        }
        fn end(&self) -> Result<(), StoreError> {
            self.inner.end()
        }
        fn learned(&self, kind: &str) -> Result<Vec<Learned>, StoreError> {
            self.inner.learned(kind)
        }
        fn request(&self, id: RequestId) -> Result<Option<RequestRecord>, StoreError> {
            self.inner.request(id)
        }
        fn requests(&self, page: Page) -> Result<Vec<RequestRecord>, StoreError> {
            self.inner.requests(page)
        }
        fn usage(&self, by: UsageKey, since: Timestamp) -> Result<Vec<UsageRow>, StoreError> {
            self.inner.usage(by, since)
        }
        fn spent(&self, since: Timestamp) -> Result<Vec<Spent>, StoreError> {
            self.inner.spent(since)
        }
        fn forget(&self, before: Timestamp) -> Result<usize, StoreError> {
            self.inner.forget(before)
        }
    }

    fn recorder(store: &Arc<dyn Store>) -> Recorder {
        Recorder::start(Arc::clone(store), Arc::new(Telemetry::new(Level::Error))).unwrap()
    }

    #[test]
    fn of_what_was_learned_the_latest_is_written_without_any_request() {
        let store: Arc<dyn Store> = Arc::new(Sqlite::in_memory().unwrap());
        let recorder = recorder(&store);
        recorder.learn(vec![learned("tokens", "a/b", Some("1")), learned("tokens", "c/d", Some("2"))]);
        recorder.learn(vec![learned("tokens", "a/b", Some("3")), learned("tokens", "c/d", None)]);
        recorder.flush();
        assert_eq!(store.learned("tokens").unwrap(), [learned("tokens", "a/b", Some("3"))]);
        recorder.learn(vec![learned("tokens", "a/b", Some("4"))]);
        recorder.finish();
        assert_eq!(store.learned("tokens").unwrap(), [learned("tokens", "a/b", Some("4"))], "an end writes it too");
    }

    #[test]
    fn a_write_that_fails_loses_what_was_learned_and_no_request() {
        let inner = Sqlite::in_memory().unwrap();
        let store: Arc<dyn Store> = Arc::new(FailsOnce { inner, failed: AtomicBool::new(false) });
        let recorder = recorder(&store);
        let request = sample(1, Timestamp::from_secs(10));
        recorder.learn(vec![learned("tokens", "a/b", Some("1"))]);
        recorder.record(request.clone());
        recorder.finish();
        assert_eq!(store.request(request.id).unwrap(), Some(request));
        assert_eq!(store.learned("tokens").unwrap(), []);
    }

    #[test]
    fn bounds_are_told_of_when_they_are_flushed_and_not_lost_by_a_commit_that_fails() {
        let folder = tempfile::tempdir().unwrap();
        let inner = Sqlite::open(&folder.path().join("ledger.db")).unwrap();
        let store: Arc<dyn Store> = Arc::new(FailsOnce { inner, failed: AtomicBool::new(false) });
        let recorder = recorder(&store);
        let told = Arc::new(Mutex::new(Vec::new()));
        let (list, reader) = (Arc::clone(&told), Arc::clone(&store));
        recorder.when_secured(move |bounds| {
            assert_eq!(reader.legacy().unwrap().bounds, bounds, "what is told of is there");
            list.lock().unwrap().extend_from_slice(bounds);
        });
        let bound = Block { limit: "a/b requests per day".to_owned(), since: Timestamp::from_secs(60), most: 10 };
        recorder.record(sample(1, Timestamp::from_secs(10)));
        recorder.secure(vec![bound.clone()]);
        recorder.finish();
        assert_eq!(*told.lock().unwrap(), [bound]);
    }
}
