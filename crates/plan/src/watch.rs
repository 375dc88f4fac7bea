//! Seeing which limits run out while requests are decided on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use freeway_quota::{Civil, Fit, Rule};
use freeway_simulate::{Scene, Watcher};
use freeway_types::{LimitIndex, Monotonic, Timestamp};
use serde::Serialize;

use crate::ground::Taker;

/// Limits are looked at so often: an instant at which one runs out is exact to that.
const EVERY: Duration = Duration::from_secs(300);
/// What shorter limits lack is back before anybody plans for it.
const LONG: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// A limit that had no room for a further request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunOut {
    /// Its name.
    pub limit: String,
    /// When that was seen first: at most five minutes late, and not before a request came.
    #[serde(serialize_with = "crate::span::as_text")]
    pub first: Timestamp,
    /// The day of the plan that this was on, from 1.
    pub day: u64,
    /// On how many days of the plan it was without room at some instant.
    pub days: usize,
    /// When room was first seen again, if it was.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::span::as_text_if_any")]
    pub back: Option<Timestamp>,
    /// Whether it does not come back: a credit that is spent or has lapsed.
    pub for_good: bool,
    /// Whether time took it, before anybody had spent it.
    pub lapsed: bool,
    /// The need's targets that count against it.
    pub targets: Vec<String>,
}

/// Watches.
pub(crate) struct Watch {
    takers: Vec<Taker>,
    next: Option<Monotonic>,
    seen: BTreeMap<LimitIndex, Seen>,
}

struct Seen {
    first: Monotonic,
    back: Option<Monotonic>,
    days: BTreeSet<u64>,
}

impl Watch {
    pub(crate) fn new(takers: Vec<Taker>) -> Self {
        Self { takers, next: None, seen: BTreeMap::new() }
    }

    /// What ran out, in the order in which it did.
    pub(crate) fn run_outs(self, scene: &Scene<'_>) -> Vec<RunOut> {
        let (scenario, specs) = (scene.scenario, scene.scenario.limits);
        let told = |(limit, seen): (LimitIndex, Seen)| {
            let (spec, first) = (&specs[limit.get()], scenario.now(seen.first).wall);
            let for_good = matches!(spec.rule, Rule::Never(_));
            let targets = self.takers.iter().map(|taker| scenario.snapshot.deployment(taker.target));
            RunOut {
                limit: spec.name.clone(),
                first,
                day: day(seen.first),
                days: seen.days.len(),
                back: seen.back.map(|back| scenario.now(back).wall),
                for_good,
                lapsed: matches!(&spec.rule, Rule::Never(grants)
                    if grants.iter().all(|grant| grant.expires.is_some_and(|end| end <= first))),
                targets: targets.filter(|target| target.limits.contains(&limit)).map(|t| t.name.clone()).collect(),
            }
        };
        let mut all: Vec<RunOut> = self.seen.into_iter().map(told).collect();
        all.sort_by(|one, other| one.first.cmp(&other.first).then_with(|| one.limit.cmp(&other.limit)));
        all
    }

    fn note(&mut self, scene: &mut Scene<'_>) {
        let Scene { scenario, now, book, targets, .. } = scene;
        let mut without = BTreeSet::new();
        for taker in &self.takers {
            // A plan that stands on one limit must not be blind to another one: each is asked by itself.
            for limit in book.limits_of(targets[taker.target.get()]).to_vec() {
                if !is_long(&scenario.limits[limit.get()].rule) || without.contains(&limit) {
                    continue;
                }
                match book.fit(*now, &[limit], &taker.demand) {
                    Fit::Blocked(blocked) if !blocked.too_large => _ = without.insert(limit),
                    _ => {}
                }
            }
        }
        for (limit, seen) in &mut self.seen {
            if !without.contains(limit) {
                seen.back.get_or_insert(now.monotonic);
            }
        }
        for limit in without {
            let seen = self.seen.entry(limit);
            let seen = seen.or_insert(Seen { first: now.monotonic, back: None, days: BTreeSet::new() });
            seen.days.insert(day(now.monotonic));
        }
    }
}

impl Watcher for Watch {
    fn look(&mut self, scene: &mut Scene<'_>) {
        if self.next.is_none_or(|next| scene.now.monotonic >= next) {
            self.next = Some(scene.now.monotonic.after(EVERY));
            self.note(scene);
        }
    }
}

/// The day of the plan that an instant is on, from 1.
pub(crate) fn day(at: Monotonic) -> u64 {
    at.since(Monotonic::default()).as_secs() / DAY.as_secs() + 1
}

fn is_long(rule: &Rule) -> bool {
    match rule {
        Rule::Rolling(length) | Rule::Bucket(length) | Rule::Calendar(Civil::Multiple(length), _) => *length >= LONG,
        Rule::Calendar(..) | Rule::Never(_) => true,
        Rule::Concurrency => false,
    }
}
