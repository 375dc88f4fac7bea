//! Whatever is sent, lost, told twice, crashed or set to another time: what the provider counts stays within its
//! limits, and the book balances.
//!
//! `PROPTEST_CASES` sets how many scripts are played, and `PROPTEST_RNG_SEED` which.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test panics when what it reads is wrong")]

mod pressure;
mod provider;
mod world;

use freeway_types::{Metric, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;
use provider::{Hidden, Kind};
use world::{Clocks, Flight, Outcome, Row, Script, Step, World};

/// Scripts that are played for each setting of the clocks.
const CASES: u32 = 2000;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;

/// Instants shortly before a window turns, most of them while clocks change.
const STARTS: [&str; 8] = [
    "2026-09-06T03:59:45Z", // no midnight in Santiago
    "2026-04-05T03:59:40Z", // 25 hours in Santiago
    "2026-03-08T07:59:50Z", // 23 hours in Los Angeles begin
    "2026-11-01T06:59:50Z", // 25 hours in Los Angeles begin
    "2026-10-25T00:59:45Z", // midnight comes twice on the Azores
    "2026-10-31T23:59:50Z", // a month ends
    "2026-11-22T23:59:50Z", // a week ends
    "2026-11-25T12:00:00Z",
];
const ZONES: [&str; 4] = ["America/Santiago", "America/Los_Angeles", "Atlantic/Azores", "UTC"];

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// A limit over a window, and its size in requests, tokens, dollars or units.
fn window_row(clocks: Clocks) -> impl Strategy<Value = Row> {
    let metrics = [
        Metric::Requests,
        Metric::Requests,
        Metric::Tokens,
        Metric::InputTokens,
        Metric::OutputTokens,
        Metric::UncachedTokens,
        Metric::Usd,
        Metric::Units,
    ];
    let kinds = ["rolling", "anchored", "unknown", "bucket", "multiple", "day", "week", "month"];
    (
        select(metrics.to_vec()),
        select(kinds.to_vec()),
        1_u64..6,
        select(ZONES.to_vec()),
        select(vec![2_i64, 7, 10, 60]),
        any::<(bool, bool)>(),
    )
        .prop_map(move |(metric, kind, size, zone, secs, (successes_only, requested))| {
            let length = secs * SECOND;
            let (reset, window, kind) = match kind {
                "rolling" => ("rolling", format!("{secs}s"), Kind::Rolling(length)),
                "unknown" => ("unknown", format!("{secs}s"), Kind::Rolling(length)),
                "anchored" => ("anchored", format!("{secs}s"), Kind::Anchored(length)),
                "bucket" => ("bucket", format!("{secs}s"), Kind::Bucket(length)),
                // A clock that differs by 190 ms is within the slack of ten seconds and more.
                "multiple" if secs < 10 && clocks != Clocks::Learned => {
                    ("calendar", "15s".to_owned(), Kind::Multiple(15 * SECOND))
                }
                "multiple" => ("calendar", format!("{secs}s"), Kind::Multiple(length)),
                "day" => ("calendar", "day".to_owned(), Kind::Day(zone.to_owned())),
                "week" => ("calendar", "week".to_owned(), Kind::Week(zone.to_owned())),
                _ => ("calendar", "month".to_owned(), Kind::Month(zone.to_owned())),
            };
            let zone = match kind {
                Kind::Day(_) | Kind::Week(_) | Kind::Month(_) => format!("\nzone = \"{zone}\""),
                _ => String::new(),
            };
            let (written, amount) = sized(metric, size);
            let counts = if successes_only { "successes" } else { "all" };
            let charges = if requested { "requested" } else { "used" };
            let toml = format!(
                "metric = \"{metric}\"\nwindow = \"{window}\"\namount = {written}\nreset = \"{reset}\"{zone}\n\
                 counts = \"{counts}\"\ncharges = \"{charges}\"\nestimate = \"strict\""
            );
            Row { toml: vec![toml], hidden: Hidden { kind, metric, amount, successes_only, requested } }
        })
}

/// A size as it is written, and as it is counted.
fn sized(metric: Metric, size: u64) -> (String, u64) {
    match metric {
        Metric::Requests | Metric::Concurrency => (size.to_string(), size),
        Metric::Usd => (format!("{}.{:02}", size * 40 / 100, size * 40 % 100), size * 40 * world::PICOS),
        _ => ((size * 40).to_string(), size * 40),
    }
}

/// Up to three credits of one purse; they lapse while the script runs, unless the clocks are set anew.
fn purse_row(clocks: Clocks, start: Timestamp) -> impl Strategy<Value = Row> {
    let metrics = [Metric::Requests, Metric::Tokens, Metric::Usd];
    (select(metrics.to_vec()), prop::collection::btree_map(0_i64..4, 1_u64..5, 1..4)).prop_map(
        move |(metric, sizes)| {
            let mut toml = Vec::new();
            let mut credits = Vec::new();
            for (day, size) in sizes {
                let (written, amount) = sized(metric, size);
                // A credit lapses when its last day ends, in UTC.
                let last = Timestamp::from_secs(start.as_secs() + (day - 1) * 86_400).to_rfc3339();
                let lapses = (day > 0 && clocks == Clocks::Quiet).then(|| last.split('T').next().unwrap().to_owned());
                let end = lapses.as_ref().map(|day| at(day).as_micros() + 24 * HOUR);
                if credits.iter().any(|(_, other)| *other == end) {
                    continue;
                }
                let expires = lapses.map(|day| format!("\nexpires = {day}")).unwrap_or_default();
                toml.push(format!(
                    "metric = \"{metric}\"\namount = {written}\nreset = \"never\"\nestimate = \"strict\"{expires}"
                ));
                credits.push((amount, end));
            }
            let kind = Kind::Credits(credits);
            Row { toml, hidden: Hidden { kind, metric, amount: 0, successes_only: false, requested: false } }
        },
    )
}

fn places_row() -> impl Strategy<Value = Row> {
    (1_u64..5).prop_map(|amount| Row {
        toml: vec![format!("metric = \"concurrency\"\namount = {amount}")],
        hidden: Hidden {
            kind: Kind::Concurrency,
            metric: Metric::Concurrency,
            amount,
            successes_only: false,
            requested: false,
        },
    })
}

fn flight() -> impl Strategy<Value = Flight> {
    let outcomes = [
        Outcome::Answered,
        Outcome::Answered,
        Outcome::Answered,
        Outcome::Refused,
        Outcome::Broken,
        Outcome::Lost,
        Outcome::Unsent,
    ];
    let length = prop_oneof![4 => 0_i64..200_000, 1 => 0_i64..4 * SECOND];
    let shares = (0_u64..=100, 0_i64..=100, 0_i64..=100);
    (
        1_u64..30,
        0_u64..30,
        shares,
        select(outcomes.to_vec()),
        0_i64..50_000,
        length.clone(),
        length,
        any::<(bool, bool)>(),
    )
        .prop_map(|(input, output, shares, outcome, write, first_byte, rest, (tells_receipt, again))| {
            let (used_pct, counted_pct, tokens_pct) = shares;
            Flight {
                input,
                output,
                used_pct,
                outcome,
                write,
                first_byte,
                rest,
                counted_pct,
                tokens_pct,
                tells_receipt,
                again,
            }
        })
}

fn step(clocks: Clocks) -> BoxedStrategy<(i64, Step)> {
    let pause = if clocks == Clocks::Learned { 2 * HOUR } else { 26 * HOUR };
    let gap = prop_oneof![8 => 0_i64..300_000, 2 => 0_i64..4 * SECOND, 1 => 0_i64..20 * SECOND, 1 => 0..pause];
    let send = flight().prop_map(Step::Send);
    let jump = select(vec![SECOND, 20 * SECOND, HOUR, 25 * HOUR, 365 * 24 * HOUR]);
    let set = (jump, any::<bool>()).prop_map(|(jump, back)| Step::Set(if back { -jump } else { jump }));
    let step = match clocks {
        Clocks::Quiet => prop_oneof![30 => send, 1 => Just(Step::Crash)].boxed(),
        Clocks::Learned => prop_oneof![30 => send, 1 => set].boxed(),
        Clocks::Wrong => prop_oneof![60 => send, 1 => set].boxed(),
        Clocks::Jumpy => prop_oneof![30 => send, 2 => set, 1 => Just(Step::Crash)].boxed(),
    };
    (gap, step).boxed()
}

fn script(clocks: Clocks) -> impl Strategy<Value = Script> {
    let skew = match clocks {
        Clocks::Learned => -20 * HOUR..20 * HOUR,
        Clocks::Quiet | Clocks::Jumpy | Clocks::Wrong => -190_000..190_000,
    };
    select(STARTS.to_vec()).prop_flat_map(move |start| {
        let start = at(start);
        let row = prop_oneof![6 => window_row(clocks), 1 => purse_row(clocks, start), 1 => places_row()];
        let rows = prop::collection::vec(row, 1..6);
        let steps = prop::collection::vec(step(clocks), 1..120);
        (rows, skew.clone(), -45_i64..=45, steps).prop_map(move |(rows, skew_micros, drift_ppm, steps)| Script {
            rows,
            start,
            clocks,
            skew_micros,
            drift_ppm,
            steps,
        })
    })
}

fn check(script: Script) -> Result<(), TestCaseError> {
    let mut world = World::new(script);
    world.play().map_err(TestCaseError::fail)?;
    world.check_end().map_err(TestCaseError::fail)
}

fn config() -> ProptestConfig {
    let named = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig::default();
    ProptestConfig { cases: if named { default.cases } else { CASES }, failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn exact_while_clocks_differ_a_little_and_the_process_crashes(script in script(Clocks::Quiet)) {
        check(script)?;
    }

    #[test]
    fn exact_while_the_wall_clock_is_set_right(script in script(Clocks::Jumpy)) {
        check(script)?;
    }

    #[test]
    fn exact_while_the_wall_clock_is_set_wrong(script in script(Clocks::Wrong)) {
        check(script)?;
    }

    #[test]
    fn exact_by_a_clock_that_is_far_off_and_was_learned(script in script(Clocks::Learned)) {
        check(script)?;
    }
}
