//! What is asked for: one JSON object on each line.

use std::collections::BTreeMap;
use std::sync::Arc;

use freeway_dialect::openai_chat::ChatRequest;
use freeway_policy::{Admission, Caller, Denial, Wish, admit};
use freeway_router::{Alias, Deployment, Named, Rescue, Size, Snapshot, Strategy, cost};
use freeway_types::{CostClass, DeploymentIndex, Feature, FeatureSet, Monotonic, Quality, Usage, Usd};
use serde::Deserialize;

/// The latest that a line may be, and the longest that it may wait: ten years.
const LONGEST_S: f64 = 10.0 * 366.0 * 86_400.0;
/// The most tokens of one request.
const MOST_TOKENS: u64 = 1_000_000_000;

/// The longest answer of a target of which nobody knows how long its answers are.
const LONGEST_UNKNOWN: u64 = 32_768;

/// The name that a line asks for when it names none.
const AUTO: &str = "auto";

/// One line as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: f64,
    tier: String,
    min_quality: u64,
    input_tokens: u64,
    output_tokens: u64,
    wait: f64,
    data: Option<String>,
    #[serde(default)]
    features: Vec<String>,
    model: Option<String>,
}

/// A workload that a configuration can be asked to serve.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// Its requests, in the order of their lines.
    pub arrivals: Vec<Arrival>,
    routes: Vec<Route>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When it comes, in seconds from the start, as it was written.
    pub at: f64,
    /// When it comes.
    pub arrives: Monotonic,
    /// The last instant at which it may be served.
    pub deadline: Monotonic,
    /// What policy gives it.
    pub admission: Admission,
    /// Its size in tokens, exactly; at some targets it is less, see [`Arrival::size_at`].
    pub size: Size,
    /// What it asks for, for planning.
    pub chat: ChatRequest,
    /// Position of what its model's name stands for: see [`Workload::named`].
    pub route: usize,
}

/// What a model's name stands for.
#[derive(Clone, Debug)]
struct Route {
    name: Arc<str>,
    targets: Vec<DeploymentIndex>,
    alias: Option<Alias>,
    explicit: bool,
}

/// A line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct WorkloadError {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it, and what helps.
    pub message: String,
}

// === impl Workload ===

impl Workload {
    /// The model that requests of a route ask for.
    #[must_use]
    pub fn name(&self, route: usize) -> &Arc<str> {
        &self.routes[route].name
    }

    /// Whether some of its requests go by prices.
    #[must_use]
    pub fn looks_ahead(&self) -> bool {
        let strategy = |route: &Route| route.alias.as_ref().map_or_else(Strategy::default, |alias| alias.strategy);
        self.routes.iter().any(|route| strategy(route) == Strategy::Price)
    }

    /// Reads a workload for a configuration. `file` is what its mistakes are told of; `strategy` goes before what the
    /// configuration says of how targets are chosen.
    ///
    /// # Errors
    /// The first line that is not a request, or one for a tier, a data class, a feature or a model that is not there.
    pub fn read(
        file: &str,
        text: &str,
        snapshot: &Snapshot,
        strategy: Option<Strategy>,
    ) -> Result<Self, WorkloadError> {
        let mut workload = Self::default();
        let mut routes: BTreeMap<String, usize> = BTreeMap::new();
        for (position, line) in text.lines().enumerate() {
            let fail = |message| WorkloadError { file: file.to_owned(), line: position + 1, message };
            let line: Line = serde_json::from_str(line).map_err(|error| fail(explained(line, &error)))?;
            let name = line.model.as_deref().unwrap_or(AUTO);
            let route = workload.route(&mut routes, name, snapshot, strategy).map_err(fail)?;
            workload.arrivals.push(arrival(&line, name, route, snapshot).map_err(fail)?);
        }
        Ok(workload)
    }

    /// The position of what a model's name stands for, among those that `known` has met before. Fails where the
    /// configuration has no such name.
    pub(crate) fn route(
        &mut self,
        known: &mut BTreeMap<String, usize>,
        name: &str,
        snapshot: &Snapshot,
        strategy: Option<Strategy>,
    ) -> Result<usize, String> {
        if let Some(route) = known.get(name) {
            return Ok(*route);
        }
        self.routes.push(Route::of(name, snapshot, strategy)?);
        known.insert(name.to_owned(), self.routes.len() - 1);
        Ok(self.routes.len() - 1)
    }

    /// What the model's name of a request stands for.
    #[must_use]
    pub fn named(&self, route: usize) -> Named<'_> {
        let Route { targets, alias, explicit, .. } = &self.routes[route];
        Named { targets, alias: alias.as_ref(), explicit: *explicit }
    }
}

impl Arrival {
    /// Its size at a target: an answer is no longer than the target makes it, nor than fits its context. It can only be
    /// shorter where the request names no length.
    #[must_use]
    pub fn size_at(&self, deployment: &Deployment) -> Size {
        let longest = self.chat.max_output.into_iter().chain(deployment.max_output).min();
        let longest = longest.or(deployment.context).unwrap_or(LONGEST_UNKNOWN);
        let room = deployment.context.map_or(u64::MAX, |context| context.saturating_sub(self.size.input));
        Size { input: self.size.input, output: self.size.output.min(longest).min(room) }
    }

    /// What it costs at a target: nothing at one that is free; `None` where nobody knows the price.
    pub(crate) fn cost_at(&self, deployment: &Deployment) -> Option<Usd> {
        let Size { input, output } = self.size_at(deployment);
        match deployment.cost {
            CostClass::Free => Some(Usd::ZERO),
            CostClass::Paid => cost(deployment, Usage { input, output, ..Usage::default() }),
        }
    }
}

impl Route {
    fn of(name: &str, snapshot: &Snapshot, strategy: Option<Strategy>) -> Result<Self, String> {
        // Where there is nothing to call, each request is refused, and that is what is to be seen.
        let nothing = Self { name: name.into(), targets: Vec::new(), alias: None, explicit: false };
        let named = match snapshot.named(name) {
            Err(_) if name == AUTO => return Ok(nothing),
            named => named.map_err(|error| format!("model: {error}"))?,
        };
        let targets = named.targets.to_vec();
        let mut alias = named.alias.cloned();
        if let Some(strategy) = strategy {
            let plain = || Alias {
                targets: targets.clone(),
                strategy,
                min_quality: Quality::LOWEST,
                drop_unsupported: None,
                rescue: Rescue::default(),
                equivalents: Vec::new(),
            };
            alias.get_or_insert_with(plain).strategy = strategy;
        }
        Ok(Self { name: name.into(), targets, alias, explicit: named.explicit })
    }
}

fn arrival(line: &Line, name: &str, route: usize, snapshot: &Snapshot) -> Result<Arrival, String> {
    let seconds = |key: &str, value: f64| match (0.0..=LONGEST_S).contains(&value) {
        true => Ok(value),
        false => Err(format!("{key}: {value} is not a number of seconds from 0 to {LONGEST_S}")),
    };
    let tokens = |key: &str, value: u64| match value <= MOST_TOKENS {
        true => Ok(value),
        false => Err(format!("{key}: {value} tokens are more than a request can have; {MOST_TOKENS} is the most")),
    };
    let (at, wait) = (seconds("at", line.at)?, seconds("wait", line.wait)?);
    let (input, output) = (tokens("input_tokens", line.input_tokens)?, tokens("output_tokens", line.output_tokens)?);
    let min_quality = line.min_quality.to_string();
    let wish = Wish { tier: Some(&line.tier), data: line.data.as_deref(), min_quality: Some(&min_quality) };
    let admission = admit(&snapshot.rules, Caller::Operator, wish).map_err(|denial| said_of_a_line(&denial))?;
    let features = line.features.iter().map(|word| feature(word)).collect::<Result<FeatureSet, _>>()?;
    let arrives = micros_from(at);
    let deadline = micros_until(at + wait).max(arrives);
    let chat = ChatRequest::sized(name, input, output, features);
    Ok(Arrival { at, arrives, deadline, admission, size: Size { input, output }, chat, route })
}

/// What is wrong with a line that is no request. The reader knows one line, and calls it the first.
fn explained(line: &str, error: &serde_json::Error) -> String {
    if line.trim().is_empty() {
        return "an empty line; each line is one request".to_owned();
    }
    let said = error.to_string();
    let words = said.rsplit_once(" at line ").map_or(said.as_str(), |(words, _)| words);
    let help = "a line is {\"at\": …, \"tier\": …, \"min_quality\": …, \"input_tokens\": …, \"output_tokens\": …, \
                \"wait\": …}, and may have `data`, `features` and `model`";
    format!("{words} (column {}); {help}", error.column())
}

/// A denial in the words of a workload, whose keys are not headers.
fn said_of_a_line(denial: &Denial) -> String {
    match denial {
        Denial::Unknown { header, value, known } => {
            let key = header.trim_start_matches("x-freeway-").replace('-', "_");
            format!("{key}: `{value}` is not known; there are {known}")
        }
        Denial::Ceiling { .. } => denial.to_string(),
    }
}

fn feature(word: &str) -> Result<Feature, String> {
    Feature::parse(word).ok_or_else(|| {
        let known: Vec<&str> = Feature::ALL.into_iter().map(Feature::as_str).collect();
        format!("features: `{}` is not known; there are {}", word.escape_debug(), known.join(", "))
    })
}

/// The first microsecond that is not before an instant in seconds.
fn micros_from(seconds: f64) -> Monotonic {
    let nearest = nearest_micros(seconds);
    if as_seconds(nearest) < seconds { nearest.after(std::time::Duration::from_micros(1)) } else { nearest }
}

/// The last microsecond that is not after an instant in seconds.
fn micros_until(seconds: f64) -> Monotonic {
    let nearest = nearest_micros(seconds);
    match as_seconds(nearest) > seconds {
        true => Monotonic::from_micros(nearest.as_micros().saturating_sub(1)),
        false => nearest,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and twenty years")]
fn nearest_micros(seconds: f64) -> Monotonic {
    Monotonic::from_micros((seconds * 1e6).round() as u64)
}

/// An instant of the simulation in seconds from its start.
#[expect(clippy::cast_precision_loss, reason = "microseconds of twenty years are exact")]
pub(crate) fn as_seconds(instant: Monotonic) -> f64 {
    instant.as_micros() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_never_before_their_line_nor_after_its_deadline() {
        for seconds in [0.0, 0.1, 0.29, 1.000_000_4, 1.000_000_6, 59.999_999_7, 86_399.3, 2_678_399.123_456_78] {
            let (from, until) = (micros_from(seconds), micros_until(seconds));
            assert!(as_seconds(from) >= seconds && as_seconds(until) <= seconds, "{seconds}: {from:?} {until:?}");
            assert!(from.since(until).as_micros() <= 1, "{seconds}: {from:?} {until:?}");
        }
    }
}
