//! A need as people say it: "5,000 requests a day of 8,000 tokens, 10 % critical".
//!
//! The grammar is small and forgiving: figures with a word behind them, in any order, and words that mean nothing
//! between them. What is not understood is an error that names the word; nothing is guessed at.

use crate::need::{Need, NeedError, REST, TierShare};

/// What is shown to who was not understood.
const EXAMPLE: &str = "write for example \"5,000 requests a day of 8,000 tokens, 10 % critical\"";
/// Words that say nothing.
const FILLERS: [&str; 14] =
    ["of", "with", "and", "each", "at", "least", "about", "i", "need", "have", "the", "for", "them", "are"];
/// Of tokens whose kind is not said, one part in so many is taken for output.
const OUTPUT_PART: u64 = 8;
/// The most tokens and requests that are believed.
const MOST: f64 = 1e12;

/// What was said of a need so far. What is missing is an error, or has a usual value, in [`Draft::need`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// Requests and their period in seconds.
    pub requests: Option<(u64, u64)>,
    /// Tokens of a request: all of them, if `input` and `output` are not given, else those that are left.
    pub tokens: Option<u64>,
    /// Input tokens.
    pub input: Option<u64>,
    /// Output tokens.
    pub output: Option<u64>,
    /// Parts of the requests, by tier.
    pub tiers: Vec<TierShare>,
    /// The least quality.
    pub min_quality: Option<u8>,
    /// How requests are spread over the hours of a day in UTC, by weights. No sentence says it.
    pub by_hour: Option<[u64; 24]>,
}

enum Word {
    Number(f64, String),
    Percent,
    Slash,
    Other(String),
}

impl Draft {
    /// Reads a sentence.
    ///
    /// # Errors
    /// At the first word that is not understood.
    pub fn read(sentence: &str) -> Result<Self, NeedError> {
        let mut draft = Self::default();
        let words = words(sentence)?;
        let mut rest = words.as_slice();
        while let Some((word, behind)) = rest.split_first() {
            rest = match word {
                Word::Number(figure, written) => draft.figure(*figure, written, behind)?,
                Word::Other(word) if FILLERS.contains(&word.as_str()) => behind,
                Word::Other(word) if word == "quality" => {
                    let (figure, behind) = next_number("quality", filled(behind))?;
                    draft.min_quality = Some(quality(figure)?);
                    behind
                }
                Word::Other(word) => return Err(unclear(&format!("`{word}` was not understood"))),
                Word::Percent => return Err(unclear("`%` stands without a number before it")),
                Word::Slash => return Err(unclear("`/` stands without requests before it")),
            };
        }
        Ok(draft)
    }

    /// A figure and what stands behind it.
    fn figure<'a>(&mut self, figure: f64, written: &str, rest: &'a [Word]) -> Result<&'a [Word], NeedError> {
        match rest {
            [Word::Percent, rest @ ..] => {
                let [Word::Other(tier), rest @ ..] = filled(rest) else {
                    return Err(unclear(&format!("{written} % of what? The name of a tier is missing behind it")));
                };
                self.share(tier, figure / 100.0)?;
                Ok(rest)
            }
            [Word::Slash, ..] => {
                let (period, rest) = period(rest).ok_or_else(|| no_period(written))?;
                self.requests = Some((whole(figure)?, period));
                Ok(rest)
            }
            [Word::Other(word), rest @ ..] => match word.as_str() {
                "request" | "requests" | "call" | "calls" => {
                    let (period, rest) = period(rest).ok_or_else(|| no_period(written))?;
                    self.requests = Some((whole(figure)?, period));
                    Ok(rest)
                }
                "token" | "tokens" | "input" | "in" | "output" | "out" => {
                    let (kind, rest) = kind(word, rest);
                    let place = match kind {
                        Some(true) => &mut self.input,
                        Some(false) => &mut self.output,
                        None => &mut self.tokens,
                    };
                    *place = Some(whole(figure)?);
                    Ok(rest)
                }
                word => Err(unclear(&format!("`{written} {word}` was not understood"))),
            },
            _ => Err(unclear(&format!("{written} of what? Nothing was understood behind it"))),
        }
    }

    /// Gives a part of the requests to a tier.
    ///
    /// # Errors
    /// When it is no part of a whole.
    pub fn share(&mut self, tier: &str, share: f64) -> Result<(), NeedError> {
        if !(0.0..=1.0).contains(&share) {
            return Err(unclear(&format!("{} % {tier}: a part is from 0 % to 100 %", share * 100.0)));
        }
        self.tiers.retain(|known| known.tier != tier);
        self.tiers.push(TierShare { tier: tier.to_owned(), share });
        Ok(())
    }

    /// The need that was said, for a model or an alias and, where it is not the configuration's own, a data class.
    ///
    /// # Errors
    /// When requests or tokens are missing, or parts do not fit together.
    pub fn need(mut self, model: &str, data: Option<&str>) -> Result<Need, NeedError> {
        let (requests, period_s) = self.requests.ok_or_else(|| unclear("how many requests there are was not said"))?;
        if requests == 0 {
            return Err(unclear("no requests need no plan"));
        }
        let (input_tokens, output_tokens, split_is_assumed) = match (self.tokens, self.input, self.output) {
            (None, Some(input), output) => (input, output.unwrap_or(0), false),
            (Some(all), None, None) => (all - all / OUTPUT_PART, all / OUTPUT_PART, true),
            (Some(all), Some(input), None) if input <= all => (input, all - input, false),
            (Some(all), None, Some(output)) if output <= all => (all - output, output, false),
            (Some(all), Some(input), Some(output)) if input.checked_add(output) == Some(all) => (input, output, false),
            (Some(all), ..) => return Err(unclear(&format!("the parts are not the {all} tokens of the whole"))),
            (None, None, _) => return Err(unclear("how many tokens a request has was not said")),
        };
        let given: f64 = self.tiers.iter().filter(|tier| tier.tier != REST).map(|tier| tier.share).sum();
        let own = self.tiers.iter().find(|tier| tier.tier == REST).map(|tier| tier.share);
        if given > 1.0 + 1e-9 || own.is_some_and(|own| (own + given - 1.0).abs() > 1e-9) {
            return Err(unclear("the parts of the tiers do not add up to 100 %"));
        }
        self.tiers.retain(|tier| tier.share > 0.0 && tier.tier != REST);
        if 1.0 - given > 1e-9 {
            self.tiers.push(TierShare { tier: REST.to_owned(), share: 1.0 - given });
        }
        let min_quality = self.min_quality.unwrap_or(1);
        let (model, data) = (model.to_owned(), data.map(str::to_owned));
        let (tiers, by_hour) = (self.tiers, self.by_hour);
        Ok(Need {
            requests,
            period_s,
            input_tokens,
            output_tokens,
            split_is_assumed,
            tiers,
            min_quality,
            model,
            data,
            by_hour,
        })
    }
}

fn unclear(what: &str) -> NeedError {
    NeedError::Unclear(format!("{what}; {EXAMPLE}"))
}

fn no_period(written: &str) -> NeedError {
    unclear(&format!("{written} requests in which time? Say `a day`, `/hour`, `per month` or the like behind them"))
}

/// Behind "requests": "a day", "/day", "per day", "daily".
fn period(rest: &[Word]) -> Option<(u64, &[Word])> {
    let (unit, rest) = match rest {
        [Word::Slash, Word::Other(unit), rest @ ..] => (unit, rest),
        [Word::Other(each), Word::Other(unit), rest @ ..]
            if ["a", "an", "per", "each", "every"].contains(&each.as_str()) =>
        {
            (unit, rest)
        }
        [Word::Other(unit), rest @ ..] => (unit, rest),
        _ => return None,
    };
    let seconds = match unit.as_str() {
        "second" => 1,
        "minute" => 60,
        "hour" | "hourly" => 3_600,
        "day" | "daily" => 86_400,
        "week" | "weekly" => 7 * 86_400,
        // A month is taken for its longest, as plans are for 31 days.
        "month" | "monthly" => 31 * 86_400,
        _ => return None,
    };
    Some((seconds, rest))
}

/// Which tokens: of input, of output, or not said.
fn kind<'a>(word: &str, rest: &'a [Word]) -> (Option<bool>, &'a [Word]) {
    let side = |word: &str| match word {
        "in" | "input" => Some(true),
        "out" | "output" => Some(false),
        _ => None,
    };
    let behind = match rest {
        [Word::Other(next), rest @ ..] => Some((next.as_str(), rest)),
        _ => None,
    };
    match (side(word), behind) {
        (Some(side), Some(("token" | "tokens", rest))) => (Some(side), rest),
        (Some(side), _) => (Some(side), rest),
        (None, Some((next, rest))) if side(next).is_some() => (side(next), rest),
        (None, _) => (None, rest),
    }
}

fn filled(rest: &[Word]) -> &[Word] {
    let is_filler = |word: &&Word| matches!(word, Word::Other(word) if FILLERS.contains(&word.as_str()));
    &rest[rest.iter().take_while(is_filler).count()..]
}

fn next_number<'a>(what: &str, rest: &'a [Word]) -> Result<(f64, &'a [Word]), NeedError> {
    match rest {
        [Word::Number(figure, _), rest @ ..] => Ok((*figure, rest)),
        _ => Err(unclear(&format!("a number is missing behind `{what}`"))),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 5")]
fn quality(figure: f64) -> Result<u8, NeedError> {
    match (1.0..=5.0).contains(&figure) && figure.fract() == 0.0 {
        true => Ok(figure as u8),
        false => Err(unclear(&format!("quality {figure}: a quality is 1, 2, 3, 4 or 5"))),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and from 0 to a million millions")]
fn whole(figure: f64) -> Result<u64, NeedError> {
    match (0.0..=MOST).contains(&figure) && figure.fract() == 0.0 {
        true => Ok(figure as u64),
        false => Err(unclear(&format!("{figure} is no whole number that can be planned with"))),
    }
}

fn words(sentence: &str) -> Result<Vec<Word>, NeedError> {
    let lower = sentence.to_lowercase();
    let mut words = Vec::new();
    let mut rest = lower.as_str();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '0'..='9' => {
                let is_part = |letter: char| letter.is_ascii_digit() || matches!(letter, ',' | '.' | '_');
                let run = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
                let written = rest[..run].trim_end_matches([',', '.']);
                let times = match &rest[written.len()..].split(|letter: char| !letter.is_alphabetic()).next() {
                    Some("k") => 1e3,
                    Some("m") => 1e6,
                    _ => 1.0,
                };
                words.push(Word::Number(number(written)? * times, written.to_owned()));
                written.len() + usize::from(times > 1.0)
            }
            '%' => {
                words.push(Word::Percent);
                1
            }
            '/' => {
                words.push(Word::Slash);
                1
            }
            first if first.is_alphabetic() => {
                let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_');
                let length = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
                words.push(match &rest[..length] {
                    "percent" => Word::Percent,
                    word => Word::Other(word.to_owned()),
                });
                length
            }
            ' ' | '\t' | '\n' | ',' | '.' | ';' | ':' | '+' | '"' => 1,
            other => return Err(unclear(&format!("`{}` was not understood", other.escape_debug()))),
        };
        rest = &rest[length..];
    }
    Ok(words)
}

/// A number with commas or underscores between its thousands, and a point before a fraction.
fn number(written: &str) -> Result<f64, NeedError> {
    let fail = || unclear(&format!("`{written}` is not a number; write 5000 or 5,000"));
    let groups: Vec<&str> = written.split('.').next().unwrap_or_default().split(',').collect();
    if groups.len() > 1 && groups[1..].iter().any(|group| group.len() != 3) {
        return Err(fail());
    }
    written.replace([',', '_'], "").parse().map_err(|_| fail())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sentence: &str, requests: (u64, u64), tokens: (u64, u64), tiers: &[(&str, f64)]) {
        let need = Draft::read(sentence).and_then(|draft| draft.need("auto", None)).unwrap();
        assert_eq!((need.requests, need.period_s), requests, "{sentence}");
        assert_eq!((need.input_tokens, need.output_tokens), tokens, "{sentence}");
        let came: Vec<(&str, f64)> = need.tiers.iter().map(|tier| (tier.tier.as_str(), tier.share)).collect();
        assert_eq!(came.len(), tiers.len(), "{sentence}: {came:?}");
        for ((name, share), (expected, part)) in came.iter().zip(tiers) {
            assert!(name == expected && (share - part).abs() < 1e-9, "{sentence}: {came:?}");
        }
    }

    #[test]
    fn needs_are_read_as_people_say_them() {
        let day = 86_400;
        let mixed = [("critical", 0.1), ("standard", 0.9)];
        check("5,000 requests a day of 8,000 tokens, 10 % critical", (5_000, day), (7_000, 1_000), &mixed);
        check("5000/day 8k tokens 10% critical", (5_000, day), (7_000, 1_000), &mixed);
        check("10 percent critical, 8k tokens, 5k calls per day.", (5_000, day), (7_000, 1_000), &mixed);
        check("20 requests/hour with 900 tokens in and 100 out", (20, 3_600), (900, 100), &[("standard", 1.0)]);
        check("20 requests every week of 900 input tokens", (20, 7 * day), (900, 0), &[("standard", 1.0)]);
        check("I need 3 requests monthly, 50 tokens with 20 output", (3, 31 * day), (30, 20), &[("standard", 1.0)]);
        let all = [("critical", 0.5), ("batch", 0.5)];
        check("9 calls a minute of 1.5k tokens, 50% critical, 50% of them batch", (9, 60), (1_313, 187), &all);
        assert_eq!(Draft::read("quality of at least 3").unwrap().min_quality, Some(3));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let complaint =
            |sentence: &str| Draft::read(sentence).and_then(|draft| draft.need("auto", None)).unwrap_err().to_string();
        let check = |sentence: &str, expected: &str| {
            let said = complaint(sentence);
            assert!(said.starts_with(expected) && said.ends_with(EXAMPLE), "{sentence}: {said}");
        };
        check("5 elephants a day", "`5 elephants` was not understood");
        check("5 requests of 8 tokens", "5 requests in which time?");
        check("5 requests a day", "how many tokens a request has was not said");
        check("8 tokens", "how many requests there are was not said");
        check("many requests", "`many` was not understood");
        check("5 requests a day of 80 tokens, 120 % critical", "120 % critical: a part is from 0 % to 100 %");
        check("5 requests a day of 80 tokens, 60 % batch, 50 % critical", "the parts of the tiers");
        check("5 requests a day of 80 tokens, 10 %", "10 % of what?");
        check("5,00 requests a day of 8 tokens", "`5,00` is not a number");
        check("5 requests a day of 80 tokens, 90 out", "the parts are not the 80 tokens");
        check("5 requests a day of 80 tokens, quality 9", "quality 9: a quality is 1, 2, 3, 4 or 5");
        check("0 requests a day of 80 tokens", "no requests need no plan");
        check("0.5 requests a day of 80 tokens", "0.5 is no whole number");
    }
}
