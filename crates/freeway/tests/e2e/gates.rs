//! Who gets in: host, origin, route, key, size and type, in this order.

use freeway_server::{Access, ROUTES, Route};

use crate::faults::Told;
use crate::gateway::Gateway;
use crate::http::{Ask, Reply};
use crate::last_word::check_error;
use crate::upstream::{Upstream, in_order};

const OPERATOR: &str = "sk-test-operator";
const CLIENT: &str = "sk-test-client";

/// A gateway with an operator's key and a client's.
pub(crate) async fn guarded(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        "[server]\nkeys = [\"{OPERATOR}\"]\n[client_keys.ci]\nkey = \"{CLIENT}\"\n{}",
        in_order(&[upstream])
    ))
    .await
}

const fn told(status: u16, code: &'static str) -> Told {
    Told { status, code, should_retry: false, retry_after: None }
}

/// A request that a route would take, but for its key.
fn request(route: &Route) -> Ask {
    let path = route.path.replace("{id}", "anything");
    match route.method {
        "POST" => Ask::post(&path, r#"{"model":"pair","messages":[{"role":"user","content":"x"}]}"#),
        method => Ask::new(method, &path),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_but_the_open_ones_answers_without_a_key() {
    let a = Upstream::new("a").await;
    let gateway = guarded(&a).await;
    let mut refusals = Vec::new();
    for route in ROUTES {
        let context = format!("{} {}", route.method, route.path);
        let bare = gateway.ask(&request(route)).await;
        let wrong = gateway.ask(&request(route).key("sk-test-wrong")).await;
        if route.access == Access::Open {
            assert_eq!((bare.head.status, wrong.head.status), (200, 200), "{context}");
            continue;
        }
        for reply in [bare, wrong] {
            check_error(&reply, told(401, "invalid_api_key"), &context);
            refusals.push(reply.text());
        }
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "every refusal says the same: {refusals:?}");
    assert_eq!(a.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_key_opens_what_is_for_clients() {
    let a = Upstream::new("a").await;
    let gateway = guarded(&a).await;
    for route in ROUTES {
        let context = format!("{} {}", route.method, route.path);
        let client = gateway.ask(&request(route).key(CLIENT)).await;
        match route.access {
            Access::Operator => drop(check_error(&client, told(403, "permission_denied"), &context)),
            Access::Open | Access::AnyKey => assert!([200, 404].contains(&client.head.status), "{context}: {client:?}"),
        }
        let operator = gateway.ask(&request(route).key(OPERATOR)).await;
        assert!([200, 404].contains(&operator.head.status), "{context}: {}", operator.everything());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_is_refused_in_the_same_words() {
    let a = Upstream::new("a").await;
    let gateway = guarded(&a).await;
    let long = "x".repeat(50_000);
    for (name, value) in [
        ("authorization", "Bearer"),
        ("authorization", "Bearer "),
        ("authorization", "Basic c2stdGVzdC1vcGVyYXRvcg=="),
        ("authorization", OPERATOR),
        ("authorization", "Bearer sk-test-operator sk-test-operator"),
        ("authorization", "Bearer ' OR 1=1 --"),
        ("authorization", "Bearer \u{455}k-test-operator"),
        ("authorization", "Bearer sk-test-operato"),
        ("authorization", &format!("Bearer {long}")),
        ("x-api-key", ""),
        ("x-api-key", "sk-test-wrong"),
        ("cookie", "key=sk-test-operator"),
    ] {
        let reply = gateway.ask(&Ask::get("/v1/models").header(name, value)).await;
        check_error(&reply, told(401, "invalid_api_key"), &format!("{name}: {value:.80}"));
    }
    let in_query = gateway.ask(&Ask::get(&format!("/v1/models?key={OPERATOR}&api_key={OPERATOR}"))).await;
    check_error(&in_query, told(401, "invalid_api_key"), "in the query");
    for (name, value) in [("x-api-key", CLIENT), ("x-goog-api-key", CLIENT), ("authorization", "bearer sk-test-client")]
    {
        assert_eq!(gateway.ask(&Ask::get("/v1/models").header(name, value)).await.head.status, 200, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_and_other_names_of_this_machine_stay_outside() {
    let a = Upstream::new("a").await;
    // Without keys: only host and origin stand between a web page and the gateway.
    let gateway = Gateway::start(&in_order(&[&a])).await;
    let from = |origin: &str| Ask::chat("pair", false).header("origin", origin);
    for origin in
        ["https://evil.test", "null", "http://127.0.0.1.evil.test", "http://localhost@evil.test", "file://", ""]
    {
        let reply = gateway.ask(&from(origin)).await;
        check_error(&reply, told(403, "origin_not_allowed"), origin);
        assert_eq!(reply.head.header("access-control-allow-origin"), None, "{origin}");
    }
    let preflight = Ask::new("OPTIONS", "/v1/chat/completions")
        .header("origin", "https://evil.test")
        .header("access-control-request-method", "POST");
    let reply = gateway.ask(&preflight).await;
    assert!(reply.head.status >= 400, "{}", reply.everything());
    assert!(!reply.head.headers.iter().any(|(name, _)| name.starts_with("access-control")), "{:?}", reply.head);
    assert_eq!(a.asked(), 0);
    assert_eq!(gateway.ask(&from(&format!("http://{}", gateway.address))).await.head.status, 200);

    let named = async |host: &str| {
        let text = format!("GET /v1/models HTTP/1.1\r\nhost: {host}\r\n\r\n");
        gateway.send_bytes(text.as_bytes()).await.reply().await
    };
    for host in ["evil.test", "evil.test:80", "192.168.1.1", "localhost.evil.test", "0.0.0.0", "169.254.169.254"] {
        check_error(&named(host).await, told(403, "invalid_host"), host);
    }
    for host in ["user@127.0.0.1", "a b", "", "127.0.0.1, evil.test", "/", "localhost/x", "local\u{e4}host"] {
        check_error(&named(host).await, told(400, "invalid_host"), host);
    }
    for host in ["localhost", "127.0.0.1", "[::1]:99"] {
        assert_eq!(named(host).await.head.status, 200, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_there() {
    let a = Upstream::new("a").await;
    let gateway = guarded(&a).await;
    for path in [
        "/",
        "/v1",
        "/v1/",
        "//v1/models",
        "/v1//models",
        "/v1/models/",
        "/v1/chat/completions/",
        "/freeway/v1/requests/",
        "/v1/..%2f..%2fetc/passwd",
        "/v1/../healthz",
        "/V1/models",
        "/v1/embeddings",
        "/freeway.toml",
        "/v1/chat/completions%00",
    ] {
        let reply = gateway.ask(&Ask::get(path).key(OPERATOR)).await;
        check_error(&reply, told(404, "not_found"), path);
    }
    let missing = |id: &str| Ask::get(&format!("/v1/models/{id}")).key(OPERATOR);
    for id in ["nothing", "..%2f..%2fetc%2fpasswd", "a/none", "%00"] {
        let reply = gateway.ask(&missing(id)).await;
        check_error(&reply, told(404, "model_not_found"), id);
    }
    for (method, path, allow) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("POST", "/healthz", "GET"),
        ("PUT", "/freeway/v1/explain", "POST"),
    ] {
        let reply = gateway.ask(&Ask::new(method, path).key(OPERATOR)).await;
        check_error(&reply, told(405, "method_not_allowed"), path);
        assert_eq!(reply.head.header("allow"), Some(allow), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_address_without_keys_is_refused() {
    let a = Upstream::new("a").await;
    let home = crate::gateway::Home::new(&a.table());
    home.write(&a.table(), "0.0.0.0:0");
    let output = home.command(&["serve"]).await;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("keys") && said.contains("127.0.0.1"), "{said}");
}

/// A chat request whose body is announced and never sent.
async fn announced(gateway: &Gateway, headers: &str) -> (Reply, bool) {
    let text = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {OPERATOR}\r\n{headers}\r\n\r\n",
        gateway.address
    );
    let mut connection = gateway.send_bytes(text.as_bytes()).await;
    let reply = connection.reply().await;
    (reply, connection.is_closed().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_refused_before_it_is_read() {
    let a = Upstream::new("a").await;
    let gateway = guarded(&a).await;
    let json = "content-type: application/json";
    let large = format!("content-length: {}", 32 * 1024 * 1024 + 1);
    for (headers, expected) in [
        (format!("{json}\r\n{large}"), told(413, "request_too_large")),
        (format!("{json}\r\n{large}\r\nexpect: 100-continue"), told(413, "request_too_large")),
        ("content-length: 100".to_owned(), told(415, "unsupported_media_type")),
        ("content-type: text/plain\r\ncontent-length: 100".to_owned(), told(415, "unsupported_media_type")),
        (
            "content-type: multipart/form-data; boundary=x\r\ncontent-length: 100".to_owned(),
            told(415, "unsupported_media_type"),
        ),
        (format!("{json}\r\ncontent-encoding: gzip\r\ncontent-length: 100"), told(415, "unsupported_media_type")),
        (format!("{json}\r\ncontent-encoding: zstd, x\r\ncontent-length: 100"), told(415, "unsupported_media_type")),
    ] {
        let (reply, closed) = announced(&gateway, &headers).await;
        check_error(&reply, expected, &headers);
        assert!(closed, "{headers}: what follows cannot be trusted");
    }
    assert_eq!(a.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_chunks_is_held_to_the_same_size() {
    let a = Upstream::new("a").await;
    let gateway = guarded(&a).await;
    let mut bytes = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {OPERATOR}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        gateway.address
    )
    .into_bytes();
    for _ in 0..34 {
        bytes.extend_from_slice(b"100000\r\n");
        bytes.resize(bytes.len() + 0x10_0000, b' ');
        bytes.extend_from_slice(b"\r\n");
    }
    let reply = gateway.send_bytes(&bytes).await.reply().await;
    // The rest is not read: the answer may be lost to the reset, but the body is never taken.
    if reply.head.status != 0 {
        check_error(&reply, told(413, "request_too_large"), "34 MiB");
    }
    assert_eq!(gateway.ask(&Ask::get("/healthz")).await.head.status, 200);
    assert_eq!(a.asked(), 0);
}
