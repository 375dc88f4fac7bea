//! Examples whose arithmetic was done by hand; it stands in words beside each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use freeway_config::{Loaded, Surroundings, load};
use freeway_types::Timestamp;

use super::*;

mod carrying;
mod days;
mod money;

/// The beginning of a month of 31 days.
const START: &str = "2026-12-01T00:00:00Z";
/// One size for all examples: 7,000 tokens of input and 1,000 of output.
const EIGHT_THOUSAND: &str = "of 8,000 tokens";

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn loaded(config: &str) -> Loaded {
    let surroundings = Surroundings { variable: &|_| None, folder: Path::new("."), now: at(START) };
    load("freeway.toml", Some(config), &surroundings).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// A free model with these limits, at a provider of its own.
fn free(id: &str, quality: u8, limits: &str) -> String {
    format!(
        "[providers.{id}]\nbase_url = \"http://127.0.0.1:9/v1\"\nkeys = [\"sk-test-{id}\"]\ncost = \"free\"\n\
         [[providers.{id}.models]]\nid = \"m\"\nquality = {quality}\nlimits = [{limits}]\n"
    )
}

/// A paid model, in USD for a million tokens of input and of output.
fn paid(id: &str, quality: u8, input: f64, output: f64) -> String {
    format!(
        "[providers.{id}]\nbase_url = \"http://127.0.0.1:9/v1\"\nkeys = [\"sk-test-{id}\"]\nplan = \"paid\"\n\
         [[providers.{id}.models]]\nid = \"m\"\nquality = {quality}\nprice = {{ input = {input:?}, output = {output:?} }}\n"
    )
}

fn need(sentence: &str) -> Need {
    Draft::read(sentence).and_then(|draft| draft.need("auto", None)).unwrap()
}

/// Plans 31 days from [`START`]. What `more` adds to the configuration is only tried.
fn planned(config: &str, more: &str, sentence: &str) -> Answer {
    asked(&loaded(config), more, config, sentence)
}

fn asked(base: &Loaded, more: &str, config: &str, sentence: &str) -> Answer {
    let need = need(sentence);
    let mut tried = loaded(&format!("{config}{more}"));
    for account in &mut tried.snapshot.accounts {
        account.provider = Some(account.id.clone());
    }
    let known_accounts: BTreeSet<String> = base.snapshot.accounts.iter().map(|account| account.id.clone()).collect();
    let facts = Facts { as_of: None, doubt: None, catches: vec!["wants a phone".to_owned()] };
    let facts: BTreeMap<String, Facts> =
        tried.snapshot.accounts.iter().map(|account| (account.id.clone(), facts.clone())).collect();
    let trials =
        Trials { snapshot: &tried.snapshot, limits: &tried.limits, known_accounts: &known_accounts, facts: &facts };
    let question = Question {
        snapshot: &base.snapshot,
        limits: &base.limits,
        need: &need,
        start: at(START),
        days: 31,
        choosing: Choosing::AsConfigured,
    };
    answer(question, trials, trials).unwrap()
}
