//! Which routes rest on something that will not last.

#![expect(clippy::panic, reason = "a test panics when what it reads is wrong")]

use std::path::Path;

use freeway_config::{Surroundings, load};
use freeway_types::Timestamp;

/// 2026-11-22.
const NOW: Timestamp = Timestamp::from_secs(1_795_305_600);

/// The risks of a configuration, each as `route kind: why`, with a `~` before those that are plainly wanted.
fn check(text: &str, expected: &[&str]) {
    let surroundings = Surroundings { variable: &|_| None, folder: Path::new("."), now: NOW };
    let loaded = load("freeway.toml", Some(text), &surroundings).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let risks = loaded.risks(NOW);
    let said = risks.iter().map(|risk| {
        let mark = if risk.is_wanted { "~" } else { "" };
        format!("{mark}{} {}: {}", risk.route, risk.kind.as_str(), risk.why)
    });
    assert_eq!(said.collect::<Vec<_>>(), expected, "{text}");
}

/// An account with a model, `NAME/one`.
fn account(name: &str, more: &str, limits: &str) -> String {
    format!(
        "[providers.{name}]\nbase_url = \"https://{name}.example/v1\"\nkeys = [\"sk-test-{name}\"]\n{more}\n\
         models = [{{ id = \"one\", price = {{ input = 1, output = 1 }}, limits = [{limits}] }}]\n"
    )
}

fn alias(name: &str, targets: &[&str]) -> String {
    format!("[aliases.{name}]\ntargets = {targets:?}\n")
}

const DAILY: &str = r#"{ metric = "requests", window = "day", amount = 5 }"#;
const LAPSING: &str = r#"{ metric = "requests", amount = 5, reset = "never", expires = 2026-12-22 }"#;
const CREDIT: &str = r#"{ metric = "usd", amount = 5, reset = "never" }"#;

fn with(parts: &[String], targets: &[&str], expected: &[&str]) {
    check(&format!("{}{}", parts.concat(), alias("smart", targets)), expected);
}

#[test]
fn two_providers_whose_quota_comes_back_are_no_risk() {
    let parts = [account("a", "cost = \"free\"", DAILY), account("b", "cost = \"free\"", LAPSING)];
    with(&parts, &["a/one", "b/one"], &[]);
}

#[test]
fn one_account_or_one_provider_is_told() {
    let a = || account("a", "cost = \"free\"", DAILY);
    with(&[a()], &["a/one"], &["smart single_source: it rests on one account, a"]);
    let second = account("a", "cost = \"free\"\nenabled = false", DAILY).replace("[providers.a]", "[providers.c]");
    with(&[a(), second], &["a/one", "c/one"], &["smart single_source: it rests on one account, a"]);
    let groq = |name: &str| format!("[providers.{name}]\ncatalog = \"groq\"\nkeys = [\"sk-test-{name}\"]\n");
    with(
        &[groq("one"), groq("two")],
        &["one/openai/gpt-oss-120b", "two/openai/gpt-oss-120b"],
        &["smart single_source: it rests on one provider, groq, by 2 accounts"],
    );
}

#[test]
fn a_server_of_ones_own_is_wanted() {
    let text = "[providers.mine]\nkind = \"local\"\nbase_url = \"http://127.0.0.1:9/v1\"\nauth = { scheme = \"none\" }\n\
                models = [{ id = \"one\" }]\n";
    with(&[text.to_owned()], &["mine/one"], &["~smart single_source: it rests on one account, mine"]);
}

#[test]
fn what_lapses_or_is_used_up_for_good_is_told() {
    let parts = [account("a", "cost = \"free\"", LAPSING), account("b", "cost = \"free\"", CREDIT)];
    with(
        &parts,
        &["a/one", "b/one"],
        &["smart ends: all that it rests on ends: a: the credit lapses at 2026-12-23T00:00:00Z; \
           b: the credit does not come back"],
    );
    let lapsed = LAPSING.replace("2026-12-22", "2026-11-01");
    with(
        &[account("a", "cost = \"free\"", &lapsed)],
        &["a/one"],
        &["smart ends: all that it rests on ends: a: the credit has lapsed"],
    );
    // The last of several credits decides.
    let several = format!("{}, {}", LAPSING, LAPSING.replace("2026-12-22", "2027-01-31"));
    with(
        &[account("a", "cost = \"free\"", &several)],
        &["a/one"],
        &["smart ends: all that it rests on ends: a: the credit lapses at 2027-02-01T00:00:00Z"],
    );
}

#[test]
fn an_offer_that_the_facts_call_a_trial_ends_unless_it_is_paid_for() {
    for (offer, words) in [
        ("trial-credit", "its free offer is a credit for trying it"),
        ("promotion", "its free offer is a gift that may end any day"),
    ] {
        let on = |plan: &str| account("a", &format!("offer = \"{offer}\"\nplan = \"{plan}\""), DAILY);
        let ends = format!("smart ends: all that it rests on ends: a: {words}");
        with(&[on("free")], &["a/one"], &[&ends]);
        with(&[on("paid")], &["a/one"], &["smart single_source: it rests on one account, a"]);
    }
}

#[test]
fn a_route_without_anything_behind_it_is_told() {
    let gone = account("a", "status = \"retired\"\nstatus_note = \"closed in May\"", DAILY);
    with(&[gone], &["a/one"], &["smart no_target: none of its targets can be used: a/one: closed in May"]);
}

#[test]
fn without_aliases_the_name_that_stands_for_all_is_looked_at() {
    check(&account("a", "cost = \"free\"", DAILY), &["~auto single_source: it rests on one account, a"]);
    check(
        &account("a", "cost = \"free\"", CREDIT),
        &["auto ends: all that it rests on ends: a: the credit does not come back"],
    );
}
