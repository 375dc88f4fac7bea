//! What an attempt will use, before anybody knows.
//!
//! What is *expected* is calibrated: tokens to a byte of text and tokens of output, as learned from what the provider
//! reported (`calibration.rs`). What is used at *most* is a bound.
//!
//! The bound on input rests on this: a tokenizer that works on bytes, or falls back to them, never makes more tokens
//! than the text has bytes; where it first normalises the text, than the normalised text has. The text of a request
//! is shorter than the JSON around it, which we count as well: at least 28 bytes for a message, more than the marks
//! that templates put around one. Tools are counted twice, since templates write them out anew and may indent them.
//! It does *not* hold where a provider adds text of its own beyond the allowances below, for a tokenizer that knows
//! neither bytes nor Unicode's forms C and KC, and for a picture that a provider takes for more than is set aside.
//!
//! Of a request whose input is known, in tokens, nothing is estimated: a simulation plans for such.

use freeway_dialect::openai_chat::ChatRequest;
use freeway_quota::{Bound, Demand};
use freeway_types::{Usage, Usd};

use crate::calibration::Expectation;
use crate::snapshot::{Deployment, Prices};

/// Bytes to a token: the least that a context can be filled by.
const MOST_BYTES_PER_TOKEN: u64 = 6;
/// Tokens that a picture, a sound or a document is taken for.
const TOKENS_PER_ATTACHMENT: u64 = 1_500;
/// Tokens that one can be at most, wherever a provider's own formula is not known. Sounds and documents have their
/// bytes as well.
const MOST_TOKENS_PER_ATTACHMENT: u64 = 50_000;
/// Tokens that a model's template may begin with, and may say about tools before it lists them.
const PREAMBLE: u64 = 64;
const TOOLS_PREAMBLE: u64 = 512;
/// Output that is possible where neither the request nor the catalogue says.
const MOST_OUTPUT: u64 = 32_768;

/// What an attempt at a deployment is expected to charge. A large output cap is reserved only by limits that charge
/// what was requested; others reserve what such requests have been answered with.
#[must_use]
pub fn demand(request: &ChatRequest, deployment: &Deployment, expectation: Expectation) -> Demand {
    let strict = strict_input(request);
    let attachments = request.attachments.saturating_mul(TOKENS_PER_ATTACHMENT);
    let estimated = || expectation.input.tokens(request.text.bytes, strict).saturating_add(attachments);
    let expected = request.input_tokens.unwrap_or_else(estimated);
    let input = Bound { expected, most: strict.max(expected) };
    let cap = request.max_output.into_iter().chain(deployment.max_output).min();
    let most = cap.or(deployment.context).unwrap_or(MOST_OUTPUT);
    let output = Bound {
        expected: most.min(u64::from(expectation.output)).saturating_mul(request.choices),
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

/// The most input tokens that a request can have: see the head of this file.
pub(crate) fn strict_input(request: &ChatRequest) -> u64 {
    if let Some(known) = request.input_tokens {
        return known;
    }
    let text = &request.text;
    let body = u64::try_from(request.body.len()).unwrap_or(u64::MAX);
    let bytes = body.saturating_sub(request.picture_bytes + text.written) + text.most_bytes.max(text.written);
    let tools = if request.tools_bytes > 0 { request.tools_bytes + TOOLS_PREAMBLE } else { 0 };
    let attachments = request.attachments.saturating_mul(MOST_TOKENS_PER_ATTACHMENT);
    (bytes + PREAMBLE + tools).saturating_add(attachments)
}

/// The fewest input tokens that a request can have: for deciding that it does not fit a context.
#[must_use]
pub(crate) fn least_input(request: &ChatRequest) -> u64 {
    request.input_tokens.unwrap_or(request.text.bytes / MOST_BYTES_PER_TOKEN)
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn read(body: &str) -> ChatRequest {
        ChatRequest::read(&Bytes::copy_from_slice(body.as_bytes())).unwrap()
    }

    /// Letters with their bytes after normalisation (form KC, Unicode 14).
    const GROWING: [(&str, u64); 8] =
        [("¼", 5), ("ŉ", 3), ("ำ", 6), ("⁗", 12), ("㌖", 18), ("\u{FB2C}", 6), ("ﷺ", 33), ("\u{1D160}", 12)];

    /// The tokens of the worst tokenizer there is: one of each byte of the normalised text, and five marks around each
    /// message.
    fn worst(messages: &[String]) -> u64 {
        let of = |letter: char| {
            let grown = GROWING.iter().find(|(text, _)| text.starts_with(letter));
            grown.map_or(letter.len_utf8() as u64, |(_, bytes)| *bytes)
        };
        messages.iter().map(|text| 5 + text.chars().map(of).sum::<u64>()).sum()
    }

    proptest! {
        #[test]
        fn the_strict_bound_is_never_exceeded(
            messages in prop::collection::vec("[ -~\n\u{e9}дह漢한🌊¼ŉำ⁗㌖\u{FB2C}ﷺ\u{1D160}]{0,80}", 1..12),
            escapes in any::<bool>(),
        ) {
            let list: Vec<_> =
                messages.iter().map(|text| serde_json::json!({"role": "user", "content": text})).collect();
            let mut body = serde_json::json!({"model": "m", "messages": list}).to_string();
            if escapes {
                let mut units = [0; 2];
                let escape = |letter: char| -> String {
                    if letter.is_ascii() {
                        return letter.to_string();
                    }
                    letter.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
                };
                body = body.chars().map(escape).collect();
            }
            let bound = strict_input(&read(&body));
            prop_assert!(bound >= worst(&messages), "{} of {}: {}", bound, worst(&messages), body);
        }
    }

    #[test]
    fn pictures_are_no_text_and_tools_are_written_out_anew() {
        let picture = |bytes: usize| {
            let data = "A".repeat(bytes);
            read(&format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}]}}]}}"#
            ))
        };
        assert_eq!(strict_input(&picture(10)), strict_input(&picture(1_000_000)));
        let tools = format!(r#"[{{"type":"function","function":{{"name":"{}"}}}}]"#, "f".repeat(1_000));
        let with = strict_input(&read(&format!(r#"{{"model":"m","messages":[],"tools":{tools}}}"#)));
        let without = strict_input(&read(r#"{"model":"m","messages":[]}"#));
        assert!(with >= without + 2 * tools.len() as u64 + TOOLS_PREAMBLE, "{with} {without}");
    }

    #[test]
    fn nothing_is_estimated_where_the_size_is_known() {
        let request = ChatRequest::sized("auto", 8_000, 700, freeway_types::FeatureSet::default());
        assert_eq!((strict_input(&request), least_input(&request)), (8_000, 8_000));
        let read = read(r#"{"model":"m","messages":[],"max_tokens":700}"#);
        assert_ne!(strict_input(&read), 8_000);
    }
}
