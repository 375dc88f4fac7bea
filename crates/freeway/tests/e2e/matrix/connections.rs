//! Faults of the connection, wherever in the answer they strike, and what is merely slow.

use serde_json::{Value, json};

use super::table::{BOTH, Cell, HALF, Outcome, PLACES, PLAIN, Place, Row, STREAMED, Usage, first, second};
use crate::faults::{INVALID, TIMEOUT, UNCONNECTED};

const HEAD: &[Place] = &[Place::BeforeHead, Place::InHead];
const BODY: &[Place] = &[Place::BeforeContent, Place::MidContent, Place::AtEnd];

pub(super) fn name(place: Place) -> &'static str {
    match place {
        Place::BeforeHead => "before-head",
        Place::InHead => "in-head",
        Place::BeforeContent => "before-content",
        Place::MidContent => "mid-content",
        Place::AtEnd => "at-end",
    }
}

fn stops(place: Place, how: &str) -> Value {
    json!({"fault": "break", "at": name(place), "how": how})
}

/// A connection that ends where the answer does not: what has not been seen by the client is tried elsewhere, what has
/// been is told, and what only lacks its usage is whole.
fn ends(row: Row, how: &'static str) -> Row {
    row.at(BODY, PLAIN, |place| Cell::Runs(stops(place, how), second(2, INVALID)))
        .runs(Place::BeforeContent, STREAMED, stops(Place::BeforeContent, how), second(2, INVALID))
        .runs(Place::MidContent, STREAMED, stops(Place::MidContent, how), Outcome::Breaks(HALF))
        .runs(Place::AtEnd, STREAMED, stops(Place::AtEnd, how), first(Usage::Estimated))
}

/// A connection on which nothing comes any more: the same, after the time that the place has.
fn falls_silent(row: Row, how: &'static str) -> Row {
    row.at(BODY, PLAIN, |place| Cell::Runs(stops(place, how), second(1, TIMEOUT)))
        .runs(Place::BeforeContent, STREAMED, stops(Place::BeforeContent, how), second(1, TIMEOUT))
        .runs(Place::MidContent, STREAMED, stops(Place::MidContent, how), Outcome::Breaks(HALF))
        .runs(Place::AtEnd, STREAMED, stops(Place::AtEnd, how), first(Usage::Estimated))
}

pub(super) fn rows() -> Vec<Row> {
    let in_head = |row: Row, how: &'static str, outcome: Outcome| {
        row.at(HEAD, BOTH, |place| Cell::Runs(stops(place, how), outcome.clone()))
    };
    let cut = Row::new("cut, with a proper end of the body")
        .cannot(HEAD, BOTH, "a head has no proper end before its end")
        .at(&[Place::BeforeContent, Place::MidContent], PLAIN, |place| {
            Cell::Runs(stops(place, "end"), second(2, INVALID))
        })
        .runs(Place::AtEnd, PLAIN, stops(Place::AtEnd, "end"), first(Usage::Reported))
        .runs(Place::BeforeContent, STREAMED, stops(Place::BeforeContent, "end"), second(2, INVALID))
        .runs(Place::MidContent, STREAMED, stops(Place::MidContent, "end"), Outcome::Breaks(HALF))
        .runs(Place::AtEnd, STREAMED, stops(Place::AtEnd, "end"), first(Usage::Estimated));
    vec![
        Row::new("refused connection")
            .runs(Place::BeforeHead, BOTH, json!({"fault": "refuse"}), second(2, UNCONNECTED))
            .cannot(&PLACES[1..], BOTH, "without a connection there is no answer"),
        ends(in_head(Row::new("reset"), "reset", second(2, UNCONNECTED)), "reset"),
        cut,
        ends(in_head(Row::new("closed"), "close", second(2, UNCONNECTED)), "close"),
        falls_silent(in_head(Row::new("silence"), "hang", second(1, TIMEOUT)), "hang"),
        falls_silent(Row::new("comments or empty lines for ever"), "chatter").cannot(
            HEAD,
            BOTH,
            "only a body can hold what says nothing",
        ),
        Row::new("slow drip").at(&PLACES, BOTH, |place| {
            Cell::Runs(json!({"fault": "drip", "at": name(place), "pause_ms": 3}), first(Usage::Reported))
        }),
    ]
}
