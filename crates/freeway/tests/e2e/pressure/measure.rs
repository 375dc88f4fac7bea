//! How much of a limit was used, of what could be: from what the provider entered in its books and when.
//!
//! A unit is charged from the dispatch of its request to one window after the latest instant at which the provider can
//! have counted it. With a *lag* of δ between the two, a window of P gives each unit back every P + δ, and the reachable
//! use is P / (P + δ) of the amount. The lag is what the provider itself took to answer: the mean, over its log, of the
//! time between the arrival of a request that is not streamed and the end of its answer, which goes out at once. What
//! the way there and back, a busy machine and the gateway add is not in it, so that it is the gateway's loss. Tokens
//! that are counted when an answer is complete are charged until two seconds after its end: their lag is two seconds.

use std::fmt;
use std::time::Duration;

use freeway_sim::{Charge, LimitState, LogEntry};

use super::Pressed;

/// The most that a lag can be.
const MOST_LAG: f64 = 2.0;
const MICROS: f64 = 1e6;

/// How a limit comes back. Windows are in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cycle {
    /// Each unit one window after it was counted.
    Sliding(u32),
    /// The same, for what is counted when an answer is complete.
    Completed(u32),
    /// All at once at multiples of the window.
    Fixed(u32),
    /// Evenly.
    Bucket(u32),
    /// Never.
    Once,
    /// When an answer ends.
    Places,
}

/// One limit after a run. Units are those of the limit; of places, full-time use of one.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    amount: u64,
    /// How many windows of it the run held.
    windows: f64,
    used: f64,
    /// `None` where several limits hold for one model.
    reachable: Option<f64>,
    lag_s: f64,
    peak: u64,
    refused: u64,
    /// The least share of what is reachable.
    pub(crate) promised: Option<f64>,
}

/// What was used of the limits of one provider until `now`, in microseconds since 1970. `took` is how long its answers
/// took as their clients saw it.
pub(crate) fn measure(pressed: &Pressed, took: &[Duration], now: i64) -> Vec<Row> {
    let (sim, target) = (pressed.sim(), pressed.target);
    let log = sim.log();
    let states = sim.limits();
    let rows = states.iter().enumerate().map(|(position, state)| {
        let charges = sim.charges(position);
        let measured = target.cycle.map(|cycle| Measured::of(cycle, state, &charges, &log, took, now));
        let Measured { windows, used, reachable, lag_s } = measured.unwrap_or_else(|| Measured::unbounded(&charges));
        Row {
            name: format!("{} ({})", target.id, state.name),
            amount: state.amount,
            windows,
            used,
            reachable,
            lag_s,
            peak: state.peak,
            refused: sim.overruns(),
            promised: target.cycle.map(|_| target.promised),
        }
    });
    rows.collect()
}

struct Measured {
    windows: f64,
    used: f64,
    reachable: Option<f64>,
    lag_s: f64,
}

impl Measured {
    fn unbounded(charges: &[Charge]) -> Self {
        Self { windows: 0.0, used: sum(charges), reachable: None, lag_s: 0.0 }
    }

    fn of(cycle: Cycle, state: &LimitState, charges: &[Charge], log: &[LogEntry], took: &[Duration], now: i64) -> Self {
        let amount = float(state.amount);
        let first = charges.first().map_or(now, |charge| charge.at);
        let length_s = seconds(now - first);
        let answer_s = mean_answer_s(log);
        let reach = |window_s: f64, windows: f64, used: f64, lag_s: f64| Self {
            windows,
            used,
            reachable: Some(amount * windows * window_s / (window_s + lag_s)),
            lag_s,
        };
        match cycle {
            Cycle::Sliding(window) => {
                let window_s = f64::from(window);
                reach(window_s, length_s / window_s, sliding(charges, window_s, now), answer_s)
            }
            Cycle::Completed(window) => {
                let window_s = f64::from(window);
                reach(window_s, length_s / window_s, sliding(charges, window_s, now), MOST_LAG)
            }
            Cycle::Fixed(window) => {
                let micros = i64::from(window) * 1_000_000;
                // Only windows that lie wholly within the run.
                let (from, to) = ((first.div_euclid(micros) + 1) * micros, now.div_euclid(micros) * micros);
                let within: Vec<Charge> =
                    charges.iter().copied().filter(|charge| (from..to).contains(&charge.at)).collect();
                let window_s = f64::from(window);
                reach(window_s, seconds(to - from) / window_s, sum(&within), answer_s)
            }
            Cycle::Bucket(window) => {
                let window_s = f64::from(window);
                // The full store at first, and what is refilled.
                reach(window_s, 1.0 + length_s / window_s, sum(charges), answer_s)
            }
            Cycle::Once => reach(1.0, 1.0, sum(charges), 0.0),
            Cycle::Places => {
                // A place stands empty from the end of an answer until the next request is there: as long as the
                // clients' answers took longer than the places were taken.
                let (busy_s, answers) = (occupied_s(charges, now), log.len());
                let held_s = busy_s / float(answers as u64);
                let seen_s = took.iter().sum::<Duration>().as_secs_f64() / float(took.len() as u64);
                let gap_s = (seen_s - held_s).max(0.0);
                Self {
                    windows: 1.0,
                    used: busy_s / length_s,
                    reachable: Some(amount * held_s / (held_s + gap_s)),
                    lag_s: gap_s,
                }
            }
        }
    }
}

/// The mean of the time, in seconds, from arrival to the end of an answer that went out at once.
fn mean_answer_s(log: &[LogEntry]) -> f64 {
    let plain = log.iter().filter(|entry| !entry.streamed && entry.status == Some(200) && !entry.cancelled());
    let lengths: Vec<u64> = plain.filter_map(|entry| Some(entry.ended_ms? - entry.arrived_ms)).collect();
    float(lengths.iter().sum()) / float(lengths.len() as u64) / 1e3
}

/// Windows' worth of units in use: each from its charge on for one window, as far as that lies before `now`.
fn sliding(charges: &[Charge], window_s: f64, now: i64) -> f64 {
    charges.iter().map(|charge| signed(charge.units) * seconds(now - charge.at).clamp(0.0, window_s) / window_s).sum()
}

/// For how many seconds places were taken, added up.
fn occupied_s(charges: &[Charge], now: i64) -> f64 {
    charges.iter().map(|charge| signed(charge.units) * seconds(now - charge.at).max(0.0)).sum()
}

fn sum(charges: &[Charge]) -> f64 {
    signed(charges.iter().map(|charge| charge.units).sum())
}

fn seconds(micros: i64) -> f64 {
    signed(micros) / MICROS
}

#[expect(clippy::cast_precision_loss, reason = "figures of a test are far below 2^52")]
fn float(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "figures of a test are far below 2^52")]
fn signed(value: i64) -> f64 {
    value as f64
}

impl Row {
    pub(crate) const HEAD: &str =
        "limit                                         amount windows     used reachable   share  lag s   peak refused";

    /// The share of what is reachable that was used.
    pub(crate) fn share(&self) -> f64 {
        self.reachable.map_or(1.0, |reachable| self.used / reachable)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, amount, windows, used, lag_s, peak, refused, .. } = self;
        write!(f, "{name:<44} {amount:>7} {windows:>7.2} {used:>8.1} ")?;
        match self.reachable {
            Some(reachable) => write!(f, "{reachable:>9.1} {:>6.1}% {lag_s:>6.3}", 100.0 * self.share())?,
            None => write!(f, "{:>9} {:>7} {:>6}", "", "", "")?,
        }
        write!(f, " {peak:>6} {refused:>7}")
    }
}
