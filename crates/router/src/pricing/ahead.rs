//! Who came, who is expected, and when prices are due.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_policy::Admission;
use freeway_price::{Cell, Forecast, Group, Kind, Market, Precision, SolveError, horizon};
use freeway_quota::{Book, Target};
use freeway_types::{FeatureSet, LimitIndex, Monotonic, Now, Timestamp};

use super::supply::market;
use super::tariff::Tariff;
use crate::snapshot::Snapshot;
use crate::waiting::Size;

/// Most groups that requests are told apart by.
const MOST_GROUPS: usize = 24;
/// Prices are worked out for the first time when so many requests have come, or after the next time if fewer have.
const FIRST: usize = 30;
/// Until there is a history of three days, prices are worked out anew more often than later: each time when it has grown by so many parts of itself.
const PART_OF_HISTORY: u32 = 24;
const OFTEN: Duration = Duration::from_secs(3_600);
/// When the forecast is off, prices are worked out anew no sooner than this, or an eighth of all the time so far, or a third of the time between two
/// solutions, however wrong the forecast is …
const SOONEST: Duration = Duration::from_secs(600);
/// … and the forecast is looked at no more often than this.
const LOOK: Duration = Duration::from_secs(300);
/// How far the forecast may be off, as a share …
const OFF: f64 = 0.2;
/// … and how many requests it must be off by: so many times what is usual by chance.
const CHANCE: f64 = 2.5;
/// How much more than is expected is kept for what is worth most, as a share: when nothing is known yet, and after a day.
const DOUBT: [f64; 2] = [0.8, 0.1];
const DAY: Duration = Duration::from_secs(86_400);
/// Blocks end where windows do on so many of the next days.
const NEAR_RESETS: Duration = Duration::from_secs(4 * 86_400);

/// Who came, who is expected, and when prices are due.
#[derive(Debug, Default)]
pub struct Ahead {
    resolve: Duration,
    forecast: Forecast,
    /// How many came.
    seen: usize,
    asked: Option<Basis>,
    /// When the forecast was looked at last.
    looked: Monotonic,
}

/// What was expected when prices were asked for last.
#[derive(Debug)]
struct Basis {
    at: Now,
    /// How many were expected in each block, which end at `ends`.
    expected: Vec<f64>,
    ends: Vec<Timestamp>,
    /// How many came since.
    came: f64,
}

/// Who came so far, for finding prices. It is a copy, so that nobody has to wait while it is looked through.
#[derive(Clone, Debug)]
pub struct Prospect {
    at: Now,
    forecast: Forecast,
    /// How many days of a history there are.
    days: f64,
}

/// Who is expected.
#[derive(Clone, Debug)]
pub struct Expected {
    at: Now,
    ends: Vec<Timestamp>,
    /// By group, then by block.
    groups: Vec<(Group, Vec<f64>)>,
    /// The same, with what is kept beyond it and those who wait.
    demand: Vec<(Group, Vec<f64>)>,
}

/// What prices are to be found for: who is expected, and what there is to give.
#[derive(Debug)]
pub struct Question {
    at: Now,
    ends: Vec<Timestamp>,
    market: Market,
    /// Whether some are worth more than others.
    keeps: bool,
    groups: BTreeMap<Cell, usize>,
}

// === impl Ahead ===

impl Ahead {
    /// Prices are due every so often, and when the forecast is off.
    #[must_use]
    pub fn new(resolve: Duration) -> Self {
        Self { resolve, ..Self::default() }
    }

    /// A request came.
    pub fn observe(&mut self, now: Now, kind: &Kind, size: Size) {
        self.forecast.observe(now.wall, kind, size.input, size.output);
        self.seen += 1;
        if let Some(basis) = &mut self.asked {
            basis.came += 1.0;
        }
    }

    /// Whether prices are to be worked out now.
    pub fn is_due(&mut self, now: Now) -> bool {
        let Some(begun) = self.forecast.begun() else { return false };
        let history = now.wall.since(begun);
        let Some(basis) = &self.asked else { return self.seen >= FIRST || history >= SOONEST };
        let age = now.monotonic.since(basis.at.monotonic);
        let every = (history / PART_OF_HISTORY).max(OFTEN).min(self.resolve);
        // What was seen for an hour is not refuted by a minute.
        let soonest = (history / 8).min(self.resolve / 3).max(SOONEST);
        if age < soonest || now.monotonic.since(self.looked) < LOOK {
            return age >= every;
        }
        self.looked = now.monotonic;
        age >= every || basis.is_off(now)
    }

    /// Takes down who came so far. Prices are not due again for some time, whatever comes of it.
    pub fn prospect(&mut self, now: Now) -> Prospect {
        self.asked = Some(Basis { at: now, expected: Vec::new(), ends: Vec::new(), came: 0.0 });
        let history = self.forecast.begun().map_or(Duration::ZERO, |begun| now.wall.since(begun));
        let days = history.as_secs_f64() / DAY.as_secs_f64();
        Prospect { at: now, forecast: self.forecast.clone(), days }
    }

    /// Prices have been found for this.
    pub fn rely_on(&mut self, expected: &Expected) {
        let in_block = |block: usize| expected.groups.iter().map(|(_, arrivals)| arrivals[block]).sum();
        if let Some(basis) = self.asked.as_mut().filter(|basis| basis.at == expected.at) {
            basis.expected = (0..expected.ends.len()).map(in_block).collect();
            basis.ends.clone_from(&expected.ends);
        }
    }

    /// Prices are due as soon as they can be: what there is to give has changed.
    pub fn hurry(&mut self) {
        self.asked = None;
    }

    /// What is remembered of who came.
    #[must_use]
    pub const fn forecast(&self) -> &Forecast {
        &self.forecast
    }

    /// Goes on from what was kept of who came.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    pub fn restore(&mut self, forecast: Forecast) {
        self.seen = forecast.seen() as usize;
        self.forecast = forecast;
    }
}

// === impl Prospect ===

impl Prospect {
    /// Where the blocks end that time is cut into. `targets` are the deployments in the book.
    pub fn ends(&self, book: &mut Book, targets: &[Target]) -> Vec<Timestamp> {
        let limits: Vec<LimitIndex> = targets.iter().flat_map(|target| book.limits_of(*target).to_vec()).collect();
        let longest = limits.iter().filter_map(|limit| book.spec(*limit).length()).max().unwrap_or_default();
        let (now, until) = (self.at.wall, self.at.wall.after(NEAR_RESETS));
        let resets: Vec<Timestamp> = limits.iter().flat_map(|limit| book.resets(*limit, now, until)).collect();
        horizon(now, longest, &resets)
    }

    /// Who is expected in them; those who wait ask now.
    #[must_use]
    pub fn expect(&self, snapshot: &Snapshot, ends: Vec<Timestamp>, waiting: impl Iterator<Item = Kind>) -> Expected {
        let expect = |group: Group| {
            let arrivals = self.forecast.expect(&group, self.at.wall, &ends);
            (group, arrivals)
        };
        let groups: Vec<(Group, Vec<f64>)> = self.forecast.groups(MOST_GROUPS).into_iter().map(expect).collect();
        let mut demand = groups.clone();
        self.keep_more(snapshot, &mut demand);
        for kind in waiting {
            let like = demand.iter_mut().find(|(group, _)| group.kind == kind);
            if let Some(first) = like.and_then(|(_, arrivals)| arrivals.first_mut()) {
                *first += 1.0;
            }
        }
        Expected { at: self.at, ends, groups, demand }
    }

    /// More is kept for what is worth more than the rest: what is kept in vain goes to the rest at last, but what was
    /// not kept is lost. The rule for two classes is Littlewood's (1972): keep so much for the better one that the chance
    /// of its being wanted is the ratio of their values.
    fn keep_more(&self, snapshot: &Snapshot, demand: &mut [(Group, Vec<f64>)]) {
        let doubt = DOUBT[1] + (DOUBT[0] - DOUBT[1]) * (1.0 - self.days).max(0.0);
        let value = |group: &Group| worth(snapshot, &group.kind);
        let least = demand.iter().map(|(group, _)| value(group)).fold(f64::MAX, f64::min);
        for (group, arrivals) in demand {
            let more = 1.0 + doubt * (1.0 - least / value(group).max(f64::MIN_POSITIVE));
            arrivals.iter_mut().for_each(|count| *count *= more);
        }
    }
}

// === impl Expected ===

impl Expected {
    /// How many groups of requests are told apart.
    #[must_use]
    pub const fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Takes down what there is to give.
    #[must_use]
    pub fn question(&self, snapshot: &Snapshot, book: &mut Book, targets: &[Target]) -> Question {
        let Self { at, ends, groups, demand } = self;
        let market = market(snapshot, book, targets, *at, ends, demand);
        let value = |group: &Group| worth(snapshot, &group.kind);
        let most = groups.iter().map(|(group, _)| value(group)).fold(0.0, f64::max);
        let keeps = groups.iter().any(|(group, _)| value(group) < most);
        let is_rationed = |(_, (group, _)): &(usize, &(Group, Vec<f64>))| value(group) < most;
        let cells = |(place, (group, _)): (usize, &(Group, Vec<f64>))| {
            group.cells.iter().map(move |cell| (cell.clone(), place)).collect::<Vec<_>>()
        };
        let groups = groups.iter().enumerate().filter(is_rationed).flat_map(cells).collect();
        Question { at: *at, ends: ends.clone(), market, keeps, groups }
    }
}

// === impl Basis ===

impl Basis {
    /// Whether more or fewer came than was expected.
    fn is_off(&self, now: Now) -> bool {
        let (mut from, mut expected) = (self.at.wall, 0.0);
        for (end, count) in self.ends.iter().zip(&self.expected) {
            let part = now.wall.since(from).as_secs_f64() / end.since(from).as_secs_f64().max(1.0);
            expected += count * part.min(1.0);
            from = *end;
        }
        let off = (self.came - expected).abs();
        off > OFF * expected && off > CHANCE * expected.max(4.0).sqrt()
    }
}

// === impl Question ===

impl Question {
    /// Finds the prices: a fraction of a second of work, and some megabytes that are given back.
    ///
    /// # Errors
    /// When the solver stops without a solution.
    pub fn answer(self) -> Result<Tariff, SolveError> {
        let solution = self.market.solve(Precision::Rough)?;
        Ok(Tariff::new(self.at.wall, self.ends, self.keeps, self.groups, solution))
    }
}

/// What a forecast knows a request by, besides its size.
#[must_use]
pub fn kind(snapshot: &Snapshot, admission: &Admission, model: &str, features: FeatureSet) -> Kind {
    let tier = snapshot.rules.tiers[admission.tier].name.as_str().into();
    Kind { tier, min_quality: admission.min_quality, data: admission.data, model: model.into(), features }
}

/// What a request of a kind is worth; nothing if its tier is no more.
fn worth(snapshot: &Snapshot, kind: &Kind) -> f64 {
    snapshot.rules.tiers.iter().find(|tier| *tier.name == *kind.tier).map_or(0.0, |tier| tier.value)
}
