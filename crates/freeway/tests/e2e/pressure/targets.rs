//! What is pressed on: one provider for each kind of limit, and one whose only model has many at once.

use std::time::Duration;

use super::measure::Cycle;

/// What one simulated provider is made for.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) id: &'static str,
    pub(crate) facts: &'static str,
    pub(crate) models: &'static [&'static str],
    /// How its limits come back, in the order of its books; where several hold for one model, none can be used up by
    /// itself, and none is measured.
    pub(crate) cycle: Option<Cycle>,
    /// The least share of what is reachable.
    pub(crate) promised: f64,
    /// How many requests in a hundred the provider may refuse.
    pub(crate) refused_percent: u64,
    /// Whether it fails now and then.
    pub(crate) fails: bool,
    pub(crate) pace: Duration,
    /// The output that requests ask for.
    pub(crate) most_output: u64,
    /// How often they say the same.
    pub(crate) repeats: usize,
}

/// One model with one limit whose every unit is spoken for.
const fn one(id: &'static str, facts: &'static str, cycle: Cycle) -> Target {
    Target {
        id,
        facts,
        models: &["m"],
        cycle: Some(cycle),
        promised: 0.95,
        refused_percent: 0,
        fails: false,
        pace: Duration::ZERO,
        most_output: 20,
        repeats: 1,
    }
}

pub(crate) static TARGETS: &[Target] = &[
    one(
        "rolling",
        r#"models = [{ id = "m", limits = [{ metric = "requests", window = "3s", amount = 24 }] }]"#,
        Cycle::Sliding(3),
    ),
    one(
        "bucket",
        r#"models = [{ id = "m", limits = [{ metric = "requests", window = "4s", amount = 32, reset = "bucket" }] }]"#,
        Cycle::Bucket(4),
    ),
    one(
        "calendar",
        r#"models = [{ id = "m", limits = [{ metric = "requests", window = "5s", amount = 40, reset = "calendar" }] }]"#,
        Cycle::Fixed(5),
    ),
    one(
        "short",
        r#"models = [{ id = "m", limits = [{ metric = "requests", window = "2s", amount = 12, reset = "calendar" }] }]"#,
        Cycle::Fixed(2),
    ),
    one(
        "anchored",
        r#"models = [{ id = "m", limits = [{ metric = "requests", window = "4s", amount = 28, reset = "anchored" }] }]"#,
        Cycle::Sliding(4),
    ),
    one(
        "unknown",
        r#"models = [{ id = "m", limits = [{ metric = "requests", window = "3s", amount = 20, reset = "unknown" }] }]"#,
        Cycle::Sliding(3),
    ),
    one(
        "credit",
        r#"models = [{ id = "m", limits = [{ metric = "requests", amount = 100, reset = "never" }] }]"#,
        Cycle::Once,
    ),
    Target {
        pace: Duration::from_millis(30),
        ..one("places", r#"models = [{ id = "m", limits = [{ metric = "concurrency", amount = 4 }] }]"#, Cycle::Places)
    },
    Target {
        models: &["m", "n"],
        ..one(
            "pool",
            r#"models = [
                { id = "m", limits = [{ metric = "requests", window = "4s", amount = 30, pool = "both" }] },
                { id = "n", limits = [{ metric = "requests", window = "4s", amount = 30, pool = "both" }] },
            ]"#,
            Cycle::Sliding(4),
        )
    },
    Target {
        fails: true,
        ..one(
            "successes",
            r#"models = [
                { id = "m", limits = [{ metric = "requests", window = "3s", amount = 15, counts = "successes" }] }
            ]"#,
            Cycle::Sliding(3),
        )
    },
    Target {
        promised: 0.9,
        repeats: 12,
        ..one(
            "strict",
            r#"models = [{ id = "m", limits = [
                { metric = "tokens", window = "10s", amount = 30000, estimate = "strict" }
            ] }]"#,
            Cycle::Completed(10),
        )
    },
    // The most that a request of a dozen words can use is some ten times what it does use, because of what a template may
    // put around it. It is held while the request is under way, and the last part of the limit is out of reach: what is
    // promised is that nothing is refused.
    Target {
        promised: 0.75,
        ..one(
            "strict-short",
            r#"models = [{ id = "m", limits = [
                { metric = "tokens", window = "10s", amount = 5000, estimate = "strict" }
            ] }]"#,
            Cycle::Completed(10),
        )
    },
    Target {
        promised: 0.9,
        refused_percent: 1,
        most_output: 400,
        ..one(
            "requested",
            r#"models = [{ id = "m", limits = [
                { metric = "tokens", window = "10s", amount = 20000, charges = "requested" }
            ] }]"#,
            Cycle::Completed(10),
        )
    },
    Target {
        promised: 0.9,
        refused_percent: 1,
        ..one(
            "calibrated",
            r#"models = [{ id = "m", limits = [{ metric = "tokens", window = "10s", amount = 3000 }] }]"#,
            Cycle::Completed(10),
        )
    },
    Target {
        cycle: None,
        ..one(
            "many",
            r#"models = [{ id = "m", limits = [
                { metric = "requests", window = "2s", amount = 10 },
                { metric = "requests", window = "3s", amount = 14, reset = "bucket" },
                { metric = "requests", window = "5s", amount = 20, reset = "calendar" },
                { metric = "requests", window = "4s", amount = 18, reset = "anchored" },
                { metric = "requests", window = "6s", amount = 26, counts = "successes" },
                { metric = "requests", amount = 1000, reset = "never" },
                { metric = "tokens", window = "10s", amount = 9000, estimate = "strict" },
                { metric = "concurrency", amount = 5 },
            ] }]"#,
            Cycle::Once,
        )
    },
];
