use freeway_catalog::Limit;
use freeway_types::{LimitIndex, Usage};

use super::*;
use crate::book::{Actual, Book};
use crate::demand::{Bound, Demand};

const MINUTE: Duration = Duration::from_secs(60);

fn start() -> Now {
    Now { wall: Timestamp::parse("2026-11-22T12:00:00Z").unwrap(), monotonic: Monotonic::from_micros(5_000_000) }
}

fn after(minutes: u32) -> Now {
    start().after(MINUTE * minutes)
}

/// Of a limit in tokens, uses so much at these minutes; gives after how many whole minutes it runs dry, seen at a
/// minute.
fn dry(limit: &str, charges: &[(u32, u64)], seen: u32) -> Option<u64> {
    let limit: Limit = toml::from_str(&format!("metric = \"tokens\"\n{limit}")).unwrap();
    let only = [LimitIndex::new(0)];
    let mut book = Book::new(vec![LimitSpec::read("lab/small", &limit).unwrap()], start());
    for (minute, input) in charges {
        let demand = Demand { input: Bound::exactly(*input), ..Demand::default() };
        let id = book.reserve(after(*minute), &only, &demand).unwrap();
        let usage = Usage { input: *input, ..Usage::default() };
        book.settle(id, after(*minute), &Actual { usage: Some(usage), answered: true, ..Actual::default() });
    }
    let view = book.view(after(seen)).next().unwrap();
    view.dry.map(|instant| instant.since(after(seen).wall).as_secs() / 60)
}

#[test]
fn a_pace_is_what_was_counted_in_this_and_the_last_ten_minutes() {
    let at = |minutes: u64| Monotonic::from_micros(minutes * 60_000_000);
    let mut recent = Recent::new(at(0));
    assert_eq!(recent.pace(at(5)), None);
    recent.add(6, at(2));
    assert_eq!(recent.pace(at(4)), Some(Pace { units: 6, over: 4 * MINUTE }));
    recent.add(6, at(12));
    assert_eq!(recent.pace(at(12)).unwrap().per_hour(), 60, "twelve in twelve minutes");
    assert_eq!(recent.pace(at(19)), Some(Pace { units: 12, over: 19 * MINUTE }));
    assert_eq!(recent.pace(at(25)), Some(Pace { units: 6, over: 15 * MINUTE }), "the first ten minutes are forgotten");
    assert_eq!(recent.pace(at(30)), None);
    recent.add(1, at(45));
    assert_eq!(recent.pace(at(45)), Some(Pace { units: 1, over: 15 * MINUTE }));
}

#[test]
fn the_first_seconds_are_no_pace() {
    let mut recent = Recent::new(Monotonic::from_micros(0));
    recent.add(5, Monotonic::from_micros(1_000_000));
    assert_eq!(recent.pace(Monotonic::from_micros(2_000_000)), Some(Pace { units: 5, over: MINUTE }));
}

#[test]
fn a_window_that_slides_runs_dry_only_if_it_is_used_faster_than_it_comes_back() {
    let hour = "window = \"hour\"\namount = 100\nreset = \"rolling\"\nestimate = \"strict\"";
    // 10 in 8 minutes are 75 an hour.
    assert_eq!(dry(hour, &[(0, 10)], 8), None);
    // 40 in 8 minutes are 5 a minute; 60 are left, and nothing comes back before.
    assert_eq!(dry(hour, &[(0, 40)], 8), Some(12));
    assert_eq!(dry(hour, &[(0, 100)], 8), None, "it is dry already");
    // 25 in 13 minutes are 1.9 a minute. 13 of the 25 left are used when the first 50 come back.
    assert_eq!(dry(hour, &[(0, 50), (50, 25)], 53), Some(39));
}

#[test]
fn a_store_runs_dry_by_what_it_is_used_faster_than_refilled() {
    let hour = "window = \"hour\"\namount = 60\nreset = \"bucket\"\nestimate = \"strict\"";
    // 30 in 6 minutes are 5 a minute, less one that is refilled; 36 are there.
    assert_eq!(dry(hour, &[(0, 30)], 6), Some(8));
    assert_eq!(dry(hour, &[(0, 6)], 8), None);
}

#[test]
fn a_calendar_window_runs_dry_before_its_end_or_not_at_all() {
    let day = |amount| format!("window = \"day\"\namount = {amount}\nreset = \"calendar\"\nestimate = \"strict\"");
    // One a minute, and 711 minutes to midnight.
    assert_eq!(dry(&day(719), &[(0, 9)], 9), Some(710));
    assert_eq!(dry(&day(721), &[(0, 9)], 9), None);
}

#[test]
fn a_credit_runs_dry_whenever_that_is_unless_it_lapses_before() {
    let credit = |more: &str| format!("amount = 10000\nreset = \"never\"\nestimate = \"strict\"\n{more}");
    assert_eq!(dry(&credit(""), &[(0, 10)], 10), Some(9990));
    assert_eq!(dry(&credit("expires = 2026-11-22"), &[(0, 10)], 10), None);
    assert_eq!(dry(&credit("expires = 2026-12-22"), &[(0, 10)], 10), Some(9990));
}

#[test]
fn of_several_credits_the_rest_of_one_that_lapses_is_not_used() {
    let at = |secs| Timestamp::from_secs(secs);
    let grant = |expires: Option<i64>| Grant { amount: Some(100), expires: expires.map(at) };
    let check = |grants: [(Option<i64>, u64); 2], expected: Option<f64>| {
        let grants = grants.map(|(expires, room)| (grant(expires), room));
        assert_eq!(credits(grants.iter().map(|(grant, room)| (grant, *room)), 1.0, at(0)), expected, "{grants:?}");
    };
    check([(Some(500), 100), (None, 100)], Some(200.0));
    check([(Some(50), 100), (None, 100)], Some(150.0));
    check([(Some(50), 100), (Some(120), 100)], None);
}

#[test]
fn what_is_idle_has_no_pace() {
    assert_eq!(dry("window = \"hour\"\namount = 100\nestimate = \"strict\"", &[(0, 40)], 30), None);
    assert_eq!(dry("window = \"hour\"\nestimate = \"strict\"", &[(0, 40)], 5), None, "nor one of unknown size an end");
}
