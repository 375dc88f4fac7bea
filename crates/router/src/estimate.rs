//! What an attempt will use, before anybody knows.
//!
//! Until a model's own answers have been measured, tokens are guessed from bytes:
//! three bytes to a token is more than nearly any text needs, so the guess is
//! high rather than low. The strict bound is one token to a byte, which no
//! byte-level tokenizer exceeds.

use freeway_dialect::openai_chat::ChatRequest;
use freeway_quota::{Bound, Demand};
use freeway_types::{Usage, Usd};

use crate::snapshot::{Deployment, Prices};

/// Bytes to a token: what is expected, and the least that a context can be filled by.
const BYTES_PER_TOKEN: u64 = 3;
const MOST_BYTES_PER_TOKEN: u64 = 6;
/// Tokens that a picture, a sound or a document is taken for.
const TOKENS_PER_ATTACHMENT: u64 = 1_500;
/// Tokens that one can be at most, wherever a provider's own formula is not known.
const MOST_TOKENS_PER_ATTACHMENT: u64 = 50_000;
/// Output that is expected where nothing has been measured.
const EXPECTED_OUTPUT: u64 = 1_000;
/// Output that is possible where neither the request nor the catalogue says.
const MOST_OUTPUT: u64 = 32_768;

/// What an attempt at a deployment is expected to charge.
#[must_use]
pub fn demand(request: &ChatRequest, deployment: &Deployment) -> Demand {
    let input = Bound {
        expected: request.text_bytes.div_ceil(BYTES_PER_TOKEN) + request.attachments * TOKENS_PER_ATTACHMENT,
        most: u64::try_from(request.body.len())
            .unwrap_or(u64::MAX)
            .saturating_add(request.attachments.saturating_mul(MOST_TOKENS_PER_ATTACHMENT)),
    };
    let cap = request.max_output.into_iter().chain(deployment.max_output).min();
    let most = cap.or(deployment.context).unwrap_or(MOST_OUTPUT);
    let output = Bound {
        expected: most.min(EXPECTED_OUTPUT).saturating_mul(request.choices),
        most: most.saturating_mul(request.choices),
    };
    let price = |prices: Option<Prices>| {
        let of = |input: u64, output: u64| {
            let usage = Usage { input, output, ..Usage::default() };
            prices.map_or(0, |prices| u64::try_from(bill(prices, usage).as_picos()).unwrap_or(0))
        };
        Bound { expected: of(input.expected, output.expected), most: of(input.most, output.most) }
    };
    let units = price(deployment.units);
    let whole = |scaled: u64| scaled.div_ceil(1_000_000_000_000);
    Demand {
        input,
        output,
        picos: price(deployment.prices),
        units: Bound { expected: whole(units.expected), most: whole(units.most) },
    }
}

/// The fewest input tokens that a request can have: for deciding that it does not fit a context.
#[must_use]
pub(crate) fn least_input(request: &ChatRequest) -> u64 {
    request.text_bytes / MOST_BYTES_PER_TOKEN
}

/// What an answer cost. `None` where the price is not known.
#[must_use]
pub fn cost(deployment: &Deployment, usage: Usage) -> Option<Usd> {
    deployment.prices.map(|prices| bill(prices, usage))
}

/// What an answer used of the provider's own units, rounded up.
#[must_use]
pub fn units(deployment: &Deployment, usage: Usage) -> u64 {
    deployment
        .units
        .map_or(0, |prices| u64::try_from(bill(prices, usage).as_picos()).unwrap_or(0).div_ceil(1_000_000_000_000))
}

fn bill(prices: Prices, usage: Usage) -> Usd {
    let fresh = usage.input.saturating_sub(usage.cached_input);
    prices.input.times(fresh) + prices.cached_input.times(usage.cached_input) + prices.output.times(usage.output)
}
