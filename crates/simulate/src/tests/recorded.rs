//! A recorded day, decided again: what is taken from the ledger, what is assumed, and what is told to differ.

use std::collections::BTreeMap;

use freeway_types::{Asked, Feature, FeatureSet, Handling, Quality, Usd};

use super::*;

const PAID: &str = "[providers.shop]\nbase_url = \"http://127.0.0.1:9/v1\"\nkeys = [\"sk-test-shop\"]\n\
                    plan = \"paid\"\ndata = { trains = \"no\", retention_days = 0 }\n\
                    [[providers.shop.models]]\nid = \"m\"\nquality = 5\nprice = { input = 1.0, output = 2.0 }\n";

/// A provider of a free model that does this with data.
fn free(id: &str, quality: u8, data: &str) -> String {
    provider(id, quality, "").replace("cost =", &format!("data = {{ {data} }}\ncost ="))
}

const TRAINS: &str = "trains = \"yes\", retention_days = 0";
const KEEPS: &str = "trains = \"no\", retention_days = 30";
const NOTHING: &str = "trains = \"no\", retention_days = 0";

fn asked() -> Asked {
    Asked {
        input: 900,
        max_output: Some(1_000),
        min_quality: Quality::LOWEST,
        features: FeatureSet::default(),
        named_tier: false,
        named_data: false,
    }
}

/// A request of 1,000 and 500 tokens that asked for `auto` and named nothing, answered by a target.
fn served(after: u64, target: &str) -> Recorded {
    Recorded {
        after: Duration::from_secs(after),
        caller: "operator".to_owned(),
        model: "auto".to_owned(),
        tier: "standard".to_owned(),
        data: "public".to_owned(),
        stream: false,
        asked: Some(asked()),
        input: Some(1_000),
        output: Some(500),
        fate: Fate::Served(target.to_owned()),
        cost: Usd::ZERO,
        is_unpriced: false,
        sent: vec![(target.to_owned(), Some(Handling { paid: false, trains: Some(false), retention_days: Some(0) }))],
        barred: Vec::new(),
    }
}

/// The same, with this error in place of an answer.
fn failed(after: u64, code: &str) -> Recorded {
    let fate = Fate::Unserved(code.to_owned());
    Recorded { fate, output: None, input: None, sent: Vec::new(), ..served(after, "") }
}

fn replayed(config: &str, day: &[Recorded]) -> Comparison {
    let loaded = loaded(config);
    let (snapshot, limits) = (&loaded.snapshot, loaded.limits.as_slice());
    let is_open = loaded.settings.keys.is_empty();
    let replay = Replay::of(day, snapshot, is_open, None);
    let resolve = Duration::from_secs(10_800);
    let scenario = Scenario { snapshot, limits, workload: &replay.workload, start: start(), resolve };
    let run = simulate(scenario);
    let summary = Summary::of(scenario, &run, &recount(scenario, &run.decisions));
    assert_eq!(summary.broken, [""; 0]);
    let latency = [("lab/m", LatencyClass::BelowHalfASecond), ("old/m", LatencyClass::Slower)];
    let latency: BTreeMap<_, _> = latency.map(|(name, class)| (name.to_owned(), class)).into();
    let comparison = compare(scenario, &run, day, &replay, &latency);
    for side in [&comparison.recorded, &comparison.simulated] {
        assert_eq!(side.served + side.unserved.values().sum::<usize>(), day.len(), "each request is counted once");
    }
    assert_eq!(comparison.simulated.cost_usd, summary.cost_usd);
    comparison
}

fn unserved(all: &[(&str, usize)]) -> BTreeMap<String, usize> {
    all.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect()
}

fn shift(from: &str, to: &str, requests: usize) -> Shift {
    Shift { from: from.to_owned(), to: to.to_owned(), requests }
}

fn change(what: &str, [recorded, simulated, newly, no_longer]: [usize; 4]) -> Change {
    Change { what: what.to_owned(), recorded, simulated, newly, no_longer }
}

#[test]
fn a_day_that_would_be_the_same_shows_no_difference() {
    let config = free("lab", 3, NOTHING);
    let day = [served(0, "lab/m"), served(86_399, "lab/m"), failed(5, "invalid_json")];
    let day = day.map(|request| match request.fate {
        Fate::Unserved(_) => Recorded { tier: String::new(), asked: None, ..request },
        Fate::Served(_) => request,
    });
    let found = replayed(&config, &day);
    assert_eq!(found.recorded, found.simulated);
    assert_eq!(found.simulated.unserved, unserved(&[("invalid_json", 1)]), "what was turned away stays so");
    assert_eq!((found.same_target, found.other_target, found.newly_served, found.no_longer_served), (2, 0, 0, 0));
    assert_eq!((&found.moves[..], &found.data[..], &found.data_rules[..]), (&[][..], &[][..], &[][..]));
    assert_eq!(found.assumed, Assumed { turned_away: 1, ..Assumed::default() });
}

#[test]
fn what_moves_is_told_by_target_money_and_latency() {
    let config = format!("{PAID}{}", free("lab", 3, NOTHING));
    let paid = Handling { paid: true, trains: Some(false), retention_days: Some(0) };
    let was_paid = Recorded {
        cost: Usd::from_picos(7_000_000),
        sent: vec![("shop/m".to_owned(), Some(paid))],
        ..served(0, "shop/m")
    };
    let critical = Recorded {
        tier: "critical".to_owned(),
        asked: Some(Asked { named_tier: true, ..asked() }),
        ..served(1, "old/m")
    };
    let day = [was_paid, critical, served(2, "old/m"), served(3, "old/m"), failed(4, "upstream_unavailable")];
    let found = replayed(&config, &day);
    let expected = [
        shift("old/m", "lab/m", 2),
        shift("old/m", "shop/m", 1),
        shift("shop/m", "lab/m", 1),
        shift("unserved", "lab/m", 1),
    ];
    assert_eq!(found.moves, expected);
    assert_eq!(found.cost_classes, [shift("free", "paid", 1), shift("paid", "free", 1), shift("unserved", "free", 1)]);
    let expected = [
        shift("slower", "below 0.5 s", 2),
        shift("slower", "unknown", 1),
        shift("unknown", "below 0.5 s", 1),
        shift("unserved", "below 0.5 s", 1),
    ];
    assert_eq!(found.latency_classes, expected);
    assert_eq!((found.recorded.cost_usd, found.simulated.cost_usd), (0.000_007, 0.002), "1,000 and 500 tokens");
    assert_eq!((found.other_target, found.newly_served), (4, 1));
    let rows: Vec<_> = found.targets.iter().map(|row| (row.target.as_str(), row.recorded, row.simulated)).collect();
    assert_eq!(rows, [("lab/m", 0, 4), ("shop/m", 1, 1), ("old/m", 3, 0)], "one that is gone is told too");
    assert_eq!(found.assumed, Assumed { output: 1, ..Assumed::default() });
}

#[test]
fn what_the_configuration_does_not_know_any_more_is_refused_and_counted() {
    let config = format!(
        "[server]\nkeys = [\"sk-test-operator\"]\n[client_keys.ci]\nkey = \"sk-test-ci\"\ntier = \"batch\"\n{}",
        free("lab", 3, NOTHING)
    );
    let named = Some(Asked { named_tier: true, ..asked() });
    let lab = |after| served(after, "lab/m");
    let day = [
        Recorded { model: "smart".to_owned(), ..lab(0) },
        Recorded { tier: "urgent".to_owned(), asked: named, ..lab(1) },
        Recorded { tier: "urgent".to_owned(), ..lab(2) },
        Recorded { caller: "web".to_owned(), ..lab(3) },
        Recorded { caller: "ci".to_owned(), ..lab(4) },
        Recorded { caller: "ci".to_owned(), asked: named, ..lab(5) },
    ];
    let found = replayed(&config, &day);
    let expected = [("model_not_found", 1), ("invalid_value", 1), ("invalid_api_key", 1), ("permission_denied", 1)];
    assert_eq!(found.simulated.unserved, unserved(&expected));
    assert_eq!((found.simulated.served, found.no_longer_served), (2, 4), "who named no tier gets the usual one");
    let open = replayed(&free("lab", 3, NOTHING), &day[3..4]);
    assert_eq!(open.simulated.served, 1, "where no key is asked for, none is unknown");
}

#[test]
fn data_rules_are_told_by_what_happens_and_by_what_they_refuse() {
    let trained = Handling { paid: false, trains: Some(true), retention_days: Some(0) };
    let kept = Handling { trains: Some(false), ..trained };
    let internal = |request| Recorded { data: "internal".to_owned(), ..request };
    let day = [
        // It was first sent to one that trains, which refused it.
        Recorded {
            sent: vec![("old/m".to_owned(), Some(trained)), ("lab/m".to_owned(), Some(kept))],
            ..served(0, "lab/m")
        },
        served(1, "lab/m"),
        internal(Recorded { asked: Some(Asked { named_data: true, ..asked() }), ..served(2, "lab/m") }),
        Recorded { barred: vec!["an old rule".to_owned()], ..internal(failed(3, "no_permitted_target")) },
    ];
    let found = replayed(&free("lab", 3, TRAINS), &day);
    assert_eq!(found.simulated.unserved, unserved(&[("no_permitted_target", 1)]));
    // Who named no class is public now, and is served.
    assert_eq!(found.data, [change("trained on", [1, 3, 2, 0])]);
    let clause = "internal data must not be trained on, and this provider trains";
    assert_eq!(found.data_rules, [change("an old rule", [1, 0, 0, 1]), change(clause, [0, 1, 1, 0])]);

    let stricter = format!("[server]\ndata = \"personal\"\n{}", free("lab", 3, KEEPS).replace("= 30", "= 31"));
    let found = replayed(&stricter, &day);
    let personal = "personal data must not be kept for 31 days";
    assert_eq!(found.simulated.served, 1, "who named `internal` keeps it");
    assert_eq!(found.data_rules, [change("an old rule", [1, 0, 0, 1]), change(personal, [0, 3, 3, 0])]);
    assert_eq!(found.data, [change("kept for some days", [0, 1, 1, 0]), change("trained on", [1, 0, 0, 1])]);
}

#[test]
fn what_is_not_recorded_is_assumed_and_counted() {
    let config = format!("{}{}", free("lab", 3, ""), free("new", 5, ""));
    let old = |request| Recorded { asked: None, ..request };
    let day = [
        old(Recorded {
            output: Some(700),
            input: Some(10),
            sent: vec![("lab/m".to_owned(), None)],
            ..served(0, "lab/m")
        }),
        old(failed(1, "quota_exhausted")),
        failed(2, CLIENT_LEFT),
        Recorded { sent: vec![("gone/m".to_owned(), None)], ..served(3, "gone/m") },
    ];
    let loaded = loaded(&config);
    let replay = Replay::of(&day, &loaded.snapshot, true, None);
    let sizes: Vec<_> =
        replay.workload.arrivals.iter().map(|arrival| (arrival.size.input, arrival.size.output)).collect();
    assert_eq!(sizes, [(10, 700), (900, 500), (900, 500), (1_000, 500)], "the middle ones, and the estimate");
    assert_eq!(replay.assumed, Assumed { asked: 2, input: 1, output: 2, stayed: 1, turned_away: 0, handling: 1 });
    let unknown: Vec<_> = replayed(&config, &day).data;
    let nobody = "nobody knows whether it is trained on";
    assert_eq!(unknown[1], change(nobody, [1, 4, 3, 0]), "of the one that is gone nothing is said");
    assert_eq!(replay.workload.arrivals[0].chat.max_output, None);
}

#[test]
fn lengths_that_were_asked_for_count_and_lengths_that_were_used_are_charged() {
    let limit = "{ metric = \"tokens\", window = \"day\", amount = 3100 }";
    let config = provider("lab", 3, limit).replace("quality", "max_output = 900\nquality");
    let of = |after, max_output: Option<u64>| Recorded {
        asked: Some(Asked { max_output, ..asked() }),
        ..served(after, "lab/m")
    };
    // Each uses 1,500 tokens: a third one has no room, and a second one would have none if what it may use were held.
    let found = replayed(&config, &[of(0, Some(901)), of(1, Some(900)), of(2, None), of(3, None)]);
    assert_eq!(found.simulated.unserved, unserved(&[("unsupported_parameter", 1), ("quota_exhausted", 1)]));
    // An answer that was longer elsewhere is cut where the target cuts it, or its context does.
    let long = [Recorded { output: Some(5_000), ..of(0, None) }];
    let cost = |length: &str| {
        let config = PAID.replace("quality", &format!("{length}\nquality"));
        replayed(&config, &long).simulated.cost_usd
    };
    assert_eq!((cost("max_output = 900"), cost("context = 1200"), cost("")), (0.0028, 0.0014, 0.011));
}

#[test]
fn features_and_quality_are_those_that_were_asked_for() {
    let config = free("lab", 3, "").replace("quality", "features = [\"stream\"]\nquality");
    let with = |min_quality, feature| {
        let features = [feature].into_iter().collect();
        let min_quality = Quality::new(min_quality).unwrap();
        Recorded { asked: Some(Asked { min_quality, features, ..asked() }), ..served(0, "lab/m") }
    };
    let day = [with(3, Feature::Stream), with(4, Feature::Stream), with(1, Feature::Tools)];
    let found = replayed(&config, &day);
    assert_eq!(found.simulated.unserved, unserved(&[("no_permitted_target", 1), ("unsupported_parameter", 1)]));
}

#[test]
fn a_latency_class_is_where_the_middle_answer_is() {
    let check = |counts: (u64, u64, u64), expected| {
        assert_eq!(LatencyClass::of(counts.0, counts.1, counts.2), expected, "{counts:?}");
    };
    check((0, 0, 0), LatencyClass::Unknown);
    check((1, 1, 1), LatencyClass::BelowHalfASecond);
    check((2, 1, 1), LatencyClass::BelowHalfASecond);
    check((3, 1, 2), LatencyClass::BelowTwoSeconds);
    check((3, 1, 1), LatencyClass::Slower);
    check((1, 0, 0), LatencyClass::Slower);
}
