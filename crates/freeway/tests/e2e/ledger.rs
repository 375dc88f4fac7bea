//! A ledger that cannot be written or read is said to be so: nothing is sent that is not written down, and no
//! database is ever begun anew in the place of another.
//!
//! Disks that fill up and folders that may not be written are made with mounts of the process's own, which needs
//! Linux and the right to make them.

#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use freeway_engine::Clock;
use freeway_store::{Sqlite, Store, conformance};
use freeway_types::Timestamp;
use rusqlite::Connection;

use crate::faults::Told;
use crate::gateway::{End, Gateway, Home, program};
use crate::http::Ask;
use crate::last_word::check_error;
use crate::patience::until;
use crate::upstream::Upstream;

/// A home whose ledger is `disk/ledger.db`.
fn home(upstream: &Upstream) -> Home {
    let home = Home::new(&format!("[store]\nurl = \"sqlite:disk/ledger.db\"\n{}", upstream.table()));
    std::fs::create_dir(home.path().join("disk")).unwrap();
    home
}

/// The program, serving.
fn serving(home: &Home) -> Command {
    let mut command = program();
    command.args(["serve", "--config"]).arg(home.config()).current_dir(home.path());
    command
}

/// The program, serving, after a shell script has been run in mounts of its own. `$1` is the home. `None`, with a word
/// of it, where the system lets nobody mount: there the test has nothing to stand on.
#[expect(clippy::print_stderr, reason = "a test that cannot be made says so")]
fn mounted(home: &Home, script: &str) -> Option<Command> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-ec"]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir(home.path());
        command
    };
    let probe = unshare().args(["mount -t tmpfs tmpfs \"$1\"", "sh"]).arg(home.path()).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("NOT TESTED: this system does not let a process mount anything of its own");
        return None;
    }
    let mut command = unshare();
    command.arg(format!("{script}\nshift; exec \"$@\"")).arg("sh").arg(home.path());
    command.arg(env!("CARGO_BIN_EXE_freeway")).args(["serve", "--config"]).arg(home.config());
    Some(command)
}

/// A process that does not outlive its test.
struct Bounded(Child);

impl Drop for Bounded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a gateway that must not start. Gives what it says.
async fn refused(mut command: Command) -> String {
    let mut child = Bounded(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let status = until("it ends by itself", async || child.0.try_wait().unwrap()).await;
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!status.success(), "{said}");
    said
}

/// Fills a disk to its last byte; gives the file that does.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("filler");
    let mut filler = std::fs::File::create(&path).unwrap();
    for size in [65_536, 4096, 512, 1] {
        let piece = vec![0_u8; size];
        while filler.write_all(&piece).is_ok() {}
    }
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_sending_and_room_starts_it_again() {
    let a = Upstream::new("a").await;
    let home = home(&a);
    let Some(command) = mounted(&home, "mount -t tmpfs -o size=1m,mode=700 tmpfs \"$1/disk\"") else { return };
    let gateway = Gateway::run(command).await;
    assert_eq!(gateway.ask(&Ask::chat("a/a-model", false)).await.head.status, 200);

    // The mount is the gateway's own; this is the way into it.
    let disk =
        PathBuf::from(format!("/proc/{}/root", gateway.pid())).join(&home.path().join("disk").to_string_lossy()[1..]);
    let filler = fill(&disk);
    // The last page of a file that is there has some room yet.
    let refusal = until("the disk is full", async || {
        let reply = gateway.ask(&Ask::chat("a/a-model", false)).await;
        (reply.head.status != 200).then_some(reply)
    })
    .await;
    let told = Told { status: 503, code: "ledger_unavailable", should_retry: true, retry_after: Some(5) };
    check_error(&refusal, told, "the disk is full");
    let sent = a.asked();
    for stream in [false, true] {
        check_error(&gateway.ask(&Ask::chat("a/a-model", stream)).await, told, "it still is");
    }
    assert_eq!(a.asked(), sent, "nothing was sent");
    assert_eq!(gateway.ask(&Ask::get("/readyz")).await.head.status, 503);

    std::fs::remove_file(filler).unwrap();
    until("there is room again", async || {
        let reply = gateway.ask(&Ask::chat("a/a-model", false)).await;
        (reply.head.status == 200).then_some(())
    })
    .await;
    until("the ledger has all that was sent", async || {
        let all = gateway.document("/freeway/v1/requests").await;
        let answered = all["requests"].as_array()?.iter().filter(|row| row["outcome"] == "answered").count();
        (answered == a.asked()).then_some(())
    })
    .await;
    until("it says that it is ready", async || {
        (gateway.ask(&Ask::get("/readyz")).await.head.status == 200).then_some(())
    })
    .await;
    gateway.end(End::Terminate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_may_not_be_written_is_refused() {
    let a = Upstream::new("a").await;
    let home = home(&a);
    drop(Sqlite::open(&home.path().join("disk/ledger.db")).unwrap());
    let read_only =
        |what: &str| format!("mount --bind \"$1/{what}\" \"$1/{what}\"; mount -o remount,bind,ro \"$1/{what}\"");
    for what in ["disk", "disk/ledger.db"] {
        let Some(command) = mounted(&home, &read_only(what)) else { return };
        let said = refused(command).await;
        assert!(
            said.contains("disk/ledger.db") && said.contains("give this user the right to write"),
            "{what}: {said}"
        );
    }
    assert_eq!(a.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_another_program_has_locked_is_refused_at_the_start_and_waited_for_later() {
    let a = Upstream::new("a").await;
    let home = home(&a);
    let ledger = home.path().join("disk/ledger.db");
    drop(Sqlite::open(&ledger).unwrap());
    let other = Connection::open(&ledger).unwrap();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; CREATE TABLE held (x)").unwrap();
    let said = refused(serving(&home)).await;
    assert!(said.contains("ledger.db: the database is locked by another program"), "{said}");
    drop(other);

    let gateway = home.serve().await;
    let other = Connection::open(&ledger).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..3 {
        assert_eq!(gateway.ask(&Ask::chat("a/a-model", false)).await.head.status, 200, "what is sent is written down");
    }
    other.execute_batch("COMMIT").unwrap();
    until("the ledger has them", async || {
        let all = gateway.document("/freeway/v1/requests").await;
        (all["requests"].as_array()?.len() == 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_ledger_is_refused_and_not_begun_anew() {
    let a = Upstream::new("a").await;
    let home = home(&a);
    let path = home.path().join("disk/ledger.db");
    let text = b"a shopping list, which is long enough to be taken for a file of the user's own: bread, butter, tea";
    std::fs::write(&path, text).unwrap();
    let said = refused(serving(&home)).await;
    assert!(said.contains("ledger.db: the file is not a database: the file was left as it is"), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), text);
}

/// Pages in the middle of the file overwritten: what a dying disk does.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_ledger_is_said_to_be_damaged() {
    let a = Upstream::new("a").await;
    let home = home(&a);
    let path = home.path().join("disk/ledger.db");
    let ledger = Sqlite::open(&path).unwrap();
    let records: Vec<_> =
        (0..500).map(|number| conformance::sample(number, Timestamp::from_secs(1_700_000_000))).collect();
    ledger.append(&records).unwrap();
    drop(ledger);
    let mut bytes = std::fs::read(&path).unwrap();
    let half = bytes.len() / 2 / 4096 * 4096;
    bytes[half..half + 3 * 4096].fill(0x5a);
    std::fs::write(&path, &bytes).unwrap();
    let said = refused(serving(&home)).await;
    assert!(said.contains("the database is damaged"), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_ledger_counts_on_exactly() {
    const ROWS: u64 = 100_000;
    let limits = format!(r#"limits = [{{ metric = "requests", window = "day", amount = {} }}]"#, 2 * ROWS + 2);
    let a = Upstream::with("a", &format!("models = [{{ id = \"a-model\", {limits} }}]"), |_| ()).await;
    let home = home(&a);
    let ledger = Sqlite::open(&home.path().join("disk/ledger.db")).unwrap();
    let hour_ago = Clock::start().now().wall.before(Duration::from_secs(3600));
    let records: Vec<_> = (0..ROWS)
        .map(|number| {
            let mut record = conformance::sample(number, hour_ago);
            for attempt in &mut record.attempts {
                attempt.account = "a".to_owned();
                attempt.model = "a-model".to_owned();
            }
            record
        })
        .collect();
    for batch in records.chunks(5000) {
        ledger.append(batch).unwrap();
    }
    drop(ledger);
    let gateway = home.serve().await;
    let mut found = Vec::new();
    for _ in 0..3 {
        found.push(gateway.ask(&Ask::chat("a/a-model", false)).await.head.status);
    }
    assert_eq!(found, [200, 200, 429], "each row held two attempts");
}
