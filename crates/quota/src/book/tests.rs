//! An oracle that knows when the provider really counted, against the book that does not.

use std::time::Duration;

use freeway_catalog::Limit;
use freeway_types::{LimitIndex, Monotonic, Now, Timestamp, Usage};
use proptest::prelude::*;

use super::*;
use crate::demand::Bound;

fn limit(toml: &str) -> LimitSpec {
    let limit: Limit = toml::from_str(toml).unwrap();
    LimitSpec::read("lab/small", &limit).unwrap()
}

fn start() -> Now {
    // Far from the monotonic origin, so that replayed use has room before it.
    Now { wall: Timestamp::from_secs(1_792_569_600), monotonic: Monotonic::from_micros(40 * 86_400_000_000) }
}

const LIMIT: LimitIndex = LimitIndex::FIRST;
const ONE: [LimitIndex; 1] = [LIMIT];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_charge_is_held_from_dispatch_to_a_window_after_its_receipt() {
    let mut book = Book::new(vec![limit("metric = \"requests\"\nwindow = \"10s\"\namount = 1")], start());
    let id = book.reserve(start(), &ONE, &Demand::default()).unwrap();
    book.written(id, start().after(ms(1)));
    book.received(id, start().after(ms(500)));
    book.settle(id, start().after(ms(900)), &Actual { answered: true, ..Actual::default() });
    let early = book.reserve(start().after(ms(10_499)), &ONE, &Demand::default()).unwrap_err();
    assert_eq!(early.until, Some(start().after(ms(10_500))));
    book.reserve(start().after(ms(10_500)), &ONE, &Demand::default()).unwrap();
}

#[test]
fn a_silent_upstream_is_taken_to_have_counted_two_seconds_after_the_write() {
    let mut book = Book::new(vec![limit("metric = \"requests\"\nwindow = \"10s\"\namount = 1")], start());
    let id = book.reserve(start(), &ONE, &Demand::default()).unwrap();
    assert!(book.reserve(start().after(ms(60_000)), &ONE, &Demand::default()).is_err(), "not even written");
    book.written(id, start().after(ms(60_000)));
    assert!(book.reserve(start().after(ms(71_999)), &ONE, &Demand::default()).is_err());
    book.reserve(start().after(ms(72_000)), &ONE, &Demand::default()).unwrap();
}

#[test]
fn all_limits_or_none() {
    let specs = vec![
        limit("metric = \"requests\"\nwindow = \"minute\"\namount = 5"),
        limit("metric = \"tokens\"\nwindow = \"minute\"\namount = 100"),
    ];
    let mut book = Book::new(specs, start());
    let both = [LimitIndex::new(0), LimitIndex::new(1)];
    let large = Demand { input: Bound::exactly(60), ..Demand::default() };
    book.reserve(start(), &both, &large).unwrap();
    let blocked = book.reserve(start(), &both, &large).unwrap_err();
    assert_eq!(blocked.limit, LimitIndex::new(1));
    let used: Vec<u64> = book.view(start()).map(|view| view.used).collect();
    assert_eq!(used, [1, 60]);
}

#[test]
fn a_request_larger_than_the_whole_limit_is_not_a_wait() {
    let mut book = Book::new(vec![limit("metric = \"tokens\"\nwindow = \"minute\"\namount = 100")], start());
    let blocked = book.reserve(start(), &ONE, &Demand { input: Bound::exactly(101), ..Demand::default() }).unwrap_err();
    assert_eq!(blocked.until, None);
}

#[test]
fn settling_twice_or_releasing_after_settling_changes_nothing() {
    let mut book = Book::new(vec![limit("metric = \"tokens\"\nwindow = \"minute\"\namount = 100")], start());
    let id = book.reserve(start(), &ONE, &Demand { input: Bound::exactly(80), ..Demand::default() }).unwrap();
    let actual = Actual { usage: Some(Usage { input: 30, ..Usage::default() }), answered: true, ..Actual::default() };
    book.settle(id, start(), &actual);
    book.settle(id, start(), &actual);
    book.release(id);
    assert_eq!(book.view(start()).next().unwrap().left, 70);
}

#[test]
fn an_unknown_outcome_stands_as_used_and_a_refusal_charges_no_tokens() {
    let mut book = Book::new(vec![limit("metric = \"tokens\"\nwindow = \"minute\"\namount = 100")], start());
    let demand = Demand { input: Bound::exactly(40), ..Demand::default() };
    let unknown = book.reserve(start(), &ONE, &demand).unwrap();
    let refused = book.reserve(start(), &ONE, &demand).unwrap();
    book.settle(unknown, start(), &Actual::default());
    book.settle(refused, start(), &Actual { usage: Some(Usage::default()), ..Actual::default() });
    assert_eq!(book.view(start()).next().unwrap().left, 60);
}

#[test]
fn requests_that_only_count_when_answered() {
    let spec = limit("metric = \"requests\"\nwindow = \"minute\"\namount = 1\ncounts = \"successes\"");
    let mut book = Book::new(vec![spec], start());
    let refused = book.reserve(start(), &ONE, &Demand::default()).unwrap();
    book.received(refused, start());
    book.settle(refused, start(), &Actual::default());
    let answered = book.reserve(start(), &ONE, &Demand::default()).unwrap();
    book.received(answered, start());
    book.settle(answered, start(), &Actual { answered: true, ..Actual::default() });
    assert!(book.reserve(start(), &ONE, &Demand::default()).is_err());
}

#[test]
fn concurrency_comes_back_when_the_answer_ends() {
    let mut book = Book::new(vec![limit("metric = \"concurrency\"\namount = 1")], start());
    let id = book.reserve(start(), &ONE, &Demand::default()).unwrap();
    book.received(id, start());
    assert!(book.reserve(start(), &ONE, &Demand::default()).is_err());
    book.settle(id, start(), &Actual::default());
    book.reserve(start(), &ONE, &Demand::default()).unwrap();
}

#[test]
fn a_credit_does_not_come_back_and_lapses() {
    let spec = limit("metric = \"usd\"\namount = 1.5\nreset = \"never\"\nexpires = 2026-10-21");
    let mut book = Book::new(vec![spec], start());
    let demand = Demand { picos: Bound::exactly(1_000_000_000_000), ..Demand::default() };
    let id = book.reserve(start(), &ONE, &demand).unwrap();
    let cost = Usd::from_picos(500_000_000_000);
    book.settle(id, start(), &Actual { usage: Some(Usage::default()), cost, answered: true, units: 0 });
    let second = book.reserve(start(), &ONE, &demand).unwrap();
    book.release(second);
    let lapsed = start().after(Duration::from_secs(16 * 3600));
    assert_eq!(book.reserve(lapsed, &ONE, &demand).unwrap_err().until, None);
}

#[test]
fn use_from_before_a_restart_is_replayed_into_its_own_window() {
    let specs = vec![limit("metric = \"requests\"\nwindow = \"hour\"\namount = 2")];
    let mut book = Book::new(specs, start());
    let ago = |secs| start().wall.before(Duration::from_secs(secs));
    book.replay(LIMIT, 1, ago(1800), ago(1798), start());
    book.replay(LIMIT, 1, ago(7200), ago(7198), start());
    assert_eq!(book.view(start()).next().unwrap().left, 1);
    let left_after = |book: &mut Book, secs| book.view(start().after(Duration::from_secs(secs))).next().unwrap().left;
    assert_eq!(left_after(&mut book, 1801), 1);
    assert_eq!(left_after(&mut book, 1803), 2);
}

#[test]
fn what_a_killed_process_had_in_flight_is_held_until_it_must_have_been_counted() {
    let specs = vec![limit("metric = \"requests\"\nwindow = \"hour\"\namount = 2")];
    let mut book = Book::new(specs, start());
    let (sent, counted) = (start().wall.before(Duration::from_secs(5)), start().wall.after(Duration::from_secs(2)));
    book.replay(LIMIT, 1, sent, counted, start());
    let left_after = |book: &mut Book, secs| book.view(start().after(Duration::from_secs(secs))).next().unwrap().left;
    assert_eq!((left_after(&mut book, 3600), left_after(&mut book, 3602)), (1, 2));
}

#[test]
fn counts_survive_a_changed_configuration() {
    for reset in ["rolling", "bucket", "calendar"] {
        let spec = |amount: u64| {
            limit(&format!("metric = \"requests\"\nwindow = \"hour\"\namount = {amount}\nreset = \"{reset}\""))
        };
        let mut book = Book::new(vec![spec(10)], start());
        let under_way = book.reserve(start(), &ONE, &Demand::default()).unwrap();
        for _ in 0..3 {
            let id = book.reserve(start(), &ONE, &Demand::default()).unwrap();
            book.received(id, start());
            book.settle(id, start(), &Actual { answered: true, ..Actual::default() });
        }
        let left = |book: &mut Book| book.view(start()).next().unwrap().left;
        assert_eq!(book.adopt(vec![spec(5)], start()), ONE, "{reset}");
        assert_eq!(left(&mut book), 1, "{reset}: a smaller amount takes effect at once");
        book.adopt(vec![spec(20)], start());
        assert_eq!(left(&mut book), 16, "{reset}: a larger one resets nothing");
        book.settle(under_way, start(), &Actual { answered: true, ..Actual::default() });
        assert_eq!(left(&mut book), 16, "{reset}: what was under way is settled once");
        let other = limit("metric = \"requests\"\nwindow = \"5h\"\namount = 20");
        assert_eq!((book.counts(&spec(7)), book.counts(&other)), (true, false), "{reset}");
    }
}

/// How the provider counts, given the instants at which it really received.
fn overrun(kind: &str, window_ms: u64, amount: u64, receipts: &[u64]) -> bool {
    let mut receipts = receipts.to_vec();
    receipts.sort_unstable();
    match kind {
        "rolling" => receipts.iter().enumerate().any(|(position, receipt)| {
            let from = receipt.saturating_sub(window_ms - 1);
            receipts[..=position].iter().filter(|other| **other >= from).count() as u64 > amount
        }),
        "anchored" => {
            let mut open: Option<(u64, u64)> = None;
            receipts.iter().any(|receipt| {
                let count = match &mut open {
                    Some((start, count)) if *receipt < *start + window_ms => {
                        *count += 1;
                        *count
                    }
                    _ => {
                        open = Some((*receipt, 1));
                        1
                    }
                };
                count > amount
            })
        }
        "calendar" => receipts.iter().any(|receipt| {
            let id = receipt / window_ms;
            receipts.iter().filter(|other| **other / window_ms == id).count() as u64 > amount
        }),
        "bucket" => {
            let (mut level, mut at) = (amount * window_ms, 0);
            receipts.iter().any(|receipt| {
                level = (level + (receipt - at) * amount).min(amount * window_ms);
                at = *receipt;
                let short = level < window_ms;
                level = level.saturating_sub(window_ms);
                short
            })
        }
        other => panic!("no oracle for {other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever the schedule, no window of the provider ever holds more than the limit,
    /// and a saturating client gets at least 95 % of what the uncertainty leaves reachable.
    #[test]
    fn never_overrun_and_hardly_ever_idle(
        kind in prop::sample::select(vec!["rolling", "anchored", "calendar", "bucket"]),
        amount in 1_u64..40,
        lag_ms in 1_u64..300,
        gaps in prop::collection::vec((0_u64..120, 0_u64..=100, 0_u64..=100, 0_u64..3000), 200..600),
    ) {
        const WINDOW: u64 = 10_000;
        let spec = limit(&format!("metric = \"requests\"\nwindow = \"10s\"\namount = {amount}\nreset = \"{kind}\""));
        let mut book = Book::new(vec![spec], start());
        // The wall starts on a multiple of the window, so milliseconds since start count as the provider's.
        let mut clock = 0_u64;
        let mut pending: Vec<(u64, u64, ReservationId)> = Vec::new();
        let mut receipts = Vec::new();
        for (gap, received_pct, answered_pct, length) in gaps {
            clock += gap;
            pending.sort_by_key(|(answer, ..)| *answer);
            while let Some((answer, end, id)) = pending.first().copied() && answer <= clock {
                pending.remove(0);
                book.received(id, start().after(ms(answer)));
                book.settle(id, start().after(ms(end.max(answer))), &Actual { answered: true, ..Actual::default() });
            }
            let now = start().after(ms(clock));
            if let Ok(id) = book.reserve(now, &ONE, &Demand::default()) {
                book.written(id, now);
                let received = clock + lag_ms * received_pct / 100;
                let answer = received + lag_ms * answered_pct / 100;
                receipts.push(received);
                pending.push((answer, answer + length.min(5), id));
            }
        }
        prop_assert!(!overrun(kind, WINDOW, amount, &receipts), "{kind} {amount}: {receipts:?}");
        let windows = clock / WINDOW;
        if windows >= 2 {
            let reachable = amount as f64 * (windows as f64) * (WINDOW as f64 / (WINDOW + 2 * lag_ms + 400) as f64) - amount as f64;
            prop_assert!(receipts.len() as f64 >= 0.95 * reachable, "{kind}: {} of {reachable}", receipts.len());
        }
    }
}

#[test]
fn what_was_asked_for_is_charged_only_where_the_provider_does() {
    let demand = Demand {
        input: Bound { expected: 100, most: 900 },
        output: Bound { expected: 50, most: 8_000 },
        ..Demand::default()
    };
    let check = |more: &str, amount: u64| {
        let spec = limit(&format!("metric = \"tokens\"\nwindow = \"minute\"\namount = 10000\n{more}"));
        assert_eq!(demand.amount(&spec), amount, "{more}");
    };
    check("", 150);
    check("estimate = \"strict\"", 8_900);
    check("charges = \"requested\"", 8_100);
    check("charges = \"requested\"\nestimate = \"strict\"", 8_900);
}

#[test]
fn what_was_asked_for_stands_and_more_input_than_expected_too() {
    let check = |input: u64, used: u64| {
        let spec = limit("metric = \"tokens\"\nwindow = \"minute\"\namount = 10000\ncharges = \"requested\"");
        let mut book = Book::new(vec![spec], start());
        let demand =
            Demand { input: Bound { expected: 100, most: 900 }, output: Bound::exactly(500), ..Demand::default() };
        let id = book.reserve(start(), &ONE, &demand).unwrap();
        let usage = Usage { input, output: 500, ..Usage::default() };
        book.settle(id, start().after(ms(10)), &Actual { usage: Some(usage), answered: true, ..Actual::default() });
        assert_eq!(book.view(start().after(ms(20))).next().unwrap().used, used, "{input}");
    };
    check(40, 600);
    check(130, 630);
}

#[test]
fn a_hundredth_of_a_token_limit_is_kept_for_estimates_that_fall_short() {
    let fits = |more: &str, used: u64, need: u64| {
        let spec = limit(&format!("metric = \"tokens\"\nwindow = \"minute\"\namount = 1000\n{more}"));
        let mut book = Book::new(vec![spec], start());
        let demand = |tokens| Demand { input: Bound::exactly(tokens), ..Demand::default() };
        let first = book.reserve(start(), &ONE, &demand(used)).unwrap();
        let found = book.reserve(start(), &ONE, &demand(need));
        let held: Vec<u64> = book.view(start()).map(|view| view.held).collect();
        assert_eq!(held, [used + if found.is_ok() { need } else { 0 }], "the slack itself is never held");
        book.release(first);
        found.iter().for_each(|second| book.release(*second));
        assert!(book.reserve(start(), &ONE, &demand(need)).is_ok(), "what has the limit to itself may fill it");
        found.is_ok()
    };
    assert!(fits("", 600, 390));
    assert!(!fits("", 600, 391));
    assert!(fits("estimate = \"strict\"", 600, 400));
    assert!(!fits("", 1, 999));
}
