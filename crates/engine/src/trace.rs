//! The guard of one request: whatever happens to it, it is settled and recorded once.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use freeway_dialect::ClientError;
use freeway_quota::{Actual, Demand, ReservationId};
use freeway_router::{Candidate, Sample, cost, units};
use freeway_store::{AttemptRecord, Dispatch, RequestRecord, StoreError};
use freeway_telemetry::Event;
use freeway_types::{DeploymentIndex, KeyIndex, Now, RequestId, Timestamp, Usage, UsageSource};

use crate::engine::{Ask, Engine};
use crate::health::Sight;

/// Status recorded for a client that left.
const CLIENT_LEFT: u16 = 499;
/// A reported figure is believed up to so many times what was thought possible …
const BELIEVED: u64 = 4;
/// … and so many tokens that the provider may have added of its own.
const HIDDEN_PROMPT: u64 = 20_000;
/// Bytes to a token, for text whose tokens nobody reported.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;

/// One request under way. Dropped before it is finished, it counts as cancelled by its client.
pub(crate) struct Trace {
    pub(crate) engine: Arc<Engine>,
    pub(crate) id: RequestId,
    pub(crate) received: Now,
    /// What an answer teaches about tokens; `None` until the request is read.
    pub(crate) sample: Option<Sample>,
    /// Whether it uses more than plain text.
    pub(crate) featured: bool,
    /// Several attempts may be under way, and all of them in one task: nobody ever waits for this.
    log: Mutex<Log>,
}

/// What happened so far.
struct Log {
    /// `None` once it is recorded.
    record: Option<Box<RequestRecord>>,
    /// In the order in which they were sent.
    attempts: Vec<Attempt>,
}

enum Attempt {
    Flying(Flight),
    Landed(AttemptRecord),
}

/// An attempt's place among those of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlightId(usize);

impl FlightId {
    pub(crate) const fn is_first(self) -> bool {
        self.0 == 0
    }
}

/// One attempt under way.
struct Flight {
    deployment: DeploymentIndex,
    key: Option<KeyIndex>,
    reservation: ReservationId,
    sent: Now,
    demand: Demand,
    /// More than this nobody can have used: such a report is not believed.
    most: Usage,
    status: Option<u16>,
    usage: Option<Usage>,
    text_bytes: u64,
}

/// How an attempt ended.
pub(crate) enum Ending<'a> {
    /// With a whole answer.
    Answered,
    /// It broke, or the client left, after it may have been executed.
    Broken { outcome: &'a str, message: Option<String> },
    /// The provider refused it before any work.
    Refused { outcome: &'a str, message: String },
    /// Nothing was sent.
    Unsent { outcome: &'a str, message: String },
}

impl Trace {
    pub(crate) fn begin(engine: Arc<Engine>, ask: &Ask) -> Self {
        let record = RequestRecord {
            id: ask.id,
            received_at: ask.received.wall,
            took_us: 0,
            first_content_us: None,
            waited_us: 0,
            caller: ask.caller_name.clone(),
            model: String::new(),
            tier: String::new(),
            data: String::new(),
            stream: false,
            asked: None,
            status: 0,
            outcome: String::new(),
            error: None,
            served_by: None,
            candidates: String::new(),
            attempts: Vec::new(),
        };
        let log = Log { record: Some(Box::new(record)), attempts: Vec::with_capacity(1) };
        Self { engine, id: ask.id, received: ask.received, sample: None, featured: false, log: Mutex::new(log) }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record so far.
    pub(crate) fn note(&self, change: impl FnOnce(&mut RequestRecord)) {
        if let Some(record) = &mut self.log().record {
            change(record);
        }
    }

    /// Attempts so far, those under way included.
    pub(crate) fn attempts(&self) -> usize {
        self.log().attempts.len()
    }

    /// Writes an attempt down before it is sent.
    pub(crate) fn dispatch(
        &self,
        candidate: &Candidate,
        key: Option<KeyIndex>,
        sent_at: Timestamp,
    ) -> Result<(), StoreError> {
        let deployment = self.engine.snapshot.deployment(candidate.deployment);
        let log = self.log();
        let record = log.record.as_deref();
        let word = |read: fn(&RequestRecord) -> &String| Cow::Borrowed(record.map_or("", |record| read(record)));
        self.engine.write_down(&Dispatch {
            request: self.id,
            ordinal: log.attempts.len() as u64,
            received_at: self.received.wall,
            caller: word(|record| &record.caller),
            asked: word(|record| &record.model),
            tier: word(|record| &record.tier),
            data: word(|record| &record.data),
            stream: record.is_some_and(|record| record.stream),
            account: Cow::Borrowed(&self.engine.snapshot.accounts[deployment.account.get()].id),
            model: Cow::Borrowed(&deployment.model),
            key: key.map(position),
            sent_at,
            held: candidate.demand,
            priced: cost(deployment, Usage::default()).is_some(),
        })
    }

    /// An attempt begins.
    pub(crate) fn take_off(
        &self,
        deployment: DeploymentIndex,
        key: Option<KeyIndex>,
        reservation: ReservationId,
        sent: Now,
        demand: &Demand,
    ) -> FlightId {
        let flight = Flight {
            deployment,
            key,
            reservation,
            sent,
            demand: *demand,
            most: Usage {
                input: demand.input.most.saturating_mul(BELIEVED).saturating_add(HIDDEN_PROMPT),
                output: demand.output.most.saturating_mul(BELIEVED).saturating_add(HIDDEN_PROMPT),
                ..Usage::default()
            },
            status: None,
            usage: None,
            text_bytes: 0,
        };
        let mut log = self.log();
        log.attempts.push(Attempt::Flying(flight));
        FlightId(log.attempts.len() - 1)
    }

    /// The head of an answer came back.
    pub(crate) fn head(&self, flight: FlightId, status: u16) {
        if let Some(flight) = self.log().flying(flight) {
            flight.status = Some(status);
            let now = self.engine.now();
            self.engine.state().book.received(flight.reservation, now);
        }
    }

    /// Content or usage passed by.
    pub(crate) fn saw(&self, flight: FlightId, usage: Option<Usage>, text_bytes: u64) {
        if let Some(flight) = self.log().flying(flight) {
            let believed = usage.filter(|usage| usage.input <= flight.most.input && usage.output <= flight.most.output);
            flight.usage = match (flight.usage, believed) {
                // Cumulative reports grow; reports by choice are at least as large as the largest.
                (Some(earlier), Some(later)) => Some(larger(earlier, later)),
                (earlier, later) => later.or(earlier),
            };
            flight.text_bytes += text_bytes;
        }
    }

    /// The client is about to see the first content.
    pub(crate) fn first_content(&self) {
        let took = micros(self.engine.now().monotonic.since(self.received.monotonic));
        self.note(|record| record.first_content_us = Some(took));
    }

    /// Takes note of what an attempt under way shows of its target.
    pub(crate) fn see(&self, flight: FlightId, sight: Sight) {
        let deployment = self.log().flying(flight).map(|flight| flight.deployment);
        if let Some(deployment) = deployment {
            self.engine.see(deployment, self.featured, sight);
        }
    }

    /// An attempt ends: settled, and part of the record. Of one that has ended before, nothing more is heard.
    pub(crate) fn land(&self, flight: FlightId, ending: &Ending<'_>) {
        let mut log = self.log();
        let Some(attempt) = log.attempts.get_mut(flight.0) else { return };
        if let Attempt::Flying(flying) = attempt {
            *attempt = Attempt::Landed(self.settle(flying, ending));
        }
    }

    /// Every attempt that is still under way ends.
    pub(crate) fn land_all(&self, ending: &Ending<'_>) {
        for flight in (0..self.attempts()).map(FlightId) {
            self.see(flight, Sight::Unclear);
            self.land(flight, ending);
        }
    }

    fn settle(&self, flight: &Flight, ending: &Ending<'_>) -> AttemptRecord {
        let engine = &self.engine;
        let deployment = engine.snapshot.deployment(flight.deployment);
        let reported = flight.usage.is_some();
        let estimate = Usage {
            input: flight.demand.input.expected,
            output: flight.text_bytes.div_ceil(BYTES_PER_TOKEN),
            ..Usage::default()
        };
        let (outcome, message, usage, known) = match ending {
            Ending::Answered => ("answered", None, flight.usage.unwrap_or(estimate), true),
            // What it used is not known: the whole reservation stands as used.
            Ending::Broken { outcome, message } => {
                (*outcome, message.clone(), flight.usage.unwrap_or(estimate), reported)
            }
            Ending::Refused { outcome, message } => (*outcome, Some(message.clone()), Usage::default(), true),
            Ending::Unsent { outcome, message } => (*outcome, Some(message.clone()), Usage::default(), true),
        };
        if let (Ending::Answered, true, Some(sample)) = (ending, reported, self.sample) {
            let (expected_input, expected_output) = (flight.demand.input.expected, flight.demand.output.expected);
            let sample = Sample { usage, expected_input, expected_output, ..sample };
            engine.calibrated[flight.deployment.get()].observe(&sample);
        }
        let cost = cost(deployment, usage);
        let units = units(deployment, usage);
        let mut counted = None;
        if matches!(ending, Ending::Unsent { .. }) {
            engine.release(flight.reservation);
        } else {
            let actual = Actual {
                usage: known.then_some(usage),
                cost: cost.unwrap_or_default(),
                units,
                answered: matches!(ending, Ending::Answered),
            };
            counted = engine.settle(flight.reservation, &actual);
        }
        let account = &engine.snapshot.accounts[deployment.account.get()].id;
        let event = Event::AttemptEnded {
            id: self.id,
            account,
            model: &deployment.model,
            outcome,
            status: flight.status,
            usage,
        };
        let now = engine.now();
        engine.telemetry().tell(now.wall, &event);
        let refused = matches!(ending, Ending::Refused { .. } | Ending::Unsent { .. });
        AttemptRecord {
            account: account.clone(),
            model: deployment.model.clone(),
            key: flight.key.map(position),
            sent_at: flight.sent.wall,
            took_us: micros(now.monotonic.since(flight.sent.monotonic)),
            counted_us: counted.map_or(0, |counted| micros(counted.monotonic.since(flight.sent.monotonic))),
            status: flight.status,
            outcome: outcome.to_owned(),
            message,
            usage,
            usage_source: if reported || refused { UsageSource::Reported } else { UsageSource::Estimated },
            cost,
            units,
            held: (!known || engine.charges_requested[flight.deployment.get()]).then_some(flight.demand),
            handling: Some(deployment.handling()),
        }
    }

    /// The request ends with an answer that the client got whole.
    pub(crate) fn answered(&self) {
        self.finish(200, "answered", None);
    }

    /// The request ends with an error.
    pub(crate) fn failed(&self, error: &ClientError) {
        let outcome = if error.status < 500 && error.status != 429 { "refused" } else { "failed" };
        self.finish(error.status, outcome, Some(&error.code));
    }

    fn finish(&self, status: u16, outcome: &str, error: Option<&str>) {
        self.land_all(&Ending::Broken { outcome: "cancelled", message: None });
        let mut log = self.log();
        let Some(mut record) = log.record.take() else { return };
        let landed = |attempt| match attempt {
            Attempt::Landed(record) => Some(record),
            Attempt::Flying(_) => None,
        };
        record.attempts = log.attempts.drain(..).filter_map(landed).collect();
        drop(log);
        let now = self.engine.now();
        record.took_us = micros(now.monotonic.since(self.received.monotonic));
        record.status = status;
        outcome.clone_into(&mut record.outcome);
        record.error = error.map(str::to_owned).or(record.error);
        let event = Event::RequestEnded {
            id: self.id,
            outcome,
            status,
            served_by: record.served_by.as_deref(),
            attempts: record.attempts.len(),
        };
        self.engine.telemetry().tell(now.wall, &event);
        self.engine.record(*record);
    }
}

impl Log {
    fn flying(&mut self, flight: FlightId) -> Option<&mut Flight> {
        match self.attempts.get_mut(flight.0) {
            Some(Attempt::Flying(flight)) => Some(flight),
            _ => None,
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.finish(CLIENT_LEFT, "cancelled", None);
    }
}

/// The greater of two reports, figure by figure.
fn larger(one: Usage, other: Usage) -> Usage {
    Usage {
        input: one.input.max(other.input),
        cached_input: one.cached_input.max(other.cached_input),
        output: one.output.max(other.output),
        reasoning: one.reasoning.max(other.reasoning),
    }
}

fn position(key: KeyIndex) -> u32 {
    u32::try_from(key.get()).unwrap_or(u32::MAX)
}

pub(crate) fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}
