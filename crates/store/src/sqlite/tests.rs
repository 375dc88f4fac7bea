//! A ledger in a file: whose it is, of which version, and what is found broken.

use super::*;

#[test]
fn conforms_in_memory_and_in_a_file() {
    crate::conformance::run(&Sqlite::in_memory().unwrap());
    let folder = tempfile::tempdir().unwrap();
    crate::conformance::run(&Sqlite::open(&folder.path().join("ledger.db")).unwrap());
    crate::conformance::run_killed(|| Box::new(Sqlite::open(&folder.path().join("killed.db")).unwrap()));
    crate::conformance::run_bounds(|| Box::new(Sqlite::open(&folder.path().join("bounds.db")).unwrap()));
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
fn what_is_not_a_ledger_of_ours_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, make: &dyn Fn(&Path), word: &str| {
        let path = folder.path().join(name);
        make(&path);
        let before = std::fs::read(&path).unwrap();
        let refused = Sqlite::open(&path).err().unwrap().to_string();
        assert!(refused.contains(word), "{name}: {refused}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "{name}");
    };
    let newer = |path: &Path| {
        drop(Sqlite::open(path).unwrap());
        Connection::open(path).unwrap().pragma_update(None, "user_version", schema::VERSION + 1).unwrap();
    };
    check("newer.db", &newer, "newer version");
    let text = |path: &Path| std::fs::write(path, "a text that is long enough to be no database at all").unwrap();
    check("text.db", &text, "not a database");
    let foreign = |path: &Path| {
        Connection::open(path).unwrap().execute_batch("CREATE TABLE song (title TEXT)").unwrap();
    };
    check("foreign.db", &foreign, "another program");
    let torn = |path: &Path| {
        let ledger = Sqlite::open(path).unwrap();
        let records: Vec<_> =
            (0..200).map(|number| crate::conformance::sample(number, Timestamp::from_secs(10))).collect();
        ledger.append(&records).unwrap();
        drop(ledger);
        let whole = std::fs::read(path).unwrap();
        std::fs::write(path, &whole[..whole.len() / 2]).unwrap();
    };
    check("torn.db", &torn, "damaged");
}

/// A ledger of an earlier version with one request in it: today's, less what has come since. What it lacks of the
/// request is not known afterwards.
pub(super) fn earlier(path: &Path, version: i64) -> RequestRecord {
    let mut record = crate::conformance::sample(1, Timestamp::from_secs(10));
    Sqlite::open(path).unwrap().append(std::slice::from_ref(&record)).unwrap();
    let column = |table: &str, name: &str| format!("ALTER TABLE {table} DROP COLUMN {name};");
    let columns = |table: &str, names: &[&str]| names.iter().map(|name| column(table, name)).collect::<String>();
    let mut less = columns("request", &["waited_us"]);
    record.waited_us = 0;
    if version < 5 {
        let asked = ["input_estimate", "max_output", "min_quality", "features", "named_tier", "named_data"];
        less += &columns("request", &asked);
        less += &columns("attempt", &["paid", "trains", "retention_days"]);
        record.asked = None;
        record.attempts.iter_mut().for_each(|attempt| attempt.handling = None);
    }
    if version < 4 {
        less += "DROP TABLE bound; DROP TABLE lost; DROP TABLE process;";
    }
    if version < 3 {
        less += "DROP TABLE learned;";
    }
    if version < 2 {
        less += &columns("attempt", &["counted_us", "held"]);
        less += "CREATE INDEX request_received_at ON request (received_at);
                 CREATE INDEX attempt_sent_at ON attempt (sent_at); PRAGMA application_id = 0;";
    }
    Connection::open(path).unwrap().execute_batch(&format!("{less} PRAGMA user_version = {version};")).unwrap();
    record
}

#[test]
fn a_ledger_of_version_1_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let record = earlier(&path, 1);
    let ledger = Sqlite::open(&path).unwrap();
    let found = ledger.request(record.id).unwrap().unwrap();
    assert_eq!((&found.attempts[1].model, found.attempts[1].counted_us), (&record.attempts[1].model, 2_001_000));
    drop(ledger);
    Sqlite::open(&path).unwrap();
}

#[test]
fn ledgers_of_later_versions_keep_their_rows_and_get_what_is_new() {
    for version in 2..schema::VERSION {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let record = earlier(&path, version);
        let ledger = Sqlite::open(&path).unwrap();
        assert_eq!(ledger.request(record.id).unwrap(), Some(record));
        assert!(ledger.legacy().unwrap().is_whole, "nothing is known to be lost: {version}");
        let fact = crate::conformance::learned("tokens", "lab/small", Some("{}"));
        ledger.write(&[], std::slice::from_ref(&fact)).unwrap();
        ledger.begin("boot", None).unwrap();
        drop(ledger);
        let ledger = Sqlite::open(&path).unwrap();
        assert_eq!(ledger.learned("tokens").unwrap(), [fact], "and is brought up to date once: {version}");
        let later = crate::conformance::sample(2, Timestamp::from_secs(10));
        ledger.append(std::slice::from_ref(&later)).unwrap();
        assert_eq!(ledger.request(later.id).unwrap(), Some(later), "what is new is kept whole: {version}");
        assert!(!ledger.legacy().unwrap().is_whole);
    }
}

#[test]
fn a_database_that_another_program_holds_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let ledger = Sqlite::open(&path).unwrap();
    ledger.writer().unwrap().busy_timeout(Duration::ZERO).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let record = crate::conformance::sample(1, Timestamp::from_secs(10));
    let refused = ledger.append(std::slice::from_ref(&record)).unwrap_err().to_string();
    assert!(refused.contains("locked"), "{refused}");
    other.execute_batch("COMMIT").unwrap();
    ledger.append(std::slice::from_ref(&record)).unwrap();
}
