//! Bounds: what is asked for, when, and what a loss of power makes of them.

use std::time::Duration;

use freeway_catalog::Limit;
use freeway_types::{LimitIndex, Monotonic, Now, Timestamp};

use super::*;
use crate::book::{Actual, Book, ReservationId};
use crate::spec::LimitSpec;

const ONE: [LimitIndex; 1] = [LimitIndex::FIRST];
const MIDNIGHT: i64 = 1_792_540_800;

/// 08:00:00 UTC, far from the beginning of the monotonic clock.
fn start() -> Now {
    Now { wall: Timestamp::from_secs(MIDNIGHT + 8 * 3600), monotonic: Monotonic::from_micros(40 * 86_400_000_000) }
}

fn at(secs: u64) -> Now {
    start().after(Duration::from_secs(secs))
}

fn book(toml: &str, left: Vec<Block>) -> Book {
    let limit: Limit = toml::from_str(toml).unwrap();
    let mut book = Book::default();
    book.keep_bounds(left);
    book.adopt(vec![LimitSpec::read("lab/small", &limit).unwrap()], start());
    book
}

fn rolling(amount: u64) -> String {
    format!("metric = \"requests\"\nwindow = \"day\"\namount = {amount}")
}

fn daily(amount: u64) -> String {
    format!("{}\nreset = \"calendar\"", rolling(amount))
}

/// The bounds that are wanted, without the limit's name; they are flushed at once.
fn flush(book: &mut Book) -> Vec<(Timestamp, u64)> {
    let wanted = book.take_wanted();
    book.secured(&wanted);
    wanted.into_iter().map(|block| (block.since, block.most)).collect()
}

fn send(book: &mut Book, now: Now) -> Result<ReservationId, Blocked> {
    book.reserve(now, &ONE, &Demand::default())
}

fn done(book: &mut Book, id: ReservationId, now: Now) {
    book.received(id, now);
    book.settle(id, now, &Actual { answered: true, ..Actual::default() });
}

#[test]
fn nothing_is_sent_beyond_what_is_flushed_and_one_flush_serves_all_who_wait() {
    let mut book = book(&daily(50), Vec::new());
    let midnight = Timestamp::from_secs(MIDNIGHT);
    for _ in 0..3 {
        let blocked = send(&mut book, start()).unwrap_err();
        assert!(blocked.unsecured && blocked.until == Some(start()), "{blocked:?}");
    }
    assert_eq!(book.take_wanted().last().map(|block| (block.since, block.most)), Some((midnight, 4)));
    assert!(send(&mut book, start()).unwrap_err().unsecured, "asked for is not flushed");
    assert_eq!(flush(&mut book), [(midnight, 5)]);
    for _ in 0..5 {
        send(&mut book, start()).unwrap();
    }
    assert_eq!(flush(&mut book).last(), Some(&(midnight, 6)), "more is asked for before anybody waits");
    send(&mut book, start()).unwrap();
}

#[test]
fn more_is_asked_for_with_a_quarter_of_a_block_left() {
    let mut book = book(&daily(1_000), Vec::new());
    book.look_ahead(start());
    assert_eq!(flush(&mut book), [(Timestamp::from_secs(MIDNIGHT), 10)]);
    let asked: Vec<_> = (0..9).map(|_| (send(&mut book, start()).is_ok(), book.take_wanted().len())).collect();
    let quiet = (true, 0);
    assert_eq!(asked, [quiet, quiet, quiet, quiet, quiet, quiet, quiet, (true, 1), quiet]);
}

#[test]
fn the_first_block_of_a_window_is_flushed_before_it_begins() {
    let mut book = book(&daily(1_000), Vec::new());
    let before = at(16 * 3600 - 2);
    book.look_ahead(before);
    let midnight = MIDNIGHT + 86_400;
    assert_eq!(flush(&mut book), [(Timestamp::from_secs(MIDNIGHT), 10), (Timestamp::from_secs(midnight), 10)]);
    send(&mut book, at(16 * 3600 + 5)).unwrap();
    book.look_ahead(at(16 * 3600 + 6));
    assert_eq!(flush(&mut book), [], "and once is enough");
}

#[test]
fn short_windows_and_places_need_no_bound() {
    for toml in ["metric = \"requests\"\nwindow = \"10m\"\namount = 5", "metric = \"concurrency\"\namount = 5"] {
        let mut book = book(toml, Vec::new());
        send(&mut book, start()).unwrap();
        book.look_ahead(start());
        assert_eq!(flush(&mut book), [], "{toml}");
    }
}

/// Sends and answers `sent`, of which the ledger keeps `kept`; then the power is lost, and comes back a minute later.
/// Gives what counts as used then.
fn used_after_power_loss(toml: &str, sent: u64, kept: u64) -> u64 {
    let mut first = book(toml, Vec::new());
    let mut flushed: Vec<Block> = Vec::new();
    for _ in 0..sent {
        let id = loop {
            let reserved = send(&mut first, start());
            let wanted = first.take_wanted();
            first.secured(&wanted);
            flushed.extend(wanted);
            if let Ok(id) = reserved {
                break id;
            }
        };
        done(&mut first, id, start());
    }
    let mut next = book(toml, flushed);
    for _ in 0..kept {
        next.replay(LimitIndex::FIRST, 1, start().wall, start().wall, at(90));
    }
    let lost = next.lose_power(at(60).wall, at(90));
    assert!(lost.iter().all(|lost| lost.units > 0 && lost.from <= start().wall && lost.to >= start().wall));
    let used = next.view(at(90)).next().unwrap().used;
    let mut third = book(toml, Vec::new());
    (0..kept).for_each(|_| third.replay(LimitIndex::FIRST, 1, start().wall, start().wall, at(120)));
    lost.iter().for_each(|lost| third.replay_lost(lost, at(120)));
    assert_eq!(third.view(at(120)).next().unwrap().used, used, "the next process counts the same");
    used
}

#[test]
fn what_may_have_been_used_counts_as_used_after_a_loss_of_power_and_two_blocks_more_at_most() {
    let bucket = format!("{}\nreset = \"bucket\"", rolling(1_000));
    let never = "metric = \"requests\"\nreset = \"never\"\namount = 1000".to_owned();
    for toml in [daily(1_000), rolling(1_000), bucket, never] {
        for (sent, kept) in [(0, 0), (1, 0), (1, 1), (200, 0), (200, 77), (200, 200)] {
            let used = used_after_power_loss(&toml, sent, kept);
            assert!((sent..=sent + 20).contains(&used), "{toml}: {sent} were sent, {kept} kept: {used}");
        }
    }
}

#[test]
fn small_limits_lose_two_at_most() {
    for toml in [daily(20), rolling(20)] {
        for sent in [1, 5, 18, 20] {
            let used = used_after_power_loss(&toml, sent, sent / 2);
            assert!((sent..=sent + 2).contains(&used), "{toml}: {used}");
        }
    }
}

#[test]
fn short_windows_are_full_after_a_loss_of_power_and_then_empty() {
    let short = || book("metric = \"requests\"\nwindow = \"10m\"\namount = 5", Vec::new());
    let mut book = short();
    let lost = book.lose_power(at(0).wall, at(30));
    assert_eq!((lost.len(), lost[0].units), (1, 5));
    assert!(!send(&mut book, at(30)).unwrap_err().unsecured);
    assert!(send(&mut book, at(600)).is_err());
    send(&mut book, at(603)).unwrap();
    let mut late = short();
    assert_eq!(late.lose_power(at(0).wall, at(700)), [], "the machine has been back for longer");
}

#[test]
fn a_count_that_slides_begins_a_new_stretch_and_loses_nothing_between() {
    let mut book = book(&rolling(1_000), Vec::new());
    book.look_ahead(start());
    assert_eq!(flush(&mut book), [(start().wall, 10)]);
    let first = send(&mut book, start()).unwrap();
    done(&mut book, first, start());
    // A day and a little later the next stretch is asked for; until it is flushed, the old one goes on.
    let later = at(86_500);
    let under_way = send(&mut book, later).unwrap();
    let wanted = book.take_wanted();
    assert_eq!(wanted.len(), 1);
    assert_eq!((wanted[0].since, wanted[0].most), (later.wall, 11), "what is under way lies in both");
    let second = send(&mut book, later).unwrap();
    done(&mut book, second, later);
    assert_eq!(book.take_wanted(), [], "it is asked for once");
    book.secured(&wanted);
    // Of its eleven, two are taken: nine are left.
    let sent = (0..20).take_while(|_| send(&mut book, later).is_ok()).count();
    assert_eq!(sent, 9);
    done(&mut book, under_way, later);
    assert!(flush(&mut book).iter().all(|(since, _)| *since == later.wall));
    send(&mut book, later).unwrap();
}
