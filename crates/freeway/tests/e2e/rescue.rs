//! A stream that breaks off after its first content: told, continued or begun anew, as its client wants it.

use serde_json::Value;

use crate::gateway::Gateway;
use crate::http::{Ask, Reply};
use crate::patience::each;
use crate::upstream::Upstream;

const WHOLE: &str = "same heard: the tide is out";
/// Events of a whole stream: the role, six pieces of text, and the end.
const EVENTS: usize = 8;

/// Two providers of a model by the same name, and the gateway before them.
struct Pair {
    a: Upstream,
    b: Upstream,
    gateway: Gateway,
}

/// `features` are what `b` says it can do, and `more` stands in the alias.
async fn pair(features: &str, more: &str) -> Pair {
    let facts = |features: &str| format!("models = [{{ id = \"same\", features = [{features}] }}]");
    let a = Upstream::with("a", &facts("\"stream\""), |_| ()).await;
    let b = Upstream::with("b", &facts(features), |_| ()).await;
    let alias = format!("[aliases.pair]\nstrategy = \"ordered\"\ntargets = [\"a/same\", \"b/same\"]\n{more}\n");
    let gateway = Gateway::start(&[a.table(), b.table(), alias].concat()).await;
    Pair { a, b, gateway }
}

fn cut(after_events: usize) -> String {
    format!(r#"{{"fault":"cut","after_events":{after_events},"abrupt":true}}"#)
}

fn chunks(reply: &Reply) -> Vec<Value> {
    let events = reply.events();
    events.iter().filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn is_whole(reply: &Reply) -> bool {
    reply.events().last().is_some_and(|last| last == "[DONE]") && !reply.text().contains("\"error\":{")
}

async fn check_continued(after_events: usize, features: &str) {
    let Pair { a, b, gateway } = pair(features, "rescue = \"continue\"").await;
    a.once(&cut(after_events));
    let reply = gateway.ask(&Ask::chat("pair", true)).await;
    assert!(is_whole(&reply), "{after_events}: {}", reply.text());
    assert_eq!(reply.content(), WHOLE, "{after_events}: {}", reply.text());
    let chunks = chunks(&reply);
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk["created"] == chunks[0]["created"]));
    let roles = chunks.iter().filter(|chunk| chunk["choices"][0]["delta"].get("role").is_some()).count();
    assert_eq!(roles, 1, "{}", reply.text());
    let marks: Vec<&Value> = chunks.iter().filter_map(|chunk| chunk.get("freeway")).collect();
    assert_eq!(marks, [&serde_json::json!({"rescued": "continue", "by": "b/same"})], "{}", reply.text());
    // Of an answer to which nothing is missing but its end, who goes on says nothing, and is asked for it whole.
    let is_all = features.contains("prefill") && after_events == EVENTS - 1;
    assert_eq!((a.asked(), b.asked()), (1, if is_all { 2 } else { 1 }));
    let ledger = gateway.ledger(&reply).await;
    let attempts: Vec<(&str, &str)> = ledger["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| (attempt["target"].as_str().unwrap(), attempt["outcome"].as_str().unwrap()))
        .collect();
    let ends = (attempts.first(), attempts.last());
    assert_eq!(ends, (Some(&("a/same", "broken_answer")), Some(&("b/same", "answered"))), "{ledger}");
    assert_eq!((&ledger["outcome"], &ledger["served_by"]), (&"answered".into(), &"b/same".into()), "{ledger}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_model_goes_on_wherever_the_stream_was_cut() {
    // After the role alone nothing has been said, and it is an attempt like any other.
    let cuts = 2..EVENTS;
    let features = ["\"stream\", \"prefill\"", "\"stream\""];
    let cases = cuts.flat_map(|cut| features.map(|features| (cut, features)));
    each(cases, |(cut, features)| check_continued(cut, features)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_target_goes_on_by_itself() {
    let a = Upstream::with("a", "models = [{ id = \"same\", features = [\"stream\", \"prefill\"] }]", |_| ()).await;
    a.once(&cut(4));
    let gateway = Gateway::start(&a.table()).await;
    let reply = gateway.ask(&Ask::chat("a/same", true).header("x-freeway-rescue", "continue")).await;
    assert!(is_whole(&reply), "{}", reply.text());
    assert_eq!((reply.content().as_str(), a.asked()), (WHOLE, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_refuses_a_begun_answer_is_asked_for_a_whole_one() {
    let Pair { a, b, gateway } = pair("\"stream\", \"prefill\"", "rescue = \"continue\"").await;
    a.once(&cut(4));
    b.once(r#"{"fault":"status","status":400,"body":{"error":{"message":"the last turn has to be the user's"}}}"#);
    let reply = gateway.ask(&Ask::chat("pair", true)).await;
    assert!(is_whole(&reply), "{}", reply.text());
    assert_eq!((reply.content().as_str(), a.asked(), b.asked()), (WHOLE, 1, 2));
    assert!(!reply.text().contains("the last turn"), "{}", reply.text());
}

/// The last message of each request that arrived.
fn last_messages(upstream: &Upstream) -> Vec<Value> {
    let last =
        |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["messages"].as_array().unwrap().last().cloned();
    upstream.sim.log().iter().map(|entry| last(&entry.body).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_begun_answer_is_marked_as_each_provider_wants_it() {
    let facts = |mark: &str| format!("{mark}\nmodels = [{{ id = \"same\", features = [\"stream\", \"prefill\"] }}]");
    let marks = ["", "prefill = { mark = \"prefix\" }", "prefill = { mark = \"partial\" }"];
    let [a, b, c] = [("a", marks[0]), ("b", marks[1]), ("c", marks[2])]
        .map(|(id, mark)| async move { Upstream::with(id, &facts(mark), |_| ()).await });
    let (a, b, c) = (a.await, b.await, c.await);
    a.always(&cut(4));
    let alias = "[aliases.all]\nstrategy = \"ordered\"\ntargets = [\"a/same\", \"b/same\", \"c/same\"]\nrescue = \"continue\"\n";
    let gateway = Gateway::start(&[&a.table(), &b.table(), &c.table(), alias].concat()).await;
    for is_down in [false, true] {
        if is_down {
            b.always(r#"{"fault":"status","status":500}"#);
        }
        let reply = gateway.ask(&Ask::chat("all", true)).await;
        assert!(is_whole(&reply), "{}", reply.text());
        assert_eq!(reply.content(), WHOLE, "{}", reply.text());
    }
    let begun = |mark: &str| {
        let mut begun = serde_json::json!({"role": "assistant", "content": "same heard: the "});
        begun[mark] = Value::Bool(true);
        begun
    };
    assert!(last_messages(&a).iter().all(|message| message["role"] == "user"));
    let asked = last_messages(&b);
    assert!(asked.len() >= 2 && asked.iter().all(|message| *message == begun("prefix")), "{asked:?}");
    assert_eq!(last_messages(&c), [begun("partial")]);
}

/// What goes on after a cut begins with all that was said before, however short that was.
async fn check_repeated(after_events: usize) {
    let a = Upstream::with("a", "models = [{ id = \"same\", features = [\"stream\"] }]", |_| ()).await;
    let facts = "prefill = { repeats = true }\nmodels = [{ id = \"same\", features = [\"stream\", \"prefill\"] }]";
    let b = Upstream::with("b", facts, |_| ()).await;
    let alias = "[aliases.pair]\nstrategy = \"ordered\"\ntargets = [\"a/same\", \"b/same\"]\nrescue = \"continue\"\n";
    let gateway = Gateway::start(&[&a.table(), &b.table(), alias].concat()).await;
    a.once(&cut(after_events));
    let reply = gateway.ask(&Ask::chat("pair", true)).await;
    assert!(is_whole(&reply), "{after_events}: {}", reply.text());
    assert_eq!((reply.content().as_str(), b.asked()), (WHOLE, 1), "{after_events}: {}", reply.text());
    assert_eq!(last_messages(&b)[0]["role"], "assistant");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_repeats_the_begun_answer_is_not_heard_twice() {
    each(2..EVENTS, check_repeated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_to_refuse_a_begun_answer_is_asked_for_a_whole_one_at_once() {
    let a = Upstream::with("a", "models = [{ id = \"same\", features = [\"stream\"] }]", |_| ()).await;
    let facts =
        "prefill = { mark = \"prefix\" }\nmodels = [{ id = \"same\", features = [\"stream\"], lacks = [\"prefill\"] }]";
    let b = Upstream::with("b", facts, |_| ()).await;
    let alias = "[aliases.pair]\nstrategy = \"ordered\"\ntargets = [\"a/same\", \"b/same\"]\nrescue = \"continue\"\n";
    let gateway = Gateway::start(&[&a.table(), &b.table(), alias].concat()).await;
    a.once(&cut(4));
    let reply = gateway.ask(&Ask::chat("pair", true)).await;
    assert!(is_whole(&reply), "{}", reply.text());
    let asked = last_messages(&b);
    assert_eq!((reply.content().as_str(), asked.len(), &asked[0]["role"]), (WHOLE, 1, &"user".into()), "{asked:?}");
}

/// The stream ends in an error, and `b` was asked so often.
async fn check_told(alias: &str, body: &str, wish: Option<&str>, asked: usize) {
    let facts =
        |id: &str| format!("models = [{{ id = \"{id}-model\", features = [\"stream\", \"tools\", \"json_object\"] }}]");
    let a = Upstream::with("a", &facts("a"), |_| ()).await;
    let b = Upstream::with("b", &facts("b"), |_| ()).await;
    a.always(&cut(4));
    let alias = format!("[aliases.pair]\nstrategy = \"ordered\"\ntargets = [\"a/a-model\", \"b/b-model\"]\n{alias}\n");
    let gateway = Gateway::start(&[a.table(), b.table(), alias].concat()).await;
    let ask = Ask::body(format!(
        r#"{{"model":"pair","stream":true,"messages":[{{"role":"user","content":"the tide is out"}}]{body}}}"#
    ));
    let ask = match wish {
        Some(wish) => ask.header("x-freeway-rescue", wish),
        None => ask,
    };
    let reply = gateway.ask(&ask).await;
    assert_eq!(reply.head.status, 200, "{}", reply.everything());
    let last: Value = serde_json::from_str(reply.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "upstream_stream_broken", "{}", reply.text());
    assert!(!reply.text().contains("[DONE]"), "{}", reply.text());
    assert_eq!(b.asked(), asked, "{}", reply.text());
    let ledger = gateway.ledger(&reply).await;
    assert_eq!(ledger["outcome"], "failed", "{ledger}");
    assert_eq!(
        ledger["attempts"].as_array().unwrap().len(),
        1 + asked.max(a.asked() - 1),
        "every leg is accounted: {ledger}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_joined_is_told() {
    let both = "rescue = \"continue\"\nequivalents = [\"a/a-model\", \"b/b-model\"]";
    let tools =
        r#","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":"none""#;
    let cases = [
        // Nobody wants it.
        ("", "", None, 0),
        (both, "", Some("fail"), 0),
        // The model is another one, and the one that broke breaks again.
        ("rescue = \"continue\"", "", None, 0),
        // It counts as the same and answers something else.
        (both, "", None, 1),
        // It is no plain text.
        (both, tools, None, 0),
        (both, r#","response_format":{"type":"json_object"}"#, None, 0),
        (both, r#","n":2"#, None, 0),
        (both, r#","logprobs":true"#, None, 0),
        // It could be stored twice.
        (both, r#","store":true"#, None, 0),
    ];
    each(cases, |(alias, body, wish, asked)| check_told(alias, body, wish, asked)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_it_gets_a_new_answer_after_a_word_of_it() {
    let Pair { a, b, gateway } = pair("\"stream\"", "").await;
    a.once(&cut(5));
    let reply = gateway.ask(&Ask::chat("pair", true).header("x-freeway-rescue", "restart")).await;
    assert!(is_whole(&reply), "{}", reply.text());
    let chunks = chunks(&reply);
    let mark = chunks.iter().position(|chunk| chunk["freeway"]["rescued"] == "restart").unwrap();
    let content = |chunks: &[Value]| -> String {
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
    };
    assert!(mark > 0 && WHOLE.starts_with(&content(&chunks[..mark])), "{}", reply.text());
    assert_eq!(content(&chunks[mark..]), WHOLE, "{}", reply.text());
    assert_eq!((a.asked(), b.asked()), (1, 1));
    let wrong = gateway.ask(&Ask::chat("pair", true).header("x-freeway-rescue", "again")).await;
    assert_eq!((wrong.head.status, &wrong.json()["error"]["param"]), (400, &"x-freeway-rescue".into()));
}
