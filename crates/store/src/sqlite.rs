//! SQLite, inside the program: the store for one process.
//!
//! One connection writes and one reads; write-ahead logging lets them go on side
//! by side. A commit survives the death of the process, and not a loss of power.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use freeway_types::{RequestId, Timestamp, Usage, UsageSource, Usd};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::record::{AttemptRecord, Page, RequestRecord, Spent, UsageKey, UsageRow};
use crate::{Store, StoreError};

/// Version of the schema; see `migrate`.
const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE request (
        id TEXT PRIMARY KEY,
        received_at INTEGER NOT NULL,
        took_us INTEGER NOT NULL,
        first_content_us INTEGER,
        caller TEXT NOT NULL,
        model TEXT NOT NULL,
        tier TEXT NOT NULL,
        data TEXT NOT NULL,
        stream INTEGER NOT NULL,
        status INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        error TEXT,
        served_by TEXT,
        candidates TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX request_received_at ON request (received_at);
    CREATE TABLE attempt (
        request TEXT NOT NULL REFERENCES request (id) ON DELETE CASCADE,
        ordinal INTEGER NOT NULL,
        account TEXT NOT NULL,
        model TEXT NOT NULL,
        key INTEGER,
        sent_at INTEGER NOT NULL,
        took_us INTEGER NOT NULL,
        status INTEGER,
        outcome TEXT NOT NULL,
        message TEXT,
        input INTEGER NOT NULL,
        cached_input INTEGER NOT NULL,
        output INTEGER NOT NULL,
        reasoning INTEGER NOT NULL,
        reported INTEGER NOT NULL,
        cost INTEGER,
        units INTEGER NOT NULL,
        PRIMARY KEY (request, ordinal)
    ) WITHOUT ROWID;
    CREATE INDEX attempt_sent_at ON attempt (sent_at);
";

/// A ledger in an SQLite file, or in memory.
pub struct Sqlite {
    /// Held while the ledger is open for writing. Two gateways on one ledger would each count for themselves.
    _lock: Option<File>,
    writer: Mutex<Connection>,
    /// `None` for a database in memory, which has only one connection.
    reader: Option<Mutex<Connection>>,
}

impl Sqlite {
    /// Opens a file; makes it, readable by its owner alone, if it is not there.
    ///
    /// # Errors
    /// When it cannot be opened, is not a database, is of a newer version, or another process has it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        restrict(path);
        let lock = lock(path)?;
        let writer = Connection::open(path)?;
        prepare(&writer)?;
        let reader =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        reader.busy_timeout(Duration::from_secs(5))?;
        Ok(Self { _lock: Some(lock), writer: Mutex::new(writer), reader: Some(Mutex::new(reader)) })
    }

    /// A ledger that is gone when it is dropped.
    ///
    /// # Errors
    /// When SQLite cannot be started.
    pub fn in_memory() -> Result<Self, StoreError> {
        let connection = Connection::open_in_memory()?;
        prepare(&connection)?;
        Ok(Self { _lock: None, writer: Mutex::new(connection), reader: None })
    }

    fn writer(&self) -> Result<MutexGuard<'_, Connection>, StoreError> {
        self.writer.lock().map_err(|_| StoreError::Poisoned)
    }

    fn reader(&self) -> Result<MutexGuard<'_, Connection>, StoreError> {
        match &self.reader {
            Some(reader) => reader.lock().map_err(|_| StoreError::Poisoned),
            None => self.writer(),
        }
    }
}

/// Takes the lock beside a ledger and writes our process id into it. The system gives it back when the process ends,
/// however it ends.
fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let unusable = |error: std::io::Error| StoreError::Lock { path: path.display().to_string(), error };
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&name).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(StoreError::Taken { holder: holder.trim().to_owned() });
        }
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes())).map_err(unusable)?;
    Ok(file)
}

/// Makes the file before SQLite does, so that nobody else can ever read it.
#[cfg(unix)]
fn restrict(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    // An error shows again, with its cause, when SQLite opens the file.
    let _ = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
}

#[cfg(not(unix))]
fn restrict(_path: &Path) {}

fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > VERSION {
        return Err(StoreError::Newer { found, known: VERSION });
    }
    if found == 0 {
        connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"))?;
    }
    Ok(())
}

impl Store for Sqlite {
    fn append(&self, requests: &[RequestRecord]) -> Result<(), StoreError> {
        let mut writer = self.writer()?;
        let transaction = writer.transaction()?;
        {
            let mut request_row = transaction.prepare_cached(
                "INSERT OR REPLACE INTO request VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)",
            )?;
            let mut attempt_row = transaction.prepare_cached(
                "INSERT OR REPLACE INTO attempt VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)",
            )?;
            for request in requests {
                let id = request.id.to_string();
                request_row.execute(params![
                    id,
                    request.received_at.as_micros(),
                    integer(request.took_us),
                    request.first_content_us.map(integer),
                    request.caller,
                    request.model,
                    request.tier,
                    request.data,
                    request.stream,
                    request.status,
                    request.outcome,
                    request.error,
                    request.served_by,
                    request.candidates,
                ])?;
                for (ordinal, attempt) in request.attempts.iter().enumerate() {
                    attempt_row.execute(params![
                        id,
                        integer(ordinal as u64),
                        attempt.account,
                        attempt.model,
                        attempt.key,
                        attempt.sent_at.as_micros(),
                        integer(attempt.took_us),
                        attempt.status,
                        attempt.outcome,
                        attempt.message,
                        integer(attempt.usage.input),
                        integer(attempt.usage.cached_input),
                        integer(attempt.usage.output),
                        integer(attempt.usage.reasoning),
                        attempt.usage_source == UsageSource::Reported,
                        attempt.cost.map(Usd::as_picos),
                        integer(attempt.units),
                    ])?;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn request(&self, id: RequestId) -> Result<Option<RequestRecord>, StoreError> {
        let reader = self.reader()?;
        let key = id.to_string();
        let mut rows = reader.prepare_cached("SELECT * FROM request WHERE id = ?1")?;
        let Some(mut request) = rows.query_row([&key], read_request).optional()? else { return Ok(None) };
        let mut rows = reader.prepare_cached("SELECT * FROM attempt WHERE request = ?1 ORDER BY ordinal")?;
        request.attempts = rows.query_map([&key], read_attempt)?.collect::<Result<_, _>>()?;
        Ok(Some(request))
    }

    fn requests(&self, page: Page) -> Result<Vec<RequestRecord>, StoreError> {
        let reader = self.reader()?;
        let mut rows = reader.prepare_cached(
            "SELECT * FROM request WHERE (?1 IS NULL OR id < ?1) AND (?3 IS NULL OR caller = ?3) ORDER BY id DESC LIMIT ?2",
        )?;
        let before = page.before.map(|id| id.to_string());
        Ok(rows.query_map(params![before, page.most, page.caller], read_request)?.collect::<Result<_, _>>()?)
    }

    fn usage(&self, by: UsageKey, since: Timestamp) -> Result<Vec<UsageRow>, StoreError> {
        let key = match by {
            UsageKey::Provider => "attempt.account",
            UsageKey::Model => "attempt.account || '/' || attempt.model",
            UsageKey::Key => "request.caller",
            UsageKey::Day => "date(attempt.sent_at / 1000000, 'unixepoch')",
        };
        let reader = self.reader()?;
        let mut rows = reader.prepare_cached(&format!(
            "SELECT {key}, sum(attempt.outcome = 'answered'), count(*), sum(input), sum(output),
                    sum(NOT reported), coalesce(sum(cost), 0), sum(cost IS NULL)
             FROM attempt JOIN request ON request.id = attempt.request
             WHERE attempt.sent_at >= ?1 GROUP BY 1 ORDER BY 1"
        ))?;
        let rows = rows.query_map([since.as_micros()], |row| {
            Ok(UsageRow {
                name: row.get(0)?,
                answered: natural(row, 1)?,
                attempts: natural(row, 2)?,
                input: natural(row, 3)?,
                output: natural(row, 4)?,
                estimated: natural(row, 5)?,
                cost: Usd::from_picos(row.get(6)?),
                unpriced: natural(row, 7)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn spent(&self, since: Timestamp) -> Result<Vec<Spent>, StoreError> {
        let reader = self.reader()?;
        let mut rows = reader.prepare_cached(
            "SELECT * FROM attempt WHERE sent_at >= ?1 AND outcome <> 'connection_failed' ORDER BY sent_at",
        )?;
        let rows = rows.query_map([since.as_micros()], |row| {
            let attempt = read_attempt(row)?;
            Ok(Spent {
                answered: attempt.outcome == "answered",
                account: attempt.account,
                model: attempt.model,
                at: attempt.sent_at,
                usage: attempt.usage,
                cost: attempt.cost.unwrap_or_default(),
                units: attempt.units,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn forget(&self, before: Timestamp) -> Result<usize, StoreError> {
        let writer = self.writer()?;
        Ok(writer.execute("DELETE FROM request WHERE received_at < ?1", [before.as_micros()])?)
    }
}

fn read_request(row: &Row<'_>) -> rusqlite::Result<RequestRecord> {
    Ok(RequestRecord {
        id: row.get::<_, String>(0)?.parse().unwrap_or(RequestId::new(0, 0)),
        received_at: Timestamp::from_micros(row.get(1)?),
        took_us: natural(row, 2)?,
        first_content_us: row.get::<_, Option<i64>>(3)?.and_then(|us| us.try_into().ok()),
        caller: row.get(4)?,
        model: row.get(5)?,
        tier: row.get(6)?,
        data: row.get(7)?,
        stream: row.get(8)?,
        status: row.get(9)?,
        outcome: row.get(10)?,
        error: row.get(11)?,
        served_by: row.get(12)?,
        candidates: row.get(13)?,
        attempts: Vec::new(),
    })
}

fn read_attempt(row: &Row<'_>) -> rusqlite::Result<AttemptRecord> {
    Ok(AttemptRecord {
        account: row.get(2)?,
        model: row.get(3)?,
        key: row.get(4)?,
        sent_at: Timestamp::from_micros(row.get(5)?),
        took_us: natural(row, 6)?,
        status: row.get(7)?,
        outcome: row.get(8)?,
        message: row.get(9)?,
        usage: Usage {
            input: natural(row, 10)?,
            cached_input: natural(row, 11)?,
            output: natural(row, 12)?,
            reasoning: natural(row, 13)?,
        },
        usage_source: if row.get(14)? { UsageSource::Reported } else { UsageSource::Estimated },
        cost: row.get::<_, Option<i64>>(15)?.map(Usd::from_picos),
        units: natural(row, 16)?,
    })
}

/// SQLite's integers are signed; ours never come near the difference.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn natural(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms_in_memory_and_in_a_file() {
        crate::conformance::run(&Sqlite::in_memory().unwrap());
        let folder = tempfile::tempdir().unwrap();
        crate::conformance::run(&Sqlite::open(&folder.path().join("ledger.db")).unwrap());
    }

    #[test]
    fn what_was_written_is_there_after_reopening_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let record = crate::conformance::sample(1, Timestamp::from_secs(10));
        Sqlite::open(&path).unwrap().append(std::slice::from_ref(&record)).unwrap();
        assert_eq!(Sqlite::open(&path).unwrap().request(record.id).unwrap(), Some(record));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_second_holder_is_refused_with_the_firsts_process_id() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let first = Sqlite::open(&path).unwrap();
        let refused = Sqlite::open(&path).err().unwrap().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        Sqlite::open(&path).unwrap();
    }

    #[test]
    fn a_newer_database_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        drop(Sqlite::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert!(matches!(Sqlite::open(&path), Err(StoreError::Newer { .. })));
        std::fs::write(folder.path().join("text.db"), "this is not a database, it is a text that is long enough")
            .unwrap();
        assert!(Sqlite::open(&folder.path().join("text.db")).is_err());
    }
}
