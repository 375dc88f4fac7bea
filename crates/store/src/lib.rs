//! The ledger: what every request asked for, what was tried, what it used and cost.
//!
//! [`Store`] is what a backend must do, and [`conformance`] is the suite that each
//! passes. [`Recorder`] stands in front of a store with one writer thread: what
//! queued while it committed goes into the next commit, so that writing costs a
//! request next to nothing. Prompts and answers are not stored.

#![forbid(unsafe_code)]

pub mod conformance;
mod record;
mod recorder;
mod sqlite;

pub use record::{AttemptRecord, Page, RequestRecord, Spent, UsageKey, UsageRow};
pub use recorder::Recorder;
pub use sqlite::Sqlite;

use freeway_types::{RequestId, Timestamp};

/// What a storage backend does.
pub trait Store: Send + Sync {
    /// Writes requests with their attempts, all or none. Writing the same request again replaces it.
    ///
    /// # Errors
    /// When the store cannot be written; nothing is written then.
    fn append(&self, requests: &[RequestRecord]) -> Result<(), StoreError>;

    /// One request with its attempts.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn request(&self, id: RequestId) -> Result<Option<RequestRecord>, StoreError>;

    /// Requests, newest first, without their attempts.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn requests(&self, page: Page) -> Result<Vec<RequestRecord>, StoreError>;

    /// Use and cost since an instant, by one key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn usage(&self, by: UsageKey, since: Timestamp) -> Result<Vec<UsageRow>, StoreError>;

    /// What every attempt since an instant charged, oldest first, without those of which nothing was sent: for
    /// counting on after a restart.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn spent(&self, since: Timestamp) -> Result<Vec<Spent>, StoreError>;

    /// Forgets requests that were received before an instant; says how many.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn forget(&self, before: Timestamp) -> Result<usize, StoreError>;
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is of a newer version of this program.
    #[error("the database is of a newer version ({found}; this program knows up to {known}): use the newer program")]
    Newer {
        /// Its version.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// Another process has the ledger.
    #[error(
        "process {holder} has it open: two gateways on one ledger would overrun its limits; stop the other, or give this one a [store] url of its own"
    )]
    Taken {
        /// The other's process id.
        holder: String,
    },
    /// The lock beside the ledger could not be had.
    #[error("the lock {path}.lock could not be taken: {error}")]
    Lock {
        /// The ledger's path.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The database said no.
    #[error("the database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// Another thread failed while it held the database.
    #[error("the database is not usable any more; restart the gateway")]
    Poisoned,
}
