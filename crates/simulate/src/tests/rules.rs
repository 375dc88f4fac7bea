//! Who may go where: the rules of the live gateway, and why nobody could serve.

use super::*;

const PAID: &str = "[providers.shop]\nbase_url = \"http://127.0.0.1:9/v1\"\nkeys = [\"sk-test-shop\"]\n\
                    [[providers.shop.models]]\nid = \"m\"\nquality = 5\nprice = { input = 1.0, output = 2.0 }\n\
                    limits = []\n";

fn of(tier: &str, more: &str) -> String {
    line(0.0, tier, (1_000, 500), 0.0, more)
}

#[test]
fn nothing_is_paid_unless_that_was_agreed_to() {
    let asked = [of("critical", ""), of("batch", ""), of("standard", ",\"model\":\"shop/m\"")];
    check(PAID, &asked, &["would_spend", "tier_order", "shop/m 0.0"]);
    let agreed = PAID.replace("keys", "plan = \"paid\"\nkeys");
    let (came, summary) = played(&agreed, &asked.concat(), None);
    assert_eq!(came, ["shop/m 0.0", "tier_order", "shop/m 0.0"], "batch never pays");
    assert_eq!((summary.cost_usd, summary.value, summary.value_asked), (0.004, 13.0, 14.0));
    assert_eq!(summary.refused, [("tier_order", 1)].into());
}

#[test]
fn a_tier_that_may_not_use_what_is_free_does_not() {
    let config = format!("{}\n[tiers.bought]\norder = [\"paid\"]\nvalue = 4\n", provider("lab", 3, ""));
    check(&config, &[of("bought", ""), of("standard", "")], &["tier_order", "lab/m 0.0"]);
}

#[test]
fn groups_are_tried_in_their_order() {
    let agreed = PAID.replace("keys", "plan = \"paid\"\nkeys");
    let config = format!("{}{agreed}", provider("lab", 3, ""));
    check(
        &config,
        &[of("critical", ""), of("standard", ""), of("batch", "")],
        &["shop/m 0.0", "lab/m 0.0", "lab/m 0.0"],
    );
}

#[test]
fn data_quality_features_and_context_are_kept_to() {
    let config = provider("lab", 3, "")
        .replace("quality = 3", "quality = 3\ncontext = 2000\nmax_output = 1500\nfeatures = [\"stream\", \"tools\"]")
        + "[providers.lab.data]\ntrains = \"yes\"\n";
    let asked = [
        of("standard", ",\"data\":\"internal\""),
        of("standard", ",\"features\":[\"tools\"]"),
        of("standard", ",\"features\":[\"tools\",\"vision\"]"),
        of("standard", "").replace("\"min_quality\":1", "\"min_quality\":4"),
        line(0.0, "standard", (1_500, 500), 0.0, ""),
        line(0.0, "standard", (1_501, 500), 0.0, ""),
        line(0.0, "standard", (100, 1_501), 0.0, ""),
    ];
    let expected = ["data_rule", "lab/m 0.0", "feature", "quality", "lab/m 0.0", "context", "output"];
    check(&config, &asked, &expected);
}

#[test]
fn the_reason_told_is_the_one_nearest_to_none() {
    let full = "{ metric = \"requests\", window = \"minute\", amount = 1 }";
    let config = format!("{}{}", provider("large", 5, full), provider("small", 1, ""));
    let good = |at| small(at).replace("\"min_quality\":1", "\"min_quality\":5");
    check(&config, &[good(0.0), good(1.0)], &["large/m 0.0", "quota"]);
}

#[test]
fn what_is_larger_than_a_whole_limit_is_told_apart() {
    let config = provider("lab", 3, "{ metric = \"tokens\", window = \"day\", amount = 1000 }");
    check(
        &config,
        &[line(0.0, "batch", (900, 101), 1e6, ""), line(0.0, "batch", (900, 100), 0.0, "")],
        &["too_large", "lab/m 0.0"],
    );
}

#[test]
fn a_strategy_goes_before_the_configurations() {
    let cheap = provider("cheap", 5, "{ metric = \"requests\", window = \"minute\", amount = 1 }");
    let config = format!("{cheap}{}", provider("small", 1, "{ metric = \"requests\", window = \"day\", amount = 2 }"));
    let went = |strategy, model: &str| {
        let workload: String = (0..3).map(|_| line(0.0, "standard", (1, 1), 0.0, model)).collect();
        played(&config, &workload, strategy).0.join(" ").replace("/m 0.0", "")
    };
    assert_eq!(went(None, ""), "small small cheap");
    assert_eq!(went(Some(Strategy::Ordered), ""), "cheap small small");
    assert_eq!(went(Some(Strategy::Headroom), ""), "cheap small small");
    assert_eq!(went(Some(Strategy::Ordered), ",\"model\":\"small/m\""), "small small quota");
    let listed = |more: &str, strategy| {
        let alias = format!("{config}[aliases.smart]\ntargets = [{more}\n");
        let workload = line(0.0, "standard", (1, 1), 0.0, ",\"model\":\"smart\"");
        played(&alias, &workload, strategy).0.concat()
    };
    let both = "\"cheap/m\", \"small/m\"]";
    assert_eq!(
        (listed(both, None).as_str(), listed(both, Some(Strategy::Ordered)).as_str()),
        ("small/m 0.0", "cheap/m 0.0")
    );
    let good = "\"small/m\", \"cheap/m\"]\nmin_quality = 2";
    assert_eq!(listed(good, Some(Strategy::Ordered)), "cheap/m 0.0", "the rest of the alias still holds");
}
