//! What is written down.

use std::borrow::Cow;

use freeway_quota::{Block, Demand, Lost};
use freeway_types::{Asked, Handling, RequestId, Timestamp, Usage, UsageSource, Usd};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

/// One client request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RequestRecord {
    /// Its id.
    pub id: RequestId,
    /// When it came.
    #[serde(serialize_with = "as_text")]
    pub received_at: Timestamp,
    /// Microseconds until it was over.
    pub took_us: u64,
    /// Microseconds until the first content went out, if any did.
    pub first_content_us: Option<u64>,
    /// Microseconds of it in which the request waited for quota.
    pub waited_us: u64,
    /// Name of the client key it came with; `operator` for the operator's own.
    pub caller: String,
    /// What the client wrote in `model`.
    pub model: String,
    /// Its tier.
    pub tier: String,
    /// Its data class.
    pub data: String,
    /// Whether it was streamed.
    pub stream: bool,
    /// What else it asked for; `None` where it was not admitted, was interrupted, or is of a version that did not write it.
    #[serde(skip)]
    pub asked: Option<Asked>,
    /// Status sent to the client; 499 for a client that left.
    pub status: u16,
    /// `answered`, `failed`, `refused`, `cancelled`, or `interrupted` by the end of the process.
    pub outcome: String,
    /// The error's code, if it ended in one.
    pub error: Option<String>,
    /// `account/model` that served it.
    pub served_by: Option<String>,
    /// Candidates with their verdicts, in the words of who wrote them.
    #[serde(skip)]
    pub candidates: String,
    /// Everything that was tried, in order.
    pub attempts: Vec<AttemptRecord>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptRecord {
    /// At which account.
    pub account: String,
    /// Which model.
    pub model: String,
    /// Position of the key among the account's.
    pub key: Option<u32>,
    /// When it was dispatched.
    #[serde(serialize_with = "as_text")]
    pub sent_at: Timestamp,
    /// Microseconds until it was over.
    pub took_us: u64,
    /// Microseconds until the provider had counted it, at the latest.
    #[serde(skip)]
    pub counted_us: u64,
    /// Upstream's status, if it sent one.
    pub status: Option<u16>,
    /// `answered`, `cancelled`, `interrupted`, or the case of its failure.
    pub outcome: String,
    /// The provider's own words, with secrets taken out.
    pub message: Option<String>,
    /// What it used.
    pub usage: Usage,
    /// Where that figure comes from.
    pub usage_source: UsageSource,
    /// What it cost in picodollars; `None` where no price is known.
    pub cost: Option<Usd>,
    /// What it used of the provider's own units.
    pub units: u64,
    /// What limits go on counting, where nobody knows what it used or one of them charges what was asked for.
    #[serde(skip)]
    pub held: Option<Demand>,
    /// What its target was known to do with it; `None` where it was interrupted, or is of a version that did not write it.
    #[serde(skip)]
    pub handling: Option<Handling>,
}

/// An attempt that is about to be sent: what is known of it should the process end before it does.
///
/// Written as a list of its fields, in their order: it is written for every attempt and almost never read. Names are
/// understood too, as earlier versions wrote them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Dispatch<'a> {
    /// Of which request.
    pub request: RequestId,
    /// Attempts of this request before it.
    pub ordinal: u64,
    /// When the request came.
    pub received_at: Timestamp,
    /// Name of the client key it came with.
    pub caller: Cow<'a, str>,
    /// What the client wrote in `model`.
    pub asked: Cow<'a, str>,
    /// The request's tier.
    pub tier: Cow<'a, str>,
    /// Its data class.
    pub data: Cow<'a, str>,
    /// Whether it was streamed.
    pub stream: bool,
    /// At which account.
    pub account: Cow<'a, str>,
    /// Which model.
    pub model: Cow<'a, str>,
    /// Position of the key among the account's.
    pub key: Option<u32>,
    /// When it was dispatched.
    pub sent_at: Timestamp,
    /// What its limits hold for it.
    pub held: Demand,
    /// Whether its price is known.
    pub priced: bool,
}

impl Serialize for Dispatch<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Demand { input, output, picos, units } = self.held;
        let held = [input, output, picos, units].map(|bound| (bound.expected, bound.most));
        let mut list = serializer.serialize_seq(Some(14))?;
        list.serialize_element(&self.request)?;
        list.serialize_element(&self.ordinal)?;
        list.serialize_element(&self.received_at)?;
        list.serialize_element(&self.caller)?;
        list.serialize_element(&self.asked)?;
        list.serialize_element(&self.tier)?;
        list.serialize_element(&self.data)?;
        list.serialize_element(&self.stream)?;
        list.serialize_element(&self.account)?;
        list.serialize_element(&self.model)?;
        list.serialize_element(&self.key)?;
        list.serialize_element(&self.sent_at)?;
        list.serialize_element(&held)?;
        list.serialize_element(&self.priced)?;
        list.end()
    }
}

/// Something the gateway found out while it served, and would have to find out again after a restart: how many tokens
/// a model makes of a text, how long a provider asked to be left alone. Losing it harms nothing but the next minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// What sort of knowledge it is; each sort has one reader.
    pub kind: String,
    /// What it is about, such as `account/model`. There is one value for a kind and a name.
    pub name: String,
    /// What is known, as JSON; `None` where it is to be forgotten.
    pub value: Option<String>,
    /// When it was learned.
    pub at: Timestamp,
}

/// What a process leaves to the next one beside its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Legacy {
    /// Id of the boot of the machine that it ran on; `None` where there was no process.
    pub boot: Option<String>,
    /// Whether it had written everything when it ended.
    pub is_whole: bool,
    /// Its bounds of use.
    pub bounds: Vec<Block>,
    /// What may have been used by processes before, and was lost with the power.
    pub lost: Vec<Lost>,
}

/// Which requests to list.
#[derive(Clone, Debug)]
pub struct Page {
    /// Only this caller's.
    pub caller: Option<String>,
    /// At most so many.
    pub most: u32,
    /// Only those that came before this one.
    pub before: Option<RequestId>,
}

/// What use is added up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageKey {
    /// By account.
    Provider,
    /// By account and model.
    Model,
    /// By client key.
    Key,
    /// By UTC day.
    Day,
}

/// Use and cost under one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UsageRow {
    /// The account, model, client key or day.
    pub name: String,
    /// Client requests that were answered by it.
    pub answered: u64,
    /// Attempts made.
    pub attempts: u64,
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Of the attempts, those whose usage is estimated.
    pub estimated: u64,
    /// Cost in picodollars, of the attempts whose price is known.
    pub cost: Usd,
    /// Attempts whose price is not known.
    pub unpriced: u64,
}

/// What one attempt charged.
#[derive(Clone, Debug, PartialEq)]
pub struct Spent {
    /// At which account.
    pub account: String,
    /// Which model.
    pub model: String,
    /// When it was dispatched.
    pub sent_at: Timestamp,
    /// When the provider had counted the request, at the latest.
    pub counted_at: Timestamp,
    /// When it was over.
    pub ended_at: Timestamp,
    /// Whether it was answered.
    pub answered: bool,
    /// Whether the end of its process ended it; `ended_at` is then when the next one found it.
    pub interrupted: bool,
    /// Tokens.
    pub usage: Usage,
    /// Money.
    pub cost: Usd,
    /// The provider's own units.
    pub units: u64,
    /// Whether tokens, money and units are what was used; if not, what was held stands.
    pub known: bool,
    /// What was held for it: kept where nobody knows what was used, and where a limit charges what was asked for.
    pub held: Option<Demand>,
}

impl Dispatch<'_> {
    /// The record of a request whose process ended before it did, as it is found at `now`. What it used is not known,
    /// so what was held for it stands. Nothing tells when the provider was done with it: it counts as ended now.
    #[must_use]
    pub fn interrupted(self, now: Timestamp) -> RequestRecord {
        let took_us = u64::try_from(now.since(self.sent_at).as_micros()).unwrap_or(u64::MAX);
        let lag = u64::try_from(freeway_quota::COUNT_LAG.as_micros()).unwrap_or(u64::MAX);
        let attempt = AttemptRecord {
            account: self.account.into_owned(),
            model: self.model.into_owned(),
            key: self.key,
            sent_at: self.sent_at,
            took_us,
            counted_us: took_us.saturating_add(lag),
            status: None,
            outcome: INTERRUPTED.to_owned(),
            message: Some("the gateway ended before the answer did".to_owned()),
            usage: Usage { input: self.held.input.expected, output: self.held.output.expected, ..Usage::default() },
            usage_source: UsageSource::Estimated,
            cost: self.priced.then(|| Usd::from_picos(i64::try_from(self.held.picos.expected).unwrap_or(i64::MAX))),
            units: self.held.units.expected,
            held: Some(self.held),
            handling: None,
        };
        RequestRecord {
            id: self.request,
            received_at: self.received_at,
            took_us: u64::try_from(now.since(self.received_at).as_micros()).unwrap_or(u64::MAX),
            first_content_us: None,
            waited_us: 0,
            caller: self.caller.into_owned(),
            model: self.asked.into_owned(),
            tier: self.tier.into_owned(),
            data: self.data.into_owned(),
            stream: self.stream,
            asked: None,
            status: 0,
            outcome: INTERRUPTED.to_owned(),
            error: None,
            served_by: None,
            candidates: String::new(),
            attempts: vec![attempt],
        }
    }
}

/// Outcome of what was under way when a process ended.
pub(crate) const INTERRUPTED: &str = "interrupted";

impl RequestRecord {
    /// Everything that its attempts used.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.attempts.iter().fold(Usage::default(), |sum, attempt| Usage {
            input: sum.input + attempt.usage.input,
            cached_input: sum.cached_input + attempt.usage.cached_input,
            output: sum.output + attempt.usage.output,
            reasoning: sum.reasoning + attempt.usage.reasoning,
        })
    }
}

fn as_text<T: ToString, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dispatch_is_read_as_it_is_written_and_as_it_was_written_before() {
        let dispatch = crate::conformance::dispatch(1, Timestamp::from_secs(10));
        let line = serde_json::to_string(&dispatch).unwrap();
        assert!(line.starts_with("[\"req_"), "{line}");
        assert_eq!(serde_json::from_str::<Dispatch<'_>>(&line).unwrap(), dispatch);
        let named = format!(
            r#"{{"request":"{}","ordinal":0,"received_at":{at},"caller":"ci","asked":"smart","tier":"standard",
            "data":"public","stream":true,"account":"lab","model":"small","key":0,"sent_at":{at},"held":{},
            "priced":true}}"#,
            dispatch.request,
            serde_json::to_string(&dispatch.held).unwrap(),
            at = serde_json::to_string(&dispatch.sent_at).unwrap(),
        );
        assert_eq!(serde_json::from_str::<Dispatch<'_>>(&named).unwrap(), dispatch);
    }
}
