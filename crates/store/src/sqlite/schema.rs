//! The ledger's tables, and how a ledger of an earlier version is brought up to date.

use rusqlite::Connection;

use super::BUSY;
use crate::StoreError;

/// Version of the schema; see `prepare`.
pub(super) const VERSION: i64 = 6;
/// Marks a database as a ledger of ours: "Frwy".
pub(super) const APPLICATION: i64 = 0x4672_7779;

/// Ids sort by the time at which their requests came, so that a search by time needs no index, and a row costs one
/// place in one tree.
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
        candidates TEXT NOT NULL,
        input_estimate INTEGER,
        max_output INTEGER,
        min_quality INTEGER,
        features TEXT,
        named_tier INTEGER,
        named_data INTEGER,
        waited_us INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE attempt (
        request TEXT NOT NULL,
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
        counted_us INTEGER NOT NULL DEFAULT 0,
        held TEXT,
        paid INTEGER,
        trains INTEGER,
        retention_days INTEGER,
        PRIMARY KEY (request, ordinal)
    ) WITHOUT ROWID;
";

/// From version 1. When an attempt was counted was not written then: its end and two seconds are late enough.
const FROM_1: &str = "
    ALTER TABLE attempt ADD COLUMN counted_us INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE attempt ADD COLUMN held TEXT;
    UPDATE attempt SET counted_us = took_us + 2000000;
    DROP INDEX request_received_at;
    DROP INDEX attempt_sent_at;
";

/// New in version 3: what was learned, one value for a kind and a name.
const LEARNED: &str = "
    CREATE TABLE learned (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (kind, name)
    ) WITHOUT ROWID;
";

/// New in version 4: what bounds the use that a loss of power can make forgotten, what was lost so, and whether the last
/// process wrote everything.
const BOUNDS: &str = "
    CREATE TABLE bound (
        name TEXT NOT NULL,
        since INTEGER NOT NULL,
        most INTEGER NOT NULL,
        PRIMARY KEY (name, since)
    ) WITHOUT ROWID;
    CREATE TABLE lost (
        name TEXT NOT NULL,
        units INTEGER NOT NULL,
        sent_from INTEGER NOT NULL,
        counted_to INTEGER NOT NULL
    );
    CREATE TABLE process (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        boot TEXT NOT NULL,
        is_whole INTEGER NOT NULL
    );
";

/// New in version 5: what a request needs to be decided again. Of earlier rows it is not known.
const ASKED: &str = "
    ALTER TABLE request ADD COLUMN input_estimate INTEGER;
    ALTER TABLE request ADD COLUMN max_output INTEGER;
    ALTER TABLE request ADD COLUMN min_quality INTEGER;
    ALTER TABLE request ADD COLUMN features TEXT;
    ALTER TABLE request ADD COLUMN named_tier INTEGER;
    ALTER TABLE request ADD COLUMN named_data INTEGER;
    ALTER TABLE attempt ADD COLUMN paid INTEGER;
    ALTER TABLE attempt ADD COLUMN trains INTEGER;
    ALTER TABLE attempt ADD COLUMN retention_days INTEGER;
";

/// New in version 6: how long a request waited for quota. Before, none did.
const WAITED: &str = "
    ALTER TABLE request ADD COLUMN waited_us INTEGER NOT NULL DEFAULT 0;
";

/// Looks whose database this is before anything is changed, then brings it up to date.
pub(super) fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY)?;
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (found, application) = (pragma("user_version")?, pragma("application_id")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    // Damage is better found now than when a page of it is needed. Takes 0.2 s for 100,000 requests.
    let soundness: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if soundness != "ok" {
        return Err(StoreError::Damaged(format!("the database is damaged ({soundness})")));
    }
    // SQLite opens a file that it may not write for reading, and says nothing.
    if connection.is_readonly("main")? {
        return Err(StoreError::ReadOnly);
    }
    let ours = application == APPLICATION || (application == 0 && found == 1) || tables == 0;
    if !ours {
        return Err(StoreError::Foreign);
    }
    if found > VERSION {
        return Err(StoreError::Newer { found, known: VERSION });
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let change = match found {
        0 => format!("{SCHEMA}{LEARNED}{BOUNDS}"),
        1 => format!("{FROM_1}{LEARNED}{BOUNDS}{ASKED}{WAITED}"),
        2 => format!("{LEARNED}{BOUNDS}{ASKED}{WAITED}"),
        3 => format!("{BOUNDS}{ASKED}{WAITED}"),
        4 => format!("{ASKED}{WAITED}"),
        5 => WAITED.to_owned(),
        _ => return Ok(()),
    };
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {change} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
    ))?;
    Ok(())
}
