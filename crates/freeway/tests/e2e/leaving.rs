//! Clients that leave at any instant, drawn from a seed (`FREEWAY_SEED`, 1): whatever a request is doing then, its
//! upstream is let go within a quarter of a second, and the ledger has it once.
//!
//! Each client calls a model of its own, so that what the provider saw and what the ledger says are held against each
//! other request by request.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use freeway_sim::LogEntry;
use serde_json::Value;
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::http::Ask;
use crate::patience::{each, until};
use crate::upstream::Upstream;

const CLIENTS: u64 = 150;
/// How soon the upstream must be let go.
const SOON: Duration = Duration::from_millis(250);
/// What a machine that runs other tests meanwhile may add to it.
const SLACK: Duration = Duration::from_millis(750);
/// An answer takes this long to begin, and this long between its dozen pieces.
const FIRST_BYTE: Duration = Duration::from_millis(60);
const PACE: Duration = Duration::from_millis(8);

/// When a client leaves.
#[derive(Clone, Copy, Debug)]
enum When {
    /// When it has sent this part of its request, in thousandths.
    Sent(usize),
    /// So long after it has sent it, while the head and the first content are waited for, or the rest.
    After(Duration),
    /// When so many pieces of the answer have come, or all of it.
    Pieces(u64),
}

#[derive(Clone, Copy, Debug)]
struct Client {
    number: u64,
    when: When,
    stream: bool,
    /// Only says that nothing more will come.
    half_closes: bool,
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn client(&mut self, number: u64) -> Client {
        let when = match self.below(10) {
            0 | 1 => When::Sent(usize::try_from(self.below(1001)).unwrap()),
            2..6 => When::After(Duration::from_micros(self.below(250_000))),
            _ => When::Pieces(self.below(16)),
        };
        Client { number, when, stream: self.below(3) > 0, half_closes: self.below(3) == 0 }
    }
}

fn model(number: u64) -> String {
    format!("model-{number}")
}

/// What the provider saw of a client's request, if anything.
fn seen(a: &Upstream, number: u64) -> Option<LogEntry> {
    let model = model(number);
    a.sim.log().into_iter().find(|entry| entry.model.as_deref() == Some(&model))
}

/// Plays one client, and sees to it that its upstream is let go in time.
async fn play(gateway: &Gateway, a: &Upstream, client: Client) {
    let ask = Ask::chat(&format!("a/{}", model(client.number)), client.stream).bytes(gateway.address);
    let mut connection = match client.when {
        When::Sent(part) => gateway.send_bytes(&ask[..ask.len() * part / 1000]).await,
        When::After(_) | When::Pieces(_) => gateway.send_bytes(&ask).await,
    };
    match client.when {
        When::Sent(_) => {}
        // This is when it leaves, not how long something takes.
        When::After(wait) => tokio::time::sleep(wait).await,
        When::Pieces(pieces) => {
            let head = connection.head().await.unwrap_or_else(|| panic!("{client:?}: an answer"));
            assert_eq!(head.status, 200, "{client:?}");
            for _ in 0..pieces {
                if matches!(connection.piece().await, Ok(None)) {
                    break;
                }
            }
        }
    }
    let left = Instant::now();
    let half_open = match client.half_closes {
        true => {
            connection.finish().await;
            Some(connection)
        }
        false => {
            drop(connection);
            None
        }
    };
    // A request that was all there may still arrive just after its client has left, and be let go then.
    until("the upstream is let go", async || {
        let over = seen(a, client.number).is_none_or(|entry| entry.ended_ms.is_some());
        (over && left.elapsed() >= SOON || !over && left.elapsed() > SOON + SLACK).then_some(())
    })
    .await;
    let entry = seen(a, client.number);
    assert!(
        entry.is_none_or(|entry| entry.ended_ms.is_some()),
        "{client:?}: the upstream works on after {:?}",
        left.elapsed()
    );
    drop(half_open);
}

/// What the ledger says of each model's requests, with their attempts.
async fn ledger(gateway: &Gateway) -> BTreeMap<String, Vec<Value>> {
    let mut rows: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let list = gateway.document("/freeway/v1/requests?limit=500").await;
    for row in list["requests"].as_array().unwrap() {
        let id = row["id"].as_str().unwrap();
        let whole = gateway.document(&format!("/freeway/v1/requests/{id}")).await;
        rows.entry(row["model"].as_str().unwrap().to_owned()).or_default().push(whole);
    }
    rows
}

/// Holds the ledger's word on one request against what the provider saw. Gives how it ended.
fn check(client: Client, entry: Option<&LogEntry>, rows: &[Value]) -> String {
    let context = format!("{client:?}: {rows:?} {entry:?}");
    let [row] = rows else {
        // Without a row, nothing was sent for it. So it is with all that left before the whole request was there.
        assert!(rows.is_empty() && entry.is_none(), "{context}");
        return "never there".to_owned();
    };
    let attempts = row["attempts"].as_array().unwrap();
    let outcome = row["outcome"].as_str().unwrap();
    assert!(
        matches!((outcome, row["status"].as_u64()), ("answered", Some(200)) | ("cancelled", Some(499))),
        "{context}"
    );
    let Some(entry) = entry else {
        assert_eq!(outcome, "cancelled", "{context}");
        // A connection may have been on its way, but no request over it.
        assert!(attempts.len() <= 1, "{context}");
        return "not sent".to_owned();
    };
    assert_eq!(attempts.len(), 1, "{context}");
    let attempt = &attempts[0];
    assert_eq!(attempt["outcome"], outcome, "{context}");
    let source = attempt["usage_source"].as_str().unwrap();
    assert!(["reported", "estimated"].contains(&source), "{context}");
    if source == "reported" {
        let (input, output) = entry.booked.unwrap_or_else(|| panic!("{context}"));
        let counted = (attempt["usage"]["input"].as_u64(), attempt["usage"]["output"].as_u64());
        assert_eq!(counted, (Some(input), Some(output)), "{context}");
    }
    if entry.cancelled() {
        // What the provider could not finish, nobody got whole; all but the end marker may have passed, usage included.
        assert_eq!(outcome, "cancelled", "{context}");
    } else if outcome == "answered" {
        assert_eq!(source, "reported", "{context}");
    }
    outcome.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_at_whatever_instant_is_let_go_and_stands_in_the_ledger() {
    #[expect(clippy::disallowed_methods, reason = "the seed of a failure is played again by hand")]
    let seed = std::env::var("FREEWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut dice = Dice(seed);
    let clients: Vec<Client> = (0..CLIENTS).map(|number| dice.client(number)).collect();
    let models: Vec<String> = (0..CLIENTS).map(|number| format!("{{ id = \"{}\" }}", model(number))).collect();
    let a = Upstream::with("a", &format!("models = [{}]", models.join(", ")), |config| {
        config.first_byte = FIRST_BYTE;
        config.pace = PACE;
    })
    .await;
    let a = Rc::new(a);
    let gateway = Rc::new(Gateway::start(&a.table()).await);
    each(clients.iter().copied(), |client| {
        let (gateway, a) = (Rc::clone(&gateway), Rc::clone(&a));
        async move { play(&gateway, &a, client).await }
    })
    .await;

    until("nothing is under way", async || {
        let quotas = gateway.document("/freeway/v1/quotas").await;
        quotas["limits"].as_array()?.iter().all(|limit| limit["held"] == 0).then_some(())
    })
    .await;
    let log = a.sim.log();
    let rows = until("the ledger has every request that was sent", async || {
        let rows = ledger(&gateway).await;
        let there = |entry: &LogEntry| rows.contains_key(&format!("a/{}", entry.model.as_deref().unwrap_or_default()));
        log.iter().all(there).then_some(rows)
    })
    .await;
    assert_eq!(a.asked(), log.len(), "something was sent for a client that had left");
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for client in clients {
        let name = model(client.number);
        let entry = log.iter().find(|entry| entry.model.as_deref() == Some(&name));
        let rows = rows.get(&format!("a/{name}")).map(Vec::as_slice).unwrap_or_default();
        *outcomes.entry(check(client, entry, rows)).or_default() += 1;
    }
    println!("seed {seed}: {outcomes:?}");
    assert!(outcomes.get("cancelled").is_some_and(|count| *count > CLIENTS / 4), "{outcomes:?}");
}
