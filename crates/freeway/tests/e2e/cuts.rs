//! An upstream that goes away at each byte of each recorded stream, with a proper end and without one: what the client
//! gets is whole, or says that it is not, or is another target's whole answer.
//!
//! The streams in `cuts/` are short ones, written by hand in shapes that providers are known for, and what makes each
//! special is in its name. Only the one with comments was held against its provider's documentation (OpenRouter's, read
//! on 2026-11-23). The upstream here is made by hand: it is told in the request where to stop.

mod plain;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::gateway::Gateway;
use crate::http::{Ask, Connection, Reply, find};

/// Requests under way at the same time.
const AT_ONCE: usize = 24;
/// Cuts of one model: fewer than open its breaker.
const CUTS_OF_A_MODEL: usize = 4;
/// What the other target says.
const OTHER: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"another\"},\"finish_reason\":\"stop\"}]}\n\n\
                     data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\" one\"},\"finish_reason\":\"stop\"}]}\n\n\
                     data: [DONE]\n\n";

/// A stream, and how many choices it has.
struct Recorded {
    name: &'static str,
    bytes: Vec<u8>,
    choices: usize,
    parts: Vec<Part>,
}

/// An event of a stream.
struct Part {
    /// Where its last line of data ends, but for the line end.
    data_end: usize,
    /// Where it is over.
    end: usize,
    said: String,
    finishes: usize,
}

/// One request: which stream is cut, where, and whether its body ends properly.
#[derive(Clone, Copy)]
struct Cut {
    stream: usize,
    at: usize,
    proper: bool,
}

fn recorded() -> Vec<Recorded> {
    macro_rules! stream {
        ($name:literal) => {
            ($name, include_bytes!(concat!("cuts/", $name, ".sse")).to_vec())
        };
    }
    let mut all = vec![
        stream!("usage"),
        stream!("usage-aside"),
        stream!("comments"),
        stream!("no-choices-first"),
        stream!("reasoning"),
        stream!("tool-call"),
        stream!("no-marker"),
        stream!("two-choices"),
        stream!("two-lines"),
    ];
    let usual = String::from_utf8(all[1].1.clone()).unwrap();
    all.push(("carriage returns", usual.replace('\n', "\r\n").into_bytes()));
    all.push(("byte order mark", format!("\u{feff}{usual}").into_bytes()));
    let make = |(name, bytes): (&'static str, Vec<u8>)| {
        let parts = parts(&bytes);
        Recorded { name, bytes, choices: if name == "two-choices" { 2 } else { 1 }, parts }
    };
    all.into_iter().map(make).collect()
}

/// The events of a stream, read with no regard to how the gateway reads them.
fn parts(bytes: &[u8]) -> Vec<Part> {
    let blank: &[u8] = if find(bytes, b"\r\n").is_some() { b"\r\n\r\n" } else { b"\n\n" };
    let mut made = Vec::new();
    let mut start = 0;
    while let Some(length) = find(&bytes[start..], blank) {
        let data_end = start + length;
        let text = String::from_utf8_lossy(&bytes[start..data_end]).into_owned();
        let lines = text.trim_start_matches('\u{feff}').lines();
        let data: String = lines.filter_map(|line| line.strip_prefix("data:")).collect();
        let (said, finishes) = read(&data);
        // Of the last line end, the first byte tells that the line is empty.
        let end = data_end + blank.len() - usize::from(blank.len() == 4);
        made.push(Part { data_end, end, said, finishes });
        start = data_end + blank.len();
    }
    assert_eq!(start, bytes.len(), "a recorded stream ends with an empty line");
    made
}

/// What an event says to a client, and how many choices end with it.
fn read(data: &str) -> (String, usize) {
    let Ok(chunk) = serde_json::from_str::<Value>(data) else { return (String::new(), 0) };
    let mut said = String::new();
    let mut finishes = 0;
    for choice in chunk["choices"].as_array().into_iter().flatten() {
        let paths = [
            "/delta/reasoning_content",
            "/delta/content",
            "/delta/tool_calls/0/function/name",
            "/delta/tool_calls/0/function/arguments",
        ];
        let texts = paths.iter().filter_map(|path| choice.pointer(path).and_then(Value::as_str));
        said.extend(texts);
        finishes += usize::from(choice["finish_reason"].is_string());
    }
    (said, finishes)
}

/// What a client has been told in a stream: the text, whether there was an error, and whether the end marker came.
fn heard(reply: &Reply) -> (String, bool, bool) {
    // A carriage return alone ends a line too.
    let text = reply.text().replace("\r\n", "\n").replace('\r', "\n");
    let (mut said, mut is_error, mut is_done) = (String::new(), false, false);
    for event in text.trim_start_matches('\u{feff}').split("\n\n") {
        let data: String = event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
        assert!(!is_error && !is_done || data.is_empty(), "nothing comes after the end: {text}");
        is_error |= data.trim_start().starts_with("{\"error\"");
        is_done |= data.trim() == "[DONE]";
        said.push_str(&read(&data).0);
    }
    (said, is_error, is_done)
}

impl Recorded {
    /// Checks what a client got of this stream.
    fn check(&self, cut: Cut, reply: &Reply) {
        let end = |part: &&Part| if cut.proper { part.data_end } else { part.end };
        let arrived = || self.parts.iter().filter(|part| end(part) <= cut.at);
        let said: String = arrived().map(|part| part.said.as_str()).collect();
        let is_finished = arrived().map(|part| part.finishes).sum::<usize>() == self.choices;
        let context = format!("{} cut at {}, proper end {}: {}", self.name, cut.at, cut.proper, reply.everything());
        assert_eq!((reply.head.status, reply.whole), (200, true), "{context}");
        let expected = match (said.is_empty(), is_finished) {
            (true, _) => ("b", "another one".to_owned(), false, true),
            (false, true) => ("a", said, false, true),
            (false, false) => ("a", said, true, false),
        };
        let (said, is_error, is_done) = heard(reply);
        let provider = reply.head.header("x-freeway-provider").unwrap_or_default();
        assert_eq!((provider, said, is_error, is_done), expected, "{context}");
    }
}

/// What a target sends for the text of a request, and whether its connection stays open.
type Answers = Arc<dyn Fn(&str) -> (Vec<u8>, bool) + Send + Sync>;

async fn serve(listener: TcpListener, answers: Answers) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(answer_all(socket, Arc::clone(&answers)));
    }
}

async fn answer_all(mut socket: TcpStream, answers: Answers) -> Option<()> {
    let mut unread = Vec::new();
    loop {
        let body = request(&mut socket, &mut unread).await?;
        let (answer, stays_open) = answers(body["messages"][0]["content"].as_str()?);
        socket.write_all(&answer).await.ok()?;
        if !stays_open {
            return None;
        }
    }
}

/// A head of this content type with a body in one chunk, and the end of the body, if it has one.
fn chunked(content_type: &str, body: &[u8], proper: bool) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut answer = head.into_bytes();
    if !body.is_empty() {
        answer.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
        answer.extend_from_slice(body);
        answer.extend_from_slice(b"\r\n");
    }
    if proper {
        answer.extend_from_slice(b"0\r\n\r\n");
    }
    answer
}

/// The body of the next request on a connection.
async fn request(socket: &mut TcpStream, unread: &mut Vec<u8>) -> Option<Value> {
    loop {
        if let Some(end) = find(unread, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&unread[..end]).to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse::<usize>().ok()?;
            let all = end + 4 + length;
            if unread.len() >= all {
                let body = serde_json::from_slice(&unread[end + 4..all]).ok();
                unread.drain(..all);
                return body;
            }
        }
        if socket.read_buf(unread).await.ok()? == 0 {
            return None;
        }
    }
}

impl Cut {
    fn read(text: &str) -> Self {
        let numbers: Vec<usize> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
        Self { stream: numbers[0], at: numbers[1], proper: numbers[2] == 1 }
    }

    fn ask(self, number: usize, streams: &[Recorded]) -> Ask {
        let Self { stream, at, proper } = self;
        let choices = streams[stream].choices.max(1);
        ask(number, &format!("{stream} {at} {}", u8::from(proper)), &format!(r#""stream":true,"n":{choices}"#))
    }
}

/// A request that tells the upstream in its text where to stop.
fn ask(number: usize, text: &str, more: &str) -> Ask {
    let model = number / CUTS_OF_A_MODEL;
    Ask::body(format!(r#"{{"model":"cut-{model}",{more},"messages":[{{"role":"user","content":"{text}"}}]}}"#))
}

/// A list of two equal targets for each few cuts, since what fails again and again would not be asked any more. The first
/// one stops where it is told to, the other one is always well.
async fn config(first: Answers, second: Answers, models: usize) -> String {
    let mut config = String::new();
    for (id, answers) in [("a", first), ("b", second)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ids: Vec<String> = (0..models).map(|model| format!("{{ id = \"m-{model}\" }}")).collect();
        config.push_str(&format!(
            "[providers.{id}]\nbase_url = \"http://{address}/v1\"\nkeys = [\"sk-test-upstream\"]\ncost = \"free\"\n\
             models = [{}]\n",
            ids.join(", ")
        ));
        tokio::spawn(serve(listener, answers));
    }
    let alias = |model| {
        format!("[aliases.cut-{model}]\nstrategy = \"ordered\"\ntargets = [\"a/m-{model}\", \"b/m-{model}\"]\n")
    };
    config.extend((0..models).map(alias));
    config
}

/// Makes so many requests, some of them at a time, and checks each reply.
async fn check_all<C>(
    answers: [Answers; 2],
    requests: Vec<(Ask, C)>,
    check: impl Fn(&C, &Reply) + Send + Sync + 'static,
) where
    C: Send + Sync + 'static,
{
    let [first, second] = answers;
    let config = config(first, second, requests.len().div_ceil(CUTS_OF_A_MODEL)).await;
    let gateway = Arc::new(Gateway::start(&config).await);
    let shared = Arc::new((requests, check));
    let mut clients = JoinSet::new();
    for client in 0..AT_ONCE {
        let (shared, gateway) = (Arc::clone(&shared), Arc::clone(&gateway));
        clients.spawn(async move {
            let (requests, check) = &*shared;
            let mut connection = Connection::open(gateway.address).await;
            connection.be_patient(Duration::from_secs(60));
            for (ask, cut) in requests.iter().skip(client).step_by(AT_ONCE) {
                connection.send(&ask.bytes(gateway.address)).await;
                check(cut, &connection.reply().await);
            }
        });
    }
    clients.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_at_any_byte_never_makes_a_broken_answer_look_whole() {
    const EVENTS: &str = "text/event-stream";
    let streams = Arc::new(recorded());
    let mut requests = Vec::new();
    for (stream, recorded) in streams.iter().enumerate() {
        for at in 0..=recorded.bytes.len() {
            for proper in [true, false] {
                let cut = Cut { stream, at, proper };
                requests.push((cut.ask(requests.len(), &streams), cut));
            }
        }
    }
    let all = Arc::clone(&streams);
    let first: Answers = Arc::new(move |text| {
        let Cut { stream, at, proper } = Cut::read(text);
        (chunked(EVENTS, &all[stream].bytes[..at], proper), proper)
    });
    let second: Answers = Arc::new(|_| (chunked(EVENTS, OTHER.as_bytes(), true), true));
    check_all([first, second], requests, move |cut, reply| streams[cut.stream].check(*cut, reply)).await;
}
