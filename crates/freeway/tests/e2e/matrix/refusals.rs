//! Refusals whose bodies do not arrive whole: the status and the headers are here, and they decide.

use serde_json::{Value, json};

use super::connections::name;
use super::table::{BOTH, Cell, Outcome, Place, Row, second, told};
use crate::faults::{REFUSED_KEY, UNAVAILABLE};

/// How a body stops, and the rest of the row's name.
const STOPS: [(&str, &str); 5] = [
    ("end", "its body is cut, with a proper end"),
    ("close", "its body is closed in the middle"),
    ("reset", "its body is reset"),
    ("hang", "its body never ends"),
    ("chatter", "its body is empty lines for ever"),
];
const BODY: [Place; 3] = [Place::BeforeContent, Place::MidContent, Place::AtEnd];

/// A refusal of this status that stops in every way.
fn stopped(status: u16, more: &Value, outcome: impl Fn(Place) -> Outcome) -> Vec<Row> {
    let row = |(how, rest): (&str, &str)| {
        let fault = |place: Place| {
            let mut fault = json!({"fault": "broken-refusal", "status": status, "at": name(place), "how": how});
            if let (Some(fault), Some(more)) = (fault.as_object_mut(), more.as_object()) {
                fault.extend(more.clone());
            }
            fault
        };
        Row::new(format!("{status}, {rest}"))
            .cannot(&[Place::BeforeHead, Place::InHead], BOTH, "it would have no status")
            .at(&BODY, BOTH, |place| Cell::Runs(fault(place), outcome(place)))
    };
    STOPS.map(row).to_vec()
}

pub(super) fn rows() -> Vec<Row> {
    let limited = json!({"headers": {"retry-after": "600"}});
    let wrong = json!({"body": {"error": {"message": "this is why", "code": "bad_value"}}});
    let quota = told(429, "quota_exhausted", false, Some(600));
    // What has arrived is read, however it ends.
    let unread = told(400, "invalid_request", false, None);
    let back = |place: Place| match place {
        Place::AtEnd => Outcome::Back(told(400, "bad_value", false, None), "this is why"),
        Place::MidContent => Outcome::Back(unread, "status 400"),
        _ => Outcome::Back(unread, "status 400 without a body"),
    };
    [
        stopped(503, &json!({}), |_| second(2, UNAVAILABLE)),
        stopped(429, &limited, |_| second(1, quota)),
        stopped(401, &json!({}), |_| second(1, REFUSED_KEY)),
        stopped(400, &wrong, back),
    ]
    .concat()
}
