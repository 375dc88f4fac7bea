//! An alias by `fastest`: the target that answers soonest has the requests, for as long as it does.

use crate::gateway::Gateway;
use crate::http::Ask;
use crate::upstream::{Upstream, in_order};

/// Who answers the next requests, in order, by the first letters of their names.
async fn served(gateway: &Gateway, requests: usize) -> String {
    let mut all = String::new();
    for _ in 0..requests {
        let reply = gateway.ask(&Ask::chat("pair", true)).await;
        assert_eq!(reply.head.status, 200, "{}", reply.everything());
        all.push_str(reply.head.header("x-freeway-provider").unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_faster_of_two_has_the_requests_until_it_turns_slow() {
    let (a, b) = (Upstream::new("a").await, Upstream::new("b").await);
    a.always(r#"{"fault":"slow","first_byte_ms":300}"#);
    let by_time = in_order(&[&a, &b]).replace("\"ordered\"", "\"fastest\"");
    let gateway = Gateway::start(&by_time).await;
    assert_eq!(served(&gateway, 6).await, "aaabbb", "three answers measure each of them");
    assert_eq!(served(&gateway, 6).await, "bbbbbb", "b comes second in the list and answers first");
    b.always(r#"{"fault":"slow","first_byte_ms":900}"#);
    assert_eq!(served(&gateway, 8).await, "bbbbbaaa", "of the latest nine answers, five were slow");
}
