//! A gateway's clocks, a provider that counts when it likes, and the book between them. Nothing here is random: a
//! [`Script`] says everything that happens.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_catalog::Limit;
use freeway_quota::{Actual, Book, Bound, COUNT_LAG, Demand, LimitSpec, ReservationId, Skew};
use freeway_types::{LimitIndex, Metric, Monotonic, Now, Timestamp, Usage, Usd};

use crate::provider::{Charge, Hidden, Kind, is_overrun};

/// What a limit's money is worth: demands are drawn in cents of a dollar.
pub(crate) const PICOS: u64 = 10_000_000_000;
const ORIGIN: i64 = 40 * 86_400_000_000;

/// A limit as it is told to the book, and as the provider keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Several rows are credits of one purse.
    pub(crate) toml: Vec<String>,
    pub(crate) hidden: Hidden,
}

/// What may happen to the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clocks {
    /// They only differ and drift a little.
    Quiet,
    /// The wall clock is set right: the provider's calendar goes with it.
    Jumpy,
    /// The wall clock is set wrong, and nobody says so.
    Wrong,
    /// The provider's clock is far off and was learned; ours is put back at times.
    Learned,
}

#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) rows: Vec<Row>,
    pub(crate) start: Timestamp,
    pub(crate) clocks: Clocks,
    /// How far the provider's clock is ahead.
    pub(crate) skew_micros: i64,
    /// How much faster our monotonic clock is.
    pub(crate) drift_ppm: i64,
    pub(crate) steps: Vec<(i64, Step)>,
}

/// One thing that happens, so many microseconds after the one before.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Flight),
    /// Sets the wall clock forward or back.
    Set(i64),
    Crash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Unsent,
    Lost,
    Refused,
    Broken,
    Answered,
}

/// An attempt: lengths in microseconds, shares in per cent.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) used_pct: u64,
    pub(crate) outcome: Outcome,
    pub(crate) write: i64,
    pub(crate) first_byte: i64,
    pub(crate) rest: i64,
    pub(crate) counted_pct: i64,
    pub(crate) tokens_pct: i64,
    /// Messages that are lost, and that come again.
    pub(crate) tells_receipt: bool,
    pub(crate) again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    Written,
    Received,
    Ended,
}

struct Sent {
    id: ReservationId,
    flight: Flight,
    demand: Demand,
    at: Now,
    written: Option<Monotonic>,
    received: bool,
    ended: bool,
}

/// What the ledger keeps of an attempt that is over.
struct Recorded {
    sent: Timestamp,
    counted: Timestamp,
    ended: Timestamp,
    actual: Actual,
    /// What was held, and whether that is all that is known.
    demand: Demand,
    is_unknown: bool,
}

pub(crate) struct World {
    script: Script,
    /// The limits, by their places in the book.
    specs: Vec<LimitSpec>,
    indices: Vec<LimitIndex>,
    book: Book,
    skew: Skew,
    /// True time.
    time: i64,
    /// How far the wall clock was set forward, and the least that it ever was.
    set: i64,
    least_set: i64,
    sent: Vec<Sent>,
    messages: BTreeMap<(i64, usize), Message>,
    ledger: Vec<Recorded>,
    charges: Vec<Vec<Charge>>,
}

fn share(whole: i64, pct: i64) -> i64 {
    whole * pct / 100
}

impl World {
    pub(crate) fn new(script: Script) -> Self {
        let read = |row: &Row| {
            let mut specs =
                row.toml.iter().map(|toml| LimitSpec::read("lab", &toml::from_str::<Limit>(toml).unwrap()).unwrap());
            let mut first = specs.next().unwrap();
            for other in specs {
                assert_eq!(first.join(&other), Some(true));
            }
            first
        };
        let specs: Vec<LimitSpec> = script.rows.iter().map(read).collect();
        let mut world = Self {
            indices: (0..specs.len()).map(LimitIndex::new).collect(),
            book: Book::default(),
            specs,
            skew: Skew::default(),
            time: 0,
            set: 0,
            least_set: 0,
            sent: Vec::new(),
            messages: BTreeMap::new(),
            ledger: Vec::new(),
            charges: vec![Vec::new(); script.rows.len()],
            script,
        };
        world.book = Book::new(world.specs.clone(), world.now());
        if world.script.clocks == Clocks::Learned {
            for _ in 0..2 {
                let sent = world.now();
                world.time += 20_000;
                world.learn(sent);
            }
        }
        world
    }

    pub(crate) fn play(&mut self) -> Result<(), String> {
        for (gap, step) in self.script.steps.clone() {
            self.pass(gap)?;
            match step {
                Step::Send(flight) => self.send(flight)?,
                Step::Set(micros) if self.messages.is_empty() => {
                    self.set += micros;
                    self.least_set = self.least_set.min(self.set);
                }
                Step::Set(_) => {}
                // What was written by a clock that is ahead of the one before looks older than it is.
                Step::Crash if self.set == self.least_set => self.crash(),
                Step::Crash => {}
            }
        }
        self.pass(3_600_000_000)?;
        self.check_overruns()
    }

    /// Everything that is not a credit comes back in the end, once.
    pub(crate) fn check_end(&mut self) -> Result<(), String> {
        self.time += 70 * 86_400_000_000;
        let now = self.now();
        for view in self.book.view(now) {
            let spent: u64 = view.credits.iter().map(|credit| credit.used).sum();
            if view.held != 0 || view.used != spent {
                return Err(format!("{} at the end: {} held, {} used", view.spec.name, view.held, view.used));
            }
        }
        Ok(())
    }

    fn now(&self) -> Now {
        // Of a clock that is set wrong nobody could tell how far the other one has drifted.
        let drift_ppm = if self.script.clocks == Clocks::Wrong { 0 } else { self.script.drift_ppm };
        let monotonic = ORIGIN + self.time + self.time * drift_ppm / 1_000_000;
        let drift = if self.script.clocks == Clocks::Learned { monotonic - ORIGIN - self.time } else { 0 };
        let wall = self.script.start.as_micros() + self.time + self.set + drift;
        Now { wall: Timestamp::from_micros(wall), monotonic: Monotonic::from_micros(u64::try_from(monotonic).unwrap()) }
    }

    /// The provider's calendar at a true time.
    fn calendar(&self, time: i64) -> i64 {
        let set = if self.script.clocks == Clocks::Jumpy { self.set } else { 0 };
        self.script.start.as_micros() + time + set + self.script.skew_micros
    }

    /// The answer that comes back now teaches what the provider's clock says.
    fn learn(&mut self, sent: Now) {
        let date = Timestamp::from_secs(self.calendar(self.time).div_euclid(1_000_000));
        if self.script.clocks == Clocks::Learned && self.skew.learn(date, sent, self.now()) {
            self.book.learn_clock(&self.indices, self.skew.offset().unwrap());
        }
    }

    /// Lets time go by, and delivers what comes.
    fn pass(&mut self, gap: i64) -> Result<(), String> {
        let until = self.time + gap;
        while let Some(entry) = self.messages.first_entry() {
            let ((at, place), message) = (*entry.key(), *entry.get());
            if at > until {
                break;
            }
            entry.remove();
            self.stay_awake(at);
            self.time = self.time.max(at);
            self.deliver(place / 3, message)?;
        }
        if !self.messages.is_empty() {
            self.stay_awake(until);
        }
        self.time = self.time.max(until);
        self.check_balance()
    }

    /// The book is looked at every second while something is under way.
    fn stay_awake(&mut self, until: i64) {
        while self.time + 1_000_000 < until {
            self.time += 1_000_000;
            let now = self.now();
            self.book.look_ahead(now);
        }
    }

    fn send(&mut self, flight: Flight) -> Result<(), String> {
        let now = self.now();
        let both = |value: u64| Bound { expected: value / 2, most: value };
        let (input, output) = (both(flight.input), both(flight.output));
        let whole = flight.input + flight.output;
        let demand = Demand { input, output, picos: both(whole * PICOS), units: both(2 * whole) };
        let before = self.shown();
        let fit = format!("{:?}", self.book.fit(now, &self.indices, &demand));
        let Ok(id) = self.book.reserve(now, &self.indices, &demand) else {
            if before != self.shown() || !fit.starts_with("Blocked") {
                return Err(format!("a refusal changed a count, or did not fit what was said: {fit}"));
            }
            return Ok(());
        };
        if !fit.starts_with("Fits") {
            return Err(format!("it was said not to fit: {fit}"));
        }
        let place = self.sent.len();
        let written = self.time + flight.write;
        let received = written + flight.first_byte;
        let ended = received + flight.rest;
        self.count(&flight, (self.time, written, received, ended));
        if flight.outcome != Outcome::Unsent {
            self.messages.insert((written, 3 * place), Message::Written);
            if flight.tells_receipt && matches!(flight.outcome, Outcome::Answered | Outcome::Refused) {
                self.messages.insert((received, 3 * place + 1), Message::Received);
            }
        }
        self.messages.insert((ended, 3 * place + 2), Message::Ended);
        self.sent.push(Sent { id, flight, demand, at: now, written: None, received: false, ended: false });
        Ok(())
    }

    /// The provider counts: the request between our first byte and its own, or 2 s after our last; the rest when it
    /// likes until it is done.
    fn count(&mut self, flight: &Flight, (sent, written, received, ended): (i64, i64, i64, i64)) {
        if matches!(flight.outcome, Outcome::Unsent | Outcome::Lost) {
            return;
        }
        let late = written + 1_999_000;
        let receipt = if flight.outcome == Outcome::Broken { late } else { late.min(received) };
        let at = sent + share(receipt - sent, flight.counted_pct);
        let done = if flight.outcome == Outcome::Broken { ended + 1_999_000 } else { ended };
        // While the clock may be set or sleep, the calendar of a late count could not be told.
        let spread = if self.script.clocks == Clocks::Jumpy { 0 } else { (done - at).max(0) };
        let tokens_at = at + share(spread, flight.tokens_pct);
        let is_refused = flight.outcome == Outcome::Refused;
        for (row, charges) in self.script.rows.iter().zip(&mut self.charges) {
            let hidden = &row.hidden;
            let most = amount(hidden.metric, flight.input, flight.output, 0);
            let (input, output) = (used_of(flight.input, flight), used_of(flight.output, flight));
            let cached = if flight.outcome == Outcome::Answered { input / 2 } else { 0 };
            let used = amount(hidden.metric, input, output, cached);
            let (units, at) = match hidden.metric {
                Metric::Requests => (u64::from(!(hidden.successes_only && is_refused)), at),
                Metric::Concurrency => (1, at),
                _ if hidden.requested => (most, tokens_at),
                _ if is_refused => (0, tokens_at),
                _ => (used, tokens_at),
            };
            // Credits are drawn when the request is taken.
            let at = if matches!(hidden.kind, Kind::Credits(_)) { at.min(receipt).min(sent + 1_999_000) } else { at };
            let set = if self.script.clocks == Clocks::Jumpy { self.set } else { 0 };
            let wall = self.script.start.as_micros() + at + set + self.script.skew_micros;
            charges.push(Charge { at, wall, units, until: ended });
        }
    }

    fn deliver(&mut self, place: usize, message: Message) -> Result<(), String> {
        let now = self.now();
        let again = self.sent[place].flight.again;
        self.tell(place, message, now);
        if again {
            let before = self.shown();
            let id = self.sent[place].id;
            self.tell(place, message, now);
            if self.sent[place].ended {
                self.book.received(id, now);
                self.book.written(id, now);
                self.book.release(id);
                self.book.settle(id, now, &Actual { answered: true, ..Actual::default() });
            }
            if before != self.shown() {
                return Err(format!("a message that came again changed a count: {message:?}"));
            }
        }
        Ok(())
    }

    fn tell(&mut self, place: usize, message: Message, now: Now) {
        let sent = &mut self.sent[place];
        match message {
            Message::Written => {
                sent.written.get_or_insert(now.monotonic);
                self.book.written(sent.id, now);
            }
            Message::Received => {
                sent.received = true;
                self.book.received(sent.id, now);
                let at = sent.at;
                self.learn(at);
            }
            Message::Ended if sent.flight.outcome == Outcome::Unsent => {
                sent.ended = true;
                self.book.release(sent.id);
            }
            Message::Ended => {
                sent.ended = true;
                let flight = &sent.flight;
                let (input, output) = (used_of(flight.input, flight), used_of(flight.output, flight));
                let actual = match flight.outcome {
                    Outcome::Answered => Actual {
                        usage: Some(Usage { input, output, cached_input: input / 2, ..Usage::default() }),
                        cost: Usd::from_picos(i64::try_from((input + output) * PICOS).unwrap()),
                        units: 2 * (input + output),
                        answered: true,
                    },
                    Outcome::Refused => Actual { usage: Some(Usage::default()), ..Actual::default() },
                    _ => Actual::default(),
                };
                let Some(counted) = self.book.settle(sent.id, now, &actual) else { return };
                let (demand, is_unknown) = (sent.demand, actual.usage.is_none());
                let counted = sent.at.wall.after(counted.monotonic.since(sent.at.monotonic));
                let took = now.monotonic.since(sent.at.monotonic);
                self.ledger.push(Recorded {
                    sent: sent.at.wall,
                    counted,
                    ended: sent.at.wall.after(took),
                    actual,
                    demand,
                    is_unknown,
                });
            }
        }
    }

    /// The process is killed and started again, on a monotonic clock of its own, with what was written down.
    fn crash(&mut self) {
        let now = self.now();
        self.messages.clear();
        for sent in self.sent.iter_mut().filter(|sent| !sent.ended) {
            sent.ended = true;
            self.ledger.push(Recorded {
                sent: sent.at.wall,
                counted: now.wall.after(COUNT_LAG),
                ended: now.wall,
                actual: Actual::default(),
                demand: sent.demand,
                is_unknown: true,
            });
        }
        // What had not arrived never does, and every place is free.
        for charges in &mut self.charges {
            charges.retain(|charge| charge.at <= self.time + 1_999_000);
            for charge in charges {
                charge.until = charge.until.min(self.time);
            }
        }
        self.book = Book::new(self.specs.clone(), now);
        for recorded in &self.ledger {
            for (spec, index) in self.specs.iter().zip(&self.indices) {
                let usage = recorded.actual.usage.unwrap_or_default();
                let is_refusal = !recorded.is_unknown && !recorded.actual.answered;
                let picos = u64::try_from(recorded.actual.cost.as_picos()).unwrap();
                let to_the_end = spec.charging.charges == freeway_catalog::Charges::Requested;
                let (amount, counted) = match spec.metric {
                    Metric::Concurrency => continue,
                    Metric::Requests => {
                        let successes_only = spec.charging.counts == freeway_catalog::Counts::Successes;
                        (u64::from(!(successes_only && is_refusal)), recorded.counted)
                    }
                    _ if recorded.is_unknown || to_the_end => {
                        (recorded.demand.amount(spec), recorded.ended.after(COUNT_LAG))
                    }
                    metric => {
                        let used = freeway_quota::used(metric, usage, picos, recorded.actual.units);
                        (used, recorded.ended.after(COUNT_LAG))
                    }
                };
                self.book.replay(*index, amount, recorded.sent, counted, now);
            }
        }
    }

    /// Everything that can be seen of the book.
    fn shown(&mut self) -> String {
        let now = self.now();
        let views = self.book.view(now);
        views.map(|view| format!("{} {} {} {:?} ", view.used, view.held, view.left, view.credits)).collect()
    }

    /// What is held is what the attempts under way hold.
    fn check_balance(&mut self) -> Result<(), String> {
        let now = self.now();
        let lag = Duration::from_secs(2);
        let under_way: Vec<(Demand, bool)> = self
            .sent
            .iter()
            .filter(|sent| !sent.ended)
            .map(|sent| {
                let is_late = sent.written.is_some_and(|written| written.after(lag) <= now.monotonic);
                (sent.demand, sent.received || is_late)
            })
            .collect();
        for view in self.book.view(now) {
            let is_counted =
                view.spec.metric == Metric::Requests && view.spec.charging.counts == freeway_catalog::Counts::All;
            let held = under_way.iter().filter(|(_, received)| !(is_counted && *received));
            let held: u64 = held.map(|(demand, _)| demand.amount(view.spec)).sum();
            if view.held != held || view.used < held.min(view.amount.unwrap_or(0)) {
                return Err(format!("{}: {} held and {} used of {held}", view.spec.name, view.held, view.used));
            }
        }
        Ok(())
    }

    fn check_overruns(&self) -> Result<(), String> {
        for (row, charges) in self.script.rows.iter().zip(&self.charges) {
            if is_overrun(&row.hidden, charges) {
                return Err(format!("overrun: {row:?} by {charges:?}"));
            }
        }
        Ok(())
    }
}

fn used_of(most: u64, flight: &Flight) -> u64 {
    most * flight.used_pct / 100
}

/// What a request weighs in a metric, by the provider.
fn amount(metric: Metric, input: u64, output: u64, cached: u64) -> u64 {
    match metric {
        Metric::Requests | Metric::Concurrency => 1,
        Metric::InputTokens => input,
        Metric::OutputTokens => output,
        Metric::Tokens => input + output,
        Metric::UncachedTokens => input + output - cached,
        Metric::Usd => (input + output) * PICOS,
        Metric::Units => 2 * (input + output),
    }
}
