//! Reports for people: plans, limits, pauses, deployments.

use std::collections::BTreeSet;

use freeway_catalog::Confidence;
use freeway_dialect::ClientError;
use freeway_dialect::openai_chat::ChatRequest;
use freeway_policy::{Admission, Caller, Wish, admit};
use freeway_quota::{GrantView, LimitView, Pace, Size};
use freeway_router::{Learned, Live, Plan, Toll, Verdict};
use freeway_types::{LimitIndex, Metric, Quality, Timestamp};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::job::make_plan;
use crate::sources::sources;
use crate::state::LiveState;

/// Picodollars in a dollar.
const PICOS: f64 = 1e12;

/// One limit as it stands.
pub struct LimitReport {
    /// Its name.
    pub name: String,
    /// What it counts.
    pub metric: Metric,
    /// Its window, as written.
    pub window: String,
    /// Its size, if known; USD in picodollars.
    pub amount: Option<u64>,
    /// The size that was declared.
    pub declared: Option<u64>,
    /// Whether that is the user's own word; else it is the facts'.
    pub own: bool,
    /// Whether nobody declared it: the provider's answers have shown it.
    pub undeclared: bool,
    /// How far the fact can be trusted.
    pub confidence: Option<Confidence>,
    /// What the provider showed of its size.
    pub learned: Option<Size>,
    /// What others use, as far as the provider's figures show.
    pub foreign: u64,
    /// Used or held.
    pub used: u64,
    /// Of that, held for attempts in flight.
    pub held: u64,
    /// Left now.
    pub left: u64,
    /// When the next unit comes back, if any is used.
    pub returns: Option<Timestamp>,
    /// Of credits that do not come back, each one.
    pub credits: Vec<GrantView>,
    /// Whether the kind of reset is only assumed.
    pub reset_unknown: bool,
    /// Where each figure is from, and how old it is.
    pub sources: Value,
    /// How fast it is used, if it is.
    pub pace: Option<Pace>,
    /// When its rest is used up at that pace, if that is before it comes back.
    pub dry: Option<Timestamp>,
    /// What one unit of it could still earn before it comes back, in the unit of the tiers' values; USD by the dollar.
    pub price: Option<f64>,
}

/// One pause in force.
pub struct PauseReport {
    /// What is paused.
    pub what: String,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub why: String,
}

/// One deployment, as `/v1/models` shows it.
pub struct DeploymentReport {
    /// `account/model`.
    pub name: String,
    /// The account's name.
    pub account: String,
    /// Its facts.
    pub facts: Value,
    /// Why it cannot be used now, if so.
    pub unusable: Option<String>,
    /// What was learned about its tokens: samples, what is reserved, and how often that was too little.
    pub estimates: Vec<Value>,
}

/// The candidates of a plan as the ledger keeps them: a line for each, with its target, and either its rank, what
/// was left of its scarcest limit in permille and, where there are prices, what the request would gain there in thousandths; or nothing,
/// the reason's code and the reason. Every request pays for
/// it, in time and in space.
pub(crate) fn write_candidates(engine: &Engine, plan: &Plan) -> String {
    let mut ranks = vec![0; plan.candidates.len()];
    for (rank, position) in plan.order.iter().enumerate() {
        ranks[*position] = rank + 1;
    }
    let mut text = Vec::with_capacity(48 * plan.candidates.len());
    for (candidate, rank) in plan.candidates.iter().zip(ranks) {
        push_word(&mut text, &engine.snapshot.deployment(candidate.deployment).name);
        text.push(b'\t');
        match &candidate.verdict {
            Verdict::Kept { headroom } => {
                push_number(&mut text, rank);
                text.push(b'\t');
                if let Some(headroom) = headroom {
                    push_number(&mut text, permille(*headroom));
                }
                if let Some(score) = &candidate.score {
                    text.push(b'\t');
                    push_thousandths(&mut text, score.gain());
                }
            }
            Verdict::Dropped(reason) => {
                text.push(b'\t');
                text.extend_from_slice(reason.code().as_bytes());
                text.push(b'\t');
                push_word(&mut text, &reason.to_string());
            }
        }
        text.push(b'\n');
    }
    String::from_utf8(text).unwrap_or_default()
}

/// Candidates for people, from how the ledger keeps them: now in lines, and as JSON before.
#[must_use]
pub fn read_candidates(text: &str) -> Value {
    if text.starts_with('[') {
        return serde_json::from_str(text).unwrap_or_default();
    }
    let read = |line: &str| {
        let mut words = line.splitn(4, '\t');
        let (target, rank) = (words.next()?, words.next()?);
        let (third, fourth) = (words.next()?, words.next());
        Some(match rank.parse::<usize>() {
            Ok(rank) => {
                // Of limits that nobody knows, nobody knows what is left.
                let headroom = third.parse::<f64>().ok().map(|permille| permille / 10.0);
                let mut row = json!({"target": target, "kept": true, "rank": rank, "headroom_percent": headroom});
                if let Some(thousandths) = fourth.and_then(|gain| gain.parse::<f64>().ok()) {
                    row["gain"] = json!(thousandths / 1_000.0);
                }
                row
            }
            Err(_) => json!({"target": target, "kept": false, "reason": third, "why": fourth}),
        })
    };
    text.lines().map(|line| read(line).unwrap_or_else(|| json!({"unreadable": line}))).collect()
}

/// What was learned about one kind of request. Ratios and tokens have three digits behind the point.
fn estimate_json(learned: &Learned) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "shown to people")]
    let share = learned.overran as f64 / learned.judged.max(1) as f64;
    let mut row = match learned.length {
        "" => json!({"of": learned.of, "output_cap": learned.kind, "unit": "tokens"}),
        length => json!({"of": learned.of, "script": learned.kind, "length": length, "unit": "tokens per byte"}),
    };
    row["samples"] = json!(learned.samples);
    row["reserved"] = json!(rounded(learned.reserved));
    row["mean"] = json!(rounded(learned.mean));
    row["judged"] = json!(learned.judged);
    row["overran"] = json!(learned.overran);
    row["overrun_share"] = json!(rounded(share));
    row
}

/// With three digits behind the point.
fn rounded(figure: f64) -> f64 {
    (figure * 1_000.0).round() / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn float(amount: u64) -> f64 {
    amount as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share lies between 0 and 1")]
fn permille(share: f64) -> usize {
    (share.clamp(0.0, 1.0) * 1000.0).round() as usize
}

/// A figure in thousandths, as a whole number: every request pays for it, and decimals cost ten times as much.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number that is not negative")]
fn push_thousandths(text: &mut Vec<u8>, figure: f64) {
    let thousandths = (figure * 1_000.0).round();
    if thousandths < 0.0 {
        text.push(b'-');
    }
    push_number(text, thousandths.abs() as usize);
}

fn push_number(text: &mut Vec<u8>, mut number: usize) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len() - 1;
    while number >= 10 {
        digits[first] += u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        first -= 1;
    }
    digits[first] += u8::try_from(number).unwrap_or_default();
    text.extend_from_slice(&digits[first..]);
}

/// Text without what ends a word or a line.
fn push_word(text: &mut Vec<u8>, word: &str) {
    let begun = text.len();
    text.extend_from_slice(word.as_bytes());
    // Without a branch for each byte, this is a matter of a few vectors.
    if word.bytes().fold(false, |found, byte| found | (byte < b' ')) {
        text[begun..].iter_mut().for_each(|byte| *byte = (*byte).max(b' '));
    }
}

impl Engine {
    /// The plan for a request body, as things stand now. Nothing is sent and nothing is held.
    ///
    /// # Errors
    /// What a client that sent the body would be told.
    pub fn explain(&self, body: &bytes::Bytes, wish: Wish<'_>) -> Result<Value, ClientError> {
        let chat = ChatRequest::read(body)?;
        let admission: Admission = admit(&self.snapshot.rules, Caller::Operator, wish)
            .map_err(|denial| ClientError::new(400, "invalid_value", denial.to_string()))?;
        let plan = make_plan(self, &chat, &admission, false)?;
        let expected = plan.order.first().map(|position| plan.candidates[*position].demand);
        Ok(json!({
            "model": chat.model,
            "tier": self.snapshot.rules.tiers[admission.tier].name,
            "data": admission.data,
            "min_quality": admission.min_quality.get(),
            "features": chat.features.iter().map(freeway_types::Feature::as_str).collect::<Vec<_>>(),
            "expected_input_tokens": expected.map(|demand| demand.input.expected),
            "expected_output_tokens": expected.map(|demand| demand.output.expected),
            "candidates": self.with_scores(&plan, read_candidates(&write_candidates(self, &plan))),
        }))
    }

    /// Adds what a request is worth, what it would take of each limit and at which price, and what it would gain, to each
    /// candidate that it could go to.
    fn with_scores(&self, plan: &Plan, mut rows: Value) -> Value {
        let now = self.now();
        let mut state = self.state();
        let live = LiveState { engine: self, state: &mut state, now };
        let Some(prices) = live.prices() else { return rows };
        for (candidate, row) in plan.candidates.iter().zip(rows.as_array_mut().into_iter().flatten()) {
            let Some(score) = &candidate.score else { continue };
            let toll = |toll: Toll| {
                json!({
                    "limit": prices.name(toll.limit),
                    "amount": toll.amount,
                    "price": toll.price,
                    "takes": rounded(toll.price * float(toll.amount)),
                })
            };
            let tolls: Vec<Value> = prices.tolls(candidate.deployment, &candidate.demand).map(toll).collect();
            row["value"] = json!(score.value);
            row["reliability"] = json!(rounded(score.reliability));
            row["limits"] = json!(tolls);
            row["money"] = json!(rounded(score.money));
            row["gain"] = json!(rounded(score.gain()));
        }
        rows
    }

    /// Every limit as it stands.
    pub fn limits(&self) -> Vec<LimitReport> {
        let now = self.now();
        let mut state = self.state();
        let in_use: BTreeSet<LimitIndex> =
            self.targets.iter().flat_map(|target| state.book.limits_of(*target).iter().copied()).collect();
        let tariff = state.tariff.clone();
        let price = |place: usize, metric: Metric| {
            let price = tariff.as_ref()?.price(LimitIndex::new(place), now.wall);
            Some(if metric == Metric::Usd { price * PICOS } else { price })
        };
        let views = state.book.view(now).enumerate();
        // What was shown too long ago is as good as forgotten.
        let is_known = |view: &LimitView<'_>| !view.spec.undeclared || view.amount.is_some();
        let views = views.filter(|(place, view)| in_use.contains(&LimitIndex::new(*place)) && is_known(view));
        let reports = views.map(|(place, view)| LimitReport {
            price: price(place, view.spec.metric),
            // First, while the view is whole.
            sources: sources(&view, now.wall),
            name: view.spec.name.clone(),
            metric: view.spec.metric,
            window: view.spec.window.clone(),
            amount: view.amount,
            declared: view.declared,
            own: view.spec.own,
            undeclared: view.spec.undeclared,
            confidence: view.spec.confidence,
            learned: view.learned,
            foreign: view.foreign,
            used: view.used,
            held: view.held,
            left: view.left,
            returns: view.returns,
            credits: view.credits,
            reset_unknown: view.spec.reset_unknown,
            pace: view.pace,
            dry: view.dry,
        });
        reports.collect()
    }

    /// Every pause in force.
    pub fn pauses(&self) -> Vec<PauseReport> {
        let now = self.now();
        let state = self.state();
        let reports = state.pauses.iter(now).map(|(scope, until, why)| PauseReport {
            what: scope.to_string(),
            until: until.wall,
            why: why.to_owned(),
        });
        reports.collect()
    }

    /// Every deployment, in the order of the configuration.
    pub fn deployments(&self) -> Vec<DeploymentReport> {
        let deployments = self.snapshot.deployments.iter().zip(&self.calibrated);
        let reports = deployments.map(|(deployment, calibrated)| {
            let account = &self.snapshot.accounts[deployment.account.get()];
            let features = &deployment.features;
            let price = deployment.prices.map(|prices| {
                let usd = |price: freeway_types::Price| price.times(1_000_000).as_dollars();
                json!({"input": usd(prices.input), "output": usd(prices.output)})
            });
            let quality: Quality = deployment.quality;
            DeploymentReport {
                name: deployment.name.clone(),
                account: account.id.clone(),
                facts: json!({
                    "quality": quality.get(),
                    "context": deployment.context,
                    "max_output": deployment.max_output,
                    "cost": deployment.cost,
                    "price_usd_per_mtok": price,
                    "features": features.present.iter().map(freeway_types::Feature::as_str).collect::<Vec<_>>(),
                    "lacks": features.absent.iter().map(freeway_types::Feature::as_str).collect::<Vec<_>>(),
                    "reasoning": deployment.reasoning,
                    "trains": deployment.data.trains,
                    "retention_days": deployment.data.retention_days,
                }),
                unusable: deployment.off.clone(),
                estimates: calibrated.learned().learned().map(|learned| estimate_json(&learned)).collect(),
            }
        });
        reports.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_read_as_they_were_written_and_as_they_were_before() {
        let scored = read_candidates("lab/small\t1\t995\t2875\n");
        assert_eq!(scored[0]["gain"], json!(2.875));
        let mut gains = Vec::new();
        [2.8751, -0.1254, 0.0].into_iter().for_each(|gain| push_thousandths(&mut gains, gain));
        assert_eq!(gains, b"2875-1250");
        let expected = json!([
            {"target": "lab/small", "kept": true, "rank": 1, "headroom_percent": 99.5},
            {"target": "lab/free", "kept": true, "rank": 2, "headroom_percent": null},
            {"target": "lab/large", "kept": false, "reason": "quota", "why": "nothing left of lab/large requests"},
        ]);
        let lines = "lab/small\t1\t995\nlab/free\t2\t\nlab/large\t\tquota\tnothing left of lab/large requests\n";
        assert_eq!(read_candidates(lines), expected);
        assert_eq!(read_candidates(&expected.to_string()), expected);
        assert_eq!(read_candidates(""), json!([]));
        let mut word = Vec::new();
        push_word(&mut word, "two\tlines\nin one");
        assert_eq!(word, b"two lines in one");
    }
}
