//! Whether the ledger has what providers saw and clients got: nothing missing, nothing twice.

use std::collections::BTreeMap;

use rusqlite::{Connection, OpenFlags};

use super::{Answered, Pressed};
use crate::gateway::Home;

/// Compares the ledger of a gateway that has ended with the providers' logs and the answers that clients got whole.
pub(crate) fn check(home: &Home, pressed: &[Pressed], answered: &[Answered]) {
    let path = home.path().join("ledger.db");
    let ledger = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the ledger");

    let mut rows: BTreeMap<String, (String, u64)> = BTreeMap::new();
    let mut found = ledger
        .prepare("SELECT id, outcome, (SELECT count(*) FROM attempt WHERE request = request.id) FROM request")
        .expect("a query");
    let found = found.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get::<_, i64>(2)?)))).expect("rows");
    for row in found {
        let (id, (outcome, attempts)): (String, (String, i64)) = row.expect("a row");
        let earlier = rows.insert(id, (outcome, u64::try_from(attempts).unwrap_or(0)));
        assert!(earlier.is_none(), "a request stands in the ledger twice: {earlier:?}");
    }
    for answer in answered {
        let (outcome, attempts) = rows.get(&answer.id).unwrap_or_else(|| panic!("{} is not in the ledger", answer.id));
        // A kill can come before the ledger is told how a request ended, but not before it knows of it.
        assert!(["answered", "interrupted"].contains(&outcome.as_str()), "{}: {outcome}", answer.id);
        assert_eq!(*attempts, answer.attempts, "attempts of {}", answer.id);
    }

    for Pressed { target, upstream } in pressed {
        let count = |condition: &str| -> u64 {
            let query = format!("SELECT count(*) FROM attempt WHERE account = ?1 AND outcome {condition}");
            let count: i64 = ledger.query_row(&query, [target.id], |row| row.get(0)).expect("a count");
            u64::try_from(count).unwrap_or(0)
        };
        let sent = count("NOT IN ('interrupted', 'connection_failed')");
        // What was written down and then cut short by a kill may not have got there.
        let most = sent + count("= 'interrupted'");
        let arrived = upstream.asked() as u64;
        assert!((sent..=most).contains(&arrived), "{}: {arrived} arrived, the ledger has {sent} to {most}", target.id);
    }
}
