//! Who is asked next when a target fails, and how long the one that failed is left alone. What the client sees of each
//! fault stands in `matrix`.

use crate::gateway::Gateway;
use crate::http::Ask;
use crate::patience::each;
use crate::upstream::{Upstream, in_order};

/// An ordered pair: `a` meets its first request with a fault, and the second with none.
async fn check_comes_back(fault: &str) {
    let (a, b) = (Upstream::new("a").await, Upstream::new("b").await);
    a.once(fault);
    let gateway = Gateway::start(&in_order(&[&a, &b])).await;
    let reply = gateway.ask(&Ask::chat("pair", false)).await;
    assert_eq!(reply.head.header("x-freeway-provider"), Some("a"), "{fault}: {}", reply.everything());
    assert_eq!((a.asked(), b.asked()), (2, 0), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_choice_gets_a_second_try() {
    each([r#"{"fault":"status","status":500}"#, r#"{"fault":"reset"}"#, r#"{"fault":"truncated-json"}"#], |fault| {
        check_comes_back(fault)
    })
    .await;
}

/// A refusal that goes back to the client: one attempt, and the provider's own words. `features` is what is known of
/// the target that refuses.
async fn check_goes_back(features: &str, code: &str, stream: bool) {
    let facts = format!("models = [{{ id = \"a-model\"{features} }}]");
    let (a, b) = (Upstream::with("a", &facts, |_| ()).await, Upstream::new("b").await);
    a.always(&format!(
        r#"{{"fault":"status","status":400,"body":{{"error":{{"message":"this is why","param":"temperature","code":"{code}"}}}}}}"#
    ));
    let gateway = Gateway::start(&in_order(&[&a, &b])).await;
    let reply = gateway.ask(&Ask::chat("pair", stream)).await;
    let context = format!("{code}, stream {stream}: {}", reply.everything());
    assert_eq!(reply.head.status, 400, "{context}");
    assert_eq!(reply.head.header("x-should-retry"), Some("false"), "{context}");
    let error = &reply.json()["error"];
    assert_eq!((&error["code"], &error["param"]), (&code.into(), &"temperature".into()), "{context}");
    assert_eq!(error["message"], "this is why", "{context}");
    assert_eq!((a.asked(), b.asked()), (1, 0), "{context}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_requests_own_fault_goes_back_to_it() {
    let known = ", features = [\"stream\"]";
    check_goes_back("", "bad_value", false).await;
    check_goes_back(known, "bad_value", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_refusal_is_not_laundered_through_another_provider() {
    for stream in [false, true] {
        check_goes_back("", "content_policy_violation", stream).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_feature_unverified_one_other_target_is_asked_and_then_the_first_refusal_goes_back() {
    let all = [Upstream::new("a").await, Upstream::new("b").await, Upstream::new("c").await];
    for (upstream, words) in all.iter().zip(["first", "second", "third"]) {
        upstream.always(&format!(r#"{{"fault":"status","status":400,"body":{{"error":{{"message":"{words}"}}}}}}"#));
    }
    let gateway = Gateway::start(&in_order(&all.iter().collect::<Vec<_>>())).await;
    let reply = gateway.ask(&Ask::chat("pair", true)).await;
    assert_eq!(
        (reply.head.status, &reply.json()["error"]["message"]),
        (400, &"first".into()),
        "{}",
        reply.everything()
    );
    assert_eq!(all.iter().map(Upstream::asked).collect::<Vec<_>>(), [1, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_here_goes_where_there_is_more_room() {
    let models = |id: &str, context: u64| format!("models = [{{ id = \"{id}-model\", context = {context} }}]");
    let mut all = Vec::new();
    for (id, context) in [("a", 20_000), ("small", 10_000), ("large", 100_000)] {
        all.push(Upstream::with(id, &models(id, context), |_| ()).await);
    }
    all[0].always(
        r#"{"fault":"status","status":400,"body":{"error":{"message":"too long","code":"context_length_exceeded"}}}"#,
    );
    let gateway = Gateway::start(&in_order(&all.iter().collect::<Vec<_>>())).await;
    let reply = gateway.ask(&Ask::chat("pair", false)).await;
    assert_eq!(reply.head.header("x-freeway-provider"), Some("large"), "{}", reply.everything());
    assert_eq!(all.iter().map(Upstream::asked).collect::<Vec<_>>(), [1, 0, 1]);
}

/// What `a` is still asked after a first request has met this fault there.
async fn check_left_alone(fault: &str, asked: usize) {
    let (a, b) = (Upstream::new("a").await, Upstream::new("b").await);
    a.always(fault);
    let gateway = Gateway::start(&in_order(&[&a, &b])).await;
    for _ in 0..4 {
        let reply = gateway.ask(&Ask::chat("pair", false)).await;
        assert_eq!(reply.head.header("x-freeway-provider"), Some("b"), "{fault}: {}", reply.everything());
    }
    assert_eq!((a.asked(), b.asked()), (asked, 4), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_how_long_is_left_alone_for_so_long() {
    let limited = |hint: &str| format!(r#"{{"fault":"status","status":429,"headers":{{"retry-after":"{hint}"}}}}"#);
    let status = |status: u16| format!(r#"{{"fault":"status","status":{status}}}"#);
    let cases = [
        (limited("600"), 1),
        // Nonsense is as good as nothing: a second, then two.
        (limited("Fri, 01 Jan 2100 00:00:00 GMT"), 2),
        (limited("1e9"), 2),
        (limited("soon"), 2),
        (status(401), 1),
        (status(402), 1),
        // Nothing is held against a target for this.
        (status(403), 4),
        // Tried twice by each, until five failures in a row have opened the breaker.
        (status(500), 5),
        // A model may be missing once.
        (status(404), 2),
        (status(410), 1),
    ];
    each(cases, |(fault, asked)| async move { check_left_alone(&fault, asked).await }).await;
}
