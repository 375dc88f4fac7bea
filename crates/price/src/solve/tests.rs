use freeway_quota::Allowance;
use proptest::prelude::*;

use super::*;
use crate::market::{Class, Offer};

fn class(value: f64, arrivals: &[f64], offers: &[(f64, &[(usize, f64)])]) -> Class {
    let offers = offers.iter().map(|(loss, uses)| Offer { loss: *loss, uses: uses.to_vec() }).collect();
    Class { value, arrivals: arrivals.to_vec(), patience: Vec::new(), weights: Vec::new(), offers }
}

fn near(found: f64, wanted: f64) {
    assert!((found - wanted).abs() < 1e-3 * wanted.abs().max(1.0), "{found} is not {wanted}");
}

#[test]
fn scarce_quota_is_worth_what_the_last_request_that_gets_it_is() {
    // Ten units: three critical requests first, then seven of twenty batch ones.
    let market = Market {
        blocks: 1,
        weights: Vec::new(),
        classes: vec![class(10.0, &[3.0], &[(0.0, &[(0, 1.0)])]), class(1.0, &[20.0], &[(0.0, &[(0, 1.0)])])],
        supplies: vec![vec![Allowance { blocks: 0..1, units: 10.0 }]],
    };
    let solution = market.solve(Precision::Exact).unwrap();
    near(solution.value, 37.0);
    near(solution.prices[0][0], 1.0);
    near(solution.served[1][0], 7.0);
}

#[test]
fn what_is_enough_for_all_costs_nothing() {
    let market = Market {
        blocks: 2,
        weights: Vec::new(),
        classes: vec![class(3.0, &[4.0, 4.0], &[(0.0, &[(0, 1.0)])])],
        supplies: vec![vec![Allowance { blocks: 0..2, units: 9.0 }]],
    };
    let solution = market.solve(Precision::Exact).unwrap();
    near(solution.value, 24.0);
    assert_eq!(solution.prices[0], [0.0, 0.0]);
}

#[test]
fn quota_that_comes_back_before_the_rush_is_free_until_then() {
    // A window for each block; all the demand that cannot be met is in the second.
    let market = Market {
        blocks: 2,
        weights: Vec::new(),
        classes: vec![class(3.0, &[5.0, 50.0], &[(0.0, &[(0, 1.0)])])],
        supplies: vec![vec![Allowance { blocks: 0..1, units: 10.0 }, Allowance { blocks: 1..2, units: 10.0 }]],
    };
    let solution = market.solve(Precision::Exact).unwrap();
    near(solution.prices[0][0], 0.0);
    near(solution.prices[0][1], 3.0);
    // One window over both is kept for nobody in particular, and worth as much at once.
    let whole = Market { supplies: vec![vec![Allowance { blocks: 0..2, units: 20.0 }]], ..market };
    near(whole.solve(Precision::Exact).unwrap().prices[0][0], 3.0);
}

#[test]
fn money_is_spent_where_it_is_worth_it_and_patience_shares_what_is_there() {
    let market = Market {
        blocks: 2,
        weights: Vec::new(),
        classes: vec![
            class(10.0, &[4.0, 0.0], &[(0.0, &[(0, 1.0)]), (2.0, &[])]),
            class(1.0, &[4.0, 0.0], &[(2.0, &[])]),
        ],
        supplies: vec![vec![Allowance { blocks: 0..1, units: 1.0 }, Allowance { blocks: 1..2, units: 1.0 }]],
    };
    let solution = market.solve(Precision::Exact).unwrap();
    near(solution.value, 10.0 + 3.0 * 8.0);
    near(solution.prices[0][0], 2.0);
    assert_eq!(solution.served[1], [0.0, 0.0]);
    let mut patient = market;
    patient.classes[0].patience = vec![1; 9];
    near(patient.solve(Precision::Exact).unwrap().value, 20.0 + 2.0 * 8.0);
}

#[test]
fn of_two_that_are_worth_as_much_the_earlier_is_served() {
    let mut market = Market {
        blocks: 2,
        weights: vec![1.0, 0.9],
        classes: vec![
            class(3.0, &[10.0, 10.0], &[(0.0, &[(0, 1.0)])]),
            class(10.0, &[0.0, 2.0], &[(0.0, &[(0, 1.0)])]),
        ],
        supplies: vec![vec![Allowance { blocks: 0..2, units: 10.0 }]],
    };
    let solution = market.solve(Precision::Exact).unwrap();
    // Eight now, and two are kept for what is worth more even so.
    near(solution.served[0][0], 8.0);
    near(solution.served[0][1], 0.0);
    near(solution.served[1][1], 2.0);
    near(solution.value, 24.0 + 18.0);
    near(solution.prices[0][0], 3.0);
    // A request of the later block is compared with a price of its own time.
    near(solution.prices[0][1], 3.0 / 0.9);
    market.weights.clear();
    near(market.solve(Precision::Exact).unwrap().prices[0][1], 3.0);
}

#[test]
fn nothing_to_serve_and_nothing_to_serve_it_with() {
    assert_eq!(Market::default().solve(Precision::Exact).unwrap(), Solution::default());
    let market = Market {
        blocks: 1,
        weights: Vec::new(),
        classes: vec![class(10.0, &[4.0], &[(0.0, &[(0, 1.0)])])],
        supplies: vec![vec![Allowance { blocks: 0..1, units: 0.0 }]],
    };
    near(market.solve(Precision::Exact).unwrap().value, 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// By the theory of duality, what is served at best is worth as much as everything there is at its price, and what
    /// each arrival gains beyond it; and no request that is turned away would gain.
    #[test]
    fn prices_account_for_the_whole_value(
        classes in proptest::collection::vec((1_u8..20, 0_u16..40, 0_u16..40, 1_u16..2_000, 1_u16..2_000), 1..6),
        supplies in proptest::collection::vec((1_u32..60, 1_u32..60_000, 1_u32..60_000), 2),
    ) {
        let uses = |requests: usize, tokens: usize, size: u16| vec![(requests, 1.0), (tokens, f64::from(size))];
        let market = Market {
            blocks: 2,
            weights: Vec::new(),
            classes: classes.iter().map(|(value, early, late, size, other)| Class {
                value: f64::from(*value),
                arrivals: vec![f64::from(*early), f64::from(*late)],
                patience: Vec::new(), weights: Vec::new(),
                offers: vec![
                    Offer { loss: 0.0, uses: uses(0, 1, *size) },
                    Offer { loss: 0.5, uses: uses(2, 3, *other) },
                ],
            }).collect(),
            supplies: supplies.iter().flat_map(|(requests, early, late)| [
                vec![Allowance { blocks: 0..2, units: f64::from(*requests) }],
                vec![Allowance { blocks: 0..1, units: f64::from(*early) }, Allowance { blocks: 1..2, units: f64::from(*late) }],
            ]).collect(),
        };
        let rough = market.solve(Precision::Rough).unwrap();
        let solution = market.solve(Precision::Exact).unwrap();
        prop_assert!((rough.value - solution.value).abs() <= 0.01 * solution.value.max(1.0));
        let worth = |supply: usize, allowance: &Allowance| solution.prices[supply][allowance.blocks.start] * allowance.units;
        let of_limits: f64 =
            market.supplies.iter().enumerate().flat_map(|(supply, all)| all.iter().map(move |one| worth(supply, one))).sum();
        let best = |class: &Class, block: usize| {
            let gain = |offer: &Offer| {
                let toll: f64 = offer.uses.iter().map(|(supply, units)| solution.prices[*supply][block] * units).sum();
                class.value - offer.loss - toll
            };
            class.offers.iter().map(gain).fold(0.0, f64::max)
        };
        let of_arrivals: f64 =
            market.classes.iter().flat_map(|class| (0..2).map(move |block| class.arrivals[block] * best(class, block))).sum();
        let gap = (solution.value - of_limits - of_arrivals).abs();
        prop_assert!(gap <= 1e-3 * solution.value.max(1.0), "{} against {of_limits} and {of_arrivals}", solution.value);
    }
}
