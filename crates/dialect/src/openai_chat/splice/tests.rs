use super::*;
use proptest::prelude::*;

fn chunk(content: &str, finish: Option<&str>) -> Vec<u8> {
    json!({
        "id": "second", "created": 2, "model": "b", "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": finish}],
    })
    .to_string()
    .into_bytes()
}

fn told(text: &str) -> Told {
    let mut told = Told::default();
    let first =
        json!({"id": "first", "created": 1, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]});
    told.note(first.to_string().as_bytes());
    told.note(&chunk(text, None));
    assert!(told.can_be_continued());
    told
}

/// The text that the client gets of an answer in these pieces.
fn joined(mut splice: Splice, pieces: &[&str]) -> Result<String, Parted> {
    let mut text = String::new();
    let pieces = pieces.iter().map(|piece| chunk(piece, None)).chain([chunk("", Some("stop"))]);
    for piece in pieces {
        if let Some(passed) = splice.pass(&piece)? {
            let passed: Value = serde_json::from_slice(&passed).unwrap();
            assert_eq!(
                (&passed["id"], &passed["created"], &passed["model"]),
                (&json!("first"), &json!(1), &json!("b"))
            );
            let delta = &passed["choices"][0]["delta"];
            assert_eq!(delta.get("role"), None, "the client has been told whose turn it is");
            text.push_str(delta["content"].as_str().unwrap());
            if passed["choices"][0]["finish_reason"] == "stop" {
                assert_eq!(passed["freeway"], json!({"rescued": "continue", "by": "lab/b"}));
            }
        }
    }
    Ok(text)
}

fn onward(before: &str, pieces: &[&str]) -> Result<String, Parted> {
    joined(Splice::onward(told(before), "lab/b".to_owned(), false), pieces)
}

/// The same of a target that is known to repeat what was told.
fn repeating(before: &str, pieces: &[&str]) -> Result<String, Parted> {
    joined(Splice::onward(told(before), "lab/b".to_owned(), true), pieces)
}

fn anew(before: &str, pieces: &[&str]) -> Result<String, Parted> {
    joined(Splice::anew(told(before), "lab/b".to_owned()), pieces)
}

#[test]
fn an_answer_goes_on_without_what_it_repeats() {
    assert_eq!(onward("The quick brown", &[" fox", " jumps."]).unwrap(), " fox jumps.");
    assert_eq!(onward("See the quick brown", &["the quick brown fox"]).unwrap(), "the quick brown fox", "may be meant");
    assert_eq!(onward("And see the quick brown", &["see the quick brown fox"]).unwrap(), " fox");
    assert_eq!(onward("And see the quick brown", &["see the qu", "ick brown", " fox"]).unwrap(), " fox");
    let refrain = "the tide is out, the tide is out, ";
    assert_eq!(onward(refrain, &["the tide is out, at last"]).unwrap(), "the tide is out, at last");
    assert_eq!(onward("tide tide tide tide ", &["tide tide tide tide end"]).unwrap(), "tide tide tide tide end");
    let long =
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness";
    assert_eq!(onward(long, &[long, ", it was"]).unwrap(), ", it was", "or it says it all again");
    assert_eq!(onward("Größe: über zwölf Fuß", &["e: über zwölf Fuß, und"]).unwrap(), ", und");
}

#[test]
fn who_is_known_to_repeat_what_was_told_is_not_heard_twice() {
    assert_eq!(repeating("The", &["The quick"]).unwrap(), " quick");
    assert_eq!(onward("The", &["The quick"]).unwrap(), "The quick", "which may be meant of anybody else");
    assert_eq!(repeating("ha ha ", &["ha ", "ha ha!"]).unwrap(), "ha!");
    let refrain = "the tide is out, ".repeat(6);
    let again = [refrain.as_str(), "at last"];
    assert_eq!(repeating(&refrain, &again).unwrap(), "at last");
    assert_eq!(repeating(&refrain, &[&again.concat()]).unwrap(), "at last");
    // It does not always, it seems.
    assert_eq!(repeating("The", &[" quick"]).unwrap(), " quick");
    assert_eq!(repeating("And see the quick brown", &["see the quick brown fox"]).unwrap(), " fox");
    assert_eq!(repeating(&refrain, &[&refrain[..80], "and so on and so on"]), Err(Parted));
}

#[test]
fn a_new_answer_goes_on_where_it_is_the_same_and_parts_where_not() {
    assert_eq!(anew("The quick", &["The", " qui", "ck brown", " fox"]).unwrap(), " brown fox");
    assert_eq!(anew("The quick", &["The quick"]).unwrap(), "");
    assert_eq!(anew("The quick", &["The slow"]), Err(Parted));
    assert_eq!(anew("The quick", &["The slow", " one and more"]), Err(Parted), "however much it says");
    assert_eq!(anew("The quick", &["The"]), Err(Parted), "it says less");
    assert_eq!(anew("The quick", &["A"]), Err(Parted));
}

#[test]
fn what_is_no_plain_text_cannot_be_continued() {
    let after = |delta: Value| {
        let mut told = told("text");
        told.note(json!({"choices": [{"index": 0, "delta": delta}]}).to_string().as_bytes());
        told.can_be_continued()
    };
    assert!(after(json!({"content": " more", "refusal": null, "tool_calls": []})));
    assert!(!after(json!({"tool_calls": [{"index": 0, "id": "a"}]})));
    assert!(!after(json!({"reasoning_content": "hm"})));
    assert!(!after(json!({"content": "x".repeat(200_000)})));
    assert!(!Told::default().can_be_continued(), "nothing was told yet");
    let mut second = told("text");
    second.note(br#"{"choices":[{"index":1,"delta":{"content":"b"}}]}"#);
    assert!(!second.can_be_continued());
    let mut ended = told("text");
    ended.note(&chunk("", Some("stop")));
    assert!(!ended.can_be_continued());
    let mut splice = Splice::onward(told("text"), "lab/b".to_owned(), false);
    let call = br#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a"}]}}]}"#;
    assert_eq!(splice.pass(call), Err(Parted));
}

#[test]
fn another_target_is_asked_to_go_on() {
    let body = br#"{"model":"smart","messages":[{"role":"user","content":"Tell me \u0041 1e400"}],"max_tokens":100,"seed":1.50,"stream":true}"#;
    let request = ChatRequest::read(&Bytes::from_static(body)).unwrap();
    let asked = told("0123456789012345678901234567890123456789").continuation(&request, Some("prefix")).unwrap();
    let text = std::str::from_utf8(&asked).unwrap();
    assert!(text.contains(r#""seed":1.50"#) && text.contains(r"\u0041 1e400"), "what is not touched stays as it was");
    let asked: Value = serde_json::from_slice(&asked).unwrap();
    assert_eq!(asked["messages"].as_array().unwrap().len(), 2);
    assert_eq!(asked["messages"][1]["content"], "0123456789012345678901234567890123456789");
    assert_eq!(asked["messages"][1]["prefix"], true);
    assert_eq!(asked["max_tokens"], 90);
    let empty = ChatRequest::read(&Bytes::from_static(br#"{"model":"m","messages": [ ] }"#)).unwrap();
    let asked: Value = serde_json::from_slice(&told("a").continuation(&empty, None).unwrap()).unwrap();
    assert_eq!(asked["messages"], json!([{"role": "assistant", "content": "a"}]));
}

proptest! {
    /// However the second answer is cut, the client gets the same text.
    #[test]
    fn cuts_change_nothing(
        before in "[a-c é]{1,90}",
        again in 0..90_usize,
        after in "[a-c é]{0,90}",
        cuts in prop::collection::vec(0..200_usize, 0..8),
        is_new in any::<bool>(),
        repeats in any::<bool>(),
    ) {
        let start = before.char_indices().rev().nth(again).map_or(0, |(place, _)| place);
        let whole = if is_new { format!("{before}{after}") } else { format!("{}{after}", &before[start..]) };
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| whole.is_char_boundary(*cut)).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let ends = cuts.iter().copied().chain([whole.len()]);
        let pieces: Vec<&str> = std::iter::once(0).chain(cuts.iter().copied()).zip(ends).map(|(from, to)| &whole[from..to]).collect();
        let play = |pieces: &[&str]| match (is_new, repeats) {
            (true, _) => anew(&before, pieces),
            (false, true) => repeating(&before, pieces),
            (false, false) => onward(&before, pieces),
        };
        let (one, many) = (play(&[&whole]), play(&pieces));
        prop_assert_eq!(&one, &many);
        if is_new {
            prop_assert_eq!(one.unwrap(), after);
        }
    }
}
