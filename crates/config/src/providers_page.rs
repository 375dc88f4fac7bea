//! `docs/providers.md`: the providers of the catalogue, from their files.

use std::fmt::Write as _;

use freeway_catalog::{Asked, Catalog, Trains};
use freeway_types::Timestamp;

use crate::offer::{Card, cards, number, total};

const HEAD: &str = "\
# Providers

What each provider of the catalogue gives away, what it asks, and what it does with what it is sent. Nothing here was
tried against the providers themselves: it is what the sources in their files say, as of the dates shown. Free offers
change within weeks. `freeway providers` shows the same with its age; `freeway providers NAME` shows everything.

This page is made from `catalog/providers/` by `cargo xtask docs`.
";

/// The text of `docs/providers.md`.
#[must_use]
pub fn providers_page() -> String {
    let catalog = Catalog::embedded().unwrap_or_default();
    // The page must not change with the day it is made: data policies are taken as they were when they were read.
    let cards = cards(&catalog, Timestamp::default());
    let mut page = HEAD.to_owned();
    let (on, off): (Vec<&Card>, Vec<&Card>) = cards.iter().partition(|card| card.off.is_none());
    let sum = total(&cards);
    let _ = write!(
        page,
        "\n## All free plans together\n\n\
         | In a day | By limits over a day or longer | Only by limits over minutes and hours, used without a pause |\n|---|---|---|\n\
         | requests | {} | {} |\n| tokens | {} | {} |\n\n\
         Counters that several models share count once. {} of the models that can be had for nothing have no known limit\n\
         of requests, and {} none of tokens: they count as nothing here. Nobody gets all of it: the limits of requests and\n\
         of tokens hold together, and so do those of the minute and of the day.\n",
        count(sum.requests.documented),
        count(sum.requests.theoretical),
        count(sum.tokens.documented),
        count(sum.tokens.theoretical),
        sum.requests.unknown_models,
        sum.tokens.unknown_models,
    );
    page.push_str("\n## At a glance\n\n| Provider | Offer | Free models | Card | Telephone | Trains on the free plan | Strictest data | As of |\n|---|---|---|---|---|---|---|---|\n");
    for card in &on {
        let free = card.plans.iter().find(|plan| plan.name == "free");
        let _ = writeln!(
            page,
            "| [{}](#{}) | {} | {} | {} | {} | {} | {} | {} |",
            card.name,
            card.id,
            word(&card.offer),
            card.free_models,
            asked(card.terms.card),
            asked(card.terms.phone),
            free.map_or("-", |plan| trains(plan.trains)),
            free.map_or("-", |plan| plan.strictest_data.as_str()),
            card.as_of.as_deref().unwrap_or("-"),
        );
    }
    for card in &on {
        write_card(&mut page, card);
    }
    page.push_str("\n## Off\n\nThese are known and not used, for the reason given.\n\n| Provider | Why | As of |\n|---|---|---|\n");
    for card in &off {
        let why = card.off.as_deref().unwrap_or_default();
        let _ = writeln!(page, "| {} (`{}`) | {why} | {} |", card.name, card.id, card.as_of.as_deref().unwrap_or("-"));
    }
    page
}

fn write_card(page: &mut String, card: &Card) {
    let _ = write!(page, "\n## {}\n\n{}\n\n", card.id, card.summary);
    let mut line = |what: &str, text: &str| {
        let _ = writeln!(page, "- {what}: {text}");
    };
    if let Some(signup) = &card.signup {
        line("sign-up", signup);
    }
    if let Some(terms) = &card.terms.note {
        line("terms", terms);
    }
    if !card.env.is_empty() {
        line("key", &format!("`{}`", card.env.join("`, `")));
    }
    for plan in &card.plans {
        let days = plan.retention_days.map_or("for an unknown time".to_owned(), |days| format!("{days} days"));
        let kept = if plan.retention_days == Some(0) { "not kept".to_owned() } else { format!("kept {days}") };
        let mut text = format!("trains: {}; {kept}; up to {} data", trains(plan.trains), plan.strictest_data.as_str());
        if let Some(opt_out) = &plan.opt_out {
            let _ = write!(text, ". To opt out: {opt_out}");
        }
        line(&format!("plan `{}`", plan.name), &text);
    }
    for limit in &card.limits {
        line("limit", limit);
    }
    for dispute in &card.disputes {
        line("disputed", dispute);
    }
    let free: Vec<_> = card.models.iter().filter(|model| model.free && model.off.is_none()).collect();
    if free.is_empty() {
        return;
    }
    page.push_str("\n| Free model | Quality | Context | Limits |\n|---|---|---|---|\n");
    for model in free {
        let quality = model.quality.map_or("-".to_owned(), |quality| quality.to_string());
        let context = model.context.map_or("-".to_owned(), count);
        let limits = model.limits.join("<br>").replace('|', "\\|");
        let _ = writeln!(page, "| `{}` | {quality} | {context} | {limits} |", model.id);
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people; and far below 2^52")]
fn count(value: u64) -> String {
    number(value as f64)
}

/// The word by which a value stands in files.
fn word<T: serde::Serialize>(value: &Option<T>) -> String {
    let value = value.as_ref().and_then(|value| serde_json::to_value(value).ok());
    value.as_ref().and_then(serde_json::Value::as_str).unwrap_or("-").to_owned()
}

fn asked(asked: Option<Asked>) -> &'static str {
    match asked {
        Some(Asked::No) => "no",
        Some(Asked::Yes) => "yes",
        Some(Asked::Sometimes) => "sometimes",
        Some(Asked::Unknown) | None => "?",
    }
}

fn trains(trains: Trains) -> &'static str {
    match trains {
        Trains::No => "no",
        Trains::Yes => "yes",
        Trains::Unknown => "?",
    }
}
