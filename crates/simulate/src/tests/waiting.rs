//! Requests that may wait.

use super::*;

const ONE: &str = "{ metric = \"requests\", window = \"minute\", amount = 1 }";

fn batch(at: f64, wait: f64) -> String {
    line(at, "batch", (80, 20), wait, "")
}

#[test]
fn who_waits_goes_when_something_is_back_the_earliest_deadline_first() {
    let requests = [small(0.0), batch(1.0, 1_000.0), batch(2.0, 200.0), batch(3.0, 57.003), batch(4.0, 50.0)];
    let expected = ["lab/m 0.0", "lab/m 180.009", "lab/m 120.006", "lab/m 60.003", "quota"];
    check(&provider("lab", 3, ONE), &requests, &expected);
    // The same where each one is of another size and tier, so that each stands in a line of its own.
    let unlike: Vec<String> = (1..)
        .zip(&requests)
        .map(|(step, line)| {
            line.replace("80", &(80_u32 << step).to_string())
                .replace("batch", if step == 3 { "standard" } else { "batch" })
        })
        .collect();
    check(&provider("lab", 3, ONE), &unlike, &expected);
}

#[test]
fn who_may_not_wait_goes_before_those_whose_turn_has_not_come() {
    let requests = [small(0.0), batch(1.0, 500.0), small(60.003), small(70.0)];
    // At 60.003 the one that waits is there first.
    check(&provider("lab", 3, ONE), &requests, &["lab/m 0.0", "lab/m 60.003", "quota", "quota"]);
}

#[test]
fn a_smaller_one_passes_one_that_does_not_fit() {
    let limit = "{ metric = \"tokens\", window = \"minute\", amount = 1000 }";
    let size = |at, tokens, wait| line(at, "batch", (tokens, 0), wait, "");
    let requests = [
        size(0.0, 600, 0.0),
        size(30.0, 400, 0.0),
        size(31.0, 900, 80.0),
        size(32.0, 500, 300.0),
        size(33.0, 90, 90.0),
    ];
    let expected = ["lab/m 0.0", "lab/m 30.0", "quota", "lab/m 60.003", "lab/m 60.003"];
    check(&provider("lab", 3, limit), &requests, &expected);
}

#[test]
fn a_smaller_one_passes_one_of_its_own_line() {
    let limit = "{ metric = \"tokens\", window = \"minute\", amount = 2000 }";
    let size = |at, tokens, wait| line(at, "batch", (tokens, 0), wait, "");
    // 700 are back at 60, the rest only at 90.
    let requests = [size(0.0, 700, 0.0), size(30.0, 1_300, 0.0), size(31.0, 1_000, 80.0), size(32.0, 600, 90.0)];
    check(&provider("lab", 3, limit), &requests, &["lab/m 0.0", "lab/m 30.0", "lab/m 90.003", "lab/m 60.003"]);
}

#[test]
fn who_waits_goes_to_whichever_target_is_free_first() {
    let slow = ONE.replace("minute", "hour");
    let config = format!("{}{}", provider("fast", 3, ONE), provider("slow", 2, &slow));
    let requests = [small(0.0), small(0.0), batch(1.0, 7_200.0), batch(1.0, 7_200.0)];
    check(&config, &requests, &["slow/m 0.0", "fast/m 0.0", "fast/m 60.003", "fast/m 120.006"]);
}

#[test]
fn nobody_waits_for_what_does_not_come_back_in_time() {
    let credit = provider("lab", 3, "{ metric = \"tokens\", amount = 100, reset = \"never\" }");
    check(&credit, &[batch(0.0, 0.0), batch(1.0, 1e7)], &["lab/m 0.0", "quota"]);
    let (came, summary) =
        played(&provider("lab", 3, ONE), &[small(0.0), batch(0.0, 60.0), batch(0.0, 60.004)].concat(), None);
    assert_eq!(came, ["lab/m 0.0", "quota", "lab/m 60.003"]);
    assert_eq!((summary.waited, summary.tiers[2].served), (1, 1));
}

#[test]
fn ten_thousand_may_wait() {
    let limit = "{ metric = \"requests\", window = \"day\", amount = 1000, reset = \"calendar\" }";
    let config = provider("lab", 3, limit);
    let workload: String = (0..10_000_u32).map(|step| batch(f64::from(step), 10.0 * 86_400.0)).collect();
    let (_, summary) = played(&config, &workload, None);
    // The first day, and ten more that begin before the last one's time is up.
    assert_eq!((summary.served, summary.limits[0].most), (10_000, 1_000.0));
}

#[test]
fn a_decision_uses_earlier_lines_only() {
    let config = format!("{}{}", provider("a", 3, ONE), provider("b", 2, &ONE.replace('1', "2")));
    let all: Vec<String> = (0..40_u32)
        .map(|step| if step % 3 == 0 { batch(f64::from(step) * 7.0, 90.0) } else { small(f64::from(step) * 7.0) })
        .collect();
    let whole = played(&config, &all.concat(), None).0;
    for cut in 1..all.len() {
        let part = played(&config, &all[..cut].concat(), None).0;
        for (line, came) in part.iter().enumerate() {
            let at = came.rsplit(' ').next().and_then(|at| at.parse::<f64>().ok());
            // What happened before the next line came is the same with it.
            if at.is_some_and(|at| at < cut as f64 * 7.0) {
                assert_eq!(came, &whole[line], "line {line} without those from {cut} on");
            }
        }
    }
}
