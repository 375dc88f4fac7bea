//! Things that go wrong on command.
//!
//! Faults form a list. A chat request takes the first one that is for its model;
//! after `times` uses a fault leaves the list. The books are kept all the same: a
//! request that meets a fault has arrived and counts. Faults of the quota endpoint
//! are for it alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One thing that goes wrong, for how many requests, and for which model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// What goes wrong.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// For how many requests; 0 is for ever.
    #[serde(default = "once")]
    pub times: u32,
    /// For requests of this model only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// For the quota endpoint instead of chat requests. Only what stands in the way of any answer can happen to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quota: bool,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum FaultKind {
    /// This status, with this body (a string goes out as it is, anything else as JSON).
    Status {
        /// The status.
        status: u16,
        /// The body; an error in OpenAI's shape if there is none.
        #[serde(default)]
        body: Option<Value>,
        /// More headers.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// The content type; that of JSON if there is none.
        #[serde(default)]
        content_type: Option<String>,
    },
    /// A refusal of this status that goes out as far as this place of its body, and then stops in this way.
    BrokenRefusal {
        /// The status.
        status: u16,
        /// The body; an error in OpenAI's shape if there is none.
        #[serde(default)]
        body: Option<Value>,
        /// More headers.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// The place. Before the content is the whole head and nothing of the body.
        at: Position,
        /// The way.
        how: Stop,
    },
    /// The connection is reset before any byte of an answer.
    Reset,
    /// The connection is reset inside the headers.
    ResetMidHeaders,
    /// The connection is reset after so many pieces; a plain answer breaks in its middle.
    ResetMidBody {
        /// Pieces that are sent first.
        #[serde(default)]
        after_events: usize,
    },
    /// Nothing listens, until the list of faults changes or the time is over.
    Refuse {
        /// Milliseconds until it listens again.
        #[serde(default)]
        for_ms: Option<u64>,
    },
    /// The request is read and never answered.
    Silence,
    /// After so many pieces nothing more comes, and the connection stays open.
    Stall {
        /// Pieces that are sent first.
        #[serde(default)]
        after_events: usize,
    },
    /// After so many pieces the answer ends as if it were complete: without a finish reason and without `[DONE]`.
    /// A plain answer is closed in its middle.
    Cut {
        /// Pieces that are sent first.
        #[serde(default)]
        after_events: usize,
        /// Close the connection without ending the body.
        #[serde(default)]
        abrupt: bool,
    },
    /// The answer goes out as far as this place, and then stops in this way.
    Break {
        /// The place.
        at: Position,
        /// The way.
        how: Stop,
    },
    /// This part of the answer goes out a few bytes at a time; it is whole in the end.
    Drip {
        /// The part that ends where the place is: the time before the head, the head, what precedes the content, the
        /// content, or what follows it.
        at: Position,
        /// Milliseconds between the bytes; before the head, ten times as long.
        pause_ms: u64,
    },
    /// The piece at this place, counted from 0, is not JSON. A plain answer is not JSON.
    MalformedEvent {
        /// The place.
        #[serde(default)]
        at: usize,
    },
    /// A 200 whose completion is empty.
    Empty,
    /// A 200 without a body.
    EmptyBody,
    /// A 200 with an error inside, as the body or as the first and only piece.
    #[serde(rename = "error-in-200")]
    ErrorIn200 {
        /// What stands under `error`.
        #[serde(default)]
        error: Value,
    },
    /// A page of HTML, as a proxy would send.
    Html {
        /// The status.
        #[serde(default = "bad_gateway")]
        status: u16,
    },
    /// The JSON ends in its middle although the HTTP body is complete.
    TruncatedJson,
    /// The right answer under the wrong content type.
    WrongContentType,
    /// A stream that ends without `[DONE]`.
    NoDone,
    /// Other paces than the configured ones.
    Slow {
        /// Milliseconds until the answer begins.
        #[serde(default)]
        first_byte_ms: u64,
        /// Milliseconds between pieces.
        #[serde(default)]
        pace_ms: u64,
    },
    /// One piece of at least so many bytes.
    HugeEvent {
        /// Bytes of text.
        bytes: usize,
    },
    /// The usage reports so many output tokens whatever was sent.
    LieUsage {
        /// Tokens to report.
        tokens: u64,
    },
}

/// A place in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// Nothing has been sent.
    BeforeHead,
    /// A part of the head has been sent.
    InHead,
    /// The head has been sent; of a stream, the first piece too, which holds the role alone.
    BeforeContent,
    /// About half of the answer has been sent.
    MidContent,
    /// Of a stream everything up to the finish reason has been sent, of a plain answer its whole JSON.
    AtEnd,
}

/// How an answer stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// The body ends as if it were complete. A head has no such end: it is closed.
    End,
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing more comes, and the connection stays open.
    Hang,
    /// Nothing but comments comes, in a plain answer empty lines, for ten seconds; then nothing. In a head nothing
    /// comes at once.
    Chatter,
}

fn once() -> u32 {
    1
}

fn bad_gateway() -> u16 {
    502
}

impl Fault {
    /// A fault for one request of any model.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, times: 1, model: None, quota: false }
    }

    /// One answer of this status, with an error in OpenAI's shape.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::new(FaultKind::Status { status, body: None, headers: BTreeMap::new(), content_type: None })
    }

    /// The same for so many requests; 0 is for ever.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// The same for ever.
    #[must_use]
    pub fn forever(self) -> Self {
        self.times(0)
    }

    /// The same for the quota endpoint only.
    #[must_use]
    pub fn quota(self) -> Self {
        Self { quota: true, ..self }
    }

    /// The same for one model only.
    #[must_use]
    pub fn model(self, model: impl Into<String>) -> Self {
        Self { model: Some(model.into()), ..self }
    }
}

impl FaultKind {
    /// Whether it stands in the way of any answer, even of a refusal. Other faults spoil an answer, so they wait
    /// for a request that gets one.
    pub(crate) fn comes_first(&self) -> bool {
        let is_before_body = |at: &Position| matches!(at, Position::BeforeHead | Position::InHead);
        match self {
            Self::Status { .. } | Self::Reset | Self::ResetMidHeaders | Self::Silence | Self::Html { .. } => true,
            Self::BrokenRefusal { .. } => true,
            Self::Break { at, .. } => is_before_body(at),
            _ => false,
        }
    }
}

/// The list that is worked off.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    list: Vec<Fault>,
}

impl Faults {
    /// Replaces the list. What is not for single requests stays out of it.
    pub(crate) fn set(&mut self, faults: Vec<Fault>) {
        self.list = faults;
        self.list.retain(|fault| !matches!(fault.kind, FaultKind::Refuse { .. }));
    }

    /// The fault that a request of this model meets, if it is of the kind wanted.
    pub(crate) fn take(&mut self, model: Option<&str>, comes_first: bool) -> Option<FaultKind> {
        let meant = |fault: &Fault| !fault.quota && (fault.model.is_none() || fault.model.as_deref() == model);
        let place = self.list.iter().position(meant)?;
        if self.list[place].kind.comes_first() != comes_first {
            return None;
        }
        self.take_at(place)
    }

    /// The fault that a request to the quota endpoint meets.
    pub(crate) fn take_of_quota(&mut self) -> Option<FaultKind> {
        let place = self.list.iter().position(|fault| fault.quota)?;
        self.take_at(place)
    }

    fn take_at(&mut self, place: usize) -> Option<FaultKind> {
        let kind = self.list[place].kind.clone();
        match self.list[place].times {
            0 => {}
            1 => drop(self.list.remove(place)),
            _ => self.list[place].times -= 1,
        }
        Some(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_worked_off_in_order_and_by_model() {
        let mut faults = Faults::default();
        faults.set(vec![
            Fault::status(500).times(2).model("a"),
            Fault::new(FaultKind::Empty),
            Fault::new(FaultKind::Silence).forever(),
        ]);
        assert!(matches!(faults.take(Some("a"), true), Some(FaultKind::Status { .. })));
        assert_eq!(faults.take(Some("b"), true), None);
        assert_eq!(faults.take(Some("b"), false), Some(FaultKind::Empty));
        assert!(matches!(faults.take(Some("a"), true), Some(FaultKind::Status { .. })));
        for _ in 0..3 {
            assert_eq!(faults.take(Some("a"), true), Some(FaultKind::Silence));
        }
    }

    #[test]
    fn faults_of_the_quota_endpoint_are_for_it_alone() {
        let mut faults = Faults::default();
        faults.set(vec![Fault::status(500).quota(), Fault::new(FaultKind::Reset)]);
        assert_eq!(faults.take(None, true), Some(FaultKind::Reset));
        assert!(matches!(faults.take_of_quota(), Some(FaultKind::Status { .. })));
        assert_eq!((faults.take_of_quota(), faults.take(None, true)), (None, None));
    }

    #[test]
    fn faults_are_read_from_json() {
        let text = r#"[{"fault":"status","status":429,"headers":{"retry-after":"1"},"times":0},
            {"fault":"error-in-200","error":{"message":"x"},"model":"m"},{"fault":"refuse"},
            {"fault":"reset-mid-body","after_events":2},{"fault":"slow","first_byte_ms":5}]"#;
        let faults: Vec<Fault> = serde_json::from_str(text).unwrap();
        assert_eq!(faults[0].times, 0);
        assert_eq!(faults[1].model.as_deref(), Some("m"));
        assert_eq!(faults[2].kind, FaultKind::Refuse { for_ms: None });
        assert_eq!(faults[3], Fault::new(FaultKind::ResetMidBody { after_events: 2 }));
        assert_eq!(serde_json::from_str::<Fault>(&serde_json::to_string(&faults[1]).unwrap()).unwrap(), faults[1]);
    }
}
