//! The one writer. Requests are handed over without waiting; a thread of its own
//! commits them, everything that queued during the last commit in one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use freeway_telemetry::{Event, Telemetry};

use crate::record::RequestRecord;
use crate::{Store, StoreError};

/// Most requests in one commit.
const BATCH: usize = 512;
/// With more than this unwritten, no new request is taken.
const MOST_UNWRITTEN: usize = 20_000;
/// Pause before a commit that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Hands requests to the writer thread.
pub struct Recorder {
    queue: Mutex<Option<Sender<RequestRecord>>>,
    unwritten: Arc<AtomicUsize>,
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
        let writer = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || write_all(&*store, &telemetry, &received, &count))?;
        Ok(Self { queue: Mutex::new(Some(queue)), unwritten, writer: Mutex::new(Some(writer)) })
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

fn write_all(store: &dyn Store, telemetry: &Telemetry, received: &Receiver<RequestRecord>, unwritten: &AtomicUsize) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = received.recv() {
        batch.push(first);
        batch.extend(received.try_iter().take(BATCH - 1));
        write(store, telemetry, &batch);
        unwritten.fetch_sub(batch.len(), Ordering::Relaxed);
        batch.clear();
    }
}

/// Writes a batch; one that cannot be written is kept and tried again, a few times.
fn write(store: &dyn Store, telemetry: &Telemetry, batch: &[RequestRecord]) {
    for _ in 0..40 {
        match store.append(batch) {
            Ok(()) => return,
            Err(error) => {
                let at = batch.last().map(|request| request.received_at).unwrap_or_default();
                telemetry.tell(at, &Event::LedgerFailed { error: &error.to_string() });
                if matches!(error, StoreError::Poisoned | StoreError::Newer { .. }) {
                    return;
                }
                std::thread::park_timeout(RETRY_AFTER);
            }
        }
    }
}
