//! Prices of limits in the running gateway: who came, when prices are due, and working them out beside requests.
//!
//! A request adds itself to what is remembered and reads a table; that is all it has to do with it. The rest is done on a
//! thread of its own, which holds the counts only while it looks where windows end and what is left of each limit.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use freeway_price::{Cell, Forecast, Kind, Sums};
use freeway_quota::Target;
use freeway_router::{Ahead, Plan, Prospect};
use freeway_store::{Learned, StoreError};
use freeway_telemetry::Event;
use freeway_types::{DataClass, Feature, FeatureSet, Now, Quality, Timestamp};
use serde_json::{Value, json};

use crate::engine::{Engine, Shared};

/// Prices are worked out anew so often.
const RESOLVE: Duration = Duration::from_secs(3 * 3_600);
/// The kind under which it is kept who came, in a row for each hour.
const KIND: &str = "demand";
const HOUR: i64 = 3_600;
/// Hours that are kept.
const HOURS: i64 = 8 * 24;

/// Who came, and whether somebody is working out what follows.
#[derive(Debug)]
pub(crate) struct Foresight {
    ahead: Ahead,
    is_solving: bool,
    /// Whether somebody goes by prices.
    is_wanted: bool,
    /// Hours of which more is known than the ledger has.
    changed: BTreeSet<i64>,
    /// Hours that the ledger has.
    kept: BTreeSet<i64>,
}

/// Prices are being worked out, until this is dropped.
struct Solving<'a>(&'a Shared);

// === impl Foresight ===

impl Default for Foresight {
    fn default() -> Self {
        Self {
            ahead: Ahead::new(RESOLVE),
            is_solving: false,
            is_wanted: false,
            changed: BTreeSet::new(),
            kept: BTreeSet::new(),
        }
    }
}

impl Foresight {
    /// What changed since the last time, for keeping it; hours that are too old go.
    fn rows(&mut self, now: Timestamp) -> Vec<Learned> {
        let row = |hour: i64, value: Option<String>| Learned {
            kind: KIND.to_owned(),
            name: hour.to_string(),
            value,
            at: now,
        };
        let oldest = now.as_secs().div_euclid(HOUR) - HOURS;
        let mut rows = Vec::new();
        for hour in std::mem::take(&mut self.changed) {
            let cells: Vec<Value> = self.ahead.forecast().hour(hour).map(to_json).collect();
            rows.push(row(hour, Some(Value::from(cells).to_string())));
            self.kept.insert(hour);
        }
        let newer = self.kept.split_off(&oldest);
        rows.extend(std::mem::replace(&mut self.kept, newer).into_iter().map(|hour| row(hour, None)));
        rows
    }
}

// === impl Engine ===

impl Engine {
    /// A request came that nobody has begun to serve.
    pub(crate) fn arrived(&self, plan: &Plan, now: Now) {
        if let Some((kind, _)) = &plan.cell {
            let mut foresight = self.shared().foresight();
            foresight.is_wanted |= plan.by_price;
            foresight.ahead.observe(now, kind, plan.size);
            foresight.changed.insert(now.wall.as_secs().div_euclid(HOUR));
        }
    }

    /// A request is sent: of what is served of its kind, it has had its share.
    pub(crate) fn takes_its_share(&self, plan: &Plan) {
        let tariff = self.state().tariff.clone();
        if let (Some(tariff), Some(cell)) = (tariff, &plan.cell) {
            tariff.take(cell);
        }
    }

    /// A request that had taken its share is not sent.
    pub(crate) fn give_back_its_share(&self, plan: &Plan) {
        let tariff = self.state().tariff.clone();
        if let (Some(tariff), Some(cell)) = (tariff, &plan.cell) {
            tariff.give_back(cell);
        }
    }

    /// Works prices out anew on a thread of its own, if they are due. To be called every second.
    pub fn look_to_prices(self: &Arc<Self>) {
        let now = self.now();
        let Some(prospect) = self.shared().begin_solving(now) else { return };
        let engine = Arc::clone(self);
        let work = move || {
            let solving = Solving(engine.shared());
            engine.work_out(&prospect);
            drop(solving);
        };
        if let Err(error) = std::thread::Builder::new().name("prices".to_owned()).spawn(work) {
            drop(Solving(self.shared()));
            self.telemetry().tell(now.wall, &Event::PricesFailed { why: &error.to_string() });
        }
    }

    fn work_out(&self, prospect: &Prospect) {
        let begun = self.now();
        let is_limited = |target: &Target| !self.state().book.limits_of(*target).is_empty();
        if !self.targets.iter().any(is_limited) {
            return;
        }
        let ends = prospect.ends(&mut self.state().book, &self.targets);
        let expected = prospect.expect(&self.snapshot, ends, self.shared().room.kinds().into_iter());
        let question = expected.question(&self.snapshot, &mut self.state().book, &self.targets);
        // Memory goes back to the system where nothing beside it is in use any more. So the solver has a thread to itself,
        // and what is kept is copied out of what that took.
        let answer = std::thread::scope(|scope| scope.spawn(|| question.answer()).join());
        let answer = answer.map_err(|_| "the solver panicked".to_owned());
        let now = self.now();
        match answer.and_then(|answer| answer.map_err(|error| error.to_string())) {
            Ok(solved) => {
                let tariff = solved.clone();
                drop(solved);
                self.shared().foresight().ahead.rely_on(&expected);
                let event = Event::Priced {
                    groups: expected.groups(),
                    limits: tariff.scarce(now.wall),
                    millis: u64::try_from(now.monotonic.since(begun.monotonic).as_millis()).unwrap_or(u64::MAX),
                };
                self.state().tariff = Some(Arc::new(tariff));
                self.telemetry().tell(now.wall, &event);
            }
            Err(why) => self.telemetry().tell(now.wall, &Event::PricesFailed { why: &why }),
        }
    }
}

// === impl Shared ===

impl Shared {
    /// A panic while it was held leaves counts that are a little off at worst.
    pub(crate) fn foresight(&self) -> MutexGuard<'_, Foresight> {
        self.foresight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something else to give than when prices were worked out.
    pub(crate) fn hurry_prices(&self) {
        self.foresight().ahead.hurry();
    }

    fn begin_solving(&self, now: Now) -> Option<Prospect> {
        let mut foresight = self.foresight();
        if foresight.is_solving || !foresight.is_wanted || !foresight.ahead.is_due(now) {
            return None;
        }
        foresight.is_solving = true;
        Some(foresight.ahead.prospect(now))
    }

    /// What of the demand is to be kept.
    pub(crate) fn changed_demand(&self, now: Timestamp) -> Vec<Learned> {
        self.foresight().rows(now)
    }

    /// Takes in what an earlier process kept of who came. What cannot be read is forgotten.
    pub(crate) fn load_demand(&self) -> Result<(), StoreError> {
        let (mut forecast, mut kept) = (Forecast::default(), BTreeSet::new());
        for row in self.store.learned(KIND)? {
            let Ok(hour) = row.name.parse::<i64>() else { continue };
            kept.insert(hour);
            let cells = row.value.and_then(|value| serde_json::from_str::<Vec<Value>>(&value).ok()).unwrap_or_default();
            for (cell, sums) in cells.iter().filter_map(from_json) {
                forecast.restore(hour, cell, sums);
            }
        }
        let mut foresight = self.foresight();
        foresight.ahead.restore(forecast);
        foresight.kept = kept;
        Ok(())
    }
}

impl Drop for Solving<'_> {
    fn drop(&mut self) {
        self.0.foresight().is_solving = false;
    }
}

/// Requests of one hour that are alike, as the ledger keeps them.
fn to_json(((kind, size), sums): (&Cell, Sums)) -> Value {
    let features: Vec<&str> = kind.features.iter().map(Feature::as_str).collect();
    json!({
        "tier": &*kind.tier,
        "min_quality": kind.min_quality.get(),
        "data": kind.data,
        "model": &*kind.model,
        "features": features,
        "size": size,
        "sums": [sums.count, sums.input, sums.output],
    })
}

fn from_json(value: &Value) -> Option<(Cell, Sums)> {
    let feature = |word: &Value| Feature::ALL.into_iter().find(|feature| word == feature.as_str());
    let sums = |place: usize| value["sums"][place].as_f64().filter(|sum| sum.is_finite() && *sum >= 0.0);
    let kind = Kind {
        tier: value["tier"].as_str()?.into(),
        min_quality: Quality::try_from(u8::try_from(value["min_quality"].as_u64()?).ok()?).ok()?,
        data: serde_json::from_value::<DataClass>(value["data"].clone()).ok()?,
        model: value["model"].as_str()?.into(),
        features: value["features"].as_array()?.iter().map(feature).collect::<Option<FeatureSet>>()?,
    };
    let size = u32::try_from(value["size"].as_u64()?).ok()?;
    Some(((kind, size), Sums { count: sums(0)?, input: sums(1)?, output: sums(2)? }))
}
