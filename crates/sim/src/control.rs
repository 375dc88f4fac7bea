//! The simulator's own routes, for tests in other languages: faults in, the log out.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::script::{self, Step};
use crate::sim::{Inner, lock};
use crate::wire::Request;

pub(crate) fn answer(inner: &Inner, request: &Request) -> Vec<Step> {
    let path = request.path.split('?').next().unwrap_or_default();
    match (request.method.as_str(), path) {
        ("POST", "/sim/faults") => match serde_json::from_slice::<Vec<Fault>>(&request.body) {
            Ok(faults) => {
                let count = faults.len();
                inner.set_faults(faults);
                done(&json!({ "faults": count }))
            }
            Err(error) => wrong(&error.to_string()),
        },
        ("POST", "/sim/revoke") => match serde_json::from_slice::<Revoke>(&request.body) {
            Ok(Revoke { key }) => {
                inner.revoke(&key);
                done(&json!({ "revoked": true }))
            }
            Err(error) => wrong(&error.to_string()),
        },
        ("GET", "/sim/log") => done(&json!(lock(&inner.log).entries())),
        ("GET", "/sim/limits") => {
            let states = lock(&inner.book).states(inner.clock.now());
            done(&json!({ "overruns": inner.overruns(), "limits": states }))
        }
        _ => script::whole_json(404, Vec::new(), &json!({ "error": "the simulator has no such route" })),
    }
}

#[derive(Deserialize)]
struct Revoke {
    key: String,
}

fn done(body: &Value) -> Vec<Step> {
    script::whole_json(200, Vec::new(), body)
}

fn wrong(message: &str) -> Vec<Step> {
    script::whole_json(400, Vec::new(), &json!({ "error": message }))
}
