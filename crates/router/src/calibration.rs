//! How many tokens a model makes of a text, and how long it answers, learned from what its provider reports.
//!
//! Texts of one script and like length have a tokens-to-bytes ratio that varies little. Of each such kind the ratios
//! of the last 512 to 1,024 answers are kept as a [`Sketch`], in two halves: when the newer is full it becomes the
//! older, and what was the older is gone. That is how a change of tokenizer is followed: one that makes more tokens
//! after some ten answers, since so few lie above the quantile; one that makes fewer after a thousand.
//!
//! What is learned never makes a promise: it is a quantile, and each estimate that fell short is counted.

use std::collections::BTreeMap;

use freeway_dialect::Script;
use freeway_dialect::openai_chat::ChatRequest;
use freeway_types::Usage;
use serde::{Deserialize, Serialize};

use crate::estimate::strict_input;
use crate::sketch::{Sketch, all_but};

/// Samples after which the older half of what is remembered gives way.
const HALF: u64 = 512;
/// Samples from which on the prior no longer counts.
const FLOOR: u64 = 200;
/// Output expected where nothing has been measured, in tokens.
const PRIOR_OUTPUT: u64 = 1_000;
/// So many reports above what our bytes can make, and half of all, and the provider is taken to add text of its own.
const ADDS_ITS_OWN: u64 = 8;
/// Ratios are in parts of this many.
const ONE: u64 = 1 << 16;
/// Marks a rate that may go beyond the strict bound.
const UNBOUNDED: u32 = 1 << 31;
/// From so many bytes on, a text is of the next length.
const LENGTHS: [(u64, &str); 3] = [(0, "below 1 KiB"), (1 << 10, "below 16 KiB"), (1 << 14, "16 KiB and more")];
/// Output caps up to which a request is of one class; then those above, and those without.
const CAPS: [u64; 3] = [256, 1_024, 4_096];
const CAP_NAMES: [&str; OUTPUTS] = ["up to 256", "up to 1024", "up to 4096", "above 4096", "none"];

/// Kinds of input that are told apart.
pub const INPUTS: usize = Script::ALL.len() * LENGTHS.len();
/// Kinds of output that are told apart.
pub const OUTPUTS: usize = CAPS.len() + 2;

/// What kind of request it is, for what is learned about such requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The script and length of its text, below [`INPUTS`].
    pub input: usize,
    /// The class of its output cap, below [`OUTPUTS`].
    pub output: usize,
}

impl Shape {
    /// The shape of a request.
    #[must_use]
    pub fn of(request: &ChatRequest) -> Self {
        let script = request.text.script() as usize;
        let length = LENGTHS.iter().rposition(|(from, _)| request.text.bytes >= *from).unwrap_or(0);
        let output = match request.max_output {
            Some(cap) => CAPS.iter().position(|most| cap <= *most).unwrap_or(CAPS.len()),
            None => OUTPUTS - 1,
        };
        Self { input: script * LENGTHS.len() + length, output }
    }
}

/// Tokens to a byte of text, as what is learned and a margin make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u32);

impl Rate {
    /// Tokens of so many bytes, rounded up; at most `strict`, unless the provider is known to add text of its own.
    #[must_use]
    pub fn tokens(self, bytes: u64, strict: u64) -> u64 {
        let tokens = bytes.saturating_mul(u64::from(self.0 & !UNBOUNDED)).div_ceil(ONE);
        if self.0 & UNBOUNDED == 0 { tokens.min(strict) } else { tokens }
    }

    /// As a number, for keeping it where several threads read it.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// The rate that [`Self::to_bits`] gave.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// What to expect of a request at one deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Of its text.
    pub input: Rate,
    /// Output tokens of one choice.
    pub output: u32,
}

impl Expectation {
    /// What to expect where nothing was learned.
    #[must_use]
    pub fn prior(shape: Shape) -> Self {
        Calibration::default().expect(shape)
    }
}

/// One answer whose use the provider reported.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What kind of request it was.
    pub shape: Shape,
    /// Bytes of its text; `None` where it had pictures, sounds or documents, whose tokens would pass for the text's.
    pub text_bytes: Option<u64>,
    /// Input tokens that were expected.
    pub expected_input: u64,
    /// Input tokens that its bytes can make at most.
    pub most_input: u64,
    /// Output tokens that were expected.
    pub expected_output: u64,
    /// Choices that were asked for.
    pub choices: u64,
    /// What was reported.
    pub usage: Usage,
}

impl Sample {
    /// A request that has not been answered yet.
    #[must_use]
    pub fn of(request: &ChatRequest) -> Self {
        Self {
            shape: Shape::of(request),
            text_bytes: (request.attachments == 0).then_some(request.text.bytes),
            expected_input: 0,
            most_input: strict_input(request),
            expected_output: 0,
            choices: request.choices,
            usage: Usage::default(),
        }
    }
}

/// What was learned about one kind, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// `input` or `output`.
    pub of: &'static str,
    /// The script of the text; for output, the class of the caller's cap.
    pub kind: &'static str,
    /// The length of the text; empty for output.
    pub length: &'static str,
    /// Answers that the figures rest on.
    pub samples: u64,
    /// What is reserved: tokens to a byte, or tokens of output to a choice.
    pub reserved: f64,
    /// The mean of the same.
    pub mean: f64,
    /// Answers ever that were held against their estimate.
    pub judged: u64,
    /// Of those, how many used more than was estimated.
    pub overran: u64,
}

/// What was learned about one model at one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calibration {
    inputs: BTreeMap<usize, Cell>,
    outputs: BTreeMap<usize, Cell>,
}

/// What was learned about one kind of request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cell {
    newer: Half,
    older: Half,
    judged: u64,
    overran: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Half {
    values: Sketch,
    samples: u64,
    /// Tokens in all.
    tokens: u64,
    /// Of so many bytes, or choices.
    units: u64,
    /// Reports above what the bytes of the request can make.
    beyond: u64,
}

impl Calibration {
    /// What to expect of a kind of request.
    #[must_use]
    pub fn expect(&self, shape: Shape) -> Expectation {
        Expectation { input: self.rate(shape.input), output: self.output(shape.output) }
    }

    /// The rate of a kind of input. A 200th of all texts had more tokens to a byte, and a fiftieth is added.
    #[must_use]
    pub fn rate(&self, input: usize) -> Rate {
        let cell = self.inputs.get(&input);
        let rate = expected(cell, 200, (102, 100), prior_rate(input));
        let rate = u32::try_from(rate).map_or(UNBOUNDED - 1, |rate| rate.min(UNBOUNDED - 1));
        Rate(if cell.is_some_and(Cell::adds_its_own) { rate | UNBOUNDED } else { rate })
    }

    /// Output tokens of one choice. A hundredth of all answers was longer, and a tenth is added.
    #[must_use]
    pub fn output(&self, output: usize) -> u32 {
        let tokens = expected(self.outputs.get(&output), 100, (11, 10), PRIOR_OUTPUT);
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// Learns from an answer. Costs a search among some fifty numbers.
    ///
    /// A report of nothing says nothing. One of more than the text's bytes can make is a mistake, as long as it is not
    /// the rule; nor is one believed of which more was cached than there was.
    pub fn observe(&mut self, sample: &Sample) {
        let Sample { shape, usage, .. } = *sample;
        if let Some(bytes) = sample.text_bytes.filter(|bytes| *bytes > 0)
            && usage.input > 0
            && usage.cached_input <= usage.input
        {
            let cell = self.inputs.entry(shape.input).or_default();
            cell.judge(usage.input > sample.expected_input);
            if usage.input > sample.most_input {
                cell.newer.beyond += 1;
            }
            if usage.input <= sample.most_input || cell.adds_its_own() {
                let ratio = usage.input.saturating_mul(ONE).div_ceil(bytes);
                cell.take(ratio, usage.input, bytes);
            }
        }
        if usage.output > 0 {
            let cell = self.outputs.entry(shape.output).or_default();
            cell.judge(usage.output > sample.expected_output);
            let choices = sample.choices.max(1);
            cell.take(usage.output.div_ceil(choices), usage.output, choices);
        }
    }

    /// Adds what another learned about the same model.
    pub fn merge(&mut self, other: &Self) {
        for (own, other) in [(&mut self.inputs, &other.inputs), (&mut self.outputs, &other.outputs)] {
            for (kind, cell) in other {
                own.entry(*kind).or_default().merge(cell);
            }
        }
    }

    /// All that was learned, for people.
    pub fn learned(&self) -> impl Iterator<Item = Learned> {
        #[expect(clippy::cast_precision_loss, reason = "shown to people")]
        let row = |cell: &Cell, reserved: u64, parts: u64, of, kind, length| Learned {
            of,
            kind,
            length,
            samples: cell.samples(),
            reserved: reserved as f64 / parts as f64,
            mean: (cell.newer.tokens + cell.older.tokens) as f64 / (cell.newer.units + cell.older.units).max(1) as f64,
            judged: cell.judged,
            overran: cell.overran,
        };
        let inputs = self.inputs.iter().map(move |(place, cell)| {
            let rate = u64::from(self.rate(*place).0 & !UNBOUNDED);
            let (script, length) = input_kind(*place);
            row(cell, rate, ONE, "input", script.as_str(), length)
        });
        let outputs = self
            .outputs
            .iter()
            .map(move |(place, cell)| row(cell, u64::from(self.output(*place)), 1, "output", CAP_NAMES[*place], ""));
        inputs.chain(outputs)
    }

    /// As JSON text, for the store.
    #[must_use]
    pub fn to_json(&self) -> String {
        let saved = Saved {
            input: self.inputs.iter().map(|(place, cell)| (input_name(*place), cell.clone())).collect(),
            output: self.outputs.iter().map(|(place, cell)| (CAP_NAMES[*place].to_owned(), cell.clone())).collect(),
        };
        serde_json::to_string(&saved).unwrap_or_default()
    }

    /// What [`Self::to_json`] wrote. `None` if it is nothing of the kind; kinds that are not known are left out.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        let saved: Saved = serde_json::from_str(text).ok()?;
        let sound = |cells: BTreeMap<String, Cell>, place_of: &dyn Fn(&str) -> Option<usize>| {
            let known = cells.into_iter().filter_map(|(name, cell)| Some((place_of(&name)?, cell)));
            known.filter(|(_, cell)| cell.newer.is_sound() && cell.older.is_sound()).collect()
        };
        Some(Self {
            inputs: sound(saved.input, &|name| (0..INPUTS).find(|place| input_name(*place) == name)),
            outputs: sound(saved.output, &|name| CAP_NAMES.iter().position(|own| *own == name)),
        })
    }
}

/// As it is stored: by name, so that a later version may tell more kinds apart.
#[derive(Serialize, Deserialize)]
struct Saved {
    input: BTreeMap<String, Cell>,
    output: BTreeMap<String, Cell>,
}

impl Cell {
    fn samples(&self) -> u64 {
        self.newer.samples + self.older.samples
    }

    fn judge(&mut self, overran: bool) {
        self.judged += 1;
        self.overran += u64::from(overran);
    }

    fn take(&mut self, value: u64, tokens: u64, units: u64) {
        if self.newer.samples + self.newer.beyond >= HALF {
            self.older = std::mem::take(&mut self.newer);
        }
        let half = &mut self.newer;
        half.values.add(value);
        half.samples += 1;
        half.tokens = half.tokens.saturating_add(tokens);
        half.units = half.units.saturating_add(units);
    }

    fn adds_its_own(&self) -> bool {
        let beyond = self.newer.beyond + self.older.beyond;
        beyond >= ADDS_ITS_OWN && beyond >= self.samples() / 2
    }

    fn merge(&mut self, other: &Self) {
        for (own, other) in [(&mut self.newer, &other.newer), (&mut self.older, &other.older)] {
            own.values.merge(&other.values);
            own.samples += other.samples;
            own.tokens = own.tokens.saturating_add(other.tokens);
            own.units = own.units.saturating_add(other.units);
            own.beyond += other.beyond;
        }
        self.judged += other.judged;
        self.overran += other.overran;
    }
}

impl Half {
    /// Whether its figures fit together; a file may hold others.
    fn is_sound(&self) -> bool {
        self.values.is_sound() && self.values.count() == self.samples
    }
}

/// What all but one in `share` of the values reach at most, with a margin. Below [`FLOOR`] samples the prior still
/// counts for what is missing, but never makes the figure smaller than what was seen.
fn expected(cell: Option<&Cell>, share: u64, (over, under): (u64, u64), prior: u64) -> u64 {
    let Some(cell) = cell else { return prior };
    let samples = cell.samples();
    // Of 200 the greatest, of 400 the second: so that with each further sample one in `share` at most is above.
    let above = samples.div_ceil(share).saturating_sub(1);
    let Some(seen) = all_but(above, &cell.newer.values, &cell.older.values) else { return prior };
    let seen = seen.saturating_mul(over).div_ceil(under);
    if samples >= FLOOR {
        return seen;
    }
    let blend = seen.saturating_mul(samples).saturating_add(prior * (FLOOR - samples)) / FLOOR;
    seen.max(blend)
}

/// Tokens to a byte before anything is known: more than most tokenizers need, and for some texts not enough.
fn prior_rate(input: usize) -> u64 {
    let (tokens, bytes) = match input_kind(input).0 {
        Script::Latin => (1, 3),
        Script::Code | Script::Mixed => (2, 5),
        Script::TwoByte | Script::Cjk => (1, 2),
        Script::Other => (3, 4),
    };
    (tokens * ONE).div_ceil(bytes)
}

fn input_kind(place: usize) -> (Script, &'static str) {
    (Script::ALL[place / LENGTHS.len()], LENGTHS[place % LENGTHS.len()].1)
}

fn input_name(place: usize) -> String {
    let (script, length) = input_kind(place);
    format!("{}, {length}", script.as_str())
}

#[cfg(test)]
mod tests;
