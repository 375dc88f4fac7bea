//! The simulator over loopback, seen by the smallest possible client.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::{Fault, FaultKind, Sim, SimConfig};

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The data of each event; `[DONE]` is a string.
    fn events(&self) -> Vec<Value> {
        let data = self.body.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data))).collect()
    }
}

async fn sim(id: &str, facts: &str, change: impl FnOnce(&mut SimConfig)) -> Sim {
    let mut config = SimConfig::new(id, freeway_catalog::parse("x.toml", facts).unwrap());
    change(&mut config);
    Sim::start(config).await.unwrap()
}

async fn send(sim: &Sim, method: &str, path: &str, key: &str, body: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(sim.address()).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    Ok(stream)
}

async fn call(sim: &Sim, method: &str, path: &str, key: &str, body: &str) -> std::io::Result<Reply> {
    let mut stream = send(sim, method, path, key, body).await?;
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(read.err().unwrap_or_else(|| ErrorKind::UnexpectedEof.into()));
    };
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> =
        lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut reply = Reply { status, headers, body: body.to_owned() };
    match reply.header("content-length") {
        Some(length) if length.parse() != Ok(body.len()) => return Err(ErrorKind::UnexpectedEof.into()),
        Some(_) => {}
        None => reply.body = unchunked(body).ok_or(ErrorKind::UnexpectedEof)?,
    }
    read?;
    Ok(reply)
}

fn unchunked(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size + 2..)?;
    }
}

const CHAT: &str = "/v1/chat/completions";

fn chat(model: &str, text: &str, more: &str) -> String {
    format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{text}"}}]{more}}}"#)
}

async fn ask(sim: &Sim, more: &str) -> std::io::Result<Reply> {
    call(sim, "POST", CHAT, "k", &chat("m", "the tide is out", more)).await
}

#[tokio::test]
async fn answers_come_plain_and_streamed_under_any_prefix() {
    let sim = sim("any", "[[models]]\nid = \"m\"\naliases = [\"m-latest\"]\n", |_| {}).await;
    let plain = call(&sim, "POST", "/openai/v1/chat/completions", "k", &chat("m", "hello", "")).await.unwrap();
    assert_eq!(plain.json()["choices"][0]["message"]["content"], "m heard: hello");
    let usage = r#","stream":true,"stream_options":{"include_usage":true}"#;
    let streamed = call(&sim, "POST", CHAT, "k", &chat("m-latest", "hello", usage)).await.unwrap();
    let events = streamed.events();
    let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "m-latest heard: hello");
    assert_eq!(events.last().unwrap(), "[DONE]");
    let usage = &events[events.len() - 2];
    assert_eq!(usage["choices"], json!([]));
    assert!(usage["usage"]["total_tokens"].as_u64().unwrap() > 1);
    assert!(ask(&sim, r#","stream":true"#).await.unwrap().events().iter().all(|event| event.get("usage").is_none()));
    let models = call(&sim, "GET", "/v1/models", "k", "").await.unwrap();
    assert_eq!(models.json()["data"][0]["id"], "m");
    let unknown = call(&sim, "POST", CHAT, "k", &chat("x", "hello", "")).await.unwrap();
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(sim.log().len(), 5);
    assert_eq!(sim.log()[1].model.as_deref(), Some("m-latest"));
}

#[tokio::test]
async fn a_limit_refuses_with_this_providers_headers() {
    let facts = r#"
        limits = [
            { metric = "requests", window = "minute", amount = 2 },
            { metric = "requests", window = "day", amount = 100, reset = "bucket" },
        ]
        headers = [
            { name = "x-ratelimit-limit-requests", says = "limit", metric = "requests", window = "day" },
            { name = "x-ratelimit-remaining-requests", says = "remaining", metric = "requests", window = "day" },
            { name = "x-ratelimit-reset-requests", says = "reset", metric = "requests", window = "day", format = "duration" },
        ]
    "#;
    let sim = sim("groq", facts, |_| {}).await;
    let first = ask(&sim, "").await.unwrap();
    assert_eq!(first.header("x-ratelimit-limit-requests"), Some("100"));
    assert_eq!(first.header("x-ratelimit-remaining-requests"), Some("99"));
    assert_eq!(first.header("x-ratelimit-reset-requests").map(|reset| &reset[..3]), Some("14m"));
    assert_eq!(ask(&sim, "").await.unwrap().status, 200);
    let refused = ask(&sim, "").await.unwrap();
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), Some("60"));
    assert!(refused.body.contains("(RPM): Limit 2, Used 2, Requested 1"));
    assert_eq!(sim.overruns(), 1);
    assert!(sim.log()[2].overrun);
    assert_eq!(sim.limits()[0].peak, 3);
}

#[tokio::test]
async fn places_are_given_back_before_the_last_byte() {
    let sim = sim("any", "limits = [{ metric = \"concurrency\", amount = 1 }]\n", |config| {
        config.pace = Duration::from_millis(1);
    })
    .await;
    for _ in 0..20 {
        assert_eq!(ask(&sim, r#","stream":true"#).await.unwrap().status, 200);
        assert_eq!(ask(&sim, "").await.unwrap().status, 200);
    }
    assert_eq!(sim.overruns(), 0);
}

#[tokio::test]
async fn keys_are_checked_and_revoked() {
    let sim = sim("mistral", "", |config| config.keys = vec!["k".to_owned()]).await;
    assert_eq!(ask(&sim, "").await.unwrap().status, 200);
    assert_eq!(call(&sim, "GET", "/v1/models", "other", "").await.unwrap().status, 401);
    sim.revoke_key("k");
    let refused = ask(&sim, "").await.unwrap();
    assert_eq!((refused.status, refused.json()), (401, json!({ "detail": "Unauthorized" })));
}

#[tokio::test]
async fn faults_of_the_answer_are_played() {
    let sim = sim("any", "", |_| {}).await;
    let once = |kind| sim.set_faults(vec![Fault::new(kind)]);
    sim.set_faults(vec![Fault::status(503).times(2)]);
    assert_eq!(ask(&sim, "").await.unwrap().status, 503);
    assert_eq!(ask(&sim, "").await.unwrap().status, 503);
    assert_eq!(ask(&sim, "").await.unwrap().status, 200);
    once(FaultKind::Html { status: 502 });
    assert!(ask(&sim, "").await.unwrap().body.starts_with("<!DOCTYPE"));
    once(FaultKind::Empty);
    assert_eq!(ask(&sim, "").await.unwrap().json()["choices"][0]["message"]["content"], "");
    once(FaultKind::EmptyBody);
    assert_eq!(ask(&sim, "").await.unwrap().body, "");
    once(FaultKind::ErrorIn200 { error: json!({ "code": 502 }) });
    assert_eq!(ask(&sim, "").await.unwrap().json(), json!({ "error": { "code": 502 } }));
    once(FaultKind::ErrorIn200 { error: json!({ "code": 502 }) });
    assert_eq!(ask(&sim, r#","stream":true"#).await.unwrap().events(), [json!({ "error": { "code": 502 } })]);
    once(FaultKind::Cut { after_events: 2, abrupt: false });
    assert_eq!(ask(&sim, r#","stream":true"#).await.unwrap().events().len(), 2);
    once(FaultKind::Cut { after_events: 2, abrupt: true });
    assert_eq!(ask(&sim, r#","stream":true"#).await.err().unwrap().kind(), ErrorKind::UnexpectedEof);
    once(FaultKind::WrongContentType);
    assert_eq!(ask(&sim, "").await.unwrap().header("content-type"), Some("text/plain; charset=utf-8"));
    once(FaultKind::HugeEvent { bytes: 3_000_000 });
    assert!(ask(&sim, r#","stream":true"#).await.unwrap().body.len() > 3_000_000);
    once(FaultKind::LieUsage { tokens: 7 });
    assert_eq!(ask(&sim, "").await.unwrap().json()["usage"]["completion_tokens"], 7);
    sim.set_faults(vec![Fault::status(500).model("another")]);
    assert_eq!(ask(&sim, "").await.unwrap().status, 200);
}

#[tokio::test]
async fn connections_are_reset_and_refused() {
    let sim = sim("any", "", |_| {}).await;
    sim.set_faults(vec![
        Fault::new(FaultKind::Reset),
        Fault::new(FaultKind::ResetMidHeaders),
        Fault::new(FaultKind::ResetMidBody { after_events: 1 }),
    ]);
    assert_eq!(ask(&sim, "").await.err().unwrap().kind(), ErrorKind::ConnectionReset);
    assert_eq!(ask(&sim, "").await.err().unwrap().kind(), ErrorKind::ConnectionReset);
    assert!(ask(&sim, r#","stream":true"#).await.is_err());
    sim.set_faults(vec![Fault::new(FaultKind::Refuse { for_ms: None })]);
    assert_eq!(ask(&sim, "").await.err().unwrap().kind(), ErrorKind::ConnectionRefused);
    sim.set_faults(Vec::new());
    assert_eq!(ask(&sim, "").await.unwrap().status, 200);
    sim.set_faults(vec![Fault::new(FaultKind::Refuse { for_ms: Some(50) })]);
    assert_eq!(ask(&sim, "").await.err().unwrap().kind(), ErrorKind::ConnectionRefused);
    sleep(Duration::from_millis(150)).await;
    assert_eq!(ask(&sim, "").await.unwrap().status, 200);
    sim.stop();
    assert!(ask(&sim, "").await.is_err());
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_at_once() {
    let sim = sim("any", "limits = [{ metric = \"concurrency\", amount = 1 }]\n", |_| {}).await;
    for kind in [
        FaultKind::Silence,
        FaultKind::Stall { after_events: 1 },
        FaultKind::Slow { first_byte_ms: 0, pace_ms: 10_000 },
    ] {
        sim.set_faults(vec![Fault::new(kind)]);
        let stream = send(&sim, "POST", CHAT, "k", &chat("m", "x", r#","stream":true"#)).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        assert!(sim.log().last().unwrap().ended_ms.is_none());
        drop(stream);
        let noticed = async {
            while !sim.log().last().unwrap().cancelled() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_millis(100), noticed).await.unwrap();
    }
    assert_eq!(ask(&sim, "").await.unwrap().status, 200);
    assert_eq!(sim.overruns(), 0);
}

#[tokio::test]
async fn it_is_controlled_over_http() {
    let sim = sim("any", "", |_| {}).await;
    let faults = call(&sim, "POST", "/sim/faults", "", r#"[{"fault":"status","status":418,"body":"teapot"}]"#).await;
    assert_eq!(faults.unwrap().json(), json!({ "faults": 1 }));
    let refused = ask(&sim, "").await.unwrap();
    assert_eq!((refused.status, refused.body.as_str()), (418, "teapot"));
    assert_eq!(call(&sim, "POST", "/sim/faults", "", "[{}]").await.unwrap().status, 400);
    assert_eq!(call(&sim, "POST", "/sim/revoke", "", r#"{"key":"k"}"#).await.unwrap().status, 200);
    assert_eq!(ask(&sim, "").await.unwrap().status, 401);
    let log = call(&sim, "GET", "/sim/log", "", "").await.unwrap().json();
    assert_eq!(log.as_array().unwrap().len(), 2);
    assert_eq!((&log[0]["status"], &log[0]["key"], &log[0]["cancelled"]), (&json!(418), &json!("k"), &json!(false)));
    assert!(log[0]["body"].as_str().unwrap().contains("the tide is out"));
    let shut = call(&sim, "POST", "/sim/faults", "", r#"[{"fault":"refuse","for_ms":50}]"#).await.unwrap();
    assert_eq!(shut.status, 200);
    assert!(ask(&sim, "").await.is_err());
}

#[tokio::test]
async fn every_built_in_provider_can_be_simulated() {
    for (id, provider) in freeway_catalog::Catalog::embedded().unwrap().iter() {
        let sim = Sim::start(SimConfig::new(id, provider.clone())).await.unwrap();
        let model = provider.models.first().map_or("m", |model| model.id.as_str());
        for more in ["", r#","stream":true"#] {
            let reply = call(&sim, "POST", CHAT, "k", &chat(model, "hello", more)).await.unwrap();
            assert!(matches!(reply.status, 200 | 402 | 429), "{id}: {} {}", reply.status, reply.body);
            assert_eq!(reply.status == 200, sim.overruns() == 0, "{id}: {}", reply.body);
        }
    }
}

#[tokio::test]
async fn a_status_gives_its_place_back_before_it_is_read() {
    let sim = sim("any", "limits = [{ metric = \"concurrency\", amount = 1 }]\n", |_| {}).await;
    sim.set_faults(vec![Fault::status(503).times(50)]);
    for _ in 0..50 {
        assert_eq!(ask(&sim, "").await.unwrap().status, 503);
    }
    assert_eq!(sim.overruns(), 0);
}

#[tokio::test]
async fn a_provider_within_the_process_keeps_the_time_it_is_given() {
    let facts = "[[limits]]\nmetric = \"requests\"\nwindow = \"day\"\nreset = \"calendar\"\namount = 1\n";
    let wall = Arc::new(AtomicI64::new(86_399_000_000));
    let read = Arc::clone(&wall);
    let config = SimConfig::new("lab", freeway_catalog::parse("x.toml", facts).unwrap());
    let sim = Sim::within(config, move || read.load(Ordering::SeqCst));
    let ask = async |sim: &Sim| {
        let (mut near, far) = tokio::io::duplex(4096);
        tokio::spawn(sim.serve(far));
        let body = chat("m", "hello", "");
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nconnection: close\r\ncontent-length: {}", body.len());
        let _ = near.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await;
        let mut reply = String::new();
        let _ = near.read_to_string(&mut reply).await;
        reply.split(' ').nth(1).unwrap_or("none").to_owned()
    };
    assert_eq!(ask(&sim).await, "200");
    assert_eq!(ask(&sim).await, "429");
    assert_eq!((sim.limits()[0].refused, sim.overruns()), (1, 1));
    wall.store(86_400_000_000, Ordering::SeqCst);
    assert_eq!(ask(&sim).await, "200", "a new day");
    assert!(sim.log()[2].booked.is_some_and(|(input, output)| input > 0 && output > 0));
    sim.set_faults(vec![Fault::new(FaultKind::Refuse { for_ms: None })]);
    assert_eq!(ask(&sim).await, "none");
    sim.set_faults(Vec::new());
    assert_eq!(ask(&sim).await, "429");
}
