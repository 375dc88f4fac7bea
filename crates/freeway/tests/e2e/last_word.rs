//! What a client is told when there is nobody left to turn to: errors within answers, absurd waits, several failures.
//! What it is told of each fault alone stands in `matrix`.

use crate::faults::{DEADLINE, Told};
use crate::gateway::Gateway;
use crate::http::{Ask, Reply};
use crate::patience::each;
use crate::upstream::{Upstream, in_order};

/// `error.type` in OpenAI's shape.
fn kind(status: u16) -> &'static str {
    match status {
        403 => "permission_error",
        429 => "rate_limit_error",
        502 | 504 => "upstream_error",
        503 => "service_unavailable_error",
        _ => "invalid_request_error",
    }
}

/// Checks an error's shape, and gives its message.
pub(crate) fn check_error(reply: &Reply, expected: Told, context: &str) -> String {
    let Told { status, code, should_retry, retry_after } = expected;
    let context = format!("{context}: {}", reply.everything());
    assert_eq!(reply.head.status, status, "{context}");
    assert_eq!(reply.head.header("content-type"), Some("application/json"), "{context}");
    assert_eq!(reply.head.header("x-should-retry"), Some(should_retry.to_string().as_str()), "{context}");
    let id = reply.head.header("x-request-id");
    assert!(id.is_some() && id == reply.head.header("x-freeway-request-id"), "{context}");
    match (retry_after, reply.head.number("retry-after")) {
        (Some(expected), Some(told)) => {
            assert!((expected.saturating_sub(5)..=expected + 1).contains(&told), "{context}");
        }
        (expected, told) => assert_eq!(expected, told, "{context}"),
    }
    let body = reply.json();
    let error = body["error"].as_object().unwrap_or_else(|| panic!("{context}"));
    assert_eq!(error.keys().collect::<Vec<_>>(), ["message", "type", "param", "code"], "{context}");
    assert_eq!(error["code"], code, "{context}");
    assert_eq!(error["type"], kind(status), "{context}");
    error["message"].as_str().unwrap_or_else(|| panic!("{context}")).to_owned()
}

const fn told(status: u16, code: &'static str, should_retry: bool, retry_after: Option<u64>) -> Told {
    Told { status, code, should_retry, retry_after }
}

/// An error inside a 200 is of the class that it names itself (X59).
async fn check_inside(error: &str, expected: Told) {
    let fault = format!(r#"{{"fault":"error-in-200","error":{error}}}"#);
    for stream in [false, true] {
        let a = Upstream::new("a").await;
        a.always(&fault);
        let gateway = Gateway::start(&a.table()).await;
        check_error(&gateway.ask(&Ask::chat("a/a-model", stream)).await, expected, error);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_inside_a_200_is_what_it_says_it_is() {
    check_inside(r#"{"message":"busy","code":503}"#, told(503, "upstream_unavailable", true, Some(1))).await;
    check_inside(r#"{"message":"bad key","code":401}"#, told(502, "upstream_refused_key", false, None)).await;
    check_inside(r#"{"message":"slow down","code":402}"#, told(429, "quota_exhausted", false, Some(86_400))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_without_a_hint_says_when_the_pause_ends() {
    let a = Upstream::new("a").await;
    a.always(r#"{"fault":"status","status":429}"#);
    let gateway = Gateway::start(&a.table()).await;
    let reply = gateway.ask(&Ask::chat("a/a-model", false)).await;
    assert_eq!(reply.head.number("retry-after"), Some(2), "the second refusal pauses for two seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absurd_hint_is_bounded() {
    let month = 32 * 86_400;
    for hint in ["-1", "0", "1e300", "99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "soon", "", "1.5.5"] {
        let a = Upstream::new("a").await;
        a.always(&format!(r#"{{"fault":"status","status":429,"headers":{{"retry-after":"{hint}"}}}}"#));
        let gateway = Gateway::start(&a.table()).await;
        let reply = gateway.ask(&Ask::chat("a/a-model", false)).await;
        assert_eq!(reply.head.status, 429, "{hint}: {}", reply.everything());
        assert!(
            reply.head.number("retry-after").is_some_and(|wait| (1..=month).contains(&wait)),
            "{hint}: {:?}",
            reply.head
        );
    }
}

/// Two targets, each with a fault of its own: what the client is told of both.
async fn check_mixed(faults: [&str; 2], expected: Told) {
    let upstreams = [Upstream::new("a").await, Upstream::new("b").await];
    for (upstream, fault) in upstreams.iter().zip(faults) {
        upstream.always(fault);
    }
    let gateway = Gateway::start(&in_order(&upstreams.iter().collect::<Vec<_>>())).await;
    let reply = gateway.ask(&Ask::chat("pair", false).header("x-freeway-deadline", DEADLINE)).await;
    let message = check_error(&reply, expected, &format!("{faults:?}"));
    assert!(message.contains("a/a-model") && message.contains("b/b-model"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_failures_the_one_that_passes_decides() {
    let limited = r#"{"fault":"status","status":429,"headers":{"retry-after":"600"}}"#;
    let longer = r#"{"fault":"status","status":429,"headers":{"retry-after":"700"}}"#;
    let down = r#"{"fault":"status","status":503}"#;
    let gone = r#"{"fault":"status","status":404}"#;
    let key = r#"{"fault":"status","status":401}"#;
    let unavailable = told(503, "upstream_unavailable", true, Some(1));
    let cases = [
        ([limited, longer], told(429, "quota_exhausted", false, Some(600))),
        ([longer, limited], told(429, "quota_exhausted", false, Some(600))),
        ([gone, key], told(502, "upstream_refused_key", false, None)),
        ([gone, down], unavailable),
        ([down, key], unavailable),
    ];
    each(cases, |(faults, expected)| check_mixed(faults, expected)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_back_at_once_is_not_made_to_wait_for_what_is_used_up() {
    let limited = r#"{"fault":"status","status":429,"headers":{"retry-after":"600"}}"#;
    let down = r#"{"fault":"status","status":503}"#;
    let unavailable = told(503, "upstream_unavailable", true, Some(1));
    each([[limited, down], [down, limited]], move |faults| check_mixed(faults, unavailable)).await;
}
