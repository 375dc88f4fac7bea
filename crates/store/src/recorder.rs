//! The one writer. Requests are handed over without waiting; a thread of its own
//! commits them, everything that queued within a moment in one. What is about to be sent
//! is written at once, by whoever sends it: that is why what became of it can wait.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use freeway_telemetry::{Event, Telemetry};
use freeway_types::Timestamp;

use crate::record::{Dispatch, RequestRecord};
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
    queue: Mutex<Option<Sender<RequestRecord>>>,
    progress: Arc<Progress>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer thread and those who hand over tell each other.
#[derive(Default)]
struct Progress {
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
        Ok(Self { store, telemetry, queue: Mutex::new(Some(queue)), progress, writer: Mutex::new(Some(writer)) })
    }

    /// A recorder without a thread: what was handed over is written by [`Queued::write`] alone. For a
    /// simulation, in which nothing happens at its own time.
    #[must_use]
    pub fn unattended(store: Arc<dyn Store>, telemetry: Arc<Telemetry>) -> (Self, Queued) {
        let (queue, received) = channel();
        let progress = Arc::new(Progress::default());
        let queued = Queued { store: Arc::clone(&store), received, progress: Arc::clone(&progress) };
        (Self { store, telemetry, queue: Mutex::new(Some(queue)), progress, writer: Mutex::new(None) }, queued)
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
        if let Ok(queue) = self.queue.lock()
            && let Some(queue) = queue.as_ref()
        {
            self.progress.unwritten.fetch_add(1, Ordering::Relaxed);
            if queue.send(request).is_err() {
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
    }
}

/// What an unattended recorder was given.
pub struct Queued {
    store: Arc<dyn Store>,
    received: Receiver<RequestRecord>,
    progress: Arc<Progress>,
}

impl Queued {
    /// Writes what is there, in one commit; says how many requests.
    ///
    /// # Errors
    /// When the store cannot be written: what was there is lost then.
    pub fn write(&self) -> Result<usize, StoreError> {
        let batch: Vec<RequestRecord> = self.received.try_iter().collect();
        if !batch.is_empty() {
            self.store.append(&batch)?;
        }
        self.progress.unwritten.fetch_sub(batch.len(), Ordering::Relaxed);
        Ok(batch.len())
    }
}

fn write_all(store: &dyn Store, telemetry: &Telemetry, received: &Receiver<RequestRecord>, progress: &Progress) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = received.recv() {
        batch.push(first);
        if !progress.finishing.load(Ordering::Relaxed) {
            std::thread::park_timeout(GATHER);
        }
        batch.extend(received.try_iter().take(BATCH - 1));
        write(store, telemetry, &batch, progress);
        progress.unwritten.fetch_sub(batch.len(), Ordering::Relaxed);
        batch.clear();
    }
}

/// Writes a batch. One that cannot be written is tried again without end, while what queues behind it keeps
/// new requests out; only a process that is stopping gives it up after a while.
fn write(store: &dyn Store, telemetry: &Telemetry, batch: &[RequestRecord], progress: &Progress) {
    let mut tries_at_the_end = 0;
    while let Err(error) = store.append(batch) {
        progress.commit_failed.store(true, Ordering::Relaxed);
        let at = batch.last().map(|request| request.received_at).unwrap_or_default();
        telemetry.tell(at, &Event::LedgerFailed { error: &error.to_string() });
        tries_at_the_end += u32::from(progress.finishing.load(Ordering::Relaxed));
        if tries_at_the_end > MOST_TRIES_AT_THE_END {
            return;
        }
        std::thread::park_timeout(RETRY_AFTER);
    }
    progress.commit_failed.store(false, Ordering::Relaxed);
}
