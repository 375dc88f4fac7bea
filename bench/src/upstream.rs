//! The mock upstream: an OpenAI-compatible provider that costs as little as it can, so that what stands in front of it
//! is what gets measured. It speaks just enough HTTP/1.1 for the gateways here: bodies with a length.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use clap::Args;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::behaviour::{Behaviour, Wish};
use crate::dice::Dice;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Port on 127.0.0.1; 0 for any that is free. The address is printed.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// Largest head of a request, in bytes.
const MOST_HEAD: usize = 16 * 1024;
/// Where in the text of a chunk its time stands: so many digits.
const STAMP_DIGITS: usize = 19;

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
const ANSWER: &str = r#"{"id":"chatcmpl-bench","object":"chat.completion","created":1750000000,"model":"fast","choices":[{"index":0,"message":{"role":"assistant","content":"The tide comes in at six, and the boats float again by seven; the pilot waits at the pier until then, and so does everybody who wants to go over to the island today."},"finish_reason":"stop"}],"usage":{"prompt_tokens":250,"completion_tokens":40,"total_tokens":290}}"#;
const STOP: &str = r#"data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1750000000,"model":"fast","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1750000000,"model":"fast","choices":[],"usage":{"prompt_tokens":250,"completion_tokens":20,"total_tokens":270}}"#;
/// Requests that may have stalled so far: what the next one is drawn with.
static STALLS: AtomicU64 = AtomicU64::new(0);
const DONE: &str = "data: [DONE]";

pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let listener = TcpListener::bind(("127.0.0.1", arguments.port)).await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    println!("http://{address}/v1");
    loop {
        // A connection that failed is its client's affair; without file descriptors, waiting is all there is.
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream))),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Nanoseconds since 1970, by the clock that all processes of this machine share.
pub(crate) fn wall_nanoseconds() -> u128 {
    #[expect(clippy::disallowed_methods, reason = "the time goes to another process inside a chunk")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// The time at which the mock upstream wrote a chunk, from its line.
pub(crate) fn stamp(line: &[u8]) -> Option<u128> {
    let at = memmem::find(line, b"\"content\":\"")? + b"\"content\":\"".len();
    std::str::from_utf8(line.get(at..at + STAMP_DIGITS)?).ok()?.parse().ok()
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut unread = Vec::with_capacity(16 * 1024);
    let mut out = Vec::with_capacity(4096);
    while let Some((head, length)) = request(&mut stream, &mut unread).await? {
        let body = &unread[head..head + length];
        let Some(wish) = Wish::read(body) else {
            refuse(&mut stream, 400).await?;
            unread.drain(..head + length);
            continue;
        };
        unread.drain(..head + length);
        let go_on = answer(&mut stream, wish, &mut out).await?;
        if !go_on {
            break;
        }
    }
    Ok(())
}

/// Reads a request; `None` when the client has left. Gives the bytes of its head and of its body.
async fn request(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<Option<(usize, usize)>> {
    let mut whole = None;
    loop {
        if whole.is_none()
            && let Some(end) = memmem::find(unread, b"\r\n\r\n")
        {
            let length = content_length(&unread[..end])
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a request without a length"))?;
            whole = Some((end + 4, length));
        }
        match whole {
            Some((head, length)) if unread.len() >= head + length => return Ok(whole),
            None if unread.len() > MOST_HEAD => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a head that does not end"));
            }
            Some(_) | None => {}
        }
        if stream.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    }
}

/// The value of `content-length` in a head.
pub(crate) fn content_length(head: &[u8]) -> Option<usize> {
    header(head, "content-length")?.parse().ok()
}

/// The value of a header in a head, by its name in lower case.
pub(crate) fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Answers, and says whether the connection can take another request.
async fn answer(stream: &mut TcpStream, wish: Wish, out: &mut Vec<u8>) -> io::Result<bool> {
    match wish.behaviour {
        Behaviour::Answer { chunks, every } if wish.stream => {
            send_chunks(stream, chunks, every, out).await?;
            send_end(stream, wish.usage, out).await?;
        }
        Behaviour::Answer { .. } => send_answer(stream, out).await?,
        Behaviour::Slow(wait) => {
            tokio::time::sleep(wait).await;
            return Box::pin(answer(stream, Wish { behaviour: Behaviour::fast(), ..wish }, out)).await;
        }
        Behaviour::Stalls { percent, wait } => {
            let mut dice = Dice::new(STALLS.fetch_add(1, Ordering::Relaxed));
            let usual = Duration::from_millis(50 + dice.below(100));
            let stall = if dice.below(100) < percent { wait } else { Duration::ZERO };
            tokio::time::sleep(usual + stall).await;
            return Box::pin(answer(stream, Wish { behaviour: Behaviour::fast(), ..wish }, out)).await;
        }
        Behaviour::Refuse(status) => refuse(stream, status).await?,
        Behaviour::Reset => {
            stream.set_zero_linger()?;
            return Ok(false);
        }
        Behaviour::BreakOff(chunks) => {
            send_chunks(stream, chunks, Duration::ZERO, out).await?;
            return Ok(false);
        }
    }
    Ok(true)
}

async fn send_answer(stream: &mut TcpStream, out: &mut Vec<u8>) -> io::Result<()> {
    out.clear();
    let length = ANSWER.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(ANSWER.as_bytes());
    stream.write_all(out).await
}

async fn refuse(stream: &mut TcpStream, status: u16) -> io::Result<()> {
    let body = format!(r#"{{"error":{{"message":"refused with {status}, as asked for","type":"bench","code":null}}}}"#);
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await
}

/// The head of a stream with its first chunk, and the other chunks at their times, each in a write of its own.
async fn send_chunks(stream: &mut TcpStream, chunks: u32, every: Duration, out: &mut Vec<u8>) -> io::Result<()> {
    let begun = Instant::now();
    out.clear();
    out.extend_from_slice(STREAM_HEAD);
    for number in 0..chunks {
        if number > 0 && !every.is_zero() {
            tokio::time::sleep_until(begun + every * number).await;
        }
        let role = if number == 0 { r#""role":"assistant","# } else { "" };
        // The time takes the place of what a model would say, so that the reader knows how long the chunk took.
        let content = format!("{:0STAMP_DIGITS$}", wall_nanoseconds());
        chunk(
            out,
            &format!(
                r#"data: {{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1750000000,"model":"fast","choices":[{{"index":0,"delta":{{{role}"content":"{content}"}},"finish_reason":null}}]}}"#
            ),
        );
        stream.write_all(out).await?;
        out.clear();
    }
    Ok(())
}

/// The events that close a stream, in one write.
async fn send_end(stream: &mut TcpStream, usage: bool, out: &mut Vec<u8>) -> io::Result<()> {
    out.clear();
    chunk(out, STOP);
    if usage {
        chunk(out, USAGE);
    }
    chunk(out, DONE);
    out.extend_from_slice(b"0\r\n\r\n");
    stream.write_all(out).await
}

/// One event as one chunk of the transfer.
fn chunk(out: &mut Vec<u8>, event: &str) {
    out.extend_from_slice(format!("{:x}\r\n{event}\n\n\r\n", event.len() + 2).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_carries_its_time() {
        let line = br#"data: {"choices":[{"delta":{"role":"assistant","content":"1750000000123456789"}}]}"#;
        assert_eq!(stamp(line), Some(1_750_000_000_123_456_789));
        assert_eq!(stamp(STOP.as_bytes()), None);
        assert_eq!(stamp(br#"data: {"content":"17"#), None);
    }

    #[test]
    fn headers_are_found_whatever_their_case() {
        let head = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length:  12";
        assert_eq!(content_length(head), Some(12));
        assert_eq!(header(head, "host"), Some("here"));
        assert_eq!(header(head, "accept"), None);
    }
}
