//! What `freeway quotas` shows, and what warns of routes that will not last.

use serde_json::{Value, json};

use crate::gateway::{End, Gateway, Home, program};
use crate::http::Ask;
use crate::patience::until;
use crate::upstream::Upstream;

const LIMITS: &str = r#"models = [{ id = "a-model", limits = [
    { metric = "requests", window = "day", amount = 4, reset = "calendar" },
    { metric = "requests", amount = 50, reset = "never", expires = 2999-12-31 },
] }]"#;

/// The page of `freeway quotas` for who lives in a zone.
async fn page(home: &Home, zone: &str) -> String {
    let mut command = program();
    command.args(["quotas", "--config"]).arg(home.config()).env("TZ", zone);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn json(home: &Home, arguments: &[&str]) -> Value {
    let output = home.command(arguments).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A gateway, its folder, and another one whose configuration tells commands where it is: in its own, that would be
/// an edit.
async fn serve(text: &str) -> (Gateway, Home, Home) {
    let (served, asking) = (Home::new(text), Home::new(""));
    let gateway = served.serve().await;
    asking.write(text, &gateway.address.to_string());
    (gateway, served, asking)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_figure_has_its_source_and_the_rest_a_forecast() {
    let a = Upstream::with("a", LIMITS, |_| ()).await;
    let (gateway, _served, home) = serve(&a.table()).await;
    let quiet = json(&home, &["quotas", "--json"]).await;
    assert_eq!((&quiet["limits"][0]["pace_per_hour"], &quiet["limits"][0]["runs_dry"]), (&Value::Null, &Value::Null));
    for _ in 0..3 {
        let reply = gateway.ask(&Ask::chat("a/a-model", false)).await;
        assert_eq!(reply.head.status, 200, "{}", reply.everything());
    }
    let quotas = json(&home, &["quotas", "--json"]).await;
    let [day, credit] = [0, 1].map(|place| &quotas["limits"][place]);
    for limit in [day, credit] {
        assert_eq!(limit["sources"]["amount"], json!({"by": "configuration"}), "{quotas:#}");
        assert_eq!(limit["sources"]["used"], json!({"by": "gateway"}), "{quotas:#}");
        assert!(limit["pace_per_hour"].as_u64().unwrap() >= 3, "{quotas:#}");
    }
    assert_eq!((&day["used"], &day["left"], &day["lapses"]), (&json!(3), &json!(1), &Value::Null), "{quotas:#}");
    assert_eq!((&credit["left"], &credit["lapses"]), (&json!(47), &json!("3000-01-01T00:00:00Z")), "{quotas:#}");
    let instant = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no instant: {quotas:#}")).to_owned();
    // All instants have the same form, so that their order as text is theirs.
    assert!(instant(&quotas["at"]) < instant(&credit["runs_dry"]), "{quotas:#}");
    assert!(instant(&credit["runs_dry"]) < instant(&credit["lapses"]), "{quotas:#}");

    let page = page(&home, "Asia/Kolkata").await;
    let row = |name: &str| page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{page}"));
    let day = row("a/a-model requests per day ");
    // Midnight in UTC is half past five there.
    assert!(day.contains(" yours ") && day.contains("05:30 IST (in "), "{page}");
    assert!(row("a/a-model requests per ever ").contains("lapses 3000-01-01 05:30 IST (in "), "{page}");
    assert!(row("auto ").contains("all that it rests on ends"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_not_last_is_said_by_check_and_interface_and_once_in_the_log() {
    let a = Upstream::with("a", LIMITS, |_| ()).await;
    let credit = LIMITS.replace("amount = 50", "amount = 5").replace("amount = 4,", "amount = 400,");
    let b = Upstream::with("b", &credit.replace("a-model", "b-model"), |_| ()).await;
    let text = |targets: &str| format!("{}{}[aliases.smart]\ntargets = [{targets}]\n", a.table(), b.table());
    let ends = text("\"b/b-model\"");
    let home = Home::new(&ends);
    let output = home.command(&["check"]).await;
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    let warned = page.lines().find(|line| line.starts_with("warning   smart")).unwrap_or_else(|| panic!("{page}"));
    assert!(output.status.success() && warned.contains("b: the credit lapses at 3000-01-01"), "{page}");
    assert!(warned.contains("add a target whose quota comes back"), "{page}");
    let document = json(&home, &["check", "--json"]).await;
    assert_eq!(
        (&document["warnings"][0]["kind"], &document["warnings"][0]["route"]),
        (&json!("ends"), &json!("smart")),
        "{document:#}"
    );

    let (gateway, served, home) = serve(&ends).await;
    until("it is in the log", async || gateway.said().contains("WARN route_at_risk route=\"smart\"").then_some(()))
        .await;
    for _ in 0..5 {
        gateway.ask(&Ask::chat("smart", false)).await;
    }
    let kinds = async || {
        let quotas = json(&home, &["quotas", "--json"]).await;
        let kinds: Vec<String> =
            quotas["warnings"].as_array().unwrap().iter().map(|one| one["kind"].to_string()).collect();
        kinds
    };
    assert_eq!(kinds().await, ["\"ends\"", "\"credit_low\""]);
    // Any edit makes it look again: what was said already is not said twice.
    served.write(&format!("{ends}strategy = \"ordered\"\n"), "127.0.0.1:0");
    until("the credit is in the log", async || gateway.said().contains("WARN credit_ending").then_some(())).await;
    assert_eq!(gateway.said().matches("WARN route_at_risk").count(), 1, "{}", gateway.said());
    gateway.end(End::Terminate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_of_a_critical_alias_on_nothing_but_gifts() {
    let outside = |name: &str, more: &str| {
        format!(
            "[providers.{name}]\nbase_url = \"https://{name}.example/v1\"\nkeys = [\"sk-test-{name}\"]\n{more}\n\
             models = [{{ id = \"{name}-model\", price = {{ input = 1, output = 1 }} }}]\n"
        )
    };
    let config = |second: &str| {
        let (a, b) = (outside("a", "cost = \"free\""), outside("b", second));
        format!(
            "[server]\nkeys = [\"sk-test-operator\"]\n{a}{b}[aliases.smart]\ntargets = [\"a/a-model\", \"b/b-model\"]\n\
             [client_keys.shop]\nkey = \"sk-test-client-shop\"\ntier = \"critical\"\n"
        )
    };
    let page = Home::new(&config("cost = \"free\"")).command(&["check"]).await;
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    let told = "warning   smart          all that it rests on is free; requests of the client key shop to it are critical; \
                add a target at an account with plan = \"paid\", and let the tier's order have it\n";
    assert!(page.contains(told) && page.contains("ok  "), "{page}");
    let page = Home::new(&config("plan = \"paid\"")).command(&["check"]).await;
    assert!(!String::from_utf8_lossy(&page.stdout).contains("warning"), "{page:?}");
    assert!(page.status.success());
}
