//! A day as the ledger has it, as a workload: what was asked for then, to be decided again.
//!
//! Sizes are what the answers used, whichever target gave them. Where the ledger does not say, something is assumed, and
//! counted: nobody should take a guess for a record.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_dialect::openai_chat::ChatRequest;
use freeway_policy::{Caller, Denial, Wish, admit};
use freeway_router::{Size, Snapshot, Strategy};
use freeway_types::{Asked, Feature, FeatureSet, Handling, Monotonic, Quality, Usd};
use serde::Serialize;

use crate::workload::{Arrival, Workload, as_seconds};

/// The caller whom no client key names.
const OPERATOR: &str = "operator";

/// One request as the ledger has it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// When it came, from the beginning of its day.
    pub after: Duration,
    /// Name of the client key it came with; `operator` for the operator's own.
    pub caller: String,
    /// What it asked for in `model`.
    pub model: String,
    /// The tier it got; empty where it was turned away before it got one.
    pub tier: String,
    /// The data class it got.
    pub data: String,
    /// Whether it was streamed.
    pub stream: bool,
    /// What else it asked for, where that is known.
    pub asked: Option<Asked>,
    /// Input tokens, where an attempt tells.
    pub input: Option<u64>,
    /// Output tokens, where it was answered.
    pub output: Option<u64>,
    /// What became of it.
    pub fate: Fate,
    /// What its attempts cost, as far as prices are known.
    pub cost: Usd,
    /// Whether the price of an attempt at a paid target is not known.
    pub is_unpriced: bool,
    /// Where it was sent, and what was known of these targets then.
    pub sent: Vec<(String, Option<Handling>)>,
    /// The data rules that kept it from a target, in words, where rules refused it.
    pub barred: Vec<String>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// This target answered it.
    Served(String),
    /// It got this error; `client_left` and `interrupted` are none that a client saw.
    Unserved(String),
}

/// The error code of a request whose client did not stay for the answer.
pub const CLIENT_LEFT: &str = "client_left";

/// A day that a configuration can be asked to serve.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// Its requests, without those that are turned away before a target is looked for.
    pub workload: Workload,
    /// For each request of the workload, its position in the day.
    pub positions: Vec<usize>,
    /// Those that are turned away, by their position in the day, with the code of the error.
    pub turned_away: BTreeMap<usize, String>,
    /// What had to be assumed.
    pub assumed: Assumed,
}

/// Of how many requests something had to be assumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Assumed {
    /// What they asked for is not known: they are taken to have named their tier and their data class, and to ask for
    /// no quality, no feature but streaming and no length.
    pub asked: usize,
    /// Nobody knows their input: it is taken to be the middle one of the day.
    pub input: usize,
    /// They were not answered: their output is taken to be the middle one of the day's answers, or what they asked for
    /// if that is less.
    pub output: usize,
    /// Their clients left: they are taken to stay.
    pub stayed: usize,
    /// They were turned away before a tier was found for them, and stay so.
    pub turned_away: usize,
    /// They went to a target of which nobody knows any more what it did with them.
    pub handling: usize,
}

impl Replay {
    /// Makes a workload of a day for a configuration. `is_open` says whether that asks callers for no key at all;
    /// `strategy` goes before what it says of how targets are chosen.
    ///
    /// What the configuration does not know any more, such as a model, a tier or a client key, turns a request away, as
    /// it would in the gateway.
    #[must_use]
    pub fn of(day: &[Recorded], snapshot: &Snapshot, is_open: bool, strategy: Option<Strategy>) -> Self {
        let mut replay = Self::default();
        let mut routes = BTreeMap::new();
        let known = |request: &Recorded| request.input.or(request.asked.map(|asked| asked.input));
        let middle_input = middle(day.iter().filter_map(known));
        let middle_output = middle(day.iter().filter_map(|request| request.output));
        for (position, request) in day.iter().enumerate() {
            let (asked, was_known) = match request.asked {
                Some(asked) => (asked, true),
                None => (assumed(request), false),
            };
            let size = Size {
                input: known(request).unwrap_or(middle_input),
                output: request.output.unwrap_or_else(|| middle_output.min(asked.max_output.unwrap_or(u64::MAX))),
            };
            match replay.arrival(request, asked, size, snapshot, is_open, (&mut routes, strategy)) {
                Ok(arrival) => {
                    replay.workload.arrivals.push(arrival);
                    replay.positions.push(position);
                    let assumed = &mut replay.assumed;
                    assumed.asked += usize::from(!was_known);
                    assumed.input += usize::from(known(request).is_none());
                    assumed.output += usize::from(request.output.is_none());
                    assumed.stayed += usize::from(request.fate == Fate::Unserved(CLIENT_LEFT.to_owned()));
                }
                Err(code) => {
                    replay.assumed.turned_away += usize::from(request.tier.is_empty());
                    replay.turned_away.insert(position, code);
                }
            }
            let is_unknown = |(name, handling): &(String, Option<Handling>)| {
                handling.is_none() && !snapshot.deployments.iter().any(|deployment| deployment.name == *name)
            };
            replay.assumed.handling += usize::from(request.sent.iter().any(is_unknown));
        }
        replay
    }

    fn arrival(
        &mut self,
        request: &Recorded,
        asked: Asked,
        size: Size,
        snapshot: &Snapshot,
        is_open: bool,
        (routes, strategy): (&mut BTreeMap<String, usize>, Option<Strategy>),
    ) -> Result<Arrival, String> {
        if request.tier.is_empty() {
            return Err(match &request.fate {
                Fate::Unserved(code) => code.clone(),
                Fate::Served(_) => "invalid_request".to_owned(),
            });
        }
        let own = |rule: &freeway_policy::ClientKeyRule| rule.name == request.caller;
        let caller = match snapshot.rules.client_keys.iter().position(own) {
            Some(position) => Caller::Client(position),
            None if is_open || request.caller == OPERATOR => Caller::Operator,
            None => return Err("invalid_api_key".to_owned()),
        };
        let min_quality = asked.min_quality.to_string();
        let wish = Wish {
            tier: asked.named_tier.then_some(request.tier.as_str()),
            data: asked.named_data.then_some(request.data.as_str()),
            min_quality: Some(&min_quality),
        };
        let admission = admit(&snapshot.rules, caller, wish).map_err(|denial| match denial {
            Denial::Unknown { .. } => "invalid_value".to_owned(),
            Denial::Ceiling { .. } => "permission_denied".to_owned(),
        })?;
        let route = self.workload.route(routes, &request.model, snapshot, strategy);
        let route = route.map_err(|_| "model_not_found".to_owned())?;
        let mut chat = ChatRequest::sized(&request.model, size.input, size.output, asked.features);
        // Some providers count more than they were asked for, such as what a model thinks.
        chat.max_output = asked.max_output.map(|most| most.max(size.output));
        let arrives = Monotonic::from_micros(u64::try_from(request.after.as_micros()).unwrap_or(u64::MAX));
        let deadline = arrives.after(snapshot.rules.tiers[admission.tier].wait);
        Ok(Arrival { at: as_seconds(arrives), arrives, deadline, admission, size, chat, route })
    }
}

/// What a request is taken to have asked for where the ledger does not say.
fn assumed(request: &Recorded) -> Asked {
    let mut features = FeatureSet::default();
    if request.stream {
        features.insert(Feature::Stream);
    }
    Asked { input: 0, max_output: None, min_quality: Quality::LOWEST, features, named_tier: true, named_data: true }
}

/// The middle one of some figures, the lower one of two; zero if there are none.
fn middle(figures: impl Iterator<Item = u64>) -> u64 {
    let mut figures: Vec<u64> = figures.collect();
    figures.sort_unstable();
    figures.get(figures.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}
