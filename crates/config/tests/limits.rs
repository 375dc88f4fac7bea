//! Which rows are one counter: those that name one pool, whatever the key, and the credits that are spent as one.

#![expect(clippy::panic, reason = "a test panics when what it reads is wrong")]

use std::path::Path;

use freeway_config::{Loaded, Surroundings, load};
use freeway_quota::{Book, Demand};
use freeway_types::{Monotonic, Now, Timestamp};

/// 2026-11-22.
const NOW: Timestamp = Timestamp::from_secs(1_795_305_600);

fn read(text: &str) -> Result<Loaded, String> {
    let surroundings = Surroundings { variable: &|_| None, folder: Path::new("."), now: NOW };
    load("freeway.toml", Some(text), &surroundings).map_err(|diagnostics| diagnostics.to_string())
}

/// An account with rows of its own, and two models with theirs.
fn account(name: &str, keys: &str, rows: &str, small: &str, large: &str) -> String {
    format!(
        r#"
[providers.{name}]
base_url = "http://127.0.0.1:9101/v1"
keys = [{keys}]
cost = "free"
limits = [{rows}]
[[providers.{name}.models]]
id = "small"
price = {{ input = 1, output = 1 }}
limits = [{small}]
[[providers.{name}.models]]
id = "large"
price = {{ input = 1, output = 1 }}
limits = [{large}]
"#
    )
}

/// The names of the limits that each deployment is held to.
fn held_to(text: &str) -> Vec<Vec<String>> {
    let loaded = read(text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let name = |limit: &freeway_types::LimitIndex| loaded.limits[limit.get()].name.clone();
    loaded.snapshot.deployments.iter().map(|deployment| deployment.limits.iter().map(name).collect()).collect()
}

fn check(rows: &str, small: &str, large: &str, expected: [&[&str]; 2]) {
    assert_eq!(held_to(&account("lab", "\"sk-test-lab\"", rows, small, large)), expected, "{rows} {small} {large}");
}

const TWO: &str = r#"{ metric = "requests", window = "day", amount = 2 }"#;

#[test]
fn a_second_key_of_one_account_adds_nothing() {
    for scope in ["account", "key", "ip"] {
        let row = format!(r#"{{ metric = "requests", window = "day", amount = 2, scope = "{scope}" }}"#);
        let one = account("lab", "\"sk-test-one\"", &row, "", "");
        let three = account("lab", "\"sk-test-one\", \"sk-test-two\", \"sk-test-three\"", &row, "", "");
        assert_eq!(held_to(&one), held_to(&three), "{scope}");
        let loaded = read(&three).unwrap();
        assert_eq!(loaded.snapshot.accounts[0].keys, 3, "{scope}");
        let now = Now { wall: NOW, monotonic: Monotonic::default() };
        let mut book = Book::new(loaded.limits, now);
        let sent = loaded.snapshot.deployments.iter().cycle().take(6);
        let sent = sent.filter(|deployment| book.reserve(now, &deployment.limits, &Demand::default()).is_ok()).count();
        assert_eq!(sent, 2, "{scope}");
    }
}

#[test]
fn rows_count_for_what_they_stand_at_or_for_what_their_scope_says() {
    check(TWO, "", "", [&["lab requests per day"], &["lab requests per day"]]);
    check("", TWO, TWO, [&["lab/small requests per day"], &["lab/large requests per day"]]);
    let each = r#"{ metric = "requests", window = "day", amount = 2, scope = "model" }"#;
    check(each, "", "", [&["lab/small requests per day"], &["lab/large requests per day"]]);
    let all = r#"{ metric = "requests", window = "day", amount = 2, scope = "account" }"#;
    check("", all, all, [&["lab requests per day"], &["lab requests per day"]]);
}

#[test]
fn a_pool_is_one_counter_of_the_account_and_with_a_slash_of_all_accounts() {
    let pool = |name: &str| format!(r#"{{ metric = "requests", window = "day", amount = 2, pool = "{name}" }}"#);
    check("", &pool("both"), &pool("both"), [&["lab (both) requests per day"], &["lab (both) requests per day"]]);
    check("", &pool("one"), &pool("two"), [&["lab (one) requests per day"], &["lab (two) requests per day"]]);
    for (name, counters) in [("both", 2), ("/both", 1)] {
        let text = ["lab", "shop"].map(|id| account(id, "\"sk-test-key\"", "", &pool(name), &pool(name))).concat();
        let loaded = read(&text).unwrap();
        assert_eq!(loaded.limits.len(), counters, "{name}");
    }
}

#[test]
fn rows_of_one_pool_agree() {
    let pool = |amount| format!(r#"{{ metric = "requests", window = "day", amount = {amount}, pool = "both" }}"#);
    let text = account("lab", "\"sk-test-lab\"", "", &pool(2), &pool(3));
    assert!(read(&text).err().unwrap().contains("do not agree on its amount"));
}

fn credit(amount: f64, more: &str) -> String {
    format!("{{ metric = \"usd\", amount = {amount}, reset = \"never\"{more} }}")
}

/// The credits of the first deployment: for each of its limits, what it is called, and each credit's dollars and day.
fn credits(rows: &[String], small: &[String]) -> Vec<Vec<(String, u64)>> {
    let text = account("lab", "\"sk-test-lab\"", &rows.join(","), &small.join(","), "");
    let loaded = read(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let mut book = Book::new(loaded.limits.clone(), Now { wall: NOW, monotonic: Monotonic::default() });
    let views: Vec<_> = book.view(Now { wall: NOW, monotonic: Monotonic::default() }).collect();
    let of = |limit: &freeway_types::LimitIndex| {
        let shown = views[limit.get()].credits.iter();
        shown.map(|credit| (credit.name.clone(), credit.amount / 1_000_000_000_000)).collect()
    };
    loaded.snapshot.deployments[0].limits.iter().map(of).collect()
}

#[test]
fn credits_of_one_account_are_one_purse_in_the_order_in_which_they_lapse() {
    let (march, june) = (", expires = 2027-03-31", ", expires = 2027-06-30");
    let rows = [credit(1.0, ""), credit(5.0, march), credit(2.0, june)];
    let named = |name: &str, dollars| (name.to_owned(), dollars);
    let lab = [
        named("lab usd per ever, until 2027-03-31", 5),
        named("lab usd per ever, until 2027-06-30", 2),
        named("lab usd per ever", 1),
    ];
    assert_eq!(credits(&rows, &[]), [lab.to_vec()]);
    // One that stands alone is called as it always was.
    assert_eq!(credits(&[credit(1.0, "")], &[]), [vec![named("lab usd per ever", 1)]]);
    // Written down twice, it is still one.
    assert_eq!(credits(&[credit(1.0, ""), credit(1.0, "")], &[]), [vec![named("lab usd per ever", 1)]]);
}

#[test]
fn credits_for_different_things_are_not_one_purse() {
    let march = ", expires = 2027-03-31";
    let sizes =
        |rows: &[String], small: &[String]| -> Vec<usize> { credits(rows, small).iter().map(Vec::len).collect() };
    assert_eq!(sizes(&[credit(1.0, "")], &[credit(5.0, march)]), [1, 1], "the account's and the model's");
    assert_eq!(sizes(&[credit(1.0, ""), credit(5.0, &format!("{march}, pool = \"gift\""))], &[]), [1, 1], "a pool");
    let for_one = format!("{march}, models = [\"small\"]");
    assert_eq!(sizes(&[credit(1.0, ""), credit(5.0, &for_one)], &[]), [1, 1], "for one of the models only");
    let unknown = format!("{{ metric = \"usd\", reset = \"never\"{march} }}");
    assert_eq!(sizes(&[credit(1.0, ""), unknown], &[]), [1, 1], "nobody knows its size");
    let strict = format!("{march}, estimate = \"strict\"");
    assert_eq!(sizes(&[credit(1.0, ""), credit(5.0, &strict)], &[]), [1, 1], "reckoned in another way");
    let tokens = format!("{{ metric = \"tokens\", amount = 5, reset = \"never\"{march} }}");
    assert_eq!(sizes(&[credit(1.0, ""), tokens], &[]), [1, 1], "another metric");
}

#[test]
fn credits_that_lapse_together_are_the_same_and_agree() {
    let text = account("lab", "\"sk-test-lab\"", &[credit(1.0, ""), credit(2.0, "")].join(","), "", "");
    assert!(read(&text).err().unwrap().contains("do not agree on its amount"));
}
