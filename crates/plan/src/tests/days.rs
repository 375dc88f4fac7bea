//! When what runs out, and what later days look like.

use freeway_catalog::Confidence;

use super::*;

fn served(plan: &Answer) -> Vec<u64> {
    plan.course.days.iter().map(|day| day.served).collect()
}

#[test]
fn an_even_need_meets_the_limit_of_the_day_and_never_that_of_the_minute() {
    // One request a minute, 1,440 a day. 30 a minute are never asked for; the 1,000 of the day are gone after 1,000
    // minutes, 16 h 40 min, and are back at midnight.
    let limits = "{ metric = \"requests\", window = \"minute\", amount = 30 }, \
                  { metric = \"requests\", window = \"day\", amount = 1000, reset = \"calendar\" }";
    let plan = planned(&free("lab", 3, limits), "", &format!("1,440 requests a day {EIGHT_THOUSAND}"));
    assert_eq!(served(&plan), [1_000; 31]);
    let [gone] = plan.course.run_outs.as_slice() else { panic!("{:#?}", plan.course.run_outs) };
    assert_eq!((gone.limit.as_str(), gone.day, gone.days), ("lab/m requests per day", 1, 31));
    assert_eq!((gone.first, gone.back), (at("2026-12-01T16:40:00Z"), Some(at("2026-12-02T00:00:00Z"))));
    assert!(!gone.for_good && !gone.lapsed);
    assert_eq!(gone.targets, ["lab/m"]);
}

#[test]
fn a_credit_is_spent_on_a_day_at_an_hour() {
    // A dollar at a dollar for a million tokens: 8,000 tokens cost 0.008, so 125 fit, and nothing is kept of money. 50 a
    // day come every 28.8 minutes: 100 on two days, and 25 more in 25 x 28.8 min = 12 hours of the third.
    let credit = "{ metric = \"usd\", amount = 1.0, reset = \"never\" }";
    let config =
        free("lab", 3, credit).replace("quality = 3\n", "quality = 3\nprice = { input = 1.0, output = 1.0 }\n");
    let plan = planned(&config, "", &format!("50 requests a day {EIGHT_THOUSAND}"));
    let mut expected = vec![50, 50, 25];
    expected.resize(31, 0);
    assert_eq!(served(&plan), expected);
    let gone = &plan.course.run_outs[0];
    assert_eq!((gone.first, gone.day, gone.days), (at("2026-12-03T12:00:00Z"), 3, 29));
    assert!(gone.for_good && !gone.lapsed && gone.back.is_none(), "{gone:?}");
    assert_eq!(plan.course.cost_usd, 0.0, "a credit is no money that is paid");
}

#[test]
fn a_credit_that_lapses_is_told_apart_from_one_that_is_spent() {
    // 10 a day would take twelve days and a half for 125; at the end of the fifth of December it is over after 50.
    let credit = "{ metric = \"tokens\", amount = 1010000, reset = \"never\", expires = 2026-12-05 }";
    let plan = planned(&free("lab", 3, credit), "", &format!("10 requests a day {EIGHT_THOUSAND}"));
    let mut expected = vec![10; 5];
    expected.resize(31, 0);
    assert_eq!(served(&plan), expected);
    let gone = &plan.course.run_outs[0];
    assert_eq!((gone.first, gone.day), (at("2026-12-06T00:00:00Z"), 6));
    assert!(gone.for_good && gone.lapsed);
}

#[test]
fn credits_that_lapse_one_after_the_other_are_spent_in_that_order() {
    // 400,000 tokens until the fifth and 410,000 after it, a hundredth of both, 8,100, kept free: 10 a day of 8,000 tokens
    // spend all of the first, 50 requests, exactly by the end of its last day. Of the second, 401,900 are left to be
    // spent: 50 more, by the end of the tenth.
    let credit =
        |amount: u32, more: &str| format!("{{ metric = \"tokens\", amount = {amount}, reset = \"never\"{more} }}");
    let limits = credit(400_000, ", expires = 2026-12-05") + ", " + &credit(410_000, ", expires = 2026-12-25");
    let plan = planned(&free("lab", 3, &limits), "", &format!("10 requests a day {EIGHT_THOUSAND}"));
    let mut expected = vec![10; 10];
    expected.resize(31, 0);
    assert_eq!(served(&plan), expected);
    let gone = &plan.course.run_outs[0];
    assert_eq!((gone.first, gone.lapsed), (at("2026-12-11T00:00:00Z"), false));
}

#[test]
fn a_month_that_begins_anew_shows() {
    // 1,000 a month, 60 a day: 16 days of 60 and 40 on the 17th are the whole of December. Begun on the first.
    let month = "{ metric = \"requests\", window = \"month\", amount = 1000, reset = \"calendar\" }";
    let plan = planned(&free("lab", 3, month), "", &format!("60 requests a day {EIGHT_THOUSAND}"));
    let mut expected = vec![60; 16];
    expected.push(40);
    expected.resize(31, 0);
    assert_eq!(served(&plan), expected);
    // 40 of 60 are two thirds of the 17th day: 16:00.
    assert_eq!(plan.course.run_outs[0].first, at("2026-12-17T16:00:00Z"));
    assert_eq!(plan.course.run_outs[0].back, None, "January is not planned for");
}

#[test]
fn what_rests_on_shaky_facts_is_a_range() {
    let day = "{ metric = \"requests\", window = \"day\", amount = 10, reset = \"calendar\" }";
    let config = free("lab", 3, day) + &free("shop", 3, &day.replace("10", "5"));
    let mut base = loaded(&config);
    for spec in base.limits.iter_mut().filter(|spec| spec.name.starts_with("shop")) {
        (spec.own, spec.confidence) = (false, Some(Confidence::Low));
    }
    // 20 a day are asked for: 10 are sure and 5 more doubtful, so 10 to 15 a day, 310 to 465 in all.
    let plan = asked(&base, "", &config, &format!("20 requests a day {EIGHT_THOUSAND}"));
    assert_eq!(plan.carries[1].a_day, Range { least: 0, most: Some(5) });
    assert_eq!(plan.carries[1].doubt.as_deref(), Some("the limit shop/m requests per day is of low confidence"));
    assert_eq!(plan.together, Range { least: 310, most: Some(465) });
    assert_eq!((plan.course.served, plan.sure.as_ref().unwrap().served), (465, 310));
    assert_eq!(plan.sure.unwrap().days[0].targets, BTreeMap::from([("lab/m".to_owned(), 10)]));
}

#[test]
fn a_need_that_is_too_large_says_what_would_do() {
    let base = loaded(&free("lab", 3, ""));
    let need = need(&format!("100,000 requests a day {EIGHT_THOUSAND}"));
    let (snapshot, limits) = (&base.snapshot, base.limits.as_slice());
    let (none, facts) = (BTreeSet::new(), BTreeMap::new());
    let trials = Trials { snapshot, limits, known_accounts: &none, facts: &facts };
    let start = at(START);
    let question = Question { snapshot, limits, need: &need, start, days: 31, choosing: Choosing::AsConfigured };
    let said = answer(question, trials, trials).unwrap_err().to_string();
    assert_eq!(
        said,
        "3100000 requests in 31 days are more than are simulated (500000); plan fewer days with --days: 5 would do"
    );
}
