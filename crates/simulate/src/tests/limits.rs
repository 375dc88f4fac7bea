//! Each kind of limit binds exactly: so many fit and not one more, and it comes back at its instant.

use super::*;

/// `fit` requests of 100 tokens fit at 10 s, one more does not, nor at `too_soon`, but at `back`.
fn check(limit: &str, fit: usize, too_soon: f64, back: f64) {
    let at_once: Vec<String> = (0..=fit).map(|_| small(10.0)).collect();
    let workload = format!("{}{}{}", at_once.concat(), small(too_soon), small(back));
    let (came, summary) = played(&provider("lab", 3, limit), &workload, None);
    let mut expected = vec!["lab/m 10.0".to_owned(); fit];
    expected.extend(["quota".to_owned(), "quota".to_owned(), format!("lab/m {back:?}")]);
    assert_eq!(came, expected, "{limit}");
    assert_eq!(summary.limits.len(), 1);
}

#[test]
fn requests_and_tokens_of_a_window_that_slides() {
    check("{ metric = \"requests\", window = \"minute\", amount = 4 }", 4, 69.9, 70.003);
    check("{ metric = \"tokens\", window = \"minute\", amount = 499 }", 4, 69.9, 70.003);
    check("{ metric = \"tokens\", window = \"hour\", amount = 2000 }", 20, 3_609.9, 3_610.18);
    check("{ metric = \"input_tokens\", window = \"minute\", amount = 320 }", 4, 69.9, 70.003);
    check("{ metric = \"output_tokens\", window = \"minute\", amount = 80, charges = \"requested\" }", 4, 69.9, 70.003);
}

#[test]
fn a_bucket_is_full_at_first_and_then_as_fast_as_it_fills() {
    check("{ metric = \"tokens\", window = \"minute\", amount = 600, reset = \"bucket\" }", 6, 19.9, 20.001);
    check("{ metric = \"requests\", window = \"hour\", amount = 60, reset = \"bucket\" }", 60, 69.9, 70.004);
}

#[test]
fn a_day_and_a_month_end_in_their_own_zone() {
    let day = |zone| format!("{{ metric = \"requests\", window = \"day\", amount = 5, reset = \"calendar\"{zone} }}");
    let hours = |hours: f64| hours * 3_600.0;
    check(&day(""), 5, hours(12.0) - 0.001, hours(12.0));
    check(&day(", zone = \"America/Los_Angeles\""), 5, hours(20.0) - 0.001, hours(20.0));
    check(&day(", zone = \"Asia/Shanghai\""), 5, hours(4.0) - 0.001, hours(4.0));
    let month = "{ metric = \"tokens\", window = \"month\", amount = 1000, reset = \"calendar\" }";
    check(month, 10, hours(7.5 * 24.0) - 0.001, hours(7.5 * 24.0));
    let minute = "{ metric = \"requests\", window = \"minute\", amount = 2, reset = \"calendar\" }";
    check(minute, 2, 59.999, 60.0);
}

#[test]
fn a_credit_is_spent_once_and_lapses() {
    let config = provider("lab", 3, "{ metric = \"usd\", amount = 0.0005, reset = \"never\", expires = 2026-11-23 }")
        .replace("quality = 3\n", "quality = 3\nprice = { input = 1.0, output = 1.0 }\n");
    // A hundred tokens at a dollar for a million: five fit, until midnight.
    let midnight = 12.0 * 3_600.0;
    let four: Vec<String> = (0..4).map(|_| small(10.0)).collect();
    let workload = format!("{}{}{}{}", four.concat(), small(midnight - 0.01), small(midnight - 0.01), small(midnight));
    let (came, summary) = played(&config, &workload, None);
    assert_eq!(came[4..], ["lab/m 43199.99", "quota", "quota"]);
    assert_eq!((summary.limits[0].most, summary.limits[0].amount), (0.0005, Some(0.0005)));
    assert_eq!(summary.cost_usd, 0.0, "a credit is not money that is paid");
    let (came, _) = played(&config, &[small(10.0), small(midnight)].concat(), None);
    assert_eq!(came, ["lab/m 10.0", "quota"], "the rest of it is gone");
}

#[test]
fn a_pool_is_one_count_for_two_models() {
    let limit = "{ metric = \"requests\", window = \"minute\", amount = 3, pool = \"all\" }";
    let second = format!("[[providers.lab.models]]\nid = \"n\"\nquality = 5\nlimits = [{limit}]\n");
    let config = provider("lab", 3, limit) + &second;
    let good = |at| small(at).replace("\"min_quality\":1", "\"min_quality\":4");
    super::check(
        &config,
        &[small(0.0), good(0.0), small(1.0), good(1.0), good(60.1)],
        &["lab/m 0.0", "lab/n 0.0", "lab/m 1.0", "quota", "lab/n 60.1"],
    );
}

#[test]
fn all_limits_of_a_target_bind_together_and_concurrency_never_does() {
    let limits = "{ metric = \"requests\", window = \"minute\", amount = 3 }, \
                  { metric = \"tokens\", window = \"day\", amount = 400, reset = \"calendar\" }, \
                  { metric = \"concurrency\", amount = 1 }";
    let requests = [small(0.0), small(0.0), small(0.0), small(0.0), small(60.1), small(60.1)];
    let expected = ["lab/m 0.0", "lab/m 0.0", "lab/m 0.0", "quota", "lab/m 60.1", "quota"];
    super::check(&provider("lab", 3, limits), &requests, &expected);
}

#[test]
fn a_long_answer_is_known_to_be_long() {
    let config = provider("lab", 3, "{ metric = \"tokens\", window = \"minute\", amount = 5000 }");
    let long = |at| line(at, "standard", (0, 3_000), 0.0, "");
    super::check(&config, &[long(0.0), long(1.0), long(61.0)], &["lab/m 0.0", "quota", "lab/m 61.0"]);
}

#[test]
fn what_was_used_is_told_by_limit() {
    let limits = "{ metric = \"requests\", window = \"minute\", amount = 3 }, { metric = \"tokens\", window = \"day\", \
                  amount = 1000, reset = \"calendar\" }";
    let (_, summary) = played(&provider("lab", 3, limits), &[small(0.0), small(1.0), small(90.0)].concat(), None);
    let used: Vec<(f64, f64, u64)> = summary.limits.iter().map(|row| (row.most, row.used, row.windows)).collect();
    assert_eq!(used, [(2.0, 3.0, 2), (300.0, 300.0, 1)]);
}

#[test]
fn a_month_of_rolling_windows_stays_quick() {
    let limits = "{ metric = \"tokens\", window = \"month\", amount = 1000000000 }, \
                  { metric = \"requests\", window = \"minute\", amount = 10 }";
    let workload: String = (0..20_000_u32).map(|step| small(f64::from(step) * 133.0)).collect();
    let (_, summary) = played(&provider("lab", 3, limits), &workload, None);
    assert_eq!((summary.served, summary.limits[1].most), (20_000, 1.0));
}
