//! `freeway providers`: what the catalogue knows, with its age.

use std::path::PathBuf;

use clap::Args;
use freeway_catalog::Daily;
use freeway_config::{Card, STALE_DAYS, cards, number, read_catalog, total};
use serde_json::{Value, json};

use crate::{client, table};

#[derive(Args)]
pub(crate) struct Arguments {
    /// One provider, by its id: everything that is known of it.
    name: Option<String>,
    /// A folder with files of your own, which go before the built-in ones.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let catalog = read_catalog(arguments.dir.as_deref())?;
    let cards = cards(&catalog, client::now());
    let Some(name) = &arguments.name else {
        let sum = total(&cards);
        if arguments.json {
            println!("{:#}", json!({"providers": cards, "total": sum}));
        } else {
            print!("{}", overview(&cards));
        }
        return Ok(());
    };
    let card = cards.iter().find(|card| card.id == *name).ok_or_else(|| {
        let known: Vec<&str> = cards.iter().map(|card| card.id.as_str()).collect();
        format!("the catalogue knows no provider `{name}`; there are {}", known.join(", "))
    })?;
    if arguments.json {
        println!("{:#}", json!(card));
    } else {
        print!("{}", details(card));
    }
    Ok(())
}

fn overview(cards: &[Card]) -> String {
    let (on, off): (Vec<&Card>, Vec<&Card>) = cards.iter().partition(|card| card.off.is_none());
    let heading =
        ["provider", "offer", "free models", "requests a day", "card", "phone", "trains", "strictest data", "facts of"];
    let rows: Vec<Vec<String>> = on
        .iter()
        .map(|card| {
            let free = card.plans.iter().find(|plan| plan.name == "free");
            vec![
                card.id.clone(),
                word(json!(card.offer)),
                card.free_models.to_string(),
                in_a_day(card.requests),
                word(json!(card.terms.card)),
                word(json!(card.terms.phone)),
                free.map_or("-".to_owned(), |plan| word(json!(plan.trains))),
                free.map_or("-".to_owned(), |plan| plan.strictest_data.to_string()),
                age(card),
            ]
        })
        .collect();
    let mut text = table::render(&heading, &rows);
    if !off.is_empty() {
        text.push_str("\nKnown, and not used:\n");
    }
    for card in off {
        text.push_str(&format!("  {}: {}\n", card.id, card.off.as_deref().unwrap_or_default()));
    }
    let sum = total(cards);
    text.push_str(&format!(
        "\nAll free plans together, in a day, by limits over a day or longer: {} requests, {} tokens.\n\
         Only by limits over minutes and hours, used without a pause: {} requests, {} tokens more.\n\
         Shared counters count once; models without a known limit count as nothing ({} for requests, {} for tokens).\n\
         `~` marks what only shorter limits allow; facts older than {STALE_DAYS} days are marked stale, and data policies\n\
         older than 180 days count as unknown. `freeway providers NAME` shows everything.\n",
        count(sum.requests.documented),
        count(sum.tokens.documented),
        count(sum.requests.theoretical),
        count(sum.tokens.theoretical),
        sum.requests.unknown_models,
        sum.tokens.unknown_models,
    ));
    text
}

fn details(card: &Card) -> String {
    let mut text = format!("{} ({})\n{}\n\n", card.name, card.id, card.summary);
    let mut line = |what: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!("{what:<22}{value}\n"));
        }
    };
    let word_of = |value: String| (value != "-").then_some(value);
    line("not used", card.off.clone());
    line("facts of", Some(age(card)));
    line("confidence", word_of(word(json!(card.confidence))));
    line("offer", word_of(word(json!(card.offer))));
    line("sign-up", card.signup.clone());
    line("address", card.base_url.clone());
    line("key", (!card.env.is_empty()).then(|| card.env.join(", ")));
    line("card asked for", word_of(word(json!(card.terms.card))));
    line("phone asked for", word_of(word(json!(card.terms.phone))));
    line("identity asked for", word_of(word(json!(card.terms.identity))));
    line("works without account", word_of(word(json!(card.terms.anonymous))));
    line("bills unasked", word_of(word(json!(card.terms.bills_unasked))));
    line("regions", card.terms.regions.clone());
    line("production use", word_of(word(json!(card.terms.production))));
    line("commercial use", word_of(word(json!(card.terms.commercial))));
    line("through a gateway", word_of(word(json!(card.terms.gateways))));
    line("terms", card.terms.note.clone());
    line("requests a day", Some(in_a_day(card.requests)));
    line("tokens a day", Some(in_a_day(card.tokens)));
    for plan in &card.plans {
        let kept =
            plan.retention_days.map_or("kept for an unknown time".to_owned(), |days| format!("kept {days} days"));
        let stale = if plan.policy_stale { " (its policy was read too long ago: unknown)" } else { "" };
        let trains = word(json!(plan.trains));
        line(
            &format!("plan {}", plan.name),
            Some(format!("trains: {trains}; {kept}; up to {} data{stale}", plan.strictest_data)),
        );
        line("", plan.summary.clone());
        line("", plan.note.clone());
        line("  to opt out", plan.opt_out.clone());
    }
    for limit in &card.limits {
        line("limit", Some(limit.clone()));
    }
    for dispute in &card.disputes {
        line("disputed", Some(dispute.clone()));
    }
    text.push('\n');
    for model in &card.models {
        let quality = model.quality.map_or(String::new(), |quality| format!(", quality {quality}"));
        let context = model.context.map_or(String::new(), |context| format!(", context {}", count(context)));
        let free = if model.free { "" } else { ", paid" };
        text.push_str(&format!("{}{quality}{context}{free}\n", model.id));
        for more in model.off.iter().map(|why| format!("off: {why}")).chain(model.limits.iter().cloned()) {
            text.push_str(&format!("    {more}\n"));
        }
    }
    text.push_str("\nSources\n");
    for source in &card.sources {
        text.push_str(&format!("  {source}\n"));
    }
    text
}

fn age(card: &Card) -> String {
    let date = card.as_of.as_deref().unwrap_or("an unknown day");
    match (card.stale, card.age_days) {
        (true, Some(days)) => format!("{date}, stale ({days} days)"),
        (true, None) => format!("{date}, stale"),
        (false, _) => date.to_owned(),
    }
}

/// What is carried in a day. `~` marks what only limits shorter than a day allow.
fn in_a_day(daily: Daily) -> String {
    match (daily.documented, daily.theoretical) {
        (0, 0) => "?".to_owned(),
        (documented, 0) => count(documented),
        (0, theoretical) => format!("~{}", count(theoretical)),
        (documented, theoretical) => format!("{} + ~{}", count(documented), count(theoretical)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people; and far below 2^52")]
fn count(value: u64) -> String {
    number(value as f64)
}

/// The word by which a value stands in files, or a dash.
fn word(value: Value) -> String {
    match value {
        Value::String(word) => word,
        Value::Bool(yes) => if yes { "yes" } else { "no" }.to_owned(),
        _ => "-".to_owned(),
    }
}
