//! What an edit changes: two configurations compared as what they mean, not as what is written.
//!
//! Only what both sides can tell is compared, so that a gateway which tells less than a file does (its API names no
//! tiers and shows no keys) can be one of them.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::inventory::{FIXED_AT_START, Fact, Facts, Inventory, Kind, OFF, TARGETS, VALUE};

/// Facts of a new thing that are shown to people.
const SHOWN_OF_NEW: usize = 3;

/// Everything that an edit changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Changes(pub Vec<Change>);

/// One thing that an edit changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What happens to it.
    pub change: What,
    /// Whether a running gateway takes it in only when it is started again.
    pub needs_restart: bool,
    /// The facts that differ; all facts of what is added, none of what is removed.
    pub facts: Vec<Difference>,
}

/// What happens to a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It was not there.
    Added,
    /// It is there no more.
    Removed,
    /// It could not be used, and now it can.
    SwitchedOn,
    /// It could be used, and now it cannot.
    SwitchedOff,
    /// Some of its facts differ.
    Changed,
}

/// A fact that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its name.
    pub fact: String,
    /// What it was and what it becomes; absent for what is never shown.
    #[serde(flatten)]
    pub values: Option<Values>,
}

/// A fact before and after. Null is what is not set or not known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Values {
    /// Before.
    pub old: Value,
    /// After.
    pub new: Value,
}

/// What replacing one configuration by another changes.
#[must_use]
pub fn diff(old: &Inventory, new: &Inventory) -> Changes {
    let mut changes = Vec::new();
    for (kind, new) in &new.0 {
        let Some(old) = old.0.get(kind) else { continue };
        let mut removed: Vec<(&String, &Facts)> = old.iter().filter(|(name, _)| !new.contains_key(*name)).collect();
        for (name, facts) in new {
            let change = if let Some(before) = old.get(name) {
                changed(*kind, name, before, facts)
            } else if let Some(place) = other_window(*kind, name, &removed, old, new) {
                let (_, before) = removed.remove(place);
                changed(*kind, stem(name), before, facts)
            } else {
                Some(added(*kind, name, facts))
            };
            changes.extend(change);
        }
        changes.extend(removed.into_iter().map(|(name, _)| change(*kind, name, What::Removed, Vec::new())));
    }
    changes.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
    Changes(changes)
}

fn change(kind: Kind, name: &str, change: What, facts: Vec<Difference>) -> Change {
    let needs_restart = kind == Kind::Setting && FIXED_AT_START.contains(&name);
    Change { kind, name: name.to_owned(), change, needs_restart, facts }
}

fn added(kind: Kind, name: &str, facts: &Facts) -> Change {
    let told = facts.iter().filter_map(|(fact, value)| match value {
        Fact::Shown(new) => Some(difference(fact, &Value::Null, new)),
        Fact::Hidden(_) => None,
    });
    change(kind, name, What::Added, told.collect())
}

fn changed(kind: Kind, name: &str, old: &Facts, new: &Facts) -> Option<Change> {
    let mut differing = Vec::new();
    let mut what = What::Changed;
    for (fact, after) in new {
        let Some((_, before)) = old.iter().find(|(known, _)| known == fact) else { continue };
        match (before, after) {
            (Fact::Shown(before), Fact::Shown(after)) if !same(before, after) => {
                if fact == OFF && before.is_null() {
                    what = What::SwitchedOff;
                } else if fact == OFF && after.is_null() {
                    what = What::SwitchedOn;
                }
                differing.push(difference(fact, before, after));
            }
            (Fact::Hidden(before), Fact::Hidden(after)) if before != after => {
                differing.push(Difference { fact: fact.clone(), values: None });
            }
            _ => {}
        }
    }
    (!differing.is_empty()).then(|| change(kind, name, what, differing))
}

fn difference(fact: &str, old: &Value, new: &Value) -> Difference {
    Difference { fact: fact.to_owned(), values: Some(Values { old: old.clone(), new: new.clone() }) }
}

/// Whether two values are the same. Numbers that went through text may have lost their last bit.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) => (one - other).abs() <= one.abs() * 1e-12,
            _ => one == other,
        },
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
        }
        _ => one == other,
    }
}

/// A limit's name without its window.
fn stem(name: &str) -> &str {
    name.rsplit_once(" per ").map_or(name, |(stem, _)| stem)
}

/// Where the limit that a new one replaces stands among those that are gone: of the same metric, for the same thing,
/// and the only one of them on either side.
fn other_window(
    kind: Kind,
    name: &str,
    removed: &[(&String, &Facts)],
    old: &BTreeMap<String, Facts>,
    new: &BTreeMap<String, Facts>,
) -> Option<usize> {
    let alike = |limit: &String| stem(limit) == stem(name);
    let is_only = |limits: &BTreeMap<String, Facts>, others: &BTreeMap<String, Facts>| {
        limits.keys().filter(|limit| alike(limit) && !others.contains_key(*limit)).count() == 1
    };
    if kind != Kind::Limit || !is_only(old, new) || !is_only(new, old) {
        return None;
    }
    removed.iter().position(|(limit, _)| alike(limit))
}

// === showing ===

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            writeln!(f, "nothing   changes")?;
        }
        for change in &self.0 {
            let kind = match change.kind {
                Kind::Setting => "setting",
                Kind::Account => "account",
                Kind::Target => "target",
                Kind::Limit => "limit",
                Kind::Alias => "alias",
                Kind::Tier => "tier",
                Kind::ClientKey => "key",
            };
            let what = match change.change {
                What::Added => "added",
                What::Removed => "removed",
                What::SwitchedOn => "on",
                What::SwitchedOff => "off",
                What::Changed => "changed",
            };
            write!(f, "{kind:<9} {what:<8} {}", change.name)?;
            let facts = match change.change {
                What::Added => change.facts.iter().filter(|fact| !is_nothing(fact)).take(SHOWN_OF_NEW).collect(),
                _ => change.facts.iter().collect::<Vec<_>>(),
            };
            for (position, fact) in facts.into_iter().enumerate() {
                f.write_str(if position == 0 { ": " } else { "; " })?;
                f.write_str(&shown_difference(change, fact))?;
            }
            writeln!(f, "{}", if change.needs_restart { " (needs a restart)" } else { "" })?;
        }
        Ok(())
    }
}

/// Whether a new thing's fact says nothing.
fn is_nothing(fact: &Difference) -> bool {
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    fact.values.as_ref().is_some_and(|values| empty(&values.new))
}

fn shown_difference(change: &Change, difference: &Difference) -> String {
    let Difference { fact, values } = difference;
    let label = match (change.kind, fact.as_str()) {
        (Kind::Setting, VALUE) => String::new(),
        (_, fact) => format!("{} ", fact.replace('_', " ")),
    };
    match (values, change.change) {
        (None, _) => format!("{label}changed"),
        (Some(values), What::Added) => format!("{label}{}", shown(&values.new)),
        // Why it is off is all there is to say.
        (Some(values), What::SwitchedOff) if fact == OFF => shown(&values.new),
        (Some(values), What::SwitchedOn) if fact == OFF => format!("was off: {}", shown(&values.old)),
        (Some(Values { old: Value::Array(old), new: Value::Array(new) }), _) if fact != TARGETS => {
            format!("{label}{}", shown_lists(old, new))
        }
        (Some(values), _) => format!("{label}{} → {}", shown(&values.old), shown(&values.new)),
    }
}

/// Of two long lists, what only one of them has.
fn shown_lists(old: &[Value], new: &[Value]) -> String {
    let only = |list: &[Value], other: &[Value]| -> Vec<String> {
        list.iter().filter(|item| !other.contains(item)).map(shown).collect()
    };
    let parts = [("without", only(old, new)), ("with", only(new, old))];
    let parts = parts.iter().filter(|(_, items)| !items.is_empty());
    let parts: Vec<String> = parts.map(|(word, items)| format!("{word} {}", items.join(", "))).collect();
    if parts.is_empty() { "in another order".to_owned() } else { parts.join(" and ") }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string().trim_end_matches(".0").to_owned(),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => list.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(object) => {
            let pairs = object.iter().map(|(key, value)| format!("{key} {}", shown(value)));
            pairs.collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inventory(kind: Kind, things: &[(&str, &[(&str, Value)])]) -> Inventory {
        let mut inventory = Inventory::default();
        inventory.know(kind);
        for (name, facts) in things {
            inventory.add(kind, name, facts.iter().cloned());
        }
        inventory
    }

    fn check(kind: Kind, old: &[(&str, &[(&str, Value)])], new: &[(&str, &[(&str, Value)])], expected: &str) {
        let changes = diff(&inventory(kind, old), &inventory(kind, new));
        assert_eq!(changes.to_string(), expected);
    }

    #[test]
    fn things_come_go_and_change() {
        let on: &[(&str, Value)] = &[("off", Value::Null), ("context", json!(8192))];
        let off: &[(&str, Value)] = &[("off", json!("no key")), ("context", json!(8192))];
        check(Kind::Target, &[("a", on)], &[("a", on)], "nothing   changes\n");
        check(Kind::Target, &[], &[("a", on)], "target    added    a: context 8192\n");
        check(Kind::Target, &[("a", off)], &[], "target    removed  a\n");
        check(Kind::Target, &[("a", on)], &[("a", off)], "target    off      a: no key\n");
        check(Kind::Target, &[("a", off)], &[("a", on)], "target    on       a: was off: no key\n");
        let other = [("off", json!("retired")), ("context", Value::Null)];
        let expected = "target    changed  a: off no key → retired; context 8192 → –\n";
        check(Kind::Target, &[("a", off)], &[("a", &other)], expected);
    }

    #[test]
    fn a_limit_with_another_window_is_the_same_limit() {
        let facts = |window: &str| [("amount", json!(5)), ("window", json!(window))];
        let (minute, day, hour) = (facts("minute"), facts("day"), facts("hour"));
        let (minute, day, hour) = (
            ("a requests per minute", &minute[..]),
            ("a requests per day", &day[..]),
            ("a requests per hour", &hour[..]),
        );
        check(Kind::Limit, &[minute], &[day], "limit     changed  a requests: window minute → day\n");
        check(Kind::Limit, &[minute, hour], &[day, hour], "limit     changed  a requests: window minute → day\n");
        // Which of two became the new one, nobody can say.
        check(
            Kind::Limit,
            &[minute, hour],
            &[day],
            "limit     added    a requests per day: amount 5; window day\n\
             limit     removed  a requests per hour\nlimit     removed  a requests per minute\n",
        );
    }

    #[test]
    fn what_one_side_cannot_tell_is_not_compared() {
        let full = inventory(Kind::Alias, &[("a", &[("targets", json!(["x/y"])), ("min_quality", json!(2))])]);
        let partial = inventory(Kind::Alias, &[("a", &[("targets", json!(["x/y"]))])]);
        let nothing = Inventory::default();
        for (old, new) in [(&full, &partial), (&partial, &full), (&nothing, &full), (&full, &nothing)] {
            assert_eq!(diff(old, new), Changes(Vec::new()));
        }
    }

    #[test]
    fn numbers_that_went_through_text_are_the_same() {
        assert!(same(&json!({"input": 0.1 + 0.2}), &json!({"input": 0.3})));
        assert!(same(&json!(2), &json!(2.0)));
        assert!(!same(&json!(2), &json!(2.001)));
        assert!(!same(&json!(0), &json!(1)));
    }
}
