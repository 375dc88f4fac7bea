//! The same of answers that are not streamed: whoever gets one that was cut has asked in vain, so the client gets it only
//! if nothing but white space is missing.

use std::sync::Arc;

use serde_json::Value;

use super::{Answers, ask, check_all, chunked};
use crate::http::Reply;

/// What the other target says.
const OTHER: &str = r#"{"choices":[{"message":{"content":"another one"},"finish_reason":"stop"}]}"#;
const JSON: &str = "application/json";

/// Whole answers, by what is special about them.
fn recorded() -> [String; 4] {
    let usual = concat!(
        r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":"#,
        r#"{"role":"assistant","content":"gr\u00fc\u00dfe {[\"]} 🌊"},"finish_reason":"stop"}],"#,
        r#""usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#,
    );
    let spread = serde_json::from_str(usual).and_then(|usual: Value| serde_json::to_string_pretty(&usual)).unwrap();
    let call = concat!(
        r#"{"choices":[{"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","#,
        r#""function":{"name":"f","arguments":"{\"a\":1}"}}]},"finish_reason":"tool_calls"}]}"#,
    );
    let withheld = r#"{"choices":[{"message":{"content":null},"finish_reason":"content_filter"}]}"#;
    [usual.to_owned(), format!("{spread}\r\n\n "), call.to_owned(), withheld.to_owned()]
}

/// How the body's end shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// By a last chunk, which comes though the rest does not.
    Ended,
    /// By a last chunk, which does not come: the connection is closed.
    Closed,
    /// By its length, told beforehand: the connection is closed before.
    Counted,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    answer: usize,
    at: usize,
    framing: Framing,
}

impl Cut {
    const FRAMINGS: [Framing; 3] = [Framing::Ended, Framing::Closed, Framing::Counted];

    fn read(text: &str) -> Self {
        let numbers: Vec<usize> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
        Self { answer: numbers[0], at: numbers[1], framing: Self::FRAMINGS[numbers[2]] }
    }

    /// What the upstream sends, and whether its connection stays open.
    fn bytes(self, answers: &[String]) -> (Vec<u8>, bool) {
        let whole = answers[self.answer].as_bytes();
        let sent = &whole[..self.at];
        match self.framing {
            Framing::Ended => (chunked(JSON, sent, true), true),
            Framing::Closed => (chunked(JSON, sent, false), false),
            Framing::Counted => {
                let length = whole.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-type: {JSON}\r\ncontent-length: {length}\r\n\r\n").into_bytes();
                ([head.as_slice(), sent].concat(), self.at == length)
            }
        }
    }

    /// Checks what the client got.
    fn check(self, answers: &[String], reply: &Reply) {
        let whole = &answers[self.answer];
        let sent = &whole.as_bytes()[..self.at];
        let is_whole = match self.framing {
            Framing::Ended => self.at >= whole.trim_ascii_end().len(),
            Framing::Closed => false,
            Framing::Counted => self.at == whole.len(),
        };
        let expected = if is_whole { ("a", sent) } else { ("b", OTHER.as_bytes()) };
        let provider = reply.head.header("x-freeway-provider").unwrap_or_default();
        let context = format!("{self:?}: {}", reply.everything());
        assert_eq!((reply.head.status, reply.whole), (200, true), "{context}");
        assert_eq!((provider, reply.text().as_bytes()), expected, "{context}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_at_any_byte_of_a_plain_answer_is_seen() {
    let answers = Arc::new(recorded());
    let mut requests = Vec::new();
    for (answer, whole) in answers.iter().enumerate() {
        for at in 0..=whole.len() {
            for (number, framing) in Cut::FRAMINGS.into_iter().enumerate() {
                let request = ask(requests.len(), &format!("{answer} {at} {number}"), r#""stream":false"#);
                requests.push((request, Cut { answer, at, framing }));
            }
        }
    }
    let all = Arc::clone(&answers);
    let first: Answers = Arc::new(move |text| Cut::read(text).bytes(all.as_slice()));
    let second: Answers = Arc::new(|_| (chunked(JSON, OTHER.as_bytes(), true), true));
    check_all([first, second], requests, move |cut, reply| cut.check(answers.as_slice(), reply)).await;
}
