//! More requests than can be served: measuring it, and turning some away before anything of them is read.
//!
//! Two things are measured. Requests under way are counted, from the gates to the last byte of the answer. And a task
//! looks every few milliseconds how long work that is ready waits for one of the runtime's threads: beyond what the
//! processor can do, the queue stands there and in the sockets, where no request can be counted. What follows from both
//! is decided in the policy crate (`shed.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use freeway_dialect::ClientError;
use freeway_policy::{Caller, Pressure, Rules, Standing, claim, standings};
use http::HeaderMap;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Between two looks while there are requests.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The same while there are none, so that an idle gateway sleeps.
const LOOK_IDLE: Duration = Duration::from_millis(50);
/// Tasks that a thread's own queue holds at least once it has overflowed: half of the runtime's 256.
const THREAD_QUEUE: f64 = 128.0;
/// Pressure is kept in so many parts.
const PARTS: f64 = 65_536.0;
/// Steps of this size, taken around a circle of all the numbers, come to lie evenly on it, whoever takes every second
/// or every third: the golden section of 2^32.
const GOLDEN: u32 = 0x9e37_79b9;

/// What is under way, and how hard it is to keep up with it. Shared by all connections and editions.
#[derive(Debug, Default)]
pub(crate) struct Load {
    serving: AtomicUsize,
    /// Pressure, in parts.
    pressure: AtomicU32,
    /// Where on the circle the next request is drawn.
    turn: AtomicU32,
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
        if others < standing.room(self.most) && !load.is_drawn(standing.shed(load.pressure())) {
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

/// How many times the queue of a thread more is waiting in the one that all threads share. What does not fit a thread's
/// own queue is moved there, and taken from there only now and then; who yields is not, and would not notice.
fn crowd() -> f64 {
    let metrics = Handle::current().metrics();
    let waiting = u32::try_from(metrics.global_queue_depth()).unwrap_or(u32::MAX);
    let threads = u32::try_from(metrics.num_workers()).unwrap_or(1).max(1);
    f64::from(waiting) / (f64::from(threads) * THREAD_QUEUE)
}

impl Load {
    /// Looks how hard it is to keep up, for ever.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut pressure = Pressure::default();
        loop {
            let idle = self.serving.load(Ordering::Relaxed) == 0 && pressure.level() == 0.0;
            tokio::time::sleep(if idle { LOOK_IDLE } else { LOOK_EVERY }).await;
            // Whoever yields comes behind all that is ready now and all that the sockets have ready when they are next
            // asked: as long as that takes, a request that arrives now would wait.
            let ready = Instant::now();
            tokio::task::yield_now().await;
            pressure.observe(ready.elapsed().mul_f64(1.0 + crowd()));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a level lies between 0 and 1")]
            let parts = (pressure.level() * PARTS) as u32;
            self.pressure.store(parts, Ordering::Relaxed);
        }
    }

    fn pressure(&self) -> f64 {
        f64::from(self.pressure.load(Ordering::Relaxed)) / PARTS
    }

    /// One more request is under way; says how many others are.
    fn begin(self: &Arc<Self>) -> (Place, usize) {
        let others = self.serving.fetch_add(1, Ordering::Relaxed);
        (Place(Arc::clone(self)), others)
    }

    /// Whether the next request belongs to this share of all.
    fn is_drawn(&self, share: f64) -> bool {
        // Mostly nobody is drawn, and then no line of memory has to be fetched from another core for it.
        share > 0.0 && f64::from(self.turn.fetch_add(GOLDEN, Ordering::Relaxed)) < share * (f64::from(u32::MAX) + 1.0)
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
        load.pressure.store(65_536 / 3, Ordering::Relaxed);
        let places: Vec<_> = (0..100).map(|_| ask(&load, 2000, Caller::Client(0), "critical").is_ok()).collect();
        assert!(places.iter().filter(|came_in| **came_in).count() <= 1, "{places:?}");
        assert!(ask(&load, 2000, Caller::Operator, "critical").is_ok());
    }

    #[test]
    fn the_share_that_is_shed_is_spread_evenly() {
        let load = Arc::new(Load::default());
        // Batch goes whole, and of standard four in ten.
        load.pressure.store(30_583, Ordering::Relaxed);
        let mut refused = [0_u32; 3];
        for turn in 0..3000 {
            let tier = turn % 3;
            let name = ["critical", "standard", "batch"][tier];
            refused[tier] += u32::from(ask(&load, 2000, Caller::Operator, name).is_err());
        }
        assert_eq!((refused[0], refused[2]), (0, 1000), "{refused:?}");
        assert!((395..=405).contains(&refused[1]), "{refused:?}");
    }

    /// One thread, and work for it that does not end: what waits shows, and no longer once the work is done.
    #[tokio::test]
    async fn work_that_waits_shows_as_pressure() {
        let load = Arc::new(Load::default());
        let watching = tokio::spawn(Arc::clone(&load).watch());
        let (working, rest) = tokio::sync::watch::channel(true);
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let rest = rest.clone();
            workers.spawn(async move {
                while *rest.borrow() {
                    let begun = Instant::now();
                    while begun.elapsed() < Duration::from_millis(2) {
                        std::hint::spin_loop();
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        let reaches = async |enough: fn(f64) -> bool| {
            let begun = Instant::now();
            while !enough(load.pressure()) {
                assert!(begun.elapsed() < Duration::from_secs(20), "pressure is {}", load.pressure());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        reaches(|pressure| pressure > 0.9).await;
        working.send_replace(false);
        reaches(|pressure| pressure == 0.0).await;
        watching.abort();
    }
}
