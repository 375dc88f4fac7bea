//! What must outlive a loss of power: few rows, each flushed with all that was written before it.

use freeway_quota::{Block, Lost};
use freeway_types::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{integer, natural};
use crate::StoreError;
use crate::record::Legacy;

pub(super) fn secure(writer: &mut Connection, bounds: &[Block]) -> Result<(), StoreError> {
    flushed(writer, |transaction| {
        let mut row = transaction.prepare_cached("INSERT OR REPLACE INTO bound VALUES (?1,?2,?3)")?;
        // Two windows can be near at once, and of a count that slides the stretch before still matters.
        let mut older = transaction.prepare_cached(
            "DELETE FROM bound WHERE name = ?1 AND since < (
                 SELECT min(since) FROM (SELECT since FROM bound WHERE name = ?1 ORDER BY since DESC LIMIT 3))",
        )?;
        for Block { limit, since, most } in bounds {
            row.execute(params![limit, since.as_micros(), integer(*most)])?;
            older.execute([limit])?;
        }
        Ok(())
    })
}

pub(super) fn begin(writer: &mut Connection, boot: &str, lost: Option<&[Lost]>) -> Result<(), StoreError> {
    flushed(writer, |transaction| {
        if let Some(lost) = lost {
            transaction.execute("DELETE FROM bound", [])?;
            let mut row = transaction.prepare("INSERT INTO lost VALUES (?1,?2,?3,?4)")?;
            for Lost { limit, units, from, to } in lost {
                row.execute(params![limit, integer(*units), from.as_micros(), to.as_micros()])?;
            }
        }
        transaction.execute("INSERT OR REPLACE INTO process VALUES (1, ?1, 0)", [boot])?;
        Ok(())
    })
}

pub(super) fn end(writer: &mut Connection) -> Result<(), StoreError> {
    flushed(writer, |transaction| {
        transaction.execute("UPDATE process SET is_whole = 1", [])?;
        Ok(())
    })
}

pub(super) fn legacy(reader: &Connection) -> Result<Legacy, StoreError> {
    let process =
        reader.query_row("SELECT boot, is_whole FROM process", [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (boot, is_whole) = process.map_or((None, true), |(boot, is_whole)| (Some(boot), is_whole));
    let mut rows = reader.prepare("SELECT name, since, most FROM bound")?;
    let bounds = rows.query_map([], |row| {
        let since = Timestamp::from_micros(row.get(1)?);
        Ok(Block { limit: row.get(0)?, since, most: natural(row, 2)? })
    })?;
    let bounds = bounds.collect::<Result<_, _>>()?;
    let mut rows = reader.prepare("SELECT name, units, sent_from, counted_to FROM lost")?;
    let lost = rows.query_map([], |row| {
        let (from, to) = (Timestamp::from_micros(row.get(2)?), Timestamp::from_micros(row.get(3)?));
        Ok(Lost { limit: row.get(0)?, units: natural(row, 1)?, from, to })
    })?;
    Ok(Legacy { boot, is_whole, bounds, lost: lost.collect::<Result<_, _>>()? })
}

/// Does something in one transaction that is flushed before this returns.
fn flushed(
    writer: &mut Connection,
    change: impl FnOnce(&Transaction<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    writer.pragma_update(None, "synchronous", "FULL")?;
    let done = (|| {
        let transaction = writer.transaction()?;
        change(&transaction)?;
        Ok(transaction.commit()?)
    })();
    writer.pragma_update(None, "synchronous", "NORMAL")?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secured_is_flushed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Connection::open(folder.path().join("ledger.db")).unwrap();
        super::super::prepare(&writer).unwrap();
        let level = |connection: &Connection| -> i64 {
            connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap()
        };
        let (normal, full) = (1, 2);
        let mut within = 0;
        flushed(&mut writer, |transaction| {
            within = level(transaction);
            Ok(())
        })
        .unwrap();
        assert_eq!((within, level(&writer)), (full, normal));
        flushed(&mut writer, |_| Err(StoreError::Full)).unwrap_err();
        assert_eq!(level(&writer), normal, "after a failure, too");
    }
}
