//! Everything that one upstream can do wrong before its first content, and what a
//! client is told when there is no other upstream to turn to.

/// One way for an upstream to fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The fault, as the simulated provider reads it.
    pub(crate) fault: &'static str,
    /// How often a target that fails so is tried, if the user's own order begins with it.
    pub(crate) tries: usize,
    /// What the client is told when it is the only target.
    pub(crate) alone: Told,
}

/// An error as a client gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    /// Whether it is worth trying again soon.
    pub(crate) should_retry: bool,
    /// Seconds after which it is.
    pub(crate) retry_after: Option<u64>,
}

/// Seconds that a request gets. A silent upstream may use half of them while there are others.
pub(crate) const DEADLINE: &str = "4";
/// Text in the faults, and an upstream's own request id, that no client may see.
pub(crate) const UPSTREAMS_OWN: [&str; 3] = ["<html", "DOCTYPE", "\"sim-0\""];

const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

const INVALID: Told = told(502, "upstream_invalid_response", true, None);
const UNCONNECTED: Told = told(502, "upstream_connection_failed", true, None);
const UNAVAILABLE: Told = told(503, "upstream_unavailable", true, Some(1));

/// Every fault that strikes before there is content.
pub(crate) const FAULTS: &[Case] = &[
    case("refused", r#"{"fault":"refuse"}"#, 2, UNCONNECTED),
    case("reset", r#"{"fault":"reset"}"#, 2, UNCONNECTED),
    case("reset inside the headers", r#"{"fault":"reset-mid-headers"}"#, 2, UNCONNECTED),
    case("reset inside the body", r#"{"fault":"reset-mid-body","after_events":1}"#, 2, INVALID),
    case("silence", r#"{"fault":"silence"}"#, 1, told(504, "upstream_timeout", true, None)),
    case("stall", r#"{"fault":"stall","after_events":1}"#, 1, told(504, "upstream_timeout", true, None)),
    case("cut before anything", r#"{"fault":"cut"}"#, 2, INVALID),
    case("cut before content", r#"{"fault":"cut","after_events":1}"#, 2, INVALID),
    case("closed before content", r#"{"fault":"cut","after_events":1,"abrupt":true}"#, 2, INVALID),
    case("empty body", r#"{"fault":"empty-body"}"#, 2, INVALID),
    case("malformed", r#"{"fault":"malformed-event"}"#, 2, INVALID),
    case("html 200", r#"{"fault":"html","status":200}"#, 2, INVALID),
    case("html 502", r#"{"fault":"html","status":502}"#, 2, UNAVAILABLE),
    case("204", r#"{"fault":"status","status":204,"body":""}"#, 2, INVALID),
    case("301", r#"{"fault":"status","status":301,"headers":{"location":"/v1/elsewhere"}}"#, 1, INVALID),
    case("304", r#"{"fault":"status","status":304,"body":""}"#, 1, INVALID),
    case("401", r#"{"fault":"status","status":401}"#, 1, told(502, "upstream_refused_key", false, None)),
    case("402", r#"{"fault":"status","status":402}"#, 1, told(429, "quota_exhausted", false, Some(DAY))),
    case("403", r#"{"fault":"status","status":403}"#, 1, INVALID),
    case("404", r#"{"fault":"status","status":404}"#, 1, told(502, "upstream_invalid_response", false, None)),
    case("408", r#"{"fault":"status","status":408}"#, 2, UNAVAILABLE),
    case("409", r#"{"fault":"status","status":409}"#, 2, UNAVAILABLE),
    case("425", r#"{"fault":"status","status":425}"#, 2, UNAVAILABLE),
    case("429 for ten minutes", TEN_MINUTES, 1, told(429, "quota_exhausted", false, Some(600))),
    case("429 for two hours", TWO_HOURS, 1, told(429, "quota_exhausted", false, Some(2 * HOUR))),
    case("429 for a second", ONE_SECOND, 2, told(429, "quota_exhausted", true, Some(1))),
    case("429 in milliseconds", MILLISECONDS, 2, told(429, "quota_exhausted", true, Some(1))),
    case("500", r#"{"fault":"status","status":500}"#, 2, UNAVAILABLE),
    case("501", r#"{"fault":"status","status":501}"#, 2, UNAVAILABLE),
    case("502", r#"{"fault":"status","status":502}"#, 2, UNAVAILABLE),
    case("503", r#"{"fault":"status","status":503}"#, 2, UNAVAILABLE),
    case("504", r#"{"fault":"status","status":504}"#, 2, UNAVAILABLE),
    case("522", r#"{"fault":"status","status":522}"#, 2, UNAVAILABLE),
    case("529", r#"{"fault":"status","status":529}"#, 2, UNAVAILABLE),
    case("error in an answer", ERROR_INSIDE, 2, INVALID),
];

const TEN_MINUTES: &str = r#"{"fault":"status","status":429,"headers":{"retry-after":"600"}}"#;
const TWO_HOURS: &str = r#"{"fault":"status","status":429,"headers":{"retry-after":"7200"}}"#;
const ONE_SECOND: &str = r#"{"fault":"status","status":429,"headers":{"retry-after":"1"}}"#;
const MILLISECONDS: &str = r#"{"fault":"status","status":429,"headers":{"retry-after-ms":"700","retry-after":"9"}}"#;
const ERROR_INSIDE: &str = r#"{"fault":"error-in-200","error":{"message":"it did not work","type":"server_error"}}"#;

/// Faults that a stream shows only after its first content.
pub(crate) const PLAIN_FAULTS: &[Case] = &[case("truncated", r#"{"fault":"truncated-json"}"#, 2, INVALID)];

/// The right answer under the wrong content type (X61).
pub(crate) const WRONG_TYPE: Case = case("wrong type", r#"{"fault":"wrong-content-type"}"#, 2, INVALID);

const fn case(name: &'static str, fault: &'static str, tries: usize, alone: Told) -> Case {
    Case { name, fault, tries, alone }
}

const fn told(status: u16, code: &'static str, should_retry: bool, retry_after: Option<u64>) -> Told {
    Told { status, code, should_retry, retry_after }
}
