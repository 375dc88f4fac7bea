//! Requests whose framing can be read in two ways are not read at all.

use std::time::Duration;

use crate::gateway::Gateway;
use crate::http::Ask;
use crate::patience::each;
use crate::upstream::{Upstream, in_order};

/// What stands before the headers of each case.
const POST: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
/// A body, and a request behind it that must never be answered.
const BODY: &str = r#"{"model":"pair","messages":[{"role":"user","content":"x"}]}"#;
const SECOND: &str = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Bytes that must be refused with this status, after which the connection is closed.
async fn check((name, bytes, expected): (&'static str, Vec<u8>, u16)) {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&in_order(&[&a])).await;
    let mut connection = gateway.send_bytes(&bytes).await;
    let reply = connection.reply().await;
    assert_eq!(reply.head.status, expected, "{name}: {}", reply.everything());
    assert!(!reply.text().contains("ok\n"), "{name}: the second request was answered");
    assert!(connection.is_closed().await, "{name}: the connection stays open");
    assert_eq!(a.asked(), 0, "{name}: the request went on");
    assert_eq!(gateway.ask(&Ask::get("/healthz")).await.head.status, 200, "{name}: others are served");
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("{POST}{headers}\r\n\r\n{body}{SECOND}").into_bytes()
}

/// The body as one chunk, with what is given in the place of its size line and its trailers.
fn chunked(size: &str, trailers: &str) -> Vec<u8> {
    post("transfer-encoding: chunked", &format!("{size}\r\n{BODY}\r\n0\r\n{trailers}\r\n"))
}

/// The body as one chunk, and the end.
fn chunk_and_end() -> String {
    format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_and_chunks_are_not_both_believed() {
    let (length, chunks) = (format!("content-length: {}", BODY.len()), "transfer-encoding: chunked");
    check(("X4", post(&format!("{length}\r\n{chunks}"), &chunk_and_end()), 400)).await;
    check(("X4", post(&format!("{chunks}\r\n{length}"), &chunk_and_end()), 400)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lengths_are_no_length() {
    let length = BODY.len();
    let body_and_end = chunk_and_end();
    let cases = vec![
        ("X5: two lengths", post(&format!("content-length: {length}\r\ncontent-length: {}", length + 1), BODY), 400),
        ("X5: a list of lengths", post(&format!("content-length: {length}, {length}"), BODY), 400),
        ("X5: a sign", post(&format!("content-length: +{length}"), BODY), 400),
        ("X5: negative", post("content-length: -1", BODY), 400),
        ("X5: too many digits", post("content-length: 99999999999999999999999", BODY), 400),
        ("X6: not chunked at the end", post("transfer-encoding: chunked, gzip", &body_and_end), 400),
        ("X6: not chunked", post("transfer-encoding: gzip", &body_and_end), 400),
        ("X6: twice", post("transfer-encoding: chunked\r\ntransfer-encoding: identity", &body_and_end), 400),
        (
            "X6: HTTP/1.0",
            String::from_utf8(post("transfer-encoding: chunked", &body_and_end))
                .unwrap()
                .replacen("1.1", "1.0", 1)
                .into_bytes(),
            400,
        ),
    ];
    each(cases, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_named_once() {
    let get = |headers: &str| format!("GET /v1/models HTTP/1.1\r\n{headers}\r\n{SECOND}").into_bytes();
    let cases = vec![
        ("X7: none", get(""), 400),
        ("X7: two", get("host: localhost\r\nhost: localhost\r\n"), 400),
        ("X7: two kinds", get("host: localhost\r\nhost: evil.test\r\n"), 400),
        (
            "X7: another in the target",
            b"GET http://evil.test/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
            400,
        ),
    ];
    for (name, bytes, status) in cases {
        let a = Upstream::new("a").await;
        let gateway = Gateway::start(&in_order(&[&a])).await;
        let reply = gateway.send_bytes(&bytes).await.reply().await;
        assert_eq!(reply.head.status, status, "{name}: {}", reply.everything());
        assert_eq!(reply.json()["error"]["code"], "invalid_host", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_not_well_formed_are_refused() {
    let get = |line: &str| format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{line}\r\n\r\n").into_bytes();
    let cases = vec![
        ("X8: a folded line", get("x-a: b\r\n c"), 400),
        ("X8: space before the colon", get("x-a : b"), 400),
        ("X8: NUL in a value", get("x-a: b\0c"), 400),
        ("X8: CR in a value", get("x-a: b\rc"), 400),
        ("X8: no name", get(": b"), 400),
        ("X8: no colon", get("x-a"), 400),
        ("X8: not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n".to_vec(), 400),
        ("X12: another protocol", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 0),
        ("X9: many headers", get(&(0..110).map(|at| format!("x-{at}: y")).collect::<Vec<_>>().join("\r\n")), 431),
        ("X9: large headers", get(&format!("x-a: {}", "y".repeat(300 * 1024))), 431),
    ];
    each(cases, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn line_feeds_alone_end_no_line() {
    check(("X8", b"GET /healthz HTTP/1.1\nhost: localhost\n\n".to_vec(), 400)).await;
    check(("X8: one of them", b"GET /healthz HTTP/1.1\r\nhost: localhost\n\r\n".to_vec(), 400)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_more_than_64_kib_are_refused() {
    let head = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-a: {}\r\n\r\n", "y".repeat(80 * 1024));
    check(("X9", head.into_bytes(), 431)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_are_not_well_formed_are_refused() {
    let size = format!("{:x}", BODY.len());
    let cases = vec![
        ("X10: a size beyond all bounds", chunked("fffffffffffffffff", ""), 400),
        ("X10: not a size", chunked("zz", ""), 400),
        ("X10: a signed size", chunked(&format!("+{size}"), ""), 400),
        ("X10: a size too small", chunked("5", ""), 400),
        ("X10: a megabyte of extensions", chunked(&format!("{size};x={}", "y".repeat(1 << 20)), ""), 400),
        ("X10: trailers without end", chunked(&size, &format!("x: {}\r\n", "y".repeat(1 << 17))), 400),
    ];
    each(cases, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_not_followed() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&in_order(&[&a])).await;
    let h2c = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n";
    let reply = gateway.send_bytes(h2c.as_bytes()).await.reply().await;
    assert!([200, 400].contains(&reply.head.status), "{}", reply.everything());
    assert_eq!(reply.head.header("upgrade"), None);
}

/// A head that stops in its middle.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a client has ten seconds for its head"]
async fn a_head_that_never_ends_is_closed() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&in_order(&[&a])).await;
    let mut connection = gateway.send_bytes(b"GET /healthz HTTP/1.1\r\nhost: local").await;
    let begun = tokio::time::Instant::now();
    let reply = connection.reply().await;
    assert!([0, 408].contains(&reply.head.status), "{}", reply.everything());
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a body may be silent for five seconds"]
async fn a_body_that_never_comes_is_given_up() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&in_order(&[&a])).await;
    let mut connection = gateway.send_bytes(format!("{POST}content-length: 100\r\n\r\n{{").as_bytes()).await;
    let reply = connection.reply().await;
    assert_eq!(reply.head.status, 408, "{}", reply.everything());
    assert_eq!(reply.json()["error"]["code"], "request_timeout");
    assert!(connection.is_closed().await);
}
