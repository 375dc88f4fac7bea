use freeway_types::{Metric, Monotonic};
use jiff::tz::TimeZone;

use super::*;
use crate::{Actual, Bound, Charging, Demand};

const HOUR: u64 = 3_600;

fn at(seconds: u64) -> Now {
    let micros = i64::try_from(seconds * 1_000_000).unwrap();
    Now { wall: Timestamp::from_micros(micros), monotonic: Monotonic::from_micros(seconds * 1_000_000) }
}

fn limit(metric: Metric, amount: u64, rule: Rule) -> LimitSpec {
    LimitSpec {
        name: "a".to_owned(),
        metric,
        amount: Some(amount),
        rule,
        charging: Charging::default(),
        window: String::new(),
        reset_unknown: false,
        own: true,
        undeclared: false,
        moved: false,
        of_model: true,
        confidence: None,
        as_of: None,
    }
}

/// The outlook at an hour, after so many requests at another, in blocks that end at the hours given.
fn outlook(spec: LimitSpec, spent: (u64, u64), now: u64, ends: &[u64]) -> Vec<(Range<usize>, f64)> {
    let (count, hour) = spent;
    let mut book = Book::new(vec![spec], at(0));
    let demand = Demand { input: Bound::exactly(100), ..Demand::default() };
    for _ in 0..count {
        let id = book.reserve(at(hour * HOUR), &[LimitIndex::new(0)], &demand).unwrap();
        book.received(id, at(hour * HOUR));
        let usage = freeway_types::Usage { input: 100, ..freeway_types::Usage::default() };
        book.settle(id, at(hour * HOUR), &Actual { usage: Some(usage), answered: true, ..Actual::default() });
    }
    let ends: Vec<Timestamp> = ends.iter().map(|end| at(end * HOUR).wall).collect();
    let found = book.outlook(LimitIndex::new(0), at(now * HOUR), &ends, 0.97);
    found.into_iter().map(|allowance| (allowance.blocks, allowance.units.round())).collect()
}

#[test]
fn short_windows_flow() {
    let minute = limit(Metric::Requests, 10, Rule::Rolling(Duration::from_secs(60)));
    assert_eq!(outlook(minute.clone(), (5, 1), 2, &[3, 5]), [(0..1, 582.0), (1..2, 1164.0)]);
    let bucket = limit(Metric::Tokens, 1_000, Rule::Bucket(Duration::from_secs(60)));
    assert_eq!(outlook(bucket, (0, 1), 2, &[3]), [(0..1, 58_200.0)]);
    let civil = limit(Metric::Requests, 10, Rule::Calendar(Civil::Multiple(Duration::from_secs(60)), TimeZone::UTC));
    assert_eq!(outlook(civil, (5, 1), 2, &[3, 5]), outlook(minute, (5, 1), 2, &[3, 5]));
}

#[test]
fn a_day_that_slides_gives_back_what_it_was_charged() {
    let day = limit(Metric::Requests, 100, Rule::Rolling(Duration::from_secs(24 * HOUR)));
    // Sixty went in the first hour: forty are left until they come back a day later.
    let found = outlook(day, (60, 1), 10, &[12, 24, 26, 40]);
    assert_eq!(found, [(0..1, 40.0), (0..2, 40.0), (0..3, 100.0), (1..4, 100.0)]);
}

#[test]
fn civil_windows_begin_anew() {
    let zone = TimeZone::get("America/Los_Angeles").unwrap();
    let day = limit(Metric::Requests, 100, Rule::Calendar(Civil::Day, zone));
    // Midnight there is at eight o'clock here.
    assert_eq!(outlook(day.clone(), (60, 1), 2, &[4, 8, 20, 32, 40]), [(0..2, 40.0), (2..4, 100.0), (4..5, 100.0)]);
    assert_eq!(outlook(day, (60, 1), 9, &[20, 32]), [(0..2, 100.0)]);
}

#[test]
fn a_store_of_a_day_refills() {
    let day = limit(Metric::Tokens, 24_000, Rule::Bucket(Duration::from_secs(24 * HOUR)));
    let found = outlook(day, (200, 1), 1, &[2, 4]);
    // Four thousand are left, and a thousand comes each hour; no block gets more than a full store and its own.
    assert_eq!(found, [(0..1, 5_000.0), (0..2, 7_000.0), (1..2, 26_000.0)]);
}

#[test]
fn credits_lapse_one_after_the_other() {
    let grant =
        |amount: u64, hour: Option<u64>| Grant { amount: Some(amount), expires: hour.map(|hour| at(hour * HOUR).wall) };
    let purse = limit(Metric::Tokens, 9_000, Rule::Never(vec![grant(4_000, Some(10)), grant(5_000, None)]));
    assert_eq!(outlook(purse, (10, 1), 2, &[5, 10, 20]), [(0..3, 8_000.0), (2..3, 5_000.0)]);
    assert_eq!(outlook(limit(Metric::Concurrency, 4, Rule::Concurrency), (0, 1), 2, &[5]), []);
}

#[test]
fn windows_of_the_calendar_end_when_they_do() {
    let zone = TimeZone::get("America/Los_Angeles").unwrap();
    let day = limit(Metric::Requests, 100, Rule::Calendar(Civil::Day, zone.clone()));
    let short = limit(Metric::Requests, 100, Rule::Calendar(Civil::Multiple(Duration::from_secs(HOUR)), zone));
    let book = Book::new(vec![day, short], at(0));
    let ends = |number: usize, now: u64| -> Vec<i64> {
        let ends = book.resets(LimitIndex::new(number), at(now * HOUR).wall, at(60 * HOUR).wall);
        ends.iter().map(|end| end.as_secs() / 3_600).collect()
    };
    assert_eq!(ends(0, 0), [8, 32, 56]);
    assert_eq!(ends(0, 8), [32, 56]);
    assert!(ends(1, 0).is_empty());
}
