//! `freeway simulate --recorded`: a day that a gateway served, against its own configuration and others.

use std::path::Path;
use std::process::Output;

use freeway_store::{AttemptRecord, RequestRecord, Sqlite, Store};
use freeway_types::{Asked, Feature, Handling, Quality, RequestId, Timestamp, Usage, UsageSource, Usd};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::documents::blocks;
use crate::gateway::{End, Gateway, Home, complaint, program, stdout};
use crate::http::{Ask, Reply};
use crate::simulate::{ROUTING, example};
use crate::upstream::Upstream;

const DAY: &str = "2026-11-22";

// === The example of the document ===

/// A request of the document's day, which the large or the small model answered; or which found no quota.
fn request(number: u64, (hour, second): (i64, i64), tier: &str, target: Option<&str>) -> RequestRecord {
    let day = Timestamp::parse(DAY).unwrap();
    let received_at = Timestamp::from_secs(day.as_secs() + 3600 * hour + second);
    let usage = Usage { input: 1_000, output: 200, ..Usage::default() };
    let attempt = target.map(|target| AttemptRecord {
        account: "lab".to_owned(),
        model: target.trim_start_matches("lab/").to_owned(),
        key: Some(0),
        sent_at: received_at,
        took_us: 3_000_000,
        counted_us: 3_000_000,
        status: Some(200),
        outcome: "answered".to_owned(),
        message: None,
        usage,
        usage_source: UsageSource::Reported,
        cost: Some(Usd::ZERO),
        units: 0,
        held: None,
        handling: Some(Handling { paid: false, trains: None, retention_days: None }),
    });
    let is_large = target == Some("lab/large");
    let quality = if tier == "critical" { 3 } else { 1 };
    RequestRecord {
        id: RequestId::new(u64::try_from(received_at.as_micros() / 1000).unwrap(), u128::from(number)),
        received_at,
        took_us: 3_000_000,
        waited_us: 0,
        first_content_us: target.map(|_| if is_large { 900_000 } else { 300_000 }),
        caller: "operator".to_owned(),
        model: "auto".to_owned(),
        tier: tier.to_owned(),
        data: "public".to_owned(),
        stream: true,
        asked: Some(Asked {
            input: 1_100,
            max_output: None,
            min_quality: Quality::new(quality).unwrap(),
            features: [Feature::Stream].into_iter().collect(),
            named_tier: true,
            named_data: false,
        }),
        status: if target.is_some() { 200 } else { 429 },
        outcome: if target.is_some() { "answered" } else { "failed" }.to_owned(),
        error: target.is_none().then(|| "quota_exhausted".to_owned()),
        served_by: target.map(str::to_owned),
        candidates: String::new(),
        attempts: attempt.into_iter().collect(),
    }
}

/// The folder of the document's examples, with a recorded day and the configuration that it is held against.
pub(crate) fn recorded_example() -> TempDir {
    let folder = example();
    std::fs::write(folder.path().join("changed.toml"), blocks(ROUTING, "toml")[1]).unwrap();
    let (large, small) = (Some("lab/large"), Some("lab/small"));
    let day = [
        request(0, (9, 0), "standard", small),
        request(1, (9, 10), "standard", small),
        request(2, (9, 20), "standard", large),
        request(3, (9, 30), "critical", large),
        request(4, (9, 40), "critical", None),
        request(5, (11, 0), "batch", large),
    ];
    Sqlite::open(&folder.path().join("freeway.db")).unwrap().append(&day).unwrap();
    folder
}

fn simulate(folder: &Path, more: &[&str]) -> Output {
    program().arg("simulate").args(more).current_dir(folder).output().unwrap()
}

#[test]
fn the_recorded_day_of_the_document_comes_out_as_it_says() {
    let folder = recorded_example();
    let said = stdout(&simulate(folder.path(), &["--recorded", DAY, "--config", "changed.toml"]));
    assert_eq!(said, blocks(ROUTING, "text")[1]);
}

#[test]
fn decisions_are_told_with_the_requests_id_and_a_strategy_goes_before_the_configurations() {
    let folder = recorded_example();
    let more = ["--recorded", DAY, "--strategy", "ordered", "--decisions", "out.jsonl", "--json"];
    let said: Value = serde_json::from_str(&stdout(&simulate(folder.path(), &more))).unwrap();
    assert_eq!((&said["strategy"], &said["day"]), (&json!("ordered"), &json!(DAY)));
    let decisions = std::fs::read_to_string(folder.path().join("out.jsonl")).unwrap();
    let first: Value = serde_json::from_str(decisions.lines().next().unwrap()).unwrap();
    let id = request(0, (9, 0), "standard", None).id.to_string();
    assert_eq!(first, json!({"i": 0, "request": id, "at": 32_400.0, "target": "lab/large"}));
}

#[test]
fn what_cannot_be_read_is_told_with_what_helps() {
    let folder = recorded_example();
    let check = |more: &[&str], expected: &[&str]| {
        let said = complaint(&simulate(folder.path(), more));
        for words in expected {
            assert!(said.contains(words), "{more:?}: {said}");
        }
    };
    check(&["--recorded", "2026-11-21"], &["no request came on that day", "freeway.db has", "2026-11-22 (6)"]);
    check(&["--recorded", "yesterday"], &["`yesterday` is no day; write 2026-11-22"]);
    check(&["--recorded", "2026-11-22T10:00:00Z"], &["is no day"]);
    check(&[], &["--workload FILE", "--recorded DAY"]);
    check(&["--recorded", DAY, "--workload", "workload.jsonl"], &["exclude each other"]);
    check(&["--recorded", DAY, "--start", DAY], &["leave --start out"]);
    check(&["--workload", "workload.jsonl"], &["needs --start"]);
    check(&["--workload", "workload.jsonl", "--start", DAY, "--database", "freeway.db"], &["--recorded <DAY>"]);
    check(&["--recorded", DAY, "--database", "other.db"], &["other.db: there is no ledger", "--database"]);
    assert!(!folder.path().join("other.db").exists());
    std::fs::write(folder.path().join("text.db"), "this is a text, and not a database of anybody's").unwrap();
    check(&["--recorded", DAY, "--database", "text.db"], &["text.db: ", "not a database"]);
    std::fs::write(folder.path().join("memory.toml"), "[store]\nurl = \"sqlite::memory:\"\n").unwrap();
    check(&["--recorded", DAY, "--config", "memory.toml"], &["in memory", "--database"]);
    Sqlite::open(&folder.path().join("empty.db")).unwrap();
    check(&["--recorded", DAY, "--database", "empty.db"], &["has no request at all"]);
}

// === A day that a gateway served ===

const STORE: &str = "[store]\nurl = \"sqlite:ledger.db\"\n";
const FREE_DATA: &str = "cost = \"free\"\ndata = { trains = \"no\", retention_days = 0 }";
const PAID_DATA: &str = "plan = \"paid\"\ndata = { trains = \"yes\", retention_days = 90 }";

/// A free provider with four requests a day, and a paid one that trains.
async fn pair() -> (Upstream, Upstream) {
    let limit = "limits = [{ metric = \"requests\", window = \"day\", amount = 4 }]";
    let free = format!("models = [{{ id = \"a-model\", quality = 3, {limit} }}]");
    let paid = "models = [{ id = \"p-model\", quality = 5, price = { input = 1.0, output = 2.0 } }]";
    (
        Upstream::with("a", &free, |_| ()).await.account(FREE_DATA),
        Upstream::with("p", paid, |_| ()).await.account(PAID_DATA),
    )
}

/// What is asked, in this order, with the status that it gets.
fn asks() -> Vec<(Ask, u16)> {
    let chat = || Ask::chat("auto", false);
    let tier = |name| chat().header("x-freeway-tier", name);
    vec![
        (chat(), 200),
        (tier("critical"), 200),
        (tier("batch"), 200),
        (chat().header("x-freeway-min-quality", "5"), 200),
        (Ask::chat("auto", true).header("x-freeway-data", "personal"), 200),
        (tier("batch").header("x-freeway-min-quality", "5"), 403),
        (Ask::chat("p/p-model", false), 200),
        (Ask::chat("nobody", false), 404),
        (Ask::body("{"), 400),
        (chat(), 200),
        // The free one is used up.
        (chat(), 200),
        (tier("batch"), 429),
    ]
}

/// A day of requests, with whoever answered each; and the day. Not one that ends meanwhile.
async fn served(gateway: &Gateway) -> Option<(Vec<Option<String>>, String)> {
    let (mut by, mut days) = (Vec::new(), Vec::new());
    for (ask, status) in asks() {
        let reply: Reply = gateway.ask(&ask).await;
        assert_eq!(reply.head.status, status, "{}", reply.everything());
        let row = gateway.ledger(&reply).await;
        by.push(row["served_by"].as_str().map(str::to_owned));
        days.push(row["received_at"].as_str()?[..DAY.len()].to_owned());
    }
    days.dedup();
    (days.len() == 1).then(|| (by, days.remove(0)))
}

async fn replayed(home: &Home, day: &str) -> Value {
    serde_json::from_str(&stdout(&home.command(&["simulate", "--recorded", day, "--json"]).await)).unwrap()
}

/// Of how many requests something is told to be true: recorded, simulated, newly, no longer.
fn changed(rows: &Value, what: &str) -> [u64; 4] {
    let rows = rows.as_array().unwrap();
    let row = rows.iter().find(|row| row["what"].as_str().unwrap().contains(what));
    row.map_or([0; 4], |row| ["recorded", "simulated", "newly", "no_longer"].map(|key| row[key].as_u64().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_was_served_is_the_same_again_and_differs_where_the_configuration_does() {
    let text = |parts: &[&str]| format!("{STORE}{}", parts.concat());
    let ((a, p), home, gateway, by, day) = loop {
        let (a, p) = pair().await;
        let home = Home::new(&text(&[&a.table(), &p.table()]));
        let gateway = home.serve().await;
        // Around midnight the requests would be of two days; they are not again.
        if let Some((by, day)) = served(&gateway).await {
            break ((a, p), home, gateway, by, day);
        }
    };
    let (free, paid) = (a.table(), p.table());
    let (to_a, to_p) = (Some("a/a-model".to_owned()), Some("p/p-model".to_owned()));
    let to = |target: &Option<String>| by.iter().filter(|by| *by == target).count();
    assert_eq!((to(&to_a), to(&to_p), to(&None)), (4, 4, 4), "{by:?}");

    let running = replayed(&home, &day).await;
    gateway.end(End::Terminate).await;
    let stopped = replayed(&home, &day).await;
    assert_eq!(running, stopped, "it makes no difference whether the gateway runs");
    assert_eq!(stopped["recorded"], stopped["simulated"], "{stopped:#}");
    assert_eq!(stopped["same_target"], 8);
    for differs in ["moves", "cost_classes", "latency_classes", "data_rules"] {
        assert_eq!(stopped[differs], json!([]), "{differs}");
    }
    let unserved = json!({"no_permitted_target": 1, "model_not_found": 1, "invalid_json": 1, "quota_exhausted": 1});
    assert_eq!(stopped["recorded"]["unserved"], unserved);
    let cost = stopped["recorded"]["cost_usd"].as_f64().unwrap();
    assert!(cost > 0.0, "{stopped:#}");
    assert_eq!(changed(&stopped["data"], "trained on"), [4, 4, 0, 0], "{stopped:#}");
    assert_eq!(stopped["assumed"]["asked"], 0);
    assert_eq!(stopped["assumed"]["turned_away"], 1, "the one that is no JSON");

    // Without the paid one: the free one carries what it can, and whoever named the other is told that it is gone.
    home.write(&text(&[&free]), "127.0.0.1:0");
    let unpaid = replayed(&home, &day).await;
    assert_eq!(unpaid["simulated"]["cost_usd"], 0.0);
    assert_eq!(unpaid["recorded"]["cost_usd"], cost);
    let unserved = json!({"no_permitted_target": 2, "model_not_found": 2, "invalid_json": 1, "quota_exhausted": 3});
    assert_eq!(unpaid["simulated"]["unserved"], unserved, "{unpaid:#}");
    assert_eq!(changed(&unpaid["data"], "trained on"), [4, 0, 0, 4]);
    let gone = unpaid["targets"].as_array().unwrap().iter().find(|row| row["target"] == "p/p-model").unwrap();
    assert_eq!((&gone["recorded"], &gone["simulated"]), (&json!(4), &json!(0)));
    let paid_to_free = json!({"from": "paid", "to": "free", "requests": 1});
    assert!(unpaid["cost_classes"].as_array().unwrap().contains(&paid_to_free), "{unpaid:#}");

    // Without the free one: what may be paid for is, and goes where it is trained on.
    home.write(&text(&[&paid]), "127.0.0.1:0");
    let bought = replayed(&home, &day).await;
    assert!(bought["simulated"]["cost_usd"].as_f64().unwrap() > cost);
    assert_eq!(changed(&bought["data"], "trained on"), [4, 6, 2, 0], "{bought:#}");
    let personal = "personal data must not be trained on, and this provider trains";
    assert_eq!(changed(&bought["data_rules"], personal), [0, 1, 1, 0], "{bought:#}");
    assert_eq!(bought["simulated"]["unserved"]["no_permitted_target"], 4, "it, and what is batch");

    // Stricter data rules for whoever names no class.
    home.write(&format!("[server]\ndata = \"internal\"\n{}", text(&[&free, &paid])), "127.0.0.1:0");
    let stricter = replayed(&home, &day).await;
    assert_eq!(changed(&stricter["data"], "trained on"), [4, 0, 0, 4], "{stricter:#}");
    let internal = "internal data must not be trained on, and this provider trains";
    assert_eq!(changed(&stricter["data_rules"], internal), [0, 3, 3, 0], "{stricter:#}");
    assert_eq!(stricter["simulated"]["served"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_data_rule_refused_is_recorded_so_and_its_way_can_be_opened() {
    let (_, p) = pair().await;
    let home = Home::new(&format!("{STORE}{}", p.table()));
    let gateway = home.serve().await;
    let reply = gateway.ask(&Ask::chat("auto", false).header("x-freeway-data", "personal")).await;
    assert_eq!(reply.head.status, 403);
    let day = gateway.ledger(&reply).await["received_at"].as_str().unwrap()[..DAY.len()].to_owned();
    gateway.end(End::Terminate).await;
    let clause = "personal data must not be trained on, and this provider trains";
    assert_eq!(changed(&replayed(&home, &day).await["data_rules"], clause), [1, 1, 0, 0]);
    let keeps_nothing =
        p.table().replace("trains = \"yes\", retention_days = 90", "trains = \"no\", retention_days = 0");
    home.write(&format!("{STORE}{keeps_nothing}"), "127.0.0.1:0");
    let opened = replayed(&home, &day).await;
    assert_eq!(changed(&opened["data_rules"], clause), [1, 0, 0, 1]);
    assert_eq!((&opened["newly_served"], &opened["simulated"]["served"]), (&json!(1), &json!(1)));
}
