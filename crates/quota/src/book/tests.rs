//! The book's boundary cases; whatever else may happen is in `tests/exact/`.

use std::time::Duration;

use freeway_catalog::Limit;
use freeway_types::{LimitIndex, Monotonic, Now, Timestamp, Usage};

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
    // Half a millisecond more, because the provider's clock may be the slower one.
    let back = start().after(Duration::from_micros(10_500_500));
    let early = book.reserve(start().after(ms(10_500)), &ONE, &Demand::default()).unwrap_err();
    assert_eq!(early.until, Some(back));
    book.reserve(back, &ONE, &Demand::default()).unwrap();
}

#[test]
fn a_silent_upstream_is_taken_to_have_counted_two_seconds_after_the_write() {
    let mut book = Book::new(vec![limit("metric = \"requests\"\nwindow = \"10s\"\namount = 1")], start());
    let id = book.reserve(start(), &ONE, &Demand::default()).unwrap();
    assert!(book.reserve(start().after(ms(60_000)), &ONE, &Demand::default()).is_err(), "not even written");
    book.written(id, start().after(ms(60_000)));
    (60..72).for_each(|second| book.look_ahead(start().after(ms(1000 * second))));
    assert!(book.reserve(start().after(ms(72_000)), &ONE, &Demand::default()).is_err());
    book.reserve(start().after(ms(72_001)), &ONE, &Demand::default()).unwrap();
}

#[test]
fn what_a_sleeping_machine_had_written_may_leave_it_when_it_wakes() {
    let mut book = Book::new(vec![limit("metric = \"requests\"\nwindow = \"10s\"\namount = 1")], start());
    let id = book.reserve(start(), &ONE, &Demand::default()).unwrap();
    book.written(id, start().after(ms(1)));
    for (secs, fits) in [(3600, false), (3612, false), (3613, true)] {
        assert_eq!(book.reserve(start().after(ms(1000 * secs)), &ONE, &Demand::default()).is_ok(), fits, "{secs}");
        (1..12).for_each(|second| book.look_ahead(start().after(ms(1000 * (secs + second)))));
    }
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
    book.settle(refused, start(), &Actual { usage: Some(Usage::default()), ..Actual::default() });
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
    assert_eq!((left_after(&mut book, 3602), left_after(&mut book, 3603)), (1, 2));
}

#[test]
fn a_place_that_a_killed_process_took_is_held_until_its_connection_must_be_gone() {
    let mut book = Book::new(vec![limit("metric = \"concurrency\"\namount = 2")], start());
    let (sent, gone) = (start().wall.before(Duration::from_secs(60)), start().wall.after(Duration::from_secs(2)));
    book.replay(LIMIT, 1, sent, gone, start());
    book.replay(LIMIT, 1, sent, sent, start());
    let id = book.reserve(start(), &ONE, &Demand::default()).unwrap();
    assert!(book.reserve(start().after(ms(1_999)), &ONE, &Demand::default()).is_err());
    book.settle(id, start().after(ms(1_999)), &Actual::default());
    let left_after = |book: &mut Book, after| book.view(start().after(ms(after))).next().unwrap().left;
    assert_eq!((left_after(&mut book, 1_999), left_after(&mut book, 2_000)), (1, 2));
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

#[test]
fn a_refund_goes_to_the_window_that_was_charged() {
    let spec =
        limit("metric = \"tokens\"\nwindow = \"hour\"\namount = 100\nreset = \"calendar\"\nestimate = \"strict\"");
    let mut book = Book::new(vec![spec], start());
    let demand = |input| Demand { input: Bound::exactly(input), ..Demand::default() };
    let answered =
        |input| Actual { usage: Some(Usage { input, ..Usage::default() }), answered: true, ..Actual::default() };
    let first = book.reserve(start().after(ms(10_000)), &ONE, &demand(80)).unwrap();
    let next_hour = start().after(Duration::from_secs(3605));
    assert_eq!(book.view(next_hour).next().unwrap().left, 20, "it may be counted in this window, too");
    let second = book.reserve(next_hour, &ONE, &demand(20)).unwrap();
    book.settle(first, next_hour, &answered(10));
    assert_eq!(book.view(next_hour).next().unwrap().left, 70, "counted in both, given back in both");
    book.settle(second, next_hour, &answered(20));
    let late = book.reserve(next_hour, &ONE, &demand(60)).unwrap();
    let third_hour = start().after(Duration::from_secs(7205));
    book.settle(late, third_hour, &answered(1));
    assert_eq!(book.view(third_hour).next().unwrap().left, 99, "not more than there ever was");
}

fn set(now: Now, secs: i64) -> Now {
    Now { wall: Timestamp::from_micros(now.wall.as_micros() + secs * 1_000_000), ..now }
}

/// One request of each day is sent at `first` and another at `second`: whether the second one was.
fn passes(first: Now, second: Now) -> bool {
    let spec = limit("metric = \"requests\"\nwindow = \"day\"\namount = 1\nreset = \"calendar\"");
    let mut book = Book::new(vec![spec], first);
    let id = book.reserve(first, &ONE, &Demand::default()).unwrap();
    book.received(id, first);
    book.settle(id, first, &Actual { answered: true, ..Actual::default() });
    for instant in [set(first, 400 * 86_400), set(first, -400 * 86_400), set(first, 3 * 86_400)] {
        // What is asked while the clock is wrong.
        book.view(instant).count();
        book.fit(instant, &ONE, &Demand::default());
    }
    book.reserve(second, &ONE, &Demand::default()).is_ok()
}

#[test]
fn a_day_is_granted_once_however_the_wall_clock_is_set_in_between() {
    let hour = start().after(Duration::from_secs(3600));
    assert!(!passes(start(), hour));
    assert!(!passes(start(), set(hour, -3600)));
    assert!(!passes(start(), set(hour, 86_400)), "who knows when the wall clock was right");
    assert!(passes(start(), start().after(Duration::from_secs(86_400))));
    let day_after = set(start().after(Duration::from_secs(2 * 86_400)), -3600);
    assert!(passes(start(), day_after), "it has ended by either");
}

#[test]
fn what_is_under_way_while_the_wall_clock_jumps_counts_by_both_settings() {
    let spec = limit("metric = \"requests\"\nwindow = \"day\"\namount = 1\nreset = \"calendar\"");
    for jump in [-86_400, 86_400, 365 * 86_400] {
        let mut book = Book::new(vec![spec.clone()], start());
        let id = book.reserve(start(), &ONE, &Demand::default()).unwrap();
        let later = start().after(ms(500));
        book.received(id, set(later, jump));
        book.settle(id, set(later, jump), &Actual { answered: true, ..Actual::default() });
        for now in [later, set(later, jump)] {
            assert!(book.reserve(now, &ONE, &Demand::default()).is_err(), "{jump}");
        }
    }
}

#[test]
fn use_of_a_clock_that_was_ahead_holds_no_longer_than_a_window() {
    let specs = vec![
        limit("metric = \"requests\"\nwindow = \"hour\"\namount = 1"),
        limit("metric = \"requests\"\nwindow = \"hour\"\namount = 1\nreset = \"bucket\""),
        limit("metric = \"requests\"\nwindow = \"day\"\namount = 1\nreset = \"calendar\""),
    ];
    let mut book = Book::new(specs, start());
    let ahead = start().wall.after(Duration::from_secs(365 * 86_400));
    for place in 0..3 {
        book.replay(LimitIndex::new(place), 1, ahead, ahead.after(ms(300)), start());
    }
    let left = |book: &mut Book, secs| -> Vec<u64> {
        book.view(start().after(Duration::from_secs(secs))).map(|view| view.left).collect()
    };
    assert_eq!(left(&mut book, 10), [0, 0, 0]);
    assert_eq!(left(&mut book, 3605), [1, 1, 0]);
    assert_eq!(left(&mut book, 86_400), [1, 1, 1]);
}

#[test]
fn use_of_a_day_of_25_hours_is_replayed_until_it_ends() {
    let toml =
        "metric = \"requests\"\nwindow = \"day\"\namount = 1\nreset = \"calendar\"\nzone = \"America/Los_Angeles\"";
    let at = |text: &str| Timestamp::parse(text).unwrap();
    let now = Now { wall: at("2026-11-02T07:40:00Z"), ..start() };
    let mut book = Book::new(vec![limit(toml)], now);
    let sent = at("2026-11-01T07:10:00Z");
    book.replay(LIMIT, 1, sent, sent.after(ms(300)), now);
    assert!(book.reserve(now, &ONE, &Demand::default()).is_err(), "24 and a half hours later, on the same day");
    book.reserve(now.after(Duration::from_secs(1_202)), &ONE, &Demand::default()).unwrap();
}

#[test]
fn a_learned_clock_moves_the_boundary() {
    let spec = limit("metric = \"requests\"\nwindow = \"day\"\namount = 1\nreset = \"calendar\"");
    let mut book = Book::new(vec![spec], start());
    let mut skew = crate::Skew::default();
    // The provider is ten minutes behind, as two answers say.
    let behind = |now: Now| now.wall.before(Duration::from_secs(600));
    for _ in 0..2 {
        assert!(skew.learn(behind(start()), start(), start()) || skew.offset().is_some());
    }
    book.learn_clock(&ONE, skew.offset().unwrap());
    let id = book.reserve(start(), &ONE, &Demand::default()).unwrap();
    book.received(id, start());
    // Midnight in UTC is 16 hours away.
    let midnight = |secs: u64| start().after(Duration::from_secs(16 * 3600 + secs));
    let blocked = book.reserve(midnight(300), &ONE, &Demand::default()).unwrap_err();
    assert!((595..=610).contains(&blocked.until.unwrap().wall.since(midnight(0).wall).as_secs()), "{blocked:?}");
    book.reserve(midnight(615), &ONE, &Demand::default()).unwrap();
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
