use freeway_types::{Monotonic, Timestamp};

use super::*;
use crate::{Actual, Provenance};

fn at(seconds: u64) -> Now {
    let start =
        Now { wall: Timestamp::from_secs(1_792_569_600), monotonic: Monotonic::from_micros(40 * 86_400_000_000) };
    start.after(Duration::from_secs(seconds))
}

/// Headers that show a limit of requests.
fn says(window_s: u64, amount: u64, left: Option<u64>) -> Report {
    let window = ReportWindow::Length(Duration::from_secs(window_s));
    let blank = Report::blank(Metric::Requests, window, ReportScope::Unknown, ReportSource::Header);
    Report { amount: Some(amount), left, ..blank }
}

fn bare() -> (Book, Target, Target) {
    let mut book = Book::default();
    let (one, two) = (book.enlist("lab/one", "lab", &[]), book.enlist("lab/two", "lab", &[]));
    (book, one, two)
}

fn begin(book: &mut Book, target: Target, second: u64) -> ReservationId {
    book.reserve_at(at(second), target, &Demand::default()).unwrap()
}

fn end(book: &mut Book, target: Target, attempt: ReservationId, second: u64, reports: &[Report]) {
    book.received(attempt, at(second));
    book.learn_at(target, &Heard { reports, attempt, now: at(second), refused: None });
    book.settle(attempt, at(second), &Actual { answered: true, ..Actual::default() });
}

fn send(book: &mut Book, target: Target, second: u64, reports: &[Report]) {
    let attempt = begin(book, target, second);
    end(book, target, attempt, second, reports);
}

/// What is left of each limit of a target, with its name.
fn left(book: &mut Book, target: Target, second: u64) -> Vec<(String, u64)> {
    let limits = book.limits_of(target).to_vec();
    let views: Vec<_> = book.view(at(second)).map(|view| (view.spec.name.clone(), view.left)).collect();
    limits.into_iter().map(|limit| views[limit.get()].clone()).collect()
}

fn named(name: &str, left: u64) -> Vec<(String, u64)> {
    vec![(name.to_owned(), left)]
}

#[test]
fn a_limit_that_nobody_declared_is_made_of_what_headers_show() {
    let (mut book, one, two) = bare();
    send(&mut book, one, 0, &[says(3_600, 5, Some(3))]);
    // One of the two that are used is ours.
    assert_eq!(left(&mut book, one, 1), named("lab/one requests per hour", 3));
    assert!(book.limits_of(two).is_empty(), "nobody said that it is the account's");
    (1..4).for_each(|second| send(&mut book, one, second, &[]));
    let blocked = book.reserve_at(at(4), one, &Demand::default()).unwrap_err();
    assert!(blocked.until.is_some_and(|until| until.monotonic >= at(3_600).monotonic), "{blocked:?}");
    let view = book.view(at(4)).next().unwrap();
    assert!(matches!(view.provenance, Provenance::Learned(Size { source: Some(ReportSource::Header), amount: 5, .. })));
    assert!(view.spec.reset_unknown && view.declared.is_none());
}

#[test]
fn what_is_in_flight_when_it_is_shown_is_used_once() {
    let (mut book, one, two) = bare();
    let flying: Vec<ReservationId> = (0..4).map(|_| begin(&mut book, one, 0)).collect();
    let (arrived, elsewhere) = (begin(&mut book, one, 0), begin(&mut book, two, 0));
    book.received(arrived, at(1));
    // The provider had counted only this one and the one that arrived when it answered.
    send(&mut book, one, 1, &[says(3_600, 10, Some(8))]);
    assert_eq!(left(&mut book, one, 1), named("lab/one requests per hour", 4), "two are counted, four on their way");
    for attempt in flying.into_iter().chain([arrived]) {
        end(&mut book, one, attempt, 2, &[]);
    }
    book.release(elsewhere);
    assert_eq!(left(&mut book, one, 2), named("lab/one requests per hour", 4));
    assert_eq!(left(&mut book, one, 3_700), named("lab/one requests per hour", 10), "nothing stays held");
}

#[test]
fn where_headers_say_that_it_is_the_accounts_its_models_share_it() {
    let (mut book, one, two) = bare();
    let account = Report { scope: ReportScope::Account, ..says(60, 10, Some(9)) };
    send(&mut book, one, 0, &[account]);
    send(&mut book, two, 0, &[]);
    assert_eq!(left(&mut book, two, 1), named("lab requests per minute", 8));
    assert_eq!(book.limits_of(one), book.limits_of(two));
}

#[test]
fn what_is_declared_is_not_made_twice() {
    let limit = toml::from_str("metric = \"requests\"\nwindow = \"hour\"").unwrap();
    let mut book = Book::new(vec![LimitSpec::read("lab/one", &limit).unwrap()], at(0));
    let one = book.enlist("lab/one", "lab", &[LimitIndex::FIRST]);
    send(&mut book, one, 0, &[says(3_600, 5, Some(4)), says(60, 2, Some(1))]);
    assert_eq!(book.limits_of(one).len(), 2);
    // An edit declares the other one as well: it counts on under its name.
    let limit = toml::from_str("metric = \"requests\"\nwindow = \"minute\"\namount = 9").unwrap();
    let minute = book.adopt(vec![LimitSpec::read("lab/one", &limit).unwrap()], at(1));
    let one = book.enlist("lab/one", "lab", &[LimitIndex::FIRST, minute[0]]);
    assert_eq!(book.limits_of(one), [LimitIndex::FIRST, minute[0]]);
    assert_eq!(
        left(&mut book, one, 1)[1],
        ("lab/one requests per minute".to_owned(), 1),
        "the size is still the told one"
    );
}

#[test]
fn what_was_not_shown_for_a_day_is_forgotten_and_its_place_used_again() {
    let (mut book, one, _) = bare();
    const DAY: u64 = 86_400;
    send(&mut book, one, 0, &[says(3_600, 5, Some(4))]);
    send(&mut book, one, DAY - 1, &[says(3_600, 5, Some(4))]);
    assert_eq!(left(&mut book, one, 2 * DAY - 10)[0].1, 5, "it was confirmed");
    for second in 0..9 {
        send(&mut book, one, 2 * DAY + second, &[]);
    }
    assert_eq!(book.shown().count(), 1);
    for second in 0..200 {
        // One name after another, each a day after the one before.
        send(&mut book, one, (3 + second) * DAY, &[says(60 + second, 5, Some(4))]);
    }
    assert!(book.view(at(203 * DAY)).count() <= 3, "{}", book.view(at(203 * DAY)).count());
}

#[test]
fn there_are_no_more_than_sixteen_of_a_target() {
    let (mut book, one, _) = bare();
    for window in 1..100 {
        send(&mut book, one, 0, &[says(window * 60, 1_000, Some(900))]);
    }
    assert_eq!(book.limits_of(one).len(), MOST_SHOWN);
}

#[test]
fn what_shows_no_limit_makes_none() {
    let (mut book, one, _) = bare();
    let unknown = Report { window: ReportWindow::Unknown, ..says(60, 5, Some(4)) };
    let endpoint = Report { source: ReportSource::Endpoint, ..says(60, 5, Some(4)) };
    let unsized_one = Report { amount: None, ..says(60, 5, Some(4)) };
    let places = Report { metric: Metric::Concurrency, ..says(60, 5, Some(4)) };
    for report in [unknown, endpoint, unsized_one, places, says(60, 0, Some(0)), says(60, 5, Some(6)), says(0, 5, None)]
    {
        send(&mut book, one, 0, &[report]);
        assert!(book.limits_of(one).is_empty(), "{report:?}");
    }
}

#[test]
fn what_was_remembered_is_taken_over_unless_it_is_too_old() {
    let (mut book, one, _) = bare();
    send(&mut book, one, 0, &[says(3_600, 5, Some(4))]);
    let (name, shown) = book.shown().next().map(|(name, shown)| (name.to_owned(), shown)).unwrap();
    assert_eq!((name.as_str(), shown.owner.as_str(), shown.window_s), ("lab/one requests per hour", "lab/one", 3_600));
    let (mut next, one, _) = bare();
    assert!(next.restore_shown(&shown, at(90_000)).is_none());
    assert!(next.limits_of(one).is_empty());
    assert!(next.restore_shown(&shown, at(10)).is_some());
    assert_eq!(left(&mut next, one, 10), named("lab/one requests per hour", 5));
}
