//! Targets with limits like those of real free tiers.

use crate::dice::Dice;
use crate::scenarios::workload::Mean;
use crate::scenarios::{DAYS, pick, place};

const ZONES: [&str; 3] = ["UTC", "America/Los_Angeles", "Asia/Shanghai"];
const DAY_S: f64 = 86_400.0;

/// An account with one model, or two that share a pool.
pub(crate) struct Account {
    id: String,
    is_paid: bool,
    models: Vec<Model>,
    limits: Vec<Limit>,
}

struct Model {
    quality: u64,
    context: u64,
    /// USD per million tokens of input and of output.
    price: Option<(f64, f64)>,
}

struct Limit {
    metric: &'static str,
    window: &'static str,
    amount: f64,
    /// How it comes back, in the words of a configuration.
    reset: String,
}

/// What a provider is like; the names are those of nobody.
#[derive(Clone, Copy)]
enum Manner {
    /// Requests by minute and by day, tokens by minute and by day.
    Tokens,
    /// Requests by minute and by day, many tokens.
    Requests,
    /// Requests by minute, tokens by month.
    Month,
    /// A credit in money that lapses.
    Credit,
    /// Two models that share what there is.
    Pool,
    /// It costs money.
    Paid,
}

/// Draws 7 to 11 targets.
pub(crate) fn draw(dice: &mut Dice, is_paid: bool) -> Vec<Account> {
    let mut manners = vec![Manner::Tokens, Manner::Requests, Manner::Month, Manner::Credit, Manner::Pool];
    let more = 1 + dice.below(4);
    for _ in 0..more {
        let manner = [Manner::Tokens, Manner::Requests, Manner::Requests, Manner::Month][place(dice, 4)];
        manners.push(manner);
    }
    if is_paid {
        manners.push(Manner::Paid);
    }
    manners.iter().zip(1..).map(|(manner, number)| account(dice, *manner, number)).collect()
}

fn account(dice: &mut Dice, manner: Manner, number: usize) -> Account {
    let zone = ZONES[place(dice, ZONES.len())];
    let limit = |metric, window, amount: u64, reset: &str| Limit {
        metric,
        window,
        #[expect(clippy::cast_precision_loss, reason = "amounts are small")]
        amount: amount as f64,
        reset: format!("reset = \"{reset}\""),
    };
    let calendar = |metric, window, amount: u64| {
        let plain = limit(metric, window, amount, "calendar");
        Limit { reset: format!("{}, zone = \"{zone}\"", plain.reset), ..plain }
    };
    let mut models = vec![model(dice)];
    let limits = match manner {
        Manner::Tokens => vec![
            limit("requests", "minute", pick(dice, &[10, 20, 30]), "rolling"),
            calendar("requests", "day", pick(dice, &[500, 1_000, 1_500])),
            limit("tokens", "minute", pick(dice, &[6_000, 12_000, 30_000]).max(12_000), "bucket"),
            limit("tokens", "day", pick(dice, &[100_000, 200_000, 500_000, 1_000_000]), "rolling"),
        ],
        Manner::Requests => vec![
            limit("requests", "minute", pick(dice, &[5, 10, 15]), "rolling"),
            calendar("requests", "day", pick(dice, &[50, 100, 250, 500, 1_000, 1_500])),
            limit("tokens", "minute", 250_000, "rolling"),
        ],
        Manner::Month => vec![
            limit("requests", "minute", pick(dice, &[5, 10, 20]), "rolling"),
            limit("tokens", "minute", pick(dice, &[50_000, 100_000, 250_000]), "bucket"),
            calendar("requests", "day", pick(dice, &[300, 600, 1_000])),
            calendar("tokens", "month", pick(dice, &[1_000_000, 4_000_000, 50_000_000, 1_000_000_000])),
        ],
        Manner::Credit => {
            models[0].price = Some(price(dice));
            let cents = pick(dice, &[50, 100, 300, 500]);
            // The last days of the scenarios' dates: in some of them it lapses, in others it does not.
            let end = ["2026-11-11", "2026-12-08", "2027-02-01"][place(dice, 3)];
            let credit = limit("usd", "", cents, "never");
            vec![
                limit("requests", "minute", pick(dice, &[10, 20, 30]), "rolling"),
                Limit { amount: credit.amount / 100.0, reset: format!("{}, expires = {end}", credit.reset), ..credit },
            ]
        }
        Manner::Pool => {
            models.push(model(dice));
            vec![limit("requests", "minute", 20, "rolling"), calendar("requests", "day", pick(dice, &[50, 200, 1_000]))]
        }
        Manner::Paid => {
            models[0] = Model { quality: 5, price: Some(price(dice)), ..model(dice) };
            vec![limit("requests", "minute", 30, "rolling"), calendar("requests", "day", pick(dice, &[50, 100, 200]))]
        }
    };
    Account { id: format!("p{number:02}"), is_paid: matches!(manner, Manner::Paid), models, limits }
}

fn model(dice: &mut Dice) -> Model {
    // Few models are very good, and few are very small.
    let quality = [1, 2, 2, 3, 3, 3, 4, 4, 5][place(dice, 9)];
    Model { quality, context: pick(dice, &[8_192, 16_384, 32_768, 65_536, 131_072]), price: None }
}

fn price(dice: &mut Dice) -> (f64, f64) {
    [(0.1, 0.4), (0.25, 1.0), (0.6, 2.4), (1.0, 3.0)][place(dice, 4)]
}

impl Account {
    /// How many requests of a mean size its limits carry in a day, as far as that can be said of all alike.
    pub(crate) fn carries(&self, mean: Mean) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a handful of days")]
        let days = DAYS as f64;
        let price = self.models[0].price.unwrap_or_default();
        let cost = (mean.input * price.0 + mean.output * price.1) / 1e6;
        let of = |limit: &Limit| {
            let in_a_day = match limit.window {
                "minute" => limit.amount * DAY_S / 60.0,
                "day" => limit.amount,
                // All of it may be used within the scenario.
                _ => limit.amount / days,
            };
            match limit.metric {
                "requests" => in_a_day,
                "usd" => in_a_day / cost,
                _ => in_a_day / (mean.input + mean.output),
            }
        };
        self.limits.iter().map(of).fold(f64::INFINITY, f64::min)
    }

    /// Its tables in a configuration.
    pub(crate) fn table(&self) -> String {
        let Self { id, is_paid, models, limits } = self;
        let plan = if *is_paid { "plan = \"paid\"\n" } else { "cost = \"free\"\n" };
        let mut text =
            format!("[providers.{id}]\nbase_url = \"http://127.0.0.1:9/v1\"\nkeys = [\"sk-test-{id}\"]\n{plan}");
        let pool = if models.len() > 1 { ", pool = \"all\"" } else { "" };
        for (number, model) in (1..).zip(models) {
            text.push_str(&format!(
                "[[providers.{id}.models]]\nid = \"m{number}\"\nquality = {}\ncontext = {}\n",
                model.quality, model.context
            ));
            if let Some((input, output)) = model.price {
                text.push_str(&format!("price = {{ input = {input:?}, output = {output:?} }}\n"));
            }
            text.push_str("limits = [\n");
            for Limit { metric, window, amount, reset } in limits {
                let window = if window.is_empty() { String::new() } else { format!("window = \"{window}\", ") };
                text.push_str(&format!("  {{ metric = \"{metric}\", {window}amount = {amount}, {reset}{pool} }},\n"));
            }
            text.push_str("]\n");
        }
        text
    }
}
