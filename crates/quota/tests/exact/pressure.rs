//! Limits are used, not hoarded: a client that never stops asking gets what the uncertainty leaves reachable.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_catalog::Limit;
use freeway_quota::{Actual, Book, Demand, LimitSpec, ReservationId};
use freeway_types::{LimitIndex, Metric, Monotonic, Now, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;

use crate::provider::{Charge, Hidden, Kind, is_overrun};

const WINDOW_MS: i64 = 10_000;
const LENGTH_MS: i64 = 60_500;
/// How often the client asks.
const TICK_MS: i64 = 5;

/// The receipts of a client that sends whatever it may: each is counted and answered within `lag_ms`, by shares that
/// come round.
fn receipts(reset: &str, amount: u64, lag_ms: i64, shares: &[(i64, i64)]) -> Vec<i64> {
    let toml = format!("metric = \"requests\"\nwindow = \"10s\"\namount = {amount}\nreset = \"{reset}\"");
    let spec = LimitSpec::read("lab", &toml::from_str::<Limit>(&toml).unwrap()).unwrap();
    let now = |ms: i64| {
        let length = Duration::from_millis(u64::try_from(ms).unwrap());
        Now { wall: Timestamp::from_secs(1_792_569_600), monotonic: Monotonic::from_micros(0) }.after(length)
    };
    let mut book = Book::new(vec![spec], now(0));
    let mut under_way: BTreeMap<(i64, usize), ReservationId> = BTreeMap::new();
    let mut receipts = Vec::new();
    for tick in 0..=LENGTH_MS / TICK_MS {
        let clock = tick * TICK_MS;
        while let Some(entry) = under_way.first_entry()
            && entry.key().0 <= clock
        {
            let ((answered, _), id) = entry.remove_entry();
            book.received(id, now(answered));
            book.settle(id, now(answered), &Actual { answered: true, ..Actual::default() });
        }
        while let Ok(id) = book.reserve(now(clock), &[LimitIndex::FIRST], &Demand::default()) {
            book.written(id, now(clock));
            let (answered, counted) = shares[receipts.len() % shares.len()];
            let answered = lag_ms * answered / 100;
            under_way.insert((clock + answered, receipts.len()), id);
            receipts.push(clock + answered * counted / 100);
        }
    }
    receipts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    /// Amount × P / (P + δ) per window, in whole rounds: a unit comes back a window after its receipt, and is sent again
    /// at the next tick. A calendar window gives its whole amount, as soon as it is sure to have begun.
    #[test]
    fn what_is_reachable_is_used(
        reset in select(vec!["rolling", "anchored", "bucket", "calendar"]),
        amount in 1_u64..40,
        lag_ms in 0_i64..1500,
        shares in prop::collection::vec((0_i64..=100, 0_i64..=100), 1..20),
    ) {
        let receipts = receipts(reset, amount, lag_ms, &shares);
        let charges: Vec<Charge> =
            receipts.iter().map(|ms| Charge { at: ms * 1000, wall: ms * 1000, units: 1, until: 0 }).collect();
        let length = WINDOW_MS * 1000;
        let kind = match reset {
            "rolling" => Kind::Rolling(length),
            "anchored" => Kind::Anchored(length),
            "bucket" => Kind::Bucket(length),
            _ => Kind::Multiple(length),
        };
        let hidden = Hidden { kind, metric: Metric::Requests, amount, successes_only: false, requested: false };
        prop_assert!(!is_overrun(&hidden, &charges), "{reset}: {receipts:?}");
        // The slack of a calendar is 200 ms; clocks that drift cost half a millisecond.
        let round = if reset == "calendar" { WINDOW_MS } else { WINDOW_MS + lag_ms + TICK_MS + 1 };
        let late = if reset == "calendar" { 200 + TICK_MS } else { 0 };
        let rounds = u64::try_from((LENGTH_MS - late) / round).unwrap();
        // The last round began and was sent, too.
        let least = amount * (rounds + 1);
        prop_assert!(receipts.len() as u64 >= least, "{reset}: {} of {least}", receipts.len());
    }
}
