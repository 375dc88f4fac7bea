//! What the head alone tells: statuses, content types, codings.

use serde_json::{Value, json};

use super::table::{BOTH, Outcome, PLACES, Place, Row, second, told};
use crate::faults::{DAY, HOUR, INVALID, REFUSED_KEY, Told, UNAVAILABLE};

/// A fault that stands in the head and nowhere else.
fn in_head(name: impl Into<String>, fault: Value, outcome: Outcome) -> Row {
    let elsewhere: Vec<Place> = PLACES.into_iter().filter(|place| *place != Place::InHead).collect();
    Row::new(name).runs(Place::InHead, BOTH, fault, outcome).cannot(&elsewhere, BOTH, "it stands in the head")
}

fn status(status: u16) -> Value {
    json!({"fault": "status", "status": status})
}

fn limited(headers: &Value) -> Value {
    json!({"fault": "status", "status": 429, "headers": headers})
}

fn refused(status: u16, error: &Value) -> Value {
    json!({"fault": "status", "status": status, "body": {"error": error}})
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: &str, fault: Value, outcome: Outcome| rows.push(in_head(name, fault, outcome));
    let back = |status: u16, code: &'static str| Outcome::Back(told(status, code, false, None), "this is why");

    // The client's own fault.
    let why = |code: &str| json!({"message": "this is why", "code": code});
    add("400", refused(400, &why("bad_value")), back(400, "bad_value"));
    add("422", refused(422, &why("bad_value")), back(422, "bad_value"));
    add("400 for its content", refused(400, &why("content_policy_violation")), back(400, "content_policy_violation"));
    let too_long = told(400, "context_length_exceeded", false, None);
    add("400 for its length", refused(400, &why("context_length_exceeded")), second(1, too_long));
    add("413", status(413), second(1, too_long));

    // The key's, the account's, the model's.
    add("401", status(401), second(1, REFUSED_KEY));
    add("402", status(402), second(1, told(429, "quota_exhausted", false, Some(DAY))));
    add("403", status(403), second(1, INVALID));
    let lasting = Told { should_retry: false, ..INVALID };
    add("404", status(404), second(1, lasting));
    add("405", status(405), second(1, INVALID));
    add("410", status(410), second(1, lasting));
    add("418", status(418), second(1, INVALID));

    // Quota.
    let quota = |wait: u64| told(429, "quota_exhausted", wait <= 120, Some(wait));
    add("429", status(429), second(2, quota(2)));
    add("429 for a second", limited(&json!({"retry-after": "1"})), second(2, quota(1)));
    add("429 in milliseconds", limited(&json!({"retry-after-ms": "700", "retry-after": "9"})), second(2, quota(1)));
    add("429 for ten minutes", limited(&json!({"retry-after": "600"})), second(1, quota(600)));
    add("429 for two hours", limited(&json!({"retry-after": "7200"})), second(1, quota(2 * HOUR)));

    // The upstream's, which may pass.
    for passing in [408, 409, 425, 499, 500, 501, 502, 503, 504, 522, 529, 599] {
        add(&passing.to_string(), status(passing), second(2, UNAVAILABLE));
    }
    let page = |status: u16| json!({"fault": "html", "status": status});
    add("502 with a page", page(502), second(2, UNAVAILABLE));
    add("503 with a page", page(503), second(2, UNAVAILABLE));
    add("403 with a page", page(403), second(1, INVALID));
    add("503 without a body", json!({"fault": "status", "status": 503, "body": ""}), second(2, UNAVAILABLE));

    // No answers, though no refusals either.
    for odd in [201, 202, 204, 206] {
        add(&odd.to_string(), json!({"fault": "status", "status": odd, "body": ""}), second(2, INVALID));
    }
    for moved in [301, 302, 307, 308] {
        let elsewhere = json!({"fault": "status", "status": moved, "headers": {"location": "/v1/elsewhere"}});
        add(&moved.to_string(), elsewhere, second(1, INVALID));
    }
    add("304", json!({"fault": "status", "status": 304, "body": ""}), second(1, INVALID));

    // The right answer, told wrongly.
    add("wrong content type", json!({"fault": "wrong-content-type"}), second(2, INVALID));
    let packed = json!({
        "fault": "status", "status": 200, "headers": {"content-encoding": "gzip"},
        "body": "{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}",
        "content_type": "application/json"
    });
    add("gzip claimed", packed, second(2, INVALID));
    rows
}
