//! What the catalogue says of providers, in the words of a plan.

use std::collections::BTreeMap;

use freeway_catalog::{Allowed, Asked, Confidence, Offer, Trains};
use freeway_config::Card;
use freeway_plan::Facts;

/// The facts of each provider, by its id.
pub(super) fn facts(cards: &[Card]) -> BTreeMap<String, Facts> {
    let of = |card: &Card| Facts { as_of: card.as_of.clone(), doubt: doubt(card), catches: catches(card) };
    cards.iter().map(|card| (card.id.clone(), of(card))).collect()
}

fn doubt(card: &Card) -> Option<String> {
    let date = card.as_of.as_deref().unwrap_or("an unknown day");
    match card.confidence {
        _ if card.stale => Some(format!("facts of {date}, stale")),
        Some(Confidence::Low) => Some("facts of low confidence".to_owned()),
        _ => None,
    }
}

fn catches(card: &Card) -> Vec<String> {
    let terms = &card.terms;
    let mut catches: Vec<String> = Vec::new();
    let mut say = |what: &str| catches.push(what.to_owned());
    match card.offer {
        Some(Offer::TrialCredit) => say("a credit for trying it, and no more after that"),
        Some(Offer::Promotion) => say("a gift that may end any day"),
        Some(Offer::DataSharing) => say("given in exchange for what is sent"),
        Some(Offer::Ended) => say("the offer has ended"),
        Some(Offer::Disputed | Offer::Unknown) => say("whether there is such an offer is doubtful"),
        _ => {}
    }
    if let Some(free) = card.plans.iter().find(|plan| plan.name == "free") {
        match free.trains {
            Trains::Yes if free.opt_out.is_some() => say("trains on what is sent, unless it is switched off"),
            Trains::Yes => say("trains on what is sent"),
            Trains::Unknown => say("may train on what is sent"),
            Trains::No => {}
        }
        say(&format!("takes {} data at most", free.strictest_data));
    }
    for (asked, what) in
        [(terms.card, "a payment card"), (terms.phone, "a phone number"), (terms.identity, "proof of identity")]
    {
        match asked {
            Some(Asked::Yes) => say(&format!("asks for {what}")),
            Some(Asked::Sometimes) => say(&format!("sometimes asks for {what}")),
            _ => {}
        }
    }
    if terms.bills_unasked == Some(true) {
        say("bills what goes beyond without asking");
    }
    for (allowed, what) in [
        (terms.production, "production use"),
        (terms.commercial, "commercial use"),
        (terms.gateways, "requests through a gateway"),
    ] {
        match allowed {
            Some(Allowed::No) => say(&format!("forbids {what}")),
            Some(Allowed::Limited) => say(&format!("allows {what} within limits")),
            _ => {}
        }
    }
    if let Some(regions) = &terms.regions {
        say(&format!("regions: {}", regions.trim_end_matches('.')));
    }
    if let Some(doubt) = doubt(card) {
        say(&doubt);
    }
    catches
}
