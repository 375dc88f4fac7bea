//! The one writer. Requests are handed over without waiting; a thread of its own
//! commits them, everything that queued during the last commit in one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use freeway_telemetry::{Event, Telemetry};

use crate::Store;
use crate::record::RequestRecord;

/// Most requests in one commit.
const BATCH: usize = 512;
/// With more than this unwritten, no new request is taken.
const MOST_UNWRITTEN: usize = 20_000;
/// Tries that a process which is stopping still makes.
const MOST_TRIES_AT_THE_END: u32 = 20;
/// Pause before a commit that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Hands requests to the writer thread.
pub struct Recorder {
    queue: Mutex<Option<Sender<RequestRecord>>>,
    unwritten: Arc<AtomicUsize>,
    finishing: Arc<AtomicBool>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Recorder {
    /// Starts the writer.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(store: Arc<dyn Store>, telemetry: Arc<Telemetry>) -> std::io::Result<Self> {
        let (queue, received) = channel();
        let unwritten = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&unwritten);
        let finishing = Arc::new(AtomicBool::new(false));
        let ending = Arc::clone(&finishing);
        let writer = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || write_all(&*store, &telemetry, &received, &count, &ending))?;
        Ok(Self { queue: Mutex::new(Some(queue)), unwritten, finishing, writer: Mutex::new(Some(writer)) })
    }

    /// Hands over a request that is over. Never waits.
    pub fn record(&self, request: RequestRecord) {
        if let Ok(queue) = self.queue.lock()
            && let Some(queue) = queue.as_ref()
        {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
            if queue.send(request).is_err() {
                self.unwritten.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether so much is unwritten that no new request should be taken.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.unwritten.load(Ordering::Relaxed) > MOST_UNWRITTEN
    }

    /// Writes what is queued and ends the writer. What is recorded afterwards is lost.
    pub fn finish(&self) {
        self.finishing.store(true, Ordering::Relaxed);
        if let Ok(mut queue) = self.queue.lock() {
            queue.take();
        }
        if let Ok(mut writer) = self.writer.lock()
            && let Some(writer) = writer.take()
        {
            let _ = writer.join();
        }
    }
}

fn write_all(
    store: &dyn Store,
    telemetry: &Telemetry,
    received: &Receiver<RequestRecord>,
    unwritten: &AtomicUsize,
    finishing: &AtomicBool,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = received.recv() {
        batch.push(first);
        batch.extend(received.try_iter().take(BATCH - 1));
        write(store, telemetry, &batch, finishing);
        unwritten.fetch_sub(batch.len(), Ordering::Relaxed);
        batch.clear();
    }
}

/// Writes a batch. One that cannot be written is tried again without end, while what queues behind it keeps
/// new requests out; only a process that is stopping gives it up after a while.
fn write(store: &dyn Store, telemetry: &Telemetry, batch: &[RequestRecord], finishing: &AtomicBool) {
    let mut tries_at_the_end = 0;
    while let Err(error) = store.append(batch) {
        let at = batch.last().map(|request| request.received_at).unwrap_or_default();
        telemetry.tell(at, &Event::LedgerFailed { error: &error.to_string() });
        tries_at_the_end += u32::from(finishing.load(Ordering::Relaxed));
        if tries_at_the_end > MOST_TRIES_AT_THE_END {
            return;
        }
        std::thread::park_timeout(RETRY_AFTER);
    }
}
