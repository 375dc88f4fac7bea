//! SQLite, inside the program: the store for one process.
//!
//! One connection writes and one reads; write-ahead logging lets them go on side
//! by side. A commit survives the death of the process, and not a loss of power;
//! only what bounds the use that can be lost is flushed (`sqlite/securing.rs`).

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use freeway_quota::{Block, Lost};
use freeway_types::{Asked, Feature, FeatureSet, Handling, Quality, RequestId, Timestamp, Usage, UsageSource, Usd};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::journal::Journal;
use crate::record::{
    AttemptRecord, Dispatch, INTERRUPTED, Learned, Legacy, Page, RequestRecord, Spent, UsageKey, UsageRow,
};
use crate::{Store, StoreError};
use schema::prepare;

pub use recorded::{FirstContents, Recorded};

mod recorded;
mod schema;
mod securing;
#[cfg(test)]
mod tests;

/// How long the database may be held by another program before that is an error.
const BUSY: Duration = Duration::from_secs(5);

/// An attempt is sent so long after its request came, at most.
const LONGEST_REQUEST: Duration = Duration::from_secs(24 * 3600);

/// A ledger in an SQLite file, or in memory.
pub struct Sqlite {
    /// Held while the ledger is open for writing. Two gateways on one ledger would each count for themselves.
    _lock: Option<File>,
    writer: Mutex<Connection>,
    /// `None` for a database in memory, which has only one connection.
    reader: Option<Mutex<Connection>>,
    /// `None` for a database in memory, which nothing outlives.
    journal: Option<Mutex<Journal>>,
    left: Mutex<Left>,
}

/// What an earlier process left in its journal.
#[derive(Default)]
struct Left {
    segments: Vec<PathBuf>,
    dispatches: Vec<Dispatch<'static>>,
}

impl Sqlite {
    /// Opens a file; makes it, readable by its owner alone, if it is not there.
    ///
    /// # Errors
    /// When it cannot be opened, is not a ledger, is of a newer version, or another process has it. A file that is
    /// there is not changed then.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        restrict(path);
        let lock = lock(path)?;
        let writer = Connection::open(path)?;
        prepare(&writer)?;
        let reader =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        reader.busy_timeout(BUSY)?;
        let (journal, segments, dispatches) = Journal::open(path)?;
        Ok(Self {
            _lock: Some(lock),
            writer: Mutex::new(writer),
            reader: Some(Mutex::new(reader)),
            journal: Some(Mutex::new(journal)),
            left: Mutex::new(Left { segments, dispatches }),
        })
    }

    /// A ledger that is gone when it is dropped.
    ///
    /// # Errors
    /// When SQLite cannot be started.
    pub fn in_memory() -> Result<Self, StoreError> {
        let connection = Connection::open_in_memory()?;
        prepare(&connection)?;
        let left = Mutex::new(Left::default());
        Ok(Self { _lock: None, writer: Mutex::new(connection), reader: None, journal: None, left })
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

impl Store for Sqlite {
    fn dispatched(&self, dispatch: &Dispatch<'_>) -> Result<(), StoreError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        Ok(journal.lock().map_err(|_| StoreError::Poisoned)?.write(dispatch)?)
    }

    fn recover(&self, now: Timestamp) -> Result<usize, StoreError> {
        let left = std::mem::take(&mut *self.left.lock().map_err(|_| StoreError::Poisoned)?);
        let mut lost: BTreeMap<RequestId, RequestRecord> = BTreeMap::new();
        for dispatch in left.dispatches {
            let id = dispatch.request;
            if !lost.contains_key(&id) && self.request(id)?.is_some() {
                continue;
            }
            let mut record = dispatch.interrupted(now);
            match lost.get_mut(&id) {
                Some(earlier) => earlier.attempts.append(&mut record.attempts),
                None => _ = lost.insert(id, record),
            }
        }
        let lost: Vec<RequestRecord> = lost.into_values().collect();
        self.append(&lost)?;
        for segment in left.segments {
            // One that stays is read again at the next start, and found to be taken in.
            let _ = std::fs::remove_file(segment);
        }
        Ok(lost.len())
    }

    fn write(&self, requests: &[RequestRecord], learned: &[Learned]) -> Result<(), StoreError> {
        let mut writer = self.writer()?;
        let transaction = writer.transaction()?;
        {
            let mut request_row = transaction.prepare_cached(
                "INSERT OR REPLACE INTO request VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21)",
            )?;
            let mut attempt_row = transaction.prepare_cached(
                "INSERT OR REPLACE INTO attempt VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22)",
            )?;
            for request in requests {
                let id = request.id.to_string();
                let asked = request.asked.as_ref();
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
                    asked.map(|asked| integer(asked.input)),
                    asked.and_then(|asked| asked.max_output).map(integer),
                    asked.map(|asked| asked.min_quality.get()),
                    asked.map(|asked| words(asked.features)),
                    asked.map(|asked| asked.named_tier),
                    asked.map(|asked| asked.named_data),
                    integer(request.waited_us),
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
                        integer(attempt.counted_us),
                        attempt.held.as_ref().and_then(|held| serde_json::to_string(held).ok()),
                        attempt.handling.map(|handling| handling.paid),
                        attempt.handling.and_then(|handling| handling.trains),
                        attempt.handling.and_then(|handling| handling.retention_days),
                    ])?;
                }
            }
        }
        for fact in learned {
            let (kind, name) = (&fact.kind, &fact.name);
            match &fact.value {
                Some(value) => transaction
                    .prepare_cached("INSERT OR REPLACE INTO learned VALUES (?1,?2,?3,?4)")?
                    .execute(params![kind, name, value, fact.at.as_micros()])?,
                None => transaction
                    .prepare_cached("DELETE FROM learned WHERE kind = ?1 AND name = ?2")?
                    .execute(params![kind, name])?,
            };
        }
        transaction.commit()?;
        drop(writer);
        if let Some(journal) = &self.journal {
            let settled = requests.iter().map(|request| request.id);
            journal.lock().map_err(|_| StoreError::Poisoned)?.settled(settled);
        }
        Ok(())
    }

    fn outlives_power(&self) -> bool {
        self.journal.is_some()
    }

    fn secure(&self, bounds: &[Block]) -> Result<(), StoreError> {
        if bounds.is_empty() || !self.outlives_power() {
            return Ok(());
        }
        securing::secure(&mut *self.writer()?, bounds)
    }

    fn legacy(&self) -> Result<Legacy, StoreError> {
        securing::legacy(&*self.reader()?)
    }

    fn begin(&self, boot: &str, lost: Option<&[Lost]>) -> Result<(), StoreError> {
        if !self.outlives_power() {
            return Ok(());
        }
        securing::begin(&mut *self.writer()?, boot, lost)
    }

    fn end(&self) -> Result<(), StoreError> {
        if !self.outlives_power() {
            return Ok(());
        }
        securing::end(&mut *self.writer()?)
    }

    fn learned(&self, kind: &str) -> Result<Vec<Learned>, StoreError> {
        let reader = self.reader()?;
        let mut rows = reader.prepare_cached("SELECT name, value, at FROM learned WHERE kind = ?1 ORDER BY name")?;
        let rows = rows.query_map([kind], |row| {
            Ok(Learned {
                kind: kind.to_owned(),
                name: row.get(0)?,
                value: Some(row.get(1)?),
                at: Timestamp::from_micros(row.get(2)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
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
             WHERE attempt.sent_at >= ?1 AND attempt.request >= ?2 GROUP BY 1 ORDER BY 1"
        ))?;
        let rows = rows.query_map(params![since.as_micros(), earliest(since)], |row| {
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
            "SELECT * FROM attempt WHERE sent_at >= ?1 AND request >= ?2 AND outcome <> 'connection_failed' ORDER BY sent_at",
        )?;
        let rows = rows.query_map(params![since.as_micros(), earliest(since)], |row| {
            let attempt = read_attempt(row)?;
            let later = |micros: u64| attempt.sent_at.after(Duration::from_micros(micros));
            Ok(Spent {
                answered: attempt.outcome == "answered",
                interrupted: attempt.outcome == INTERRUPTED,
                known: attempt.held.is_none()
                    || attempt.outcome == "answered"
                    || attempt.usage_source == UsageSource::Reported,
                counted_at: later(attempt.counted_us),
                ended_at: later(attempt.took_us),
                sent_at: attempt.sent_at,
                account: attempt.account,
                model: attempt.model,
                usage: attempt.usage,
                cost: attempt.cost.unwrap_or_default(),
                units: attempt.units,
                held: attempt.held,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn forget(&self, before: Timestamp) -> Result<usize, StoreError> {
        let mut writer = self.writer()?;
        let transaction = writer.transaction()?;
        let bound = first_id(before);
        transaction.execute("DELETE FROM attempt WHERE request < ?1", [&bound])?;
        let forgotten = transaction.execute("DELETE FROM request WHERE id < ?1", [&bound])?;
        transaction.execute("DELETE FROM lost WHERE counted_to < ?1", [before.as_micros()])?;
        transaction.commit()?;
        Ok(forgotten)
    }
}

/// The least id of a request that came at an instant.
fn first_id(at: Timestamp) -> String {
    RequestId::new(u64::try_from(at.as_micros() / 1000).unwrap_or(0), 0).to_string()
}

/// The least id of a request with an attempt since an instant.
fn earliest(since: Timestamp) -> String {
    first_id(since.before(LONGEST_REQUEST))
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
        asked: read_asked(row)?,
        waited_us: natural(row, 20)?,
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
        counted_us: natural(row, 17)?,
        held: row.get::<_, Option<String>>(18)?.and_then(|held| serde_json::from_str(&held).ok()),
        handling: read_handling(row)?,
    })
}

fn read_asked(row: &Row<'_>) -> rusqlite::Result<Option<Asked>> {
    let Some(min_quality) = row.get::<_, Option<u8>>(16)?.and_then(Quality::new) else { return Ok(None) };
    let features: String = row.get(17)?;
    Ok(Some(Asked {
        input: natural(row, 14)?,
        max_output: row.get::<_, Option<i64>>(15)?.and_then(|most| most.try_into().ok()),
        min_quality,
        features: features.split(' ').filter_map(Feature::parse).collect(),
        named_tier: row.get(18)?,
        named_data: row.get(19)?,
    }))
}

fn read_handling(row: &Row<'_>) -> rusqlite::Result<Option<Handling>> {
    let Some(paid) = row.get(19)? else { return Ok(None) };
    Ok(Some(Handling { paid, trains: row.get(20)?, retention_days: row.get(21)? }))
}

/// Features as the ledger keeps them: their words, with blanks between.
fn words(features: FeatureSet) -> String {
    let mut text = String::new();
    for feature in features.iter() {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(feature.as_str());
    }
    text
}

/// SQLite's integers are signed; ours never come near the difference.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn natural(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0))
}
