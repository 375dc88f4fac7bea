//! What the matrix is made of: faults, places in an answer, and what comes of each.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use crate::faults::Told;

/// How the client asks. Every face has the same rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Face {
    /// `/v1/chat/completions`.
    Chat,
}

/// Whether the client asks for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Plain,
    Streamed,
}

/// How far the upstream's answer has come when the fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    BeforeHead,
    InHead,
    BeforeContent,
    MidContent,
    AtEnd,
}

/// What comes of it, where another target stands behind the one that fails.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// The client gets the second target's answer and sees nothing of the first, which was tried so often.
    Second {
        tries: usize,
        /// What the client gets where there is no second target.
        alone: Alone,
    },
    /// The first target's answer is whole, with this text, and nobody else is asked.
    First { text: &'static str, usage: Usage },
    /// The client gets this text, then an error, and no end marker; nobody else is asked.
    Breaks(&'static str),
    /// The client is told at once that its request is at fault, in these words, and nobody else is asked.
    Back(Told, &'static str),
}

/// What a client gets from a target that failed and is the only one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Alone {
    Told(Told),
    /// The answer without content.
    Empty,
}

/// Whence the ledger has the usage of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    Reported,
    Estimated,
}

/// One cell of the table.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    /// A fault, as the simulated provider reads it, and what comes of it.
    Runs(Value, Outcome),
    /// There is no such thing, for this reason.
    Cannot(&'static str),
}

/// One fault at all places.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) face: Face,
    pub(crate) fault: String,
    pub(crate) cells: BTreeMap<(Place, Mode), Cell>,
}

pub(crate) const PLACES: [Place; 5] =
    [Place::BeforeHead, Place::InHead, Place::BeforeContent, Place::MidContent, Place::AtEnd];
pub(crate) const MODES: [Mode; 2] = [Mode::Plain, Mode::Streamed];
pub(crate) const BOTH: &[Mode] = &MODES;
pub(crate) const PLAIN: &[Mode] = &[Mode::Plain];
pub(crate) const STREAMED: &[Mode] = &[Mode::Streamed];

/// What the simulated provider says to the request of these tests; `{id}` is the provider's.
pub(crate) const WHOLE: &str = "{id}-model heard: the tide is out";
/// The half of it.
pub(crate) const HALF: &str = "{id}-model heard: the ";

impl Row {
    pub(crate) fn new(fault: impl Into<String>) -> Self {
        Self { face: Face::Chat, fault: fault.into(), cells: BTreeMap::new() }
    }

    /// Fills cells that nobody has filled.
    pub(crate) fn at(mut self, places: &[Place], modes: &[Mode], cell: impl Fn(Place) -> Cell) -> Self {
        for place in places {
            for mode in modes {
                let before = self.cells.insert((*place, *mode), cell(*place));
                assert!(before.is_none(), "{}: {place:?}, {mode:?} stands there twice", self.fault);
            }
        }
        self
    }

    /// Fills all cells at one place and of one mode.
    pub(crate) fn runs(self, place: Place, modes: &[Mode], fault: Value, outcome: Outcome) -> Self {
        let cell = Cell::Runs(fault, outcome);
        self.at(&[place], modes, |_| cell.clone())
    }

    /// Marks what cannot be.
    pub(crate) fn cannot(self, places: &[Place], modes: &[Mode], reason: &'static str) -> Self {
        self.at(places, modes, |_| Cell::Cannot(reason))
    }
}

pub(crate) const fn told(status: u16, code: &'static str, should_retry: bool, retry_after: Option<u64>) -> Told {
    Told { status, code, should_retry, retry_after }
}

/// The second target answers; alone, the first one's failure is told.
pub(crate) const fn second(tries: usize, alone: Told) -> Outcome {
    Outcome::Second { tries, alone: Alone::Told(alone) }
}

/// The first target's usual answer.
pub(crate) const fn first(usage: Usage) -> Outcome {
    Outcome::First { text: WHOLE, usage }
}

/// A 200 in the upstream's own bytes.
pub(crate) fn bytes(content_type: &str, body: &str) -> Value {
    json!({"fault": "status", "status": 200, "content_type": content_type, "body": body})
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::BeforeHead => "before",
            Self::InHead => "in head",
            Self::BeforeContent => "no content",
            Self::MidContent => "in content",
            Self::AtEnd => "at the end",
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Cannot(_) => "-".to_owned(),
            Self::Runs(_, Outcome::First { usage: Usage::Reported, .. }) => "whole".to_owned(),
            Self::Runs(_, Outcome::First { usage: Usage::Estimated, .. }) => "whole*".to_owned(),
            Self::Runs(_, Outcome::Breaks(_)) => "error".to_owned(),
            Self::Runs(_, Outcome::Back(told, _)) => format!("back {}", told.status),
            Self::Runs(_, Outcome::Second { tries, alone: Alone::Told(told) }) => {
                format!("{tries}>2nd|{}", told.status)
            }
            Self::Runs(_, Outcome::Second { tries, alone: Alone::Empty }) => format!("{tries}>2nd|200"),
        };
        out.pad(&text)
    }
}
