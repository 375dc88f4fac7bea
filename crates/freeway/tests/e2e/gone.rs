//! A client that leaves takes the upstream's work with it, in whatever phase, and
//! stands in the ledger.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::http::Ask;
use crate::patience::{each, until};
use crate::upstream::Upstream;

/// How soon the upstream must know.
const SOON: Duration = Duration::from_millis(250);

/// Where a request is when its client leaves.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Head,
    FirstContent,
    MidStream,
    WholeAnswer,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    Closes,
    /// Only says that nothing more will come, which is what a client's kernel says for it when it dies.
    HalfCloses,
}

async fn check((phase, leaves): (Phase, Leaves)) {
    let context = format!("{phase:?} {leaves:?}");
    let limited = "models = [{ id = \"a-model\", limits = [{ metric = \"concurrency\", amount = 1 }] }]";
    let a = Upstream::with("a", limited, |_| ()).await;
    a.once(match phase {
        Phase::Head => r#"{"fault":"silence"}"#,
        Phase::FirstContent => r#"{"fault":"stall","after_events":1}"#,
        Phase::MidStream => r#"{"fault":"stall","after_events":4}"#,
        Phase::WholeAnswer => r#"{"fault":"stall"}"#,
    });
    let gateway = Gateway::start(&a.table()).await;
    let stream = !matches!(phase, Phase::WholeAnswer);
    let mut client = gateway.send(&Ask::chat("a/a-model", stream)).await;
    until("the upstream is at work", async || {
        let log = a.sim.log();
        let entry = log.first()?;
        (matches!(phase, Phase::Head) || entry.status.is_some()).then_some(())
    })
    .await;
    if matches!(phase, Phase::MidStream) {
        client.head().await.unwrap();
        while !String::from_utf8_lossy(&client.piece().await.unwrap().unwrap()).contains("the ") {}
    }

    let left = Instant::now();
    match leaves {
        Leaves::Closes => drop(client),
        Leaves::HalfCloses => client.finish().await,
    }
    until("the upstream knows", async || a.sim.log()[0].cancelled().then_some(())).await;
    let took = left.elapsed();
    assert!(took <= SOON, "{context}: the upstream worked on for {took:?}");

    let request = until("the ledger knows", async || {
        gateway.document("/freeway/v1/requests").await["requests"].as_array()?.first().cloned()
    })
    .await;
    assert_eq!(request["outcome"], "cancelled", "{context}: {request}");
    assert_eq!(request["status"], 499, "{context}: {request}");
    let id = request["id"].as_str().unwrap();
    let whole = gateway.document(&format!("/freeway/v1/requests/{id}")).await;
    let attempts: Vec<&Value> = whole["attempts"].as_array().unwrap().iter().collect();
    assert_eq!(attempts.len(), 1, "{context}: {whole}");
    assert_eq!(attempts[0]["outcome"], "cancelled", "{context}: {whole}");
    assert_eq!(attempts[0]["usage_source"], "estimated", "{context}: {whole}");

    // The one place that there is has been given back.
    let next = gateway.ask(&Ask::chat("a/a-model", false)).await;
    assert_eq!(next.head.status, 200, "{context}: {}", next.everything());
    assert_eq!(a.sim.overruns(), 0, "{context}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_cancelled_at_once_and_the_ledger_knows() {
    let phases = [Phase::Head, Phase::FirstContent, Phase::MidStream, Phase::WholeAnswer];
    let ways = [Leaves::Closes, Leaves::HalfCloses];
    each(phases.into_iter().flat_map(|phase| ways.map(|leaves| (phase, leaves))), check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_between_two_attempts_causes_no_second_one() {
    let a = Upstream::new("a").await;
    a.always(r#"{"fault":"status","status":429,"headers":{"retry-after":"2"}}"#);
    let gateway = Gateway::start(&a.table()).await;
    let client = gateway.send(&Ask::chat("a/a-model", false)).await;
    until("the first attempt is refused", async || (a.asked() == 1 && a.sim.log()[0].ended_ms.is_some()).then_some(()))
        .await;
    drop(client);
    let request = until("the ledger knows", async || {
        gateway.document("/freeway/v1/requests").await["requests"].as_array()?.first().cloned()
    })
    .await;
    assert_eq!(request["outcome"], "cancelled", "{request}");
    assert_eq!(a.asked(), 1);
}
