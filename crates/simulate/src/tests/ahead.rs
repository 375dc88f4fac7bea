//! What looking ahead is worth, and that it breaks nothing.

use super::*;

/// From noon to the fourth midnight, ten standard requests an hour and one critical one behind them, against a hundred a day.
fn flood() -> String {
    let hour = |hour: u32| {
        let at = f64::from(hour) * 3_600.0;
        let standard: Vec<String> =
            (0..10).map(|number| line(at + f64::from(number) * 100.0, "standard", (80, 20), 0.0, "")).collect();
        format!("{}{}", standard.concat(), line(at + 1_800.0, "critical", (80, 20), 0.0, ""))
    };
    (0..84).map(hour).collect()
}

fn value(config: &str, workload: &str, strategy: Strategy) -> (Summary, Run, f64) {
    let loaded = loaded(config);
    let (snapshot, limits) = (&loaded.snapshot, loaded.limits.as_slice());
    let workload = Workload::read("w.jsonl", workload, snapshot, Some(strategy)).unwrap();
    let scenario =
        Scenario { snapshot, limits, workload: &workload, start: start(), resolve: Duration::from_secs(10_800) };
    let run = simulate(scenario);
    let summary = Summary::of(scenario, &run, &recount(scenario, &run.decisions));
    assert_eq!(summary.broken, [""; 0]);
    (summary, run, bound(scenario).unwrap())
}

#[test]
fn quota_is_kept_for_what_is_worth_more() {
    let config = provider("lab", 3, "{ metric = \"requests\", window = \"day\", amount = 100, reset = \"calendar\" }");
    let (priced, run, most) = value(&config, &flood(), Strategy::Price);
    let (plain, _, same) = value(&config, &flood(), Strategy::Ordered);
    assert!((most - same).abs() < 1e-6);
    // Every critical request, and standard ones with all that is left of four windows: the best there is.
    let best = 84.0 * 10.0 + (400.0 - 84.0) * 3.0;
    assert!((most - best).abs() < 0.01 * best, "{most} is not {best}");
    assert!(priced.value > 0.97 * most && priced.value <= 1.001 * most, "{} of {most}", priced.value);
    assert!(plain.value < 0.85 * most, "{} of {most}", plain.value);
    assert_eq!((run.failures, priced.refused.keys().next()), (0, Some(&"price")));
}

#[test]
fn before_there_is_anything_to_forecast_from_it_ranks_like_the_others() {
    let config = provider("lab", 3, "{ metric = \"requests\", window = \"day\", amount = 100, reset = \"calendar\" }");
    let few: String = (0..5_u8).map(|number| small(f64::from(number))).collect();
    let (summary, run, _) = value(&config, &few, Strategy::Price);
    assert_eq!((summary.served, run.solutions), (5, 0));
}

#[test]
fn where_all_is_worth_the_same_nobody_is_turned_away_for_others() {
    let config = provider("lab", 3, "{ metric = \"requests\", window = \"day\", amount = 100, reset = \"calendar\" }");
    let same = flood().replace("critical", "standard");
    let (priced, run, _) = value(&config, &same, Strategy::Price);
    assert!(run.solutions > 0);
    assert_eq!(priced.refused.keys().collect::<Vec<_>>(), [&"quota"]);
    assert_eq!(priced.served, value(&config, &same, Strategy::Ordered).0.served);
}

/// Critical requests go to what is paid for first, unless that is scarce and others can go nowhere else.
#[test]
fn what_is_paid_for_is_left_to_those_who_can_go_nowhere_else() {
    let day =
        |amount: u64| format!("{{ metric = \"requests\", window = \"day\", amount = {amount}, reset = \"calendar\" }}");
    let config = |paid: u64| {
        let shop = provider("shop", 5, &day(paid)).replace("cost = \"free\"", "cost = \"paid\"\nplan = \"paid\"");
        format!("{}{shop}", provider("lab", 3, &day(1_000)))
    };
    let hour = |hour: u32| {
        let at = f64::from(hour) * 3_600.0;
        let critical = |number: u32| line(at + f64::from(number) * 100.0, "critical", (80, 20), 0.0, "");
        let standard: String = (10..20).map(|number| small(at + f64::from(number) * 100.0)).collect();
        let hard = critical(9).replace("\"min_quality\":1", "\"min_quality\":5");
        format!("{}{hard}{standard}", (0..4).map(critical).collect::<String>())
    };
    let workload: String = (0..72).map(hour).collect();
    let at_shop = |paid: u64| {
        let (came, summary) = played(&config(paid), &workload, Some(Strategy::Price));
        let of_hour = |place: usize| came.chunks(15).filter(|hour| hour[place].starts_with("shop")).count();
        (of_hour(0), of_hour(4), summary.tiers[0].served)
    };
    // Enough of it for everybody: the order of the tier.
    assert_eq!(at_shop(1_000), (72, 72, 360));
    // Room for those who need it and six others a day: until there are prices, the others take more than is theirs.
    let (easy, hard, served) = at_shop(30);
    assert!(hard >= 60 && easy <= 20 && served >= 345, "{easy} and {hard} of 72 at the shop, {served} of 360 served");
}
