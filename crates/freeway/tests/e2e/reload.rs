//! The configuration is edited while requests are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::gateway::{Gateway, Home};
use crate::http::Ask;
use crate::patience::until;
use crate::upstream::{Upstream, in_order};

/// How often the gateway says that it has taken an edit in.
fn reloads(gateway: &Gateway) -> usize {
    gateway.said().matches(" reloaded ").count()
}

/// Writes a configuration anew and waits until it is in force.
async fn edit(home: &Home, gateway: &Gateway, text: &str) {
    let before = reloads(gateway);
    home.write(text, "127.0.0.1:0");
    until("the edit is taken in", async || (reloads(gateway) > before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_under_load_fails_no_request_and_ends_all_traffic_to_what_it_removes() {
    let slow = |config: &mut freeway_sim::SimConfig| config.pace = Duration::from_millis(10);
    let model = |id: &str| format!("models = [{{ id = \"{id}-model\" }}]");
    let a = Upstream::with("a", &model("a"), slow).await;
    let b = Upstream::with("b", &model("b"), slow).await;
    let both = in_order(&[&a, &b]);
    let only_b = format!("{}[aliases.pair]\ntargets = [\"b/b-model\"]\nstrategy = \"ordered\"\n", b.table());
    let home = Home::new(&both);
    let gateway = Arc::new(home.serve().await);

    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..40)
        .map(|_| {
            let (gateway, stop) = (Arc::clone(&gateway), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut streams = 0;
                while streams < 5 || !stop.load(Ordering::Relaxed) {
                    let reply = gateway.ask(&Ask::chat("pair", true)).await;
                    assert_eq!(reply.head.status, 200, "{}", reply.everything());
                    assert!(reply.text().ends_with("data: [DONE]\n\n"), "{}", reply.text());
                    streams += 1;
                }
                streams
            })
        })
        .collect();
    until("there is load", async || (a.asked() > 40).then_some(())).await;
    edit(&home, &gateway, &only_b).await;
    let asked = a.asked();
    let asked_b = b.asked();
    until("traffic goes on", async || (b.asked() > asked_b + 80).then_some(())).await;
    assert_eq!(a.asked(), asked, "the removed target gets nothing more");
    stop.store(true, Ordering::Relaxed);
    let mut streams = 0;
    for worker in workers {
        streams += worker.await.unwrap();
    }
    assert!(streams >= 200, "{streams}");
    let refused = gateway.ask(&Ask::chat("a/a-model", false)).await;
    assert_eq!(refused.head.status, 404, "its name is gone too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_leaves_everything_as_it_was_and_is_shown_with_its_place() {
    let a = Upstream::new("a").await;
    let home = Home::new(&a.table());
    let gateway = home.serve().await;
    home.write(&format!("{}\n[aliases.pair]\ntarget = [\"a/a-model\"]\n", a.table()), "127.0.0.1:0");
    until("the mistake is shown", async || gateway.said().contains("did you mean `targets`?").then_some(())).await;
    assert!(
        gateway.said().contains("reload_refused") && gateway.said().contains("freeway.toml:"),
        "{}",
        gateway.said()
    );
    assert_eq!(gateway.ask(&Ask::chat("a/a-model", false)).await.head.status, 200);
    assert_eq!(gateway.ask(&Ask::chat("pair", false)).await.head.status, 404, "no part of it is taken");
    edit(&home, &gateway, &in_order(&[&a])).await;
    assert_eq!(gateway.ask(&Ask::chat("pair", false)).await.head.status, 200, "mended, it is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_their_counts_survive() {
    let limited = |amount: u32| {
        format!(
            "models = [{{ id = \"a-model\", limits = [{{ metric = \"requests\", window = \"day\", amount = {amount} }}] }}]"
        )
    };
    let a = Upstream::with("a", "models = [{ id = \"a-model\" }]", |_| ()).await;
    let config = |amount: u32| a.table().replace("models = [{ id = \"a-model\" }]", &limited(amount));
    let home = Home::new(&config(5));
    let gateway = home.serve().await;
    let ask = async || gateway.ask(&Ask::chat("a/a-model", false)).await.head.status;
    assert_eq!([ask().await, ask().await, ask().await], [200; 3]);
    edit(&home, &gateway, &config(4)).await;
    assert_eq!([ask().await, ask().await], [200, 429], "a smaller amount takes effect at once");
    edit(&home, &gateway, &config(6)).await;
    assert_eq!([ask().await, ask().await, ask().await], [200, 200, 429], "a larger one resets nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_an_edit_adds_counts_what_was_used_before() {
    let a = Upstream::with("a", "models = [{ id = \"a-model\" }]", |_| ()).await;
    let home = Home::new(&a.table());
    let gateway = home.serve().await;
    let ask = async || gateway.ask(&Ask::chat("a/a-model", false)).await.head.status;
    assert_eq!([ask().await, ask().await, ask().await], [200; 3]);
    let limit = "{ metric = \"requests\", window = \"day\", amount = 4 }";
    let limited = format!("models = [{{ id = \"a-model\", limits = [{limit}] }}]");
    edit(&home, &gateway, &a.table().replace("models = [{ id = \"a-model\" }]", &limited)).await;
    assert_eq!([ask().await, ask().await], [200, 429]);
}
