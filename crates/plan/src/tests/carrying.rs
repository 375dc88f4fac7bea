//! What one target carries, and several together.

use freeway_quota::{Actual, Book, Bound, Demand, LimitSpec};
use freeway_types::{LimitIndex, Monotonic, Now, Usage};

use super::*;

/// Each target's requests on a day and in a month, and all together in 31 days.
fn check(config: &str, sentence: &str, expected: &[(u64, u64)], together: u64) {
    let plan = planned(config, "", sentence);
    let came: Vec<(u64, u64)> =
        plan.carries.iter().map(|carry| (carry.a_day.most.unwrap(), carry.a_month.most.unwrap())).collect();
    assert_eq!(came, expected, "{config}");
    assert!(plan.carries.iter().all(|carry| carry.a_month.least == carry.a_month.most.unwrap()), "nothing is shaky");
    assert_eq!(plan.together, Range::exactly(together), "{config}");
}

#[test]
fn a_million_tokens_a_month_are_fewer_than_125_requests_of_8_000() {
    // 1,000,000 / 8,000 = 125. But sizes are estimates, so the gateway sends only while a hundredth, 10,000, would stay
    // free besides the request: while at most 982,000 are used. 122 x 8,000 = 976,000, so a 123rd is sent; then 984,000
    // are used, and no 124th is.
    let month = "{ metric = \"tokens\", window = \"month\", amount = 1000000, reset = \"calendar\" }";
    let sentence = &format!("5,000 requests a day {EIGHT_THOUSAND}, 10 % critical");
    check(&free("lab", 3, month), sentence, &[(123, 123)], 123);
    // Where the limit is told to count the most that a request can be, nothing is kept, and 125 it is.
    let strict = month.replace(" }", ", estimate = \"strict\" }");
    check(&free("lab", 3, &strict), sentence, &[(125, 125)], 125);
    // One token less than 125 x 8,000 is one request less.
    check(&free("lab", 3, &strict.replace("1000000", "999999")), sentence, &[(124, 124)], 124);
    // They come every 17.28 seconds and are gone in the first hour: the 124th comes at 123 x 17.28 s = 35 min 25.44 s,
    // and is the first for which there is no room. It is seen at the next look, five minutes apart.
    let plan = planned(&free("lab", 3, month), "", sentence);
    assert_eq!((plan.course.asked, plan.course.served), (155_000, 123));
    assert_eq!((plan.course.days[0].served, plan.course.days[30].served), (123, 0));
    let gone = &plan.course.run_outs[0];
    assert_eq!((gone.limit.as_str(), gone.day, gone.days), ("lab/m tokens per month", 1, 31));
    assert!((at("2026-12-01T00:35:25Z")..at("2026-12-01T00:40:30Z")).contains(&gone.first), "{}", gone.first);
    // A tenth is critical, spread evenly: of 123 requests, 12.3.
    let critical = &plan.course.days[0].tiers[0];
    assert_eq!((critical.tier.as_str(), critical.asked, critical.served), ("critical", 500, 12));
}

#[test]
fn requests_of_a_day_bind_before_its_tokens() {
    // 50 requests of 8,000 tokens are 400,000, far from the million that the day has: 50 a day, 31 x 50 = 1,550 a month.
    let limits = "{ metric = \"requests\", window = \"day\", amount = 50, reset = \"calendar\" }, \
                  { metric = \"tokens\", window = \"day\", amount = 1000000, reset = \"calendar\" }";
    let sentence = &format!("500 requests a day {EIGHT_THOUSAND}");
    check(&free("lab", 3, limits), sentence, &[(50, 1_550)], 1_550);
    let plan = planned(&free("lab", 3, limits), "", sentence);
    assert_eq!(plan.carries[0].bound_by.as_deref(), Some("lab/m requests per day"));
    // With 200,000 tokens a day it is the other way round: sent while at most 200,000 - 2,000 - 8,000 = 190,000 are used;
    // 23 x 8,000 = 184,000, so 24 a day, and 31 x 24 = 744 a month.
    let fewer = limits.replace("1000000", "200000");
    check(&free("lab", 3, &fewer), sentence, &[(24, 744)], 744);
}

#[test]
fn a_limit_that_two_targets_share_counts_once() {
    // Either could have the account's 100 requests a day: 3,100 in 31 days. Together they have them once as well.
    let pool = "{ metric = \"requests\", window = \"day\", amount = 100, reset = \"calendar\", pool = \"all\" }";
    let second = format!("[[providers.lab.models]]\nid = \"n\"\nquality = 4\nlimits = [{pool}]\n");
    let config = free("lab", 3, pool) + &second;
    let sentence = &format!("500 requests a day {EIGHT_THOUSAND}");
    check(&config, sentence, &[(100, 3_100), (100, 3_100)], 3_100);
    let plan = planned(&config, "", sentence);
    assert!(plan.carries.iter().all(|carry| carry.sharers == 2));
    assert_eq!(plan.course.days.iter().map(|day| day.served).collect::<Vec<_>>(), [100; 31]);
    // A provider of its own adds its own 20: 31 x 120 = 3,720.
    let other = free("shop", 3, "{ metric = \"requests\", window = \"day\", amount = 20, reset = \"calendar\" }");
    check(&(config + &other), sentence, &[(100, 3_100), (100, 3_100), (20, 620)], 3_720);
}

#[test]
fn windows_that_slide_and_buckets_have_their_part_of_a_day() {
    // 5 an hour are 120 a day and 3,720 in 31 days.
    let hour = "{ metric = \"requests\", window = \"hour\", amount = 5, reset = \"calendar\" }";
    check(&free("lab", 3, hour), &format!("500 requests a day {EIGHT_THOUSAND}"), &[(120, 3_720)], 3_720);
    // A bucket of 100 a day is refilled 31 times in a month, and was full at first: 3,200.
    let bucket = "{ metric = \"requests\", window = \"day\", amount = 100, reset = \"bucket\" }";
    check(&free("lab", 3, bucket), &format!("500 requests a day {EIGHT_THOUSAND}"), &[(100, 3_200)], 3_200);
    // A request that is larger than the limit never fits.
    let small = "{ metric = \"tokens\", window = \"minute\", amount = 6000, reset = \"calendar\" }";
    check(&free("lab", 3, small), &format!("5 requests a day {EIGHT_THOUSAND}"), &[(0, 0)], 0);
}

/// How often a live book takes requests of so many tokens before it holds one back.
fn taken(spec: &LimitSpec, demand: &Demand) -> u64 {
    let now = Now { wall: at(START), monotonic: Monotonic::from_micros(1) };
    let mut book = Book::new(vec![spec.clone()], now);
    let usage = Usage { input: demand.input.expected, output: demand.output.expected, ..Usage::default() };
    let mut taken = 0;
    while let Ok(id) = book.reserve(now, &[LimitIndex::FIRST], demand) {
        book.received(id, now);
        book.settle(id, now, &Actual { usage: Some(usage), answered: true, ..Actual::default() });
        taken += 1;
    }
    taken
}

#[test]
fn as_many_fit_as_the_live_gateway_lets_through() {
    for (input, output) in [(7_000, 1_000), (500, 0), (1, 1), (9_900, 99), (10_000, 0), (10_000, 1), (333, 7)] {
        for metric in ["tokens", "input_tokens", "output_tokens", "requests"] {
            for (amount, estimate) in [(10_000, "calibrated"), (10_000, "strict"), (123_457, "calibrated")] {
                let limit = format!(
                    "metric = \"{metric}\"\nwindow = \"day\"\namount = {amount}\nreset = \"calendar\"\nestimate = \"{estimate}\""
                );
                let spec = LimitSpec::read("lab/m", &toml_limit(&limit)).unwrap();
                let demand =
                    Demand { input: Bound::exactly(input), output: Bound::exactly(output), ..Demand::default() };
                let expected = fits(&spec, &demand);
                if expected.is_none() {
                    assert_eq!((metric, output), ("output_tokens", 0));
                    continue;
                }
                assert_eq!(Some(taken(&spec, &demand)), expected, "{limit}, {input} + {output}");
            }
        }
    }
}

/// A limit, read as it stands in a configuration.
fn toml_limit(text: &str) -> freeway_catalog::Limit {
    toml::from_str(text).unwrap()
}
