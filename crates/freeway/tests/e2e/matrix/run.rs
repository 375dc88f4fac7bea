//! Runs cells of the matrix against the real program.

use std::rc::Rc;

use serde_json::Value;

use super::table::{Alone, Cell, Mode, Outcome, Place, Row, Usage};
use crate::faults::{DEADLINE, UPSTREAMS_OWN};
use crate::gateway::Gateway;
use crate::http::{Ask, Reply};
use crate::last_word::check_error;
use crate::patience::failures;
use crate::upstream::{Upstream, in_order};

/// Cells that share a gateway.
const AT_ONE_GATEWAY: usize = 60;

/// A cell, and who plays in it.
struct Case {
    name: String,
    place: Place,
    stream: bool,
    fault: Value,
    outcome: Outcome,
    /// Meets the fault, and has the second one behind it.
    first: Upstream,
    second: Upstream,
    /// Meets the fault, and has nobody.
    alone: Upstream,
    number: usize,
}

/// Runs every cell that can be run. Gives how many are not as they should be.
pub(super) async fn all(rows: &[Row]) -> usize {
    let mut failed = 0;
    let mut cells = Vec::new();
    for row in rows {
        for ((place, mode), cell) in &row.cells {
            if let Cell::Runs(fault, outcome) = cell {
                let name = format!("{:?}, {}, {place:?}, {mode:?}", row.face, row.fault);
                cells.push((name, *place, *mode == Mode::Streamed, fault.clone(), outcome.clone()));
            }
        }
    }
    for some in cells.chunks(AT_ONE_GATEWAY) {
        let mut cases = Vec::new();
        let mut config = String::new();
        for (number, (name, place, stream, fault, outcome)) in some.iter().cloned().enumerate() {
            let of = |letter: char| format!("{letter}{number}");
            let (first, second) = (provider(&of('a')).await, provider(&of('b')).await);
            let alone = provider(&of('c')).await;
            let pair = in_order(&[&first, &second]).replace("[aliases.pair]", &format!("[aliases.pair{number}]"));
            config.push_str(&pair);
            config.push_str(&alone.table());
            cases.push(Case { name, place, stream, fault, outcome, first, second, alone, number });
        }
        let gateway = Rc::new(Gateway::start(&config).await);
        failed += failures(cases, |case| {
            let gateway = Rc::clone(&gateway);
            async move { case.check(&gateway).await }
        })
        .await;
    }
    failed
}

/// A provider of which it is known that its model streams, so that its "no" to a stream is believed.
async fn provider(id: &str) -> Upstream {
    Upstream::with(id, &format!("models = [{{ id = \"{id}-model\", features = [\"stream\"] }}]"), |_| ()).await
}

impl Case {
    async fn check(&self, gateway: &Gateway) {
        self.first.always(&self.fault.to_string());
        let reply = self.ask(gateway, &format!("pair{}", self.number)).await;
        let ledger = gateway.ledger(&reply).await;
        let seen = Seen { case: self, reply, ledger };
        seen.check_nothing_foreign();
        seen.check_ending();
        match &self.outcome {
            Outcome::Second { tries, alone } => {
                seen.check_second(*tries);
                self.check_alone(gateway, *tries, *alone).await;
            }
            Outcome::First { text, usage } => seen.check_first(text, *usage),
            Outcome::Breaks(text) => seen.check_broken(text),
            Outcome::Back(told, words) => {
                seen.check_only_first();
                let message = check_error(&seen.reply, *told, &self.name);
                assert_eq!(message, *words, "{}", self.name);
                assert_eq!(seen.ledger["outcome"], "refused", "{}: {}", self.name, seen.ledger);
            }
        }
    }

    /// A stream that falls silent at its end needs no deadline to end.
    async fn ask(&self, gateway: &Gateway, model: &str) -> Reply {
        let ask = Ask::chat(model, self.stream);
        match self.place {
            Place::AtEnd if self.stream => gateway.ask(&ask).await,
            _ => gateway.ask(&ask.header("x-freeway-deadline", DEADLINE)).await,
        }
    }

    async fn check_alone(&self, gateway: &Gateway, tries: usize, alone: Alone) {
        self.alone.always(&self.fault.to_string());
        let reply = self.ask(gateway, &self.alone.target()).await;
        let ledger = gateway.ledger(&reply).await;
        let seen = Seen { case: self, reply, ledger };
        let context = format!("{}, alone", self.name);
        seen.check_nothing_foreign();
        match alone {
            Alone::Told(told) => {
                let message = check_error(&seen.reply, told, &context);
                // Whoever is told that it is too long knows by that what to do.
                assert!(told.status == 400 || message.contains(&self.alone.target()), "{context}: {message}");
                assert_eq!(seen.reply.head.header("x-freeway-provider"), None, "{context}");
            }
            Alone::Empty => {
                assert_eq!((seen.reply.head.status, seen.reply.content()), (200, String::new()), "{context}");
            }
        }
        seen.check_attempts(tries, 0);
        if !self.is_refused() {
            assert_eq!(self.alone.asked(), tries, "{context}");
        }
    }

    /// A door that is shut counts nobody.
    fn is_refused(&self) -> bool {
        self.fault["fault"] == "refuse"
    }
}

/// What a client got, and what is written down of it.
struct Seen<'a> {
    case: &'a Case,
    reply: Reply,
    ledger: Value,
}

impl Seen<'_> {
    fn context(&self) -> String {
        let text = self.reply.everything();
        let end = text.floor_char_boundary(2_000.min(text.len()));
        format!("{}: {}\n{}", self.case.name, &text[..end], self.ledger)
    }

    fn check_nothing_foreign(&self) {
        for foreign in UPSTREAMS_OWN {
            assert!(!self.reply.everything().contains(foreign), "{foreign}: {}", self.context());
        }
    }

    /// The connection never breaks; a stream ends in the marker or in an error, never in both.
    fn check_ending(&self) {
        assert!(self.reply.whole, "{}", self.context());
        if self.case.stream && self.reply.head.status == 200 {
            let events = self.reply.events();
            let is_error = |data: &&String| data.starts_with("{\"error\"");
            let errors = events.iter().filter(is_error).count();
            let markers = events.iter().filter(|data| *data == "[DONE]").count();
            assert_eq!(errors + markers, 1, "{}", self.context());
            assert!(events.last().is_some_and(|last| last == "[DONE]" || is_error(&last)), "{}", self.context());
        }
    }

    /// As many attempts are written down as were made, at which target, and how each ended.
    fn check_attempts(&self, first: usize, second: usize) {
        let attempts = self.ledger["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert_eq!(attempts.len(), first + second, "{}", self.context());
        for (place, attempt) in attempts.iter().enumerate() {
            let is_second = attempt["target"] == self.case.second.target();
            assert_eq!(is_second, place >= first, "{}", self.context());
            assert!(
                ["reported", "estimated"].map(Value::from).contains(&attempt["usage_source"]),
                "{}",
                self.context()
            );
        }
    }

    fn check_whole(&self, provider: &Upstream, text: &str) {
        let target = provider.target();
        let id = target.split('/').next().unwrap_or_default();
        assert_eq!(self.reply.head.status, 200, "{}", self.context());
        assert_eq!(self.reply.head.header("x-freeway-provider"), Some(id), "{}", self.context());
        assert_eq!(self.reply.content(), text.replace("{id}", id), "{}", self.context());
        let ends = self.reply.events().last().is_some_and(|data| data == "[DONE]");
        assert_eq!(ends, self.case.stream, "{}", self.context());
        assert_eq!(self.ledger["outcome"], "answered", "{}", self.context());
        assert_eq!(self.ledger["served_by"], target, "{}", self.context());
    }

    fn check_second(&self, tries: usize) {
        let Case { first, second, .. } = self.case;
        self.check_whole(second, super::table::WHOLE);
        for trace in [format!("a{}", self.case.number).as_str(), "simulated", "it did not work"] {
            assert!(!self.reply.text().contains(trace), "{trace}: {}", self.context());
        }
        self.check_attempts(tries, 1);
        let last = &self.ledger["attempts"][tries];
        assert_eq!((&last["outcome"], &last["usage_source"]), (&"answered".into(), &"reported".into()), "{last}");
        for attempt in &self.ledger["attempts"].as_array().map(Vec::as_slice).unwrap_or_default()[..tries] {
            assert_ne!(attempt["outcome"], "answered", "{}", self.context());
        }
        assert_eq!(second.asked(), 1, "{}", self.context());
        if !self.case.is_refused() {
            assert_eq!(first.asked(), tries, "{}", self.context());
        }
    }

    fn check_only_first(&self) {
        assert_eq!((self.case.first.asked(), self.case.second.asked()), (1, 0), "{}", self.context());
        self.check_attempts(1, 0);
    }

    fn check_first(&self, text: &str, usage: Usage) {
        self.check_only_first();
        self.check_not_waited();
        self.check_whole(&self.case.first, text);
        let attempt = &self.ledger["attempts"][0];
        assert_eq!(attempt["outcome"], "answered", "{}", self.context());
        assert_eq!(attempt["usage_source"], format!("{usage:?}").to_lowercase(), "{}", self.context());
    }

    /// After ten seconds of silence the client is told that we are still there. Nothing here takes so long: a stream
    /// that only lacks its end has five seconds, and one that lacks more the deadline.
    fn check_not_waited(&self) {
        assert!(!self.reply.text().contains(": waiting"), "{}", self.context());
    }

    fn check_broken(&self, text: &str) {
        self.check_only_first();
        self.check_not_waited();
        let events = self.reply.events();
        let last = events.last().map(String::as_str).unwrap_or_default();
        let error: Value = serde_json::from_str(last).unwrap_or_default();
        assert_eq!(error["error"]["code"], "upstream_stream_broken", "{}", self.context());
        assert_eq!(error["error"]["type"], "upstream_error", "{}", self.context());
        let text = text.replace("{id}", &format!("a{}", self.case.number));
        assert_eq!(self.reply.content(), text, "{}", self.context());
        assert_eq!(self.ledger["outcome"], "failed", "{}", self.context());
        assert_eq!(self.ledger["attempts"][0]["outcome"], "broken_answer", "{}", self.context());
    }
}
