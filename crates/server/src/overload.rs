//! More requests than can be served: counting them, and turning some away before anything of them is read.
//!
//! Requests under way are counted, from the gates to the last byte of the answer. What follows is decided in the policy
//! crate (`shed.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use freeway_dialect::ClientError;
use freeway_policy::{Caller, Rules, Standing, claim, standings};
use http::HeaderMap;

/// What is under way. Shared by all connections and editions.
#[derive(Debug, Default)]
pub(crate) struct Load {
    serving: AtomicUsize,
}

/// One request under way; it is over when this is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Load>);

/// By what requests of an edition are turned away.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    /// The bound on requests under way.
    most: usize,
    /// In the order of the tiers in the rules.
    standings: Vec<Standing>,
}

impl Doorkeeper {
    pub(crate) fn new(rules: &Rules, most: usize) -> Self {
        Self { most, standings: standings(&rules.tiers) }
    }

    /// Lets a request in whose head has come, or says which tier it is turned away for, with the error. A tier that its
    /// caller may not have does not help it.
    pub(crate) fn let_in<'a>(
        &self,
        load: &Arc<Load>,
        rules: &'a Rules,
        caller: Caller,
        headers: &HeaderMap,
    ) -> Result<Place, (&'a str, ClientError)> {
        let wished = headers.get("x-freeway-tier").map(|tier| tier.to_str().unwrap_or_default());
        let tier = claim(rules, caller, wished);
        let (place, others) = load.begin();
        let Some(standing) = self.standings.get(tier) else { return Ok(place) };
        if others < standing.room(self.most) {
            return Ok(place);
        }
        let name = rules.tiers[tier].name.as_str();
        Err((name, overloaded(name, *standing)))
    }
}

/// What the client is told.
fn overloaded(tier: &str, standing: Standing) -> ClientError {
    let message = format!("the gateway has more requests than it can serve; those of the tier `{tier}` have to wait");
    let mut error = ClientError::new(503, "server_is_overloaded", message);
    error.retry_after = Some(standing.retry_after());
    error.should_retry = true;
    error
}

impl Load {
    /// One more request is under way; says how many others are.
    fn begin(self: &Arc<Self>) -> (Place, usize) {
        let others = self.serving.fetch_add(1, Ordering::Relaxed);
        (Place(Arc::clone(self)), others)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.serving.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use freeway_policy::{ClientKeyRule, Tier};
    use freeway_types::{DataClass, Group};

    use std::time::Duration;

    use super::*;

    fn rules() -> Rules {
        let tier =
            |name: &str, value| Tier { name: name.to_owned(), order: vec![Group::Any], value, wait: Duration::ZERO };
        Rules {
            tiers: vec![tier("critical", 10.0), tier("standard", 3.0), tier("batch", 1.0)],
            data: DataClass::Public,
            client_keys: vec![ClientKeyRule { name: "ci".to_owned(), tier: Some("batch".to_owned()), data: None }],
        }
    }

    /// Lets a request of a tier in; gives the seconds after which it should come back if it was turned away.
    fn ask(load: &Arc<Load>, most: usize, caller: Caller, tier: &'static str) -> Result<Place, u64> {
        let mut headers = HeaderMap::new();
        headers.insert("x-freeway-tier", http::HeaderValue::from_static(tier));
        let rules = rules();
        Doorkeeper::new(&rules, most).let_in(load, &rules, caller, &headers).map_err(|(_, error)| {
            assert_eq!((error.status, error.code.as_ref(), error.should_retry), (503, "server_is_overloaded", true));
            error.retry_after.unwrap()
        })
    }

    #[test]
    fn the_lower_a_tier_the_sooner_it_finds_no_room() {
        let load = Arc::new(Load::default());
        let mut places = Vec::new();
        for (tier, room, retry_after) in [("batch", 4, 3), ("standard", 5, 2), ("critical", 6, 1)] {
            while let Ok(place) = ask(&load, 6, Caller::Operator, tier) {
                places.push(place);
            }
            assert_eq!(places.len(), room, "{tier}");
            assert_eq!(ask(&load, 6, Caller::Operator, tier).unwrap_err(), retry_after);
        }
        // Who is turned away takes no place, and who leaves gives one back.
        assert_eq!(load.serving.load(Ordering::Relaxed), 6);
        places.pop();
        assert!(ask(&load, 6, Caller::Operator, "critical").is_ok());
        places.clear();
        assert_eq!(load.serving.load(Ordering::Relaxed), 0);
        assert!(ask(&load, 6, Caller::Operator, "batch").is_ok());
    }

    #[test]
    fn a_key_cannot_claim_its_way_in() {
        let load = Arc::new(Load::default());
        let places: Vec<_> = (0..4).map(|_| ask(&load, 6, Caller::Operator, "batch")).collect();
        assert!(ask(&load, 6, Caller::Client(0), "critical").is_err());
        assert!(ask(&load, 6, Caller::Operator, "critical").is_ok());
        drop(places);
    }
}
