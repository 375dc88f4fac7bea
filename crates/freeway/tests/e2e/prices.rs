//! Prices in the running gateway: critical requests find quota that a chain would have spent, and everything tells why.

use std::time::Duration;

use freeway_engine::Clock;
use freeway_store::{Learned, Sqlite, Store};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::gateway::{End, Gateway, Home};
use crate::http::Ask;
use crate::patience::until;
use crate::upstream::{Upstream, in_order};

/// In each second so many requests come, of which the last is critical; two a second can be served.
const A_SECOND: usize = 10;
const SECONDS: usize = 15;
const FACTS: &str =
    r#"models = [{ id = "lab-model", limits = [{ metric = "requests", window = "5s", amount = 10 }] }]"#;

/// A target, a gateway before it, and the folder of that.
struct Scene {
    upstream: Upstream,
    gateway: Gateway,
    home: Home,
}

fn ask(tier: &str) -> Ask {
    Ask::chat("pair", false).header("x-freeway-tier", tier)
}

/// A gateway that has seen such days before.
async fn scene(strategy: &str) -> Scene {
    let upstream = Upstream::with("lab", FACTS, |_| ()).await;
    let config = in_order(&[&upstream]).replace("\"ordered\"", &format!("\"{strategy}\""));
    let home = Home::new(&format!("{config}[store]\nurl = \"sqlite:ledger.db\"\n"));
    // What requests of both tiers look like to a forecast, it says itself.
    let gateway = home.serve().await;
    for tier in ["critical", "standard"] {
        assert_eq!(gateway.ask(&ask(tier)).await.head.status, 200);
    }
    gateway.end(End::Terminate).await;
    pretend(&home);
    let gateway = home.serve().await;
    // Prices are worked out as soon as somebody goes by them.
    gateway.ask(&ask("standard")).await;
    until("there are prices", async || gateway.said().contains("priced groups=2 limits=1").then_some(())).await;
    Scene { upstream, gateway, home }
}

/// Makes what the ledger knows of the demand more: a day and a night of hours with as much as is going to come.
fn pretend(home: &Home) {
    let ledger = Sqlite::open(&home.path().join("ledger.db")).unwrap();
    let seen = ledger.learned("demand").unwrap();
    let mut cells: Vec<Value> =
        seen.iter().flat_map(|row| serde_json::from_str::<Vec<Value>>(row.value.as_ref().unwrap()).unwrap()).collect();
    for cell in &mut cells {
        let a_second = if cell["tier"] == "critical" { 1 } else { A_SECOND - 1 };
        let sums: Vec<f64> = cell["sums"].as_array().unwrap().iter().map(|sum| sum.as_f64().unwrap()).collect();
        let factor = f64::from(u32::try_from(a_second * 3_600).unwrap()) / sums[0];
        cell["sums"] = json!(sums.iter().map(|sum| sum * factor).collect::<Vec<_>>());
    }
    assert_eq!(cells.len(), 2, "one kind of each tier");
    let now = Clock::start().now().wall;
    let hour = now.as_secs() / 3_600;
    let row = |hour: i64| Learned {
        kind: "demand".to_owned(),
        name: hour.to_string(),
        value: Some(json!(cells).to_string()),
        at: now,
    };
    ledger.write(&[], &(hour - 36..=hour).map(row).collect::<Vec<_>>()).unwrap();
}

/// How many critical and how many other requests are served in a time of flood.
async fn flood(scene: &Scene) -> [usize; 2] {
    let mut replies = JoinSet::new();
    let address = scene.gateway.address;
    for number in 1..=SECONDS * A_SECOND {
        let tier = if number % A_SECOND == 0 { "critical" } else { "standard" };
        replies.spawn(async move {
            let mut connection = crate::http::Connection::open(address).await;
            connection.send(&ask(tier).bytes(address)).await;
            let reply = connection.reply().await;
            assert!(matches!(reply.head.status, 200 | 429), "{}", reply.everything());
            (usize::from(tier != "critical"), usize::from(reply.head.status == 200))
        });
        tokio::time::sleep(Duration::from_secs(1) / u32::try_from(A_SECOND).unwrap()).await;
    }
    let mut served = [0, 0];
    while let Some(reply) = replies.join_next().await {
        let (tier, was_served) = reply.unwrap();
        served[tier] += was_served;
    }
    served
}

#[tokio::test(flavor = "multi_thread")]
async fn critical_requests_are_served_that_a_chain_loses() {
    let (priced, plain) = tokio::join!(scene("price"), async {
        let upstream = Upstream::with("lab", FACTS, |_| ()).await;
        let home = Home::new(&in_order(&[&upstream]));
        let gateway = home.serve().await;
        Scene { upstream, gateway, home }
    });
    let ([critical, others], [lost, _]) = tokio::join!(flood(&priced), flood(&plain));
    assert!(critical * 10 >= SECONDS * 9, "with prices {critical} of {SECONDS} critical requests, and {others} others");
    assert!(others > 0, "what critical requests leave is not wasted");
    assert!(lost * 2 <= SECONDS, "in order of the list {lost} of {SECONDS} critical requests");
    for Scene { upstream, .. } in [&priced, &plain] {
        assert!(upstream.sim.log().iter().all(|seen| !seen.overrun), "no limit was overrun");
    }
    drop((priced.home, plain.home));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_is_explained() {
    let Scene { gateway, upstream, .. } = scene("price").await;
    let body = r#"{"model":"pair","messages":[{"role":"user","content":"the tide is out"}]}"#;
    let explained = gateway.ask(&Ask::post("/freeway/v1/explain", body)).await.json();
    let candidate = &explained["candidates"][0];
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number: {explained:#}"));
    assert_eq!((&candidate["target"], number(&candidate["value"])), (&json!("lab/lab-model"), 3.0), "{explained:#}");
    let limit = &candidate["limits"][0];
    assert_eq!((&limit["limit"], &limit["amount"]), (&json!("lab/lab-model requests per 5s"), &json!(1)));
    let takes = number(&limit["takes"]);
    assert!((number(&limit["price"]) - takes).abs() < 1e-3 && takes > 1.0, "{explained:#}");
    assert!((number(&candidate["gain"]) - (3.0 - takes)).abs() < 2e-3, "{explained:#}");
    let quotas = gateway.document("/freeway/v1/quotas").await;
    assert!((number(&quotas["limits"][0]["price"]) - takes).abs() < 1e-3, "{quotas:#}");
    assert_eq!(upstream.asked(), 3, "nothing was sent but what the history was made from");
    assert_eq!(number(&candidate["reliability"]).to_bits(), 1.0_f64.to_bits(), "{explained:#}");

    // A target that fails is worth less for a while.
    upstream.always(r#"{"fault":"status","status":500}"#);
    assert_eq!(gateway.ask(&ask("critical")).await.head.status, 503);
    let failed = upstream.asked() - 3;
    let explained = gateway.ask(&Ask::post("/freeway/v1/explain", body)).await.json();
    let candidate = &explained["candidates"][0];
    let share = number(&candidate["reliability"]);
    let (answered, failed) = (8.0 + 1.0, f64::from(u32::try_from(failed).unwrap()));
    assert!((share - answered / (answered + failed)).abs() < 0.01, "{failed} failed: {explained:#}");
    let takes = number(&candidate["limits"][0]["takes"]);
    assert!((number(&candidate["gain"]) - (3.0 * share - takes)).abs() < 3e-3, "{explained:#}");
}
