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

/// A server of one's own, with a model `mine/one`.
const OWN: &str = "[providers.mine]\nkind = \"local\"\nbase_url = \"http://127.0.0.1:9/v1\"\nauth = { scheme = \"none\" }\n\
                   models = [{ id = \"one\" }]\n";

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
    with(&[OWN.to_owned()], &["mine/one"], &["~smart single_source: it rests on one account, mine"]);
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

/// An operator's key and a client's, with what is said of the latter.
fn client_key(name: &str, more: &str) -> String {
    format!("[client_keys.{name}]\nkey = \"sk-test-client-{name}\"\n{more}\n")
}

const OPERATOR: &str = "[server]\nkeys = [\"sk-test-operator\"]\n";

/// The same with a client key of the tier `critical`.
fn with_critical(parts: &[String], targets: &[&str], expected: &[&str]) {
    let key = client_key("shop", "tier = \"critical\"");
    with(&[&[OPERATOR.to_owned(), key], parts].concat(), targets, expected);
}

/// What is said of a critical route besides why.
const SHOP: &str = "; requests of the client key shop to it are critical";

#[test]
fn a_critical_route_on_nothing_but_gifts_is_told() {
    let free = || [account("a", "cost = \"free\"", DAILY), account("b", "cost = \"free\"", DAILY)];
    let told = format!("smart critical_free: all that it rests on is free{SHOP}");
    with_critical(&free(), &["a/one", "b/one"], &[&told]);
    // It goes before resting on one provider, and behind coming to an end.
    with_critical(&free(), &["a/one"], &[&told]);
    let ends = format!("smart ends: all that it rests on ends: a: the credit does not come back{SHOP}");
    with_critical(&[account("a", "cost = \"free\"", CREDIT)], &["a/one"], &[&ends]);
    // Something that is paid for, or one's own server, makes it well; what costs money that nobody agreed to does not.
    let paid = account("c", "plan = \"paid\"", DAILY);
    with_critical(&[&free()[..], std::slice::from_ref(&paid)].concat(), &["a/one", "c/one"], &[]);
    with_critical(&[&free()[..], &[OWN.to_owned()]].concat(), &["a/one", "mine/one"], &[]);
    with_critical(&[&free()[..], &[account("c", "cost = \"paid\"", DAILY)]].concat(), &["a/one", "c/one"], &[&told]);
    // Nor does what the tier may not use.
    let only_free = "[tiers.critical]\norder = [\"free\"]\n".to_owned();
    with_critical(&[&free()[..], &[paid, only_free]].concat(), &["a/one", "b/one", "c/one"], &[&told]);
}

#[test]
fn for_a_critical_route_a_single_source_is_never_wanted() {
    let told = format!("smart single_source: it rests on one account, mine{SHOP}");
    with_critical(&[OWN.to_owned()], &["mine/one"], &[&told]);
    let key = client_key("shop", "tier = \"critical\"");
    let told = format!("auto single_source: it rests on one account, a{SHOP}");
    check(&[OPERATOR, &key, &account("a", "plan = \"paid\"", DAILY)].concat(), &[&told]);
    // Only what its requests may use counts: here, what is not paid for trains.
    let trains = account("b", "cost = \"free\"\ndata = { trains = \"yes\" }", DAILY);
    let parts = [account("a", "plan = \"paid\"\ndata = { trains = \"no\" }", DAILY), trains];
    with_critical(&parts, &["a/one", "b/one"], &[]);
    let private = client_key("shop", "tier = \"critical\"\ndata = \"internal\"");
    let told = format!("smart single_source: it rests on one account, a{SHOP}");
    with(&[&[OPERATOR.to_owned(), private.clone()], &parts[..]].concat(), &["a/one", "b/one"], &[&told]);
    let told = format!("smart no_target: none of its targets is allowed by both tier and data class{SHOP}");
    with(&[&[OPERATOR.to_owned(), private], &parts[..]].concat(), &["b/one"], &[&told]);
}

#[test]
fn a_route_is_critical_by_the_tier_of_a_key_and_its_value() {
    let parts = |tiers: &str, keys: &[String]| {
        let accounts = [account("a", "cost = \"free\"", DAILY), account("b", "cost = \"free\"", DAILY)];
        [&[OPERATOR.to_owned(), tiers.to_owned()], keys, &accounts].concat()
    };
    let both = ["a/one", "b/one"];
    with(&parts("", &[client_key("any", ""), client_key("ci", "tier = \"standard\"")]), &both, &[]);
    let urgent = client_key("desk", "tier = \"urgent\"");
    let told = "smart critical_free: all that it rests on is free; requests of the client key desk to it are urgent";
    with(&parts("[tiers.urgent]\nvalue = 10\n", &[client_key("any", ""), urgent.clone()]), &both, &[told]);
    with(&parts("[tiers.urgent]\nvalue = 9.5\n", std::slice::from_ref(&urgent)), &both, &[]);
    // Of several keys, the one for which it is gravest.
    let private = client_key("shop", "tier = \"critical\"\ndata = \"secret\"");
    let told = format!("smart no_target: none of its targets is allowed by both tier and data class{SHOP}");
    with(&parts("[tiers.urgent]\nvalue = 10\n", &[urgent, private]), &both, &[&told]);
}
