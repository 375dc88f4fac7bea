//! Everything that a plan says.

use std::collections::{BTreeMap, BTreeSet};

use freeway_quota::LimitSpec;
use freeway_router::{Deployment, Snapshot};
use freeway_types::Timestamp;
use serde::Serialize;

use crate::carry::{Carry, carries, together};
use crate::course::{Choosing, Course, course};
use crate::cover::{Cover, covers};
use crate::doubt::doubt;
use crate::ground::{Ground, only};
use crate::need::{Need, NeedError};
use crate::next_key::{NextKey, next_keys};
use crate::span::Range;

/// What is planned.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The configuration.
    pub snapshot: &'a Snapshot,
    /// Its limits, in the order of the deployments' indices.
    pub limits: &'a [LimitSpec],
    /// What is asked for.
    pub need: &'a Need,
    /// When it begins.
    pub start: Timestamp,
    /// For how many days of 24 hours.
    pub days: u32,
    /// How targets are chosen.
    pub choosing: Choosing,
}

/// A configuration with accounts that it does not have, tried out.
#[derive(Clone, Copy, Debug)]
pub struct Trials<'a> {
    /// The configuration.
    pub snapshot: &'a Snapshot,
    /// Its limits, in the order of the deployments' indices.
    pub limits: &'a [LimitSpec],
    /// The accounts that are there already, by name.
    pub known_accounts: &'a BTreeSet<String>,
    /// What the catalogue says of providers, by their ids.
    pub facts: &'a BTreeMap<String, Facts>,
}

/// What the catalogue says of a provider, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The day that its facts are of.
    pub as_of: Option<String>,
    /// Why they cannot be relied on.
    pub doubt: Option<String>,
    /// What it asks in return, and what to beware of.
    pub catches: Vec<String>,
}

/// What a plan says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// What was asked for.
    pub need: Need,
    /// When it begins.
    #[serde(serialize_with = "crate::span::as_text")]
    pub start: Timestamp,
    /// How many days it has.
    pub days: u32,
    /// What each target carries alone.
    pub carries: Vec<Carry>,
    /// What those with known limits carry together over the days.
    pub together: Range,
    /// What comes of it if every shaky fact holds.
    pub course: Course,
    /// What comes of it without the targets that rest on shaky facts, where there are such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sure: Option<Course>,
    /// What the rest costs with each paid model, the cheapest first.
    pub covers: Vec<Cover>,
    /// Paid models that would do and have no known price.
    pub unpriced: usize,
    /// What each further free key would bring, the most first.
    pub next_keys: Vec<NextKey>,
}

/// Plans for a need. `free` and `paid` are the configuration with more accounts on free and on paid plans.
///
/// # Errors
/// When the configuration lacks what the need asks for, or there are too many requests.
pub fn answer(question: Question<'_>, free: Trials<'_>, paid: Trials<'_>) -> Result<Answer, NeedError> {
    let Question { snapshot, limits, need, start, days, choosing } = question;
    let lines = need.lines(start, days)?;
    let ground = Ground::new(snapshot, limits, need, start)?;
    let carries = carries(&ground, limits);
    let together = together(&ground, limits, need, days)?;
    let hoped = course(&ground, need, &lines, days, choosing)?;
    let sure = match carries.iter().any(|carry| carry.doubt.is_some()) {
        false => None,
        true => {
            let is_sure = |deployment: &Deployment| doubt(snapshot, limits, deployment, start).is_none();
            let snapshot = only(snapshot, is_sure);
            let ground = Ground::new(&snapshot, limits, need, start)?;
            Some(course(&ground, need, &lines, days, choosing)?)
        }
    };
    let worst = sure.as_ref().unwrap_or(&hoped);
    let (covers, unpriced) = covers(need, &paid, start, (&hoped, worst))?;
    // What is missing even at best; if nothing is, what is missing at worst.
    let rest = if hoped.served < hoped.asked { &hoped } else { worst };
    let next_keys = next_keys(need, &free, start, rest)?;
    Ok(Answer { need: need.clone(), start, days, carries, together, course: hoped, sure, covers, unpriced, next_keys })
}
