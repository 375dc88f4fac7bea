//! `freeway plan`.

mod catches;
mod page;
mod recorded;

use std::collections::BTreeSet;

use clap::Args;
use freeway_plan::{Choosing, Draft, Need, Question, Trials, answer};
use freeway_router::Strategy;
use freeway_types::Timestamp;
use serde_json::json;

use crate::command::Report;
use crate::command::simulate::strategy;
use crate::{client, environment};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The need in words, such as "5,000 requests a day of 8,000 tokens, 10 % critical". The options say the same, and go
    /// before it.
    #[arg(value_name = "NEED")]
    sentence: Vec<String>,
    /// Take what was not said from the requests that the running gateway recorded in so many days: how many, their mean
    /// size, their tiers and hours.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=366))]
    recorded: Option<u32>,
    /// How many requests come in which time, such as 5000/day, 20/hour or 100000/month (31 days).
    #[arg(long, value_name = "COUNT/TIME")]
    requests: Option<String>,
    /// Tokens of one request, input and output together. Unless one of them is given, an eighth is taken for output.
    #[arg(long, value_name = "COUNT")]
    tokens: Option<u64>,
    /// Of which input.
    #[arg(long, value_name = "COUNT")]
    input_tokens: Option<u64>,
    /// Of which output: what the request allows, and what its answer has.
    #[arg(long, value_name = "COUNT")]
    output_tokens: Option<u64>,
    /// Which part of the requests is critical, such as 10%.
    #[arg(long, value_name = "PERCENT")]
    critical: Option<String>,
    /// Which part of them is batch; what is neither is standard.
    #[arg(long, value_name = "PERCENT")]
    batch: Option<String>,
    /// The least quality that will do, 1 to 5.
    #[arg(long, value_name = "1-5")]
    min_quality: Option<u8>,
    /// The model or alias that is asked for.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    model: String,
    /// The data class of the requests; the server's own unless this names one.
    #[arg(long, value_name = "CLASS")]
    data: Option<String>,
    /// How many days are planned.
    #[arg(long, value_name = "COUNT", default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..=366))]
    days: u32,
    /// When they begin, such as 2026-12-01T00:00:00Z; now, if it is left out.
    #[arg(long, value_name = "WHEN")]
    start: Option<String>,
    /// How targets are chosen, whatever the configuration says: a strategy's name, or price, which takes about a hundred
    /// times as long.
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    /// Draw with plain characters.
    #[arg(long)]
    ascii: bool,
    #[command(flatten)]
    report: Report,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let need = need(arguments)?;
    let start = match &arguments.start {
        None => client::now(),
        Some(text) => Timestamp::parse(text)
            .ok_or_else(|| format!("--start: `{text}` is no instant; write 2026-12-01T00:00:00Z"))?,
    };
    let choosing = match arguments.strategy.as_deref() {
        None => Choosing::AsConfigured,
        Some(name) => match strategy(name)? {
            Strategy::Price => Choosing::Prices,
            ranked => Choosing::Ranked(ranked),
        },
    };
    let config = arguments.report.config.as_deref();
    // Facts are as old as they are at the start, so that the same plan says the same on every day.
    let loaded = environment::configuration(config, start)?;
    let (free, cards) = environment::configuration_with_more(config, start, "free")?;
    let (paid, _) = environment::configuration_with_more(config, start, "paid")?;
    let known_accounts: BTreeSet<String> = loaded.snapshot.accounts.iter().map(|of| of.id.clone()).collect();
    let facts = catches::facts(&cards);
    let question = Question {
        snapshot: &loaded.snapshot,
        limits: &loaded.limits,
        need: &need,
        start,
        days: arguments.days,
        choosing,
    };
    let free =
        Trials { snapshot: &free.snapshot, limits: &free.limits, known_accounts: &known_accounts, facts: &facts };
    let paid = Trials { snapshot: &paid.snapshot, limits: &paid.limits, ..free };
    let answer = answer(question, free, paid).map_err(|error| error.to_string())?;
    let name = arguments.strategy.as_deref().unwrap_or("as configured");
    if arguments.report.json {
        let mut document = json!({"strategy": name});
        if let (Some(all), Ok(serde_json::Value::Object(answer))) =
            (document.as_object_mut(), serde_json::to_value(&answer))
        {
            all.extend(answer);
        }
        println!("{document:#}");
    } else {
        let look = page::Look { zone: environment::zone(), is_plain: arguments.ascii };
        print!("{}", page::page(&answer, name, &look));
    }
    Ok(())
}

/// The need in words, with what the options say of it over that.
fn need(arguments: &Arguments) -> Result<Need, String> {
    let told = |error: freeway_plan::NeedError| error.to_string();
    let mut draft = Draft::read(&arguments.sentence.join(" ")).map_err(told)?;
    if let Some(text) = &arguments.requests {
        let said = Draft::read(&text.replacen('/', " requests/", 1)).map_err(told)?;
        draft.requests = Some(said.requests.ok_or_else(|| format!("--requests: `{text}`: write 5000/day"))?);
    }
    draft.tokens = arguments.tokens.or(draft.tokens);
    draft.input = arguments.input_tokens.or(draft.input);
    draft.output = arguments.output_tokens.or(draft.output);
    for (tier, part) in [("critical", &arguments.critical), ("batch", &arguments.batch)] {
        let Some(text) = part else { continue };
        let percent: Option<f64> = text.trim().trim_end_matches('%').trim().parse().ok();
        let percent = percent.ok_or_else(|| format!("--{tier}: `{text}` is no part of a whole; write 10%"))?;
        draft.share(tier, percent / 100.0).map_err(told)?;
    }
    if let Some(quality) = arguments.min_quality {
        if !(1..=5).contains(&quality) {
            return Err(format!("--min-quality: {quality}: a quality is 1, 2, 3, 4 or 5"));
        }
        draft.min_quality = Some(quality);
    }
    if let Some(days) = arguments.recorded {
        draft = recorded::filled(draft, days, arguments.report.config.as_deref())?;
    }
    draft.need(&arguments.model, arguments.data.as_deref()).map_err(told)
}
