//! What the rest costs, and which key would help most.

use super::*;

const FOUR_A_DAY: &str = "{ metric = \"requests\", window = \"day\", amount = 4, reset = \"calendar\" }";

#[test]
fn the_rest_costs_so_much_with_each_paid_model() {
    // 10 a day, 4 of them free: 6 x 31 = 186 are left. 7,000 tokens at 0.50 and 1,000 at 2.00 USD a million are
    // 0.0035 + 0.002 = 0.0055 a request, 1.023 for 186. At 10 and 30: 0.07 + 0.03 = 0.1, 18.60 in all.
    let more = paid("cheap", 2, 0.5, 2.0) + &paid("dear", 5, 10.0, 30.0);
    let ten = &format!("10 requests a day {EIGHT_THOUSAND}");
    let plan = planned(&free("lab", 3, FOUR_A_DAY), &more, ten);
    assert_eq!(plan.course.asked - plan.course.served, 186);
    let near = |one: f64, other: f64| (one - other).abs() < 1e-9;
    let [cheap, dear] = plan.covers.as_slice() else { panic!("{:#?}", plan.covers) };
    assert_eq!((cheap.target.as_str(), cheap.requests), ("cheap/m", Range::exactly(186)));
    assert!(near(cheap.usd_a_request, 0.0055) && near(cheap.usd_most, 1.023) && near(cheap.usd_least, 1.023));
    assert!(dear.target == "dear/m" && near(dear.usd_most, 18.6), "{dear:?}");
    // Quality 3 is asked for: the cheap one will not do.
    let plan = planned(&free("lab", 3, FOUR_A_DAY), &more, &format!("{ten}, quality 3"));
    assert_eq!(plan.covers.iter().map(|cover| cover.target.as_str()).collect::<Vec<_>>(), ["dear/m"]);
}

#[test]
fn a_paid_model_whose_own_limits_are_too_small_says_so() {
    // 186 are left, and it has 5 a day: 31 x 5 = 155.
    let limits = format!("limits = [{}]\n", FOUR_A_DAY.replace('4', "5"));
    let more = paid("shop", 3, 1.0, 1.0) + &limits;
    let plan = planned(&free("lab", 3, FOUR_A_DAY), &more, &format!("10 requests a day {EIGHT_THOUSAND}"));
    assert_eq!(plan.covers[0].carries, Some(Range::exactly(155)));
}

#[test]
fn a_tier_that_never_pays_is_not_covered() {
    // Half is batch, which has free targets alone. Of 10 a day, 5 and 5 in turn, the first four are served: 2 and 2, so
    // 3 x 31 = 93 of standard are left to be paid for, and as many of batch that nobody covers.
    let sentence = format!("10 requests a day {EIGHT_THOUSAND}, 50 % batch");
    let plan = planned(&free("lab", 3, FOUR_A_DAY), &paid("shop", 3, 1.0, 1.0), &sentence);
    assert_eq!(plan.course.asked - plan.course.served, 186);
    assert_eq!(plan.covers[0].requests, Range::exactly(93));
    assert!((plan.covers[0].usd_most - 93.0 * 0.008).abs() < 1e-9);
}

#[test]
fn an_unknown_price_is_not_taken_for_nothing() {
    let unpriced = paid("shop", 3, 1.0, 1.0).replace("price = { input = 1.0, output = 1.0 }\n", "");
    let plan = planned(&free("lab", 3, FOUR_A_DAY), &unpriced, &format!("10 requests a day {EIGHT_THOUSAND}"));
    assert_eq!((plan.covers.len(), plan.unpriced), (0, 1));
}

#[test]
fn the_next_keys_are_ranked_by_what_they_add() {
    // 186 are left, 6 a day. `few` takes 3 of them each day: 93. `month` has a million tokens once, 123 requests, and
    // all of them find somebody who asks. `weak` would take all, but its quality will not do. A request of standard is
    // worth 3: 369 and 279.
    let month = "{ metric = \"tokens\", window = \"month\", amount = 1000000, reset = \"calendar\" }";
    let day = |amount: u32| FOUR_A_DAY.replace('4', &amount.to_string());
    let more = free("few", 3, &day(3)) + &free("month", 2, month) + &free("weak", 1, &day(1_000));
    let sentence = format!("10 requests a day {EIGHT_THOUSAND}, quality 2");
    let plan = planned(&free("lab", 3, FOUR_A_DAY), &more, &sentence);
    let keys: Vec<(&str, Range)> = plan.next_keys.iter().map(|key| (key.provider.as_str(), key.adds)).collect();
    assert_eq!(keys, [("month", Range::exactly(123)), ("few", Range::exactly(93))]);
    let value = |place: usize| plan.next_keys[place].value_least;
    assert!((value(0) - 369.0).abs() < 0.01 && (value(1) - 279.0).abs() < 0.01, "{:#?}", plan.next_keys);
    assert_eq!(plan.next_keys[0].catches, ["wants a phone"]);
    // Where more is offered than asked for, no more than the rest is added: 186.
    let plan = planned(&free("lab", 3, FOUR_A_DAY), &free("many", 3, &day(1_000)), &sentence);
    assert_eq!(plan.next_keys[0].adds, Range::exactly(186));
    // And where nothing is left, nothing is to be added.
    let plan = planned(&free("lab", 3, &day(10)), &more, &sentence);
    assert_eq!((plan.next_keys.len(), plan.covers.len()), (0, 0));
}

#[test]
fn values_rank_before_counts() {
    // 4 of 10 a day are served, evenly of both kinds: of critical (worth 10) and batch (worth 1), 3 a day are left each.
    // Both keys add 2 a day; both serve the critical ones first: 62 requests worth 620 each.
    let day = |id: &str| free(id, 3, &FOUR_A_DAY.replace('4', "2"));
    let sentence = format!("10 requests a day {EIGHT_THOUSAND}, 50 % critical, 50 % batch");
    let plan = planned(&free("lab", 3, FOUR_A_DAY), &(day("a") + &day("b")), &sentence);
    let keys: Vec<(&str, u64)> = plan.next_keys.iter().map(|key| (key.provider.as_str(), key.adds.least)).collect();
    assert_eq!(keys, [("a", 62), ("b", 62)]);
    assert!(plan.next_keys.iter().all(|key| (key.value_least - 620.0).abs() < 0.01), "{:#?}", plan.next_keys);
}
