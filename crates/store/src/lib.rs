//! The ledger: what every request asked for, what was tried, what it used and cost.
//!
//! [`Store`] is what a backend must do, and [`conformance`] is the suite that each
//! passes. [`Recorder`] stands in front of a store with one writer thread: what
//! queued while it committed goes into the next commit, so that writing costs a
//! request next to nothing. Prompts and answers are not stored.

#![forbid(unsafe_code)]

pub mod conformance;
mod journal;
mod record;
mod recorder;
mod sqlite;

pub use record::{AttemptRecord, Dispatch, Learned, Legacy, Page, RequestRecord, Spent, UsageKey, UsageRow};
pub use recorder::{Queued, Recorder};
pub use sqlite::{FirstContents, Recorded, Sqlite};

pub use freeway_quota::{Block, Lost};
use freeway_types::{RequestId, Timestamp};
use rusqlite::ErrorCode;

/// What a storage backend does.
pub trait Store: Send + Sync {
    /// Writes down that an attempt is about to be sent, so that it counts even if this process ends before it does.
    /// Returns when a process that follows would find it. Takes microseconds.
    ///
    /// # Errors
    /// When it cannot be written. The attempt must not be sent then.
    fn dispatched(&self, dispatch: &Dispatch<'_>) -> Result<(), StoreError>;

    /// Takes in what an earlier process sent and did not live to write: each becomes an `interrupted` request. Says
    /// how many there were. To be called once, before anything is counted or sent.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    fn recover(&self, now: Timestamp) -> Result<usize, StoreError>;

    /// Writes requests with their attempts, and what was learned, all or none. Writing the same request again replaces
    /// it; so does what was learned later of the same kind and name, and without a value it takes the earlier one away.
    ///
    /// # Errors
    /// When the store cannot be written; nothing is written then.
    fn write(&self, requests: &[RequestRecord], learned: &[Learned]) -> Result<(), StoreError>;

    /// Writes requests alone.
    ///
    /// # Errors
    /// Those of [`Self::write`].
    fn append(&self, requests: &[RequestRecord]) -> Result<(), StoreError> {
        self.write(requests, &[])
    }

    /// Whether what is [secured](Self::secure) here outlives a loss of power.
    fn outlives_power(&self) -> bool;

    /// Writes bounds of use down and flushes them, with all that was written before. A bound replaces the one of the
    /// same limit and beginning; the latest three of a limit are kept. Takes milliseconds, or as long as the disk likes.
    ///
    /// # Errors
    /// When they cannot be written.
    fn secure(&self, bounds: &[Block]) -> Result<(), StoreError>;

    /// What an earlier process left beside its requests.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn legacy(&self) -> Result<Legacy, StoreError>;

    /// Notes, and flushes, that a process counts here from now on, on a machine that was booted under this id. With
    /// `lost`, the power was lost before: that much is noted as lost for good, and no bound is kept.
    ///
    /// # Errors
    /// When it cannot be written: nothing may be sent then.
    fn begin(&self, boot: &str, lost: Option<&[Lost]>) -> Result<(), StoreError>;

    /// Notes, and flushes, that the process has written everything.
    ///
    /// # Errors
    /// When it cannot be written. The next process finds out.
    fn end(&self) -> Result<(), StoreError>;

    /// All that was learned of a kind, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn learned(&self, kind: &str) -> Result<Vec<Learned>, StoreError>;

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
    #[error(
        "the lock {path}.lock could not be taken: {error}; give this user the right to write the file and its folder"
    )]
    Lock {
        /// The ledger's path.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// It is a database, and not one of ours.
    #[error("the database belongs to another program; give [store] url another path")]
    Foreign,
    /// It is no database, or parts of it cannot be read.
    #[error(
        "{0}: the file was left as it is. Restore a copy; or save what can be read, `sqlite3 FILE .recover | sqlite3 NEW`; or move it away to begin with an empty ledger, whose limits count from nothing"
    )]
    Damaged(String),
    /// Another program holds it.
    #[error("the database is locked by another program, such as an open `sqlite3`; end its transaction")]
    Busy,
    /// There is no room.
    #[error("there is no space left for the database; make room on its disk")]
    Full,
    /// It may not be written.
    #[error("the database cannot be written; give this user the right to write the file and its folder")]
    ReadOnly,
    /// What is about to be sent could not be written down.
    #[error("what is about to be sent cannot be written down: {0}")]
    Journal(#[from] std::io::Error),
    /// The database said no.
    #[error("the database failed: {0}")]
    Database(rusqlite::Error),
    /// Another thread failed while it held the database.
    #[error("the database is not usable any more; restart the gateway")]
    Poisoned,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Damaged("the file is not a database".to_owned()),
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged(format!("the database is damaged ({error})")),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly,
            _ => Self::Database(error),
        }
    }
}
