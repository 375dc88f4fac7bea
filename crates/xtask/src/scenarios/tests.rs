use std::path::Path;
use std::time::Duration;

use freeway_config::{Loaded, Surroundings, load};
use freeway_router::Strategy;
use freeway_simulate::{Run, Scenario, Summary, Workload, recount, simulate};
use freeway_types::Timestamp;

use super::*;

/// So much of each scenario is simulated here.
const PART: f64 = 0.2;

struct Made {
    loaded: Loaded,
    workload: String,
    start: Timestamp,
}

fn made(seed: &Seed, part: f64) -> Made {
    let start = Timestamp::parse(seed.start).unwrap();
    let Files { config, workload } = seed.files(part);
    let surroundings = Surroundings { variable: &|_| None, folder: Path::new("."), now: start };
    let loaded = load("config.toml", Some(&config), &surroundings).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    Made { loaded, workload, start }
}

fn play(made: &Made, strategy: Strategy) -> (Run, Summary) {
    let (snapshot, limits) = (&made.loaded.snapshot, made.loaded.limits.as_slice());
    let workload = Workload::read("workload.jsonl", &made.workload, snapshot, Some(strategy)).unwrap();
    let resolve = Duration::from_secs(10_800);
    let scenario = Scenario { snapshot, limits, workload: &workload, start: made.start, resolve };
    let run = simulate(scenario);
    let summary = Summary::of(scenario, &run, &recount(scenario, &run.decisions));
    (run, summary)
}

#[test]
fn every_seed_has_what_scenarios_are_to_have() {
    let mut shifts = 0;
    for seed in SEEDS {
        let made = made(&seed, 1.0);
        let deployments = &made.loaded.snapshot.deployments;
        assert!((7..=11).contains(&deployments.len()), "seed {}: {} targets", seed.number, deployments.len());
        assert!(deployments.iter().all(|deployment| deployment.off.is_none()), "seed {}", seed.number);
        let paid = deployments.iter().filter(|of| of.cost == freeway_types::CostClass::Paid).count();
        assert_eq!(paid, usize::from(seed.is_paid), "seed {}", seed.number);
        let shared = deployments.iter().flat_map(|of| &of.limits).count() - made.loaded.limits.len();
        assert!(shared >= 2, "seed {}: two models share a pool", seed.number);
        let requests = made.workload.lines().count();
        assert!((1_000..150_000).contains(&requests), "seed {}: {requests} requests", seed.number);
        shifts += usize::from(seed.shift != Shift::None);
        assert_eq!(seed.files(1.0).workload, made.workload, "seed {}: the same each time", seed.number);
    }
    assert_eq!(shifts, 5);
}

#[test]
fn no_strategy_breaks_a_limit_in_any_scenario_and_each_does_the_same_twice() {
    for seed in SEEDS {
        let made = made(&seed, PART);
        // To find prices takes long, so some scenarios speak for the others here; `docs/routing.md` has them all.
        let is_tried = |strategy: &Strategy| *strategy != Strategy::Price || [4, 8].contains(&seed.number);
        for strategy in Strategy::ALL.into_iter().filter(is_tried) {
            let (run, summary) = play(&made, strategy);
            assert_eq!(summary.broken, [""; 0], "seed {}, {}", seed.number, strategy.as_str());
            assert_eq!(run.decisions.len() + run.refused.len(), summary.requests, "seed {}", seed.number);
            assert!(summary.served * 10 > summary.requests, "seed {}: {} served", seed.number, summary.served);
            assert_eq!(play(&made, strategy).0, run, "seed {}, {}", seed.number, strategy.as_str());
        }
    }
}

#[test]
fn others_are_made_like_those_of_the_table() {
    for number in 11..41 {
        let seed = Seed::other(number);
        assert_eq!((seed.name(), seed.start), (Seed::other(number).name(), Seed::other(number).start));
        let made = made(&seed, 0.02);
        assert!((7..=11).contains(&made.loaded.snapshot.deployments.len()), "{number}");
        assert!(made.workload.lines().count() > 20, "{number}");
    }
    let stationary = (11..41).filter(|number| Seed::other(*number).shift == Shift::None).count();
    assert!((12..=18).contains(&stationary), "{stationary} of 30 are alike every day");
    let folder = Path::new("nowhere");
    assert!(write(folder, Some("11-41")).is_err() && write(folder, Some("1..x")).is_err());
}
