//! The program's other commands, and how it begins and ends.

use std::process::Output;

use serde_json::Value;

use crate::gateway::{End, Gateway, Home, complaint, program, stdout};
use crate::http::Ask;
use crate::upstream::{Upstream, in_order};

const KEY: &str = "sk-test-operator";

fn json(output: &Output) -> Value {
    let text = stdout(output);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A gateway that other commands can find: its configuration names the port that it got.
async fn found(text: &str) -> (Home, Gateway) {
    let home = Home::new(text);
    let gateway = home.serve().await;
    home.write(text, &gateway.address.to_string());
    (home, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_ask_the_running_gateway() {
    let limit =
        "models = [{ id = \"a-model\", limits = [{ metric = \"requests\", window = \"day\", amount = 1500 }] }]";
    let (a, b) = (Upstream::with("a", limit, |_| ()).await, Upstream::new("b").await);
    let (home, gateway) = found(&format!("[server]\nkeys = [\"{KEY}\"]\n{}", in_order(&[&a, &b]))).await;
    a.always(r#"{"fault":"status","status":403,"body":{"error":{"message":"not from your country"}}}"#);
    let reply = gateway.ask(&Ask::chat("pair", false).key(KEY)).await;
    let id = reply.head.header("x-freeway-request-id").unwrap();

    let request = crate::patience::until("the ledger knows", async || {
        let output = home.command(&["explain", id, "--json"]).await;
        output.status.success().then(|| json(&output))
    })
    .await;
    assert_eq!(request["served_by"], "b/b-model", "{request:#}");
    let page = stdout(&home.command(&["explain", id]).await);
    for expected in [id, "b/b-model", "a/a-model", "not from your country", "served by"] {
        assert!(page.contains(expected), "{expected}: {page}");
    }

    let body = home.path().join("body.json");
    std::fs::write(&body, r#"{"model":"pair","messages":[{"role":"user","content":"hello"}]}"#).unwrap();
    let body = body.to_str().unwrap();
    let plan = json(&home.command(&["explain", "--body", body, "--data", "secret", "--json"]).await);
    assert_eq!((&plan["data"], &plan["candidates"][0]["kept"]), (&"secret".into(), &false.into()), "{plan:#}");
    let page = stdout(&home.command(&["explain", "--body", body, "--tier", "batch"]).await);
    assert!(page.contains("nothing was sent") && page.contains("tier batch") && page.contains("1. choice"), "{page}");

    let quotas = json(&home.command(&["quotas", "--json"]).await);
    let limit = &quotas["limits"][0];
    assert_eq!((&limit["amount"], &limit["used"]), (&1500.into(), &1.into()), "{quotas:#}");
    let page = stdout(&home.command(&["quotas"]).await);
    assert!(page.contains("a/a-model") && page.contains("1,500") && page.contains("1,499"), "{page}");

    for (by, name) in [("provider", "b"), ("model", "b/b-model"), ("key", "operator"), ("day", "20")] {
        let usage = json(&home.command(&["usage", "--by", by, "--json"]).await);
        let rows = usage["rows"].as_array().unwrap();
        assert_eq!(rows.iter().filter_map(|row| row["answered"].as_u64()).sum::<u64>(), 1, "{by}: {usage:#}");
        let page = stdout(&home.command(&["usage", "--by", by]).await);
        assert!(page.contains(name), "{by}: {page}");
    }
    assert_eq!(a.asked() + b.asked(), 2, "no command sends anything to a provider");

    gateway.end(End::Terminate).await;
    for command in [&["quotas"][..], &["usage"], &["explain", id], &["explain", "--body", body]] {
        let said = complaint(&home.command(command).await);
        assert!(said.contains("no gateway answers") && said.contains("freeway serve"), "{command:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_request_is_said_to_be_unknown() {
    let a = Upstream::new("a").await;
    let (home, _gateway) = found(&in_order(&[&a])).await;
    let said = complaint(&home.command(&["explain", "req_00000000000000000000000000"]).await);
    assert!(said.contains("no such request"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_checked_without_serving() {
    let a = Upstream::new("a").await;
    let home = Home::new(&in_order(&[&a]));
    let page = stdout(&home.command(&["check"]).await);
    assert!(page.contains("ok ") && page.contains("pair") && page.contains("a/a-model"), "{page}");
    assert!(!page.contains("sk-test-upstream"), "{page}");
    let document = json(&home.command(&["check", "--json"]).await);
    assert_eq!(
        (&document["providers"][0]["provider"], &document["keys_set"]),
        (&"a".into(), &false.into()),
        "{document:#}"
    );
}

/// Writes a file beside a home's configuration; gives its path.
fn beside(home: &Home, name: &str, text: &str) -> String {
    let path = home.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_compared_with_the_file_before_it() {
    let limited = |amount: u32| {
        format!(
            "models = [{{ id = \"a-model\", limits = [{{ metric = \"requests\", window = \"day\", amount = {amount} }}] }}]"
        )
    };
    let a = Upstream::with("a", &limited(5), |_| ()).await;
    let home = Home::new(&a.table());
    let old = beside(&home, "old.toml", &std::fs::read_to_string(home.config()).unwrap());
    let page = stdout(&home.command(&["check", "--diff", &old]).await);
    assert_eq!(page, format!("against   {old}\nnothing   changes\nok        would listen on 127.0.0.1:0\n"));
    let same = json(&home.command(&["check", "--json", "--diff", &old]).await);
    assert_eq!((&same["against"], &same["changes"]), (&old.clone().into(), &Value::Array(Vec::new())), "{same:#}");

    let edited = a.table().replace("amount = 5", "amount = 7").replace("sk-test-upstream", "sk-test-another");
    home.write(&format!("{edited}\n[aliases.one]\ntargets = [\"a/a-model\"]\n"), "127.0.0.1:1");
    let page = stdout(&home.command(&["check", "--diff", &old]).await);
    for line in [
        "setting   changed  server.listen: 127.0.0.1:0 → 127.0.0.1:1 (needs a restart)",
        "account   changed  a: keys changed",
        "limit     changed  a/a-model requests per day: amount 5 → 7",
        "alias     added    one: targets a/a-model; strategy price",
        "ok        would listen on 127.0.0.1:1",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
    let document = json(&home.command(&["check", "--json", "--diff", &old]).await);
    let changes = document["changes"].as_array().unwrap();
    let limit = changes.iter().find(|change| change["kind"] == "limit").unwrap();
    let expected = serde_json::json!([{"fact": "amount", "old": 5, "new": 7}]);
    assert_eq!((&limit["change"], &limit["facts"]), (&"changed".into(), &expected), "{document:#}");
    assert!(!page.contains("sk-test") && !document.to_string().contains("sk-test"), "no key is ever shown");

    let broken = beside(&home, "broken.toml", "[server]\ndatta = \"internal\"\n");
    let said = complaint(&home.command(&["check", "--diff", &broken]).await);
    assert!(said.contains("broken.toml:2") && said.contains("did you mean `data`?"), "{said}");
    home.write("[server]\ndatta = \"internal\"\n", "127.0.0.1:0");
    let said = complaint(&home.command(&["check", "--diff", &old]).await);
    assert!(said.contains("freeway.toml:3") && said.contains("did you mean `data`?"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_compared_with_what_the_running_gateway_has_in_force() {
    let facts = "models = [{ id = \"a-model\", quality = 3, context = 8192, features = [\"stream\"], price = { input = 0.1, output = 0.3 }, \
                 limits = [{ metric = \"usd\", window = \"day\", amount = 0.7 }] }]";
    let a = Upstream::with("a", facts, |_| ()).await.account("plan = \"paid\"\ndata = { trains = \"no\" }");
    let text = format!("[server]\nkeys = [\"{KEY}\"]\n{}", in_order(&[&a]));
    let (home, gateway) = found(&text).await;
    let page = stdout(&home.command(&["check", "--diff"]).await);
    assert!(page.contains(&format!("against   the gateway at {}", gateway.address)), "{page}");
    assert!(page.contains("nothing   changes"), "{page}");

    let edited = text.replace("amount = 0.7", "amount = 0.9").replace("context = 8192", "context = 4096");
    // In a folder of its own, where the running gateway does not see it.
    let other = Home::new("");
    other.write(&edited.replace("[aliases.pair]", "[aliases.other]"), &gateway.address.to_string());
    let page = stdout(&other.command(&["check", "--diff"]).await);
    for line in [
        "target    changed  a/a-model: context 8192 → 4096\n",
        "limit     changed  a/a-model usd per day: amount 0.7 → 0.9\n",
        "alias     added    other: ",
        "alias     removed  pair\n",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
    assert_eq!(page.lines().count(), 6, "and nothing else: {page}");

    gateway.end(End::Terminate).await;
    let said = complaint(&home.command(&["check", "--diff"]).await);
    assert!(said.contains("is valid") && said.contains("no gateway answers") && said.contains("--diff OLD"), "{said}");
}

/// A configuration with a mistake: what the program says of it, whatever the command.
async fn check_mistake(text: &str, expected: &[&str]) {
    let home = Home::new(text);
    for command in ["check", "serve", "quotas"] {
        let said = complaint(&home.command(&[command]).await);
        for words in expected {
            assert!(said.contains(words), "{command}: {words}: {said}");
        }
        assert!(!said.contains("sk-test-upstream"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_shown_with_its_place_and_the_right_name() {
    let table = Upstream::new("a").await.table();
    check_mistake(
        &format!("[server]\ndatta = \"internal\"\n{table}"),
        &["freeway.toml:3", "datta", "did you mean `data`?"],
    )
    .await;
    check_mistake(
        &format!("{table}[aliases.x]\ntargets = [\"aa/a-model\"]\n"),
        &["there is no provider `aa`", "did you mean `a`?"],
    )
    .await;
    check_mistake(&format!("[tiers.batch]\nwait = -1\n{table}"), &["wait = -1", "from 0 to 3,600"]).await;
    check_mistake(&format!("[tiers.batch]\nwait = 3600.5\n{table}"), &["wait = 3600.5", "from 0 to 3,600"]).await;
    check_mistake(&format!("[routing]\nusd_per_value = -1.0\n{table}"), &["freeway.toml:4", "above 0"]).await;
    check_mistake(&table.replace("cost = \"free\"", "cost = \"gratis\""), &["cost", "gratis"]).await;
    check_mistake(&format!("{table}[tiers.batch\n"), &["freeway.toml:"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_is_said_to_be_taken() {
    let a = Upstream::new("a").await;
    let home = Home::new(&a.table());
    home.write(&a.table(), &a.sim.address().to_string());
    let said = complaint(&home.command(&["serve"]).await);
    assert!(said.contains("cannot listen on") && said.contains(&a.sim.address().to_string()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_answers_at_once() {
    let mut command = program();
    command.args(["sandbox", "--listen", "127.0.0.1:0", "--seconds", "3"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let page = stdout(&output);
    assert!(
        page.contains("First answer:") && page.contains("(served by ") && page.contains("curl http://127.0.0.1:"),
        "{page}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_can_be_asked_by_programs() {
    let mut command = program();
    command.args(["sandbox", "--listen", "127.0.0.1:0", "--json", "--providers", "groq,mistral", "--pace-ms", "0"]);
    let sandbox = Gateway::run(command).await;
    let said: Value = serde_json::from_str(sandbox.said().lines().next().unwrap()).unwrap();
    assert_eq!(said["base_url"], format!("http://{}/v1", sandbox.address));
    assert_eq!(said["upstreams"].as_object().unwrap().keys().collect::<Vec<_>>(), ["groq", "mistral"]);
    for (model, stream) in [("auto", false), ("smart", true), ("groq/openai/gpt-oss-120b", true)] {
        let reply = sandbox.ask(&Ask::chat(model, stream)).await;
        assert_eq!(reply.head.status, 200, "{model}: {}", reply.everything());
        assert!(reply.content().ends_with("heard: the tide is out"), "{model}: {}", reply.everything());
    }
    let quotas = sandbox.document("/freeway/v1/quotas").await;
    assert!(quotas["limits"].as_array().unwrap().len() > 2, "{quotas}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_on_one_ledger_is_refused() {
    let a = Upstream::new("a").await;
    let home = Home::new(&format!("[store]\nurl = \"sqlite:ledger.db\"\n{}", a.table()));
    let gateway = home.serve().await;
    let said = complaint(&home.command(&["serve"]).await);
    assert!(said.contains("ledger.db: process ") && said.contains("has it open"), "{said}");
    gateway.end(End::Kill).await;
    let _again = home.serve().await;
}
