//! The second count finds what breaks a rule.

use freeway_types::{DeploymentIndex, Monotonic};

use super::*;

/// What is found of decisions: line, seconds, target. Each line comes at 0 and may wait for a year.
fn broken(config: &str, tokens: &[u64], decisions: &[(usize, f64, usize)]) -> Vec<String> {
    let loaded = loaded(config);
    let (snapshot, limits) = (&loaded.snapshot, loaded.limits.as_slice());
    let lines: String = tokens.iter().map(|tokens| line(0.0, "batch", (*tokens, 0), 3e7, "")).collect();
    let workload = Workload::read("w.jsonl", &lines, snapshot, None).unwrap();
    let resolve = Duration::from_secs(10_800);
    let scenario = Scenario { snapshot, limits, workload: &workload, start: start(), resolve };
    let micros = |seconds: f64| Monotonic::default().after(Duration::from_secs_f64(seconds));
    let decision = |(line, seconds, target): &(usize, f64, usize)| Decision {
        line: *line,
        at: micros(*seconds),
        target: DeploymentIndex::new(*target),
    };
    let decisions: Vec<Decision> = decisions.iter().map(decision).collect();
    recount(scenario, &decisions).broken.into_iter().map(|broken| format!("{} {}", broken.line, broken.what)).collect()
}

/// Two requests of 60 tokens: whether the second one, at `second`, breaks the limit that the first one used at `first`.
fn check(limit: &str, (first, second): (f64, f64), breaks: bool) {
    let found = broken(&provider("lab", 3, limit), &[60, 60], &[(0, first, 0), (1, second, 0)]);
    let expected = if breaks { vec!["1 lab/m".to_owned()] } else { Vec::new() };
    let found: Vec<String> = found.iter().map(|what| what.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(found, expected, "{limit}: {first}, {second}");
}

#[test]
fn each_kind_of_limit_is_counted() {
    let limit = |more: &str| format!("{{ metric = \"tokens\", amount = 100, {more} }}");
    check(&limit("window = \"minute\""), (5.0, 64.999_999), true);
    check(&limit("window = \"minute\""), (5.0, 65.0), false);
    check(&limit("window = \"minute\", reset = \"bucket\""), (5.0, 16.9), true);
    check(&limit("window = \"minute\", reset = \"bucket\""), (5.0, 17.0), false);
    let noon = 12.0 * 3_600.0;
    check(&limit("window = \"day\", reset = \"calendar\""), (0.0, noon - 0.001), true);
    check(&limit("window = \"day\", reset = \"calendar\""), (noon - 0.001, noon), false);
    let shanghai = limit("window = \"day\", reset = \"calendar\", zone = \"Asia/Shanghai\"");
    check(&shanghai, (4.0 * 3_600.0 - 1.0, 4.0 * 3_600.0), false);
    check(&shanghai, (noon - 0.001, noon), true);
    let days = |days: f64| days * 86_400.0;
    check(&limit("window = \"week\", reset = \"calendar\""), (days(0.0), days(6.4)), true);
    check(&limit("window = \"week\", reset = \"calendar\""), (days(0.0), days(6.5)), false);
    check(&limit("window = \"month\", reset = \"calendar\""), (days(0.0), days(7.4)), true);
    check(&limit("window = \"month\", reset = \"calendar\""), (days(0.0), days(7.5)), false);
    check(&limit("window = \"5h\", reset = \"calendar\""), (0.0, 3.0 * 3_600.0 - 0.1), true);
    check(&limit("window = \"5h\", reset = \"calendar\""), (0.0, 3.0 * 3_600.0), false);
    check(&limit("reset = \"never\""), (0.0, days(300.0)), true);
    check(&limit("reset = \"never\", expires = 2027-01-01").replace("100", "120"), (0.0, 1.0), false);
    check(&limit("reset = \"never\", expires = 2026-11-23").replace("100", "120"), (0.0, noon), true);
    check("{ metric = \"requests\", window = \"day\", amount = 1 }", (0.0, days(1.0) - 0.1), true);
}

#[test]
fn decisions_that_make_no_sense_are_found() {
    let config = provider("lab", 3, "").replace("quality = 3", "quality = 3\ncontext = 100");
    assert_eq!(broken(&config, &[60], &[(1, 0.0, 0)]), ["1 there is no such line"]);
    assert_eq!(broken(&config, &[60], &[(0, 0.0, 1)]), ["0 there is no such target"]);
    assert_eq!(broken(&config, &[60], &[(0, 0.0, 0), (0, 1.0, 0)]), ["0 it was served twice"]);
    assert_eq!(broken(&config, &[60], &[(0, 3.1e7, 0)]), ["0 it was served before it came or after its time"]);
    assert_eq!(broken(&config, &[101], &[(0, 0.0, 0)]), ["0 lab/m: it does not fit the context"]);
}
