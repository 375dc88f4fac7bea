//! A ledger that is only read, whoever writes it meanwhile: for looking back at whole days.
//!
//! No lock is taken and nothing is brought up to date. A ledger of an earlier version is read as it is, and what it
//! lacks of a request is not known.

use std::path::Path;

use freeway_types::Timestamp;
use rusqlite::{Connection, OpenFlags, params};

use super::schema::{APPLICATION, VERSION};
use super::{BUSY, first_id, natural, read_attempt, read_request};
use crate::StoreError;
use crate::record::RequestRecord;

/// The version from which on what a request asked for is written, and how its targets treat it.
const WITH_ASKED: i64 = 5;
/// The first version that says how long a request waited.
const WITH_WAITED: i64 = 6;
/// A request's id is made this soon before or after it came, at most.
const ID_SLACK: std::time::Duration = std::time::Duration::from_secs(60);

/// A ledger that is only read.
#[derive(Debug)]
pub struct Recorded {
    connection: Connection,
    version: i64,
}

/// How long a target took to its first content, as times of its answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstContents {
    /// `account/model`.
    pub target: String,
    /// Answers that were measured.
    pub answers: u64,
    /// Of these, the ones below half a second.
    pub below_half_a_second: u64,
    /// Of all, the ones below two seconds.
    pub below_two_seconds: u64,
}

impl Recorded {
    /// Opens the ledger in a file.
    ///
    /// # Errors
    /// When it cannot be opened or read, is not a ledger, or is of a newer version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (version, application) = (pragma("user_version")?, pragma("application_id")?);
        if application != APPLICATION && !(application == 0 && version == 1) {
            return Err(StoreError::Foreign);
        }
        if version > VERSION {
            return Err(StoreError::Newer { found: version, known: VERSION });
        }
        Ok(Self { connection, version })
    }

    /// The days in UTC that have requests, such as `2026-11-22`, oldest first, with how many there are.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn days(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let mut rows = self
            .connection
            .prepare("SELECT date(received_at / 1000000, 'unixepoch'), count(*) FROM request GROUP BY 1 ORDER BY 1")?;
        let rows = rows.query_map([], |row| Ok((row.get(0)?, natural(row, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Shows the requests that came from one instant until before another, with their attempts, in the order in which
    /// they came.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn each(
        &self,
        from: Timestamp,
        until: Timestamp,
        mut show: impl FnMut(RequestRecord),
    ) -> Result<(), StoreError> {
        let (asked, handling) = match self.version >= WITH_ASKED {
            true => (
                "input_estimate, max_output, min_quality, features, named_tier, named_data",
                "paid, trains, retention_days",
            ),
            false => ("NULL, NULL, NULL, NULL, NULL, NULL", "NULL, NULL, NULL"),
        };
        let waited = if self.version >= WITH_WAITED { "waited_us" } else { "0" };
        let later = match self.version {
            1 => "took_us + 2000000, NULL",
            _ => "counted_us, held",
        };
        // In one transaction, so that a request has the attempts that were written with it.
        let reading = self.connection.unchecked_transaction()?;
        let mut requests = reading.prepare(&format!(
            "SELECT id, received_at, took_us, first_content_us, caller, model, tier, data, stream, status, outcome, error,
                    served_by, candidates, {asked}, {waited}
             FROM request WHERE id >= ?1 AND id < ?2 AND received_at >= ?3 AND received_at < ?4 ORDER BY received_at, id"
        ))?;
        let mut attempts = reading.prepare(&format!(
            "SELECT request, ordinal, account, model, key, sent_at, took_us, status, outcome, message, input,
                    cached_input, output, reasoning, reported, cost, units, {later}, {handling}
             FROM attempt WHERE request = ?1 ORDER BY ordinal"
        ))?;
        let (first, last) = (first_id(from.before(ID_SLACK)), first_id(until.after(ID_SLACK)));
        let mut rows = requests.query(params![first, last, from.as_micros(), until.as_micros()])?;
        while let Some(row) = rows.next()? {
            let mut request = read_request(row)?;
            let id: String = row.get(0)?;
            request.attempts = attempts.query_map([id], read_attempt)?.collect::<Result<_, _>>()?;
            show(request);
        }
        Ok(())
    }

    /// How long each target took to the first content of what it answered, of requests that came from one instant
    /// until before another. It is measured from when the attempt that was answered was sent.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn first_contents(&self, from: Timestamp, until: Timestamp) -> Result<Vec<FirstContents>, StoreError> {
        let mut rows = self.connection.prepare(
            "SELECT target, count(*), sum(took < 500000), sum(took < 2000000) FROM (
                 SELECT request.served_by AS target,
                        request.first_content_us - (attempt.sent_at - request.received_at) AS took
                 FROM request JOIN attempt ON attempt.request = request.id AND attempt.outcome = 'answered'
                     AND attempt.account || '/' || attempt.model = request.served_by
                 WHERE request.id >= ?1 AND request.id < ?2 AND request.first_content_us IS NOT NULL)
             WHERE took >= 0 GROUP BY 1 ORDER BY 1",
        )?;
        let rows = rows.query_map([first_id(from), first_id(until)], |row| {
            let (target, answers) = (row.get(0)?, natural(row, 1)?);
            let (below_half_a_second, below_two_seconds) = (natural(row, 2)?, natural(row, 3)?);
            Ok(FirstContents { target, answers, below_half_a_second, below_two_seconds })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::earlier;
    use super::*;
    use crate::conformance::sample;
    use crate::{Sqlite, Store};

    const DAY: i64 = 86_400;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn day(ledger: &Recorded, day: i64) -> Vec<RequestRecord> {
        let mut found = Vec::new();
        ledger.each(at(day * DAY), at((day + 1) * DAY), |request| found.push(request)).unwrap();
        found
    }

    #[test]
    fn a_day_is_read_whole_beside_who_writes_and_its_bounds_are_midnights() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let writer = Sqlite::open(&path).unwrap();
        // A request's number is how many microseconds after the instant it came.
        let records = [
            RequestRecord { received_at: Timestamp::from_micros(DAY * 1_000_000 - 1), ..sample(1, at(DAY)) },
            sample(0, at(DAY)),
            sample(3, at(DAY + 5)),
            RequestRecord { received_at: Timestamp::from_micros(2 * DAY * 1_000_000 - 1), ..sample(9, at(2 * DAY)) },
            sample(0, at(2 * DAY)),
        ];
        writer.append(&records).unwrap();
        let ledger = Recorded::open(&path).unwrap();
        assert_eq!(day(&ledger, 1), records[1..4], "with their attempts, and what they asked for");
        let days = [("1970-01-01", 1), ("1970-01-02", 3), ("1970-01-03", 1)];
        assert_eq!(ledger.days().unwrap(), days.map(|(day, count)| (day.to_owned(), count)));

        let later = sample(4, at(DAY + 6));
        writer.append(std::slice::from_ref(&later)).unwrap();
        assert_eq!(day(&ledger, 1).len(), 4, "what is written meanwhile is seen");
    }

    #[test]
    fn a_ledger_of_an_earlier_version_is_read_as_it_is() {
        for version in [1, 4, 5] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ledger.db");
            let mut expected = earlier(&path, version);
            let ledger = Recorded::open(&path).unwrap();
            if ledger.version == 1 {
                expected.attempts.iter_mut().for_each(|attempt| attempt.counted_us = attempt.took_us + 2_000_000);
            }
            assert_eq!(day(&ledger, 0), [expected], "{version}");
            assert_eq!(ledger.first_contents(at(0), at(DAY)).unwrap().len(), 1, "{version}");
            drop(ledger);
            let found: i64 =
                Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
            assert_eq!(found, version, "it is not changed");
        }
    }

    #[test]
    fn first_contents_are_counted_from_when_the_target_was_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let took = |number: u64, micros: i64, first: Option<u64>| {
            let mut record = sample(number, at(10));
            record.first_content_us = first;
            record.attempts[1].sent_at = Timestamp::from_micros(record.received_at.as_micros() + micros);
            record
        };
        // The first time it failed.
        let mut again = took(7, 0, Some(1));
        again.attempts[0].account = "lab".to_owned();
        again.attempts[0].model = "small".to_owned();
        let records = [
            took(1, 0, Some(499_999)),
            took(2, 0, Some(500_000)),
            // It came late, because somebody else was asked first.
            took(3, 3_000_000, Some(3_000_001)),
            took(4, 0, Some(2_000_000)),
            // What it began was another's.
            took(5, 9, Some(8)),
            took(6, 0, None),
            again,
        ];
        Sqlite::open(&path).unwrap().append(&records).unwrap();
        let ledger = Recorded::open(&path).unwrap();
        let target = "lab/small".to_owned();
        let expected = FirstContents { target, answers: 5, below_half_a_second: 3, below_two_seconds: 4 };
        assert_eq!(ledger.first_contents(at(0), at(DAY)).unwrap(), [expected]);
        assert_eq!(ledger.first_contents(at(DAY), at(2 * DAY)).unwrap(), []);
    }

    #[test]
    fn what_is_not_a_ledger_is_refused_and_none_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.db");
        Recorded::open(&missing).unwrap_err();
        assert!(!missing.exists());
        let foreign = folder.path().join("foreign.db");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE song (title TEXT)").unwrap();
        assert!(matches!(Recorded::open(&foreign), Err(StoreError::Foreign)));
        let newer = folder.path().join("newer.db");
        drop(Sqlite::open(&newer).unwrap());
        Connection::open(&newer).unwrap().pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert!(matches!(Recorded::open(&newer), Err(StoreError::Newer { .. })));
    }
}
