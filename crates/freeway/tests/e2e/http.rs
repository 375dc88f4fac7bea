//! A small HTTP/1.1 client by hand: it shows every byte of an answer with its
//! time, sends what no library would send, and leaves when it is told to.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// No answer of these tests takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request to the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Option<Vec<u8>>,
}

/// The head of an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Names in lower case and values, in order.
    pub(crate) headers: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// When each piece of the body came, counted from the request, and its bytes.
    pub(crate) pieces: Vec<(Duration, Vec<u8>)>,
    /// Whether the body came to the end that its framing announces.
    pub(crate) whole: bool,
}

/// How a body ends.
#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
    Close,
}

/// A connection to the gateway.
pub(crate) struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
    begun: Instant,
    framing: Framing,
    patience: Duration,
}

// === impl Ask ===

impl Ask {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: None }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// A JSON body for a path.
    pub(crate) fn post(path: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Some(body.into()), ..Self::new("POST", path) }.header("content-type", "application/json")
    }

    /// A chat request with this body.
    pub(crate) fn body(body: impl Into<Vec<u8>>) -> Self {
        Self::post("/v1/chat/completions", body)
    }

    /// A short chat request to a model, streamed or not.
    pub(crate) fn chat(model: &str, stream: bool) -> Self {
        let stream = if stream { r#""stream":true,"# } else { "" };
        Self::body(format!(
            r#"{{"model":"{model}",{stream}"messages":[{{"role":"user","content":"the tide is out"}}]}}"#
        ))
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    /// The request as it goes over the wire.
    pub(crate) fn bytes(&self, host: SocketAddr) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

// === impl Head ===

impl Head {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A header that holds a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.parse().ok()
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Self { status, headers }
    }

    fn framing(&self) -> Framing {
        let length = self.number("content-length").and_then(|length| usize::try_from(length).ok());
        match (self.header("transfer-encoding"), length) {
            (Some(_), _) => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length),
            (None, None) => Framing::Close,
        }
    }
}

// === impl Reply ===

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Everything that the client sees, in one text.
    pub(crate) fn everything(&self) -> String {
        format!("{} {:?} {}", self.head.status, self.head.headers, self.text())
    }

    /// The data of each event of a stream.
    pub(crate) fn events(&self) -> Vec<String> {
        let text = self.text();
        let events = text.split("\n\n").filter_map(|event| event.strip_prefix("data:"));
        events.map(|data| data.trim().to_owned()).collect()
    }

    /// What the model said, streamed or not.
    pub(crate) fn content(&self) -> String {
        let said = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
        if self.head.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            let chunks = self.events().into_iter().filter_map(|data| serde_json::from_str::<Value>(&data).ok());
            return chunks.filter_map(|chunk| said(&chunk, "/choices/0/delta/content")).collect();
        }
        said(&self.json(), "/choices/0/message/content").unwrap_or_default()
    }
}

// === impl Connection ===

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::try_open(address).await.expect("the gateway takes connections")
    }

    /// `None` where nothing takes connections.
    pub(crate) async fn try_open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).expect("a socket option");
        Some(Self { stream, unread: Vec::new(), begun: Instant::now(), framing: Framing::Close, patience: PATIENCE })
    }

    /// Waits longer for each piece than is usual here.
    pub(crate) fn be_patient(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sends bytes as they are. That the other side has closed shows when the answer is read.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.begun = Instant::now();
        let _ = self.stream.write_all(bytes).await;
    }

    /// Closes the sending half.
    pub(crate) async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The head of the answer; `None` if the connection is closed instead.
    pub(crate) async fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                let rest = self.unread.split_off(end + 4);
                let head = Head::parse(&self.unread);
                self.unread = rest;
                self.framing = head.framing();
                return Some(head);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The next piece of the body: `Ok(None)` at its end, `Err` if it breaks off.
    pub(crate) async fn piece(&mut self) -> Result<Option<Vec<u8>>, ()> {
        loop {
            match self.framing {
                Framing::Length(0) => return Ok(None),
                Framing::Length(length) if !self.unread.is_empty() => {
                    let rest = self.unread.split_off(self.unread.len().min(length));
                    let piece = std::mem::replace(&mut self.unread, rest);
                    self.framing = Framing::Length(length - piece.len());
                    return Ok(Some(piece));
                }
                Framing::Close if !self.unread.is_empty() => return Ok(Some(std::mem::take(&mut self.unread))),
                Framing::Chunked => {
                    if let Some(chunk) = self.chunk() {
                        return Ok(Some(chunk).filter(|chunk| !chunk.is_empty()));
                    }
                }
                Framing::Length(_) | Framing::Close => {}
            }
            if !self.fill().await {
                return if matches!(self.framing, Framing::Close) { Ok(None) } else { Err(()) };
            }
        }
    }

    /// The rest of the body behind a head.
    pub(crate) async fn rest(&mut self, head: Head) -> Reply {
        let mut reply = Reply { head, ..Reply::default() };
        loop {
            match self.piece().await {
                Ok(Some(piece)) => {
                    reply.body.extend_from_slice(&piece);
                    reply.pieces.push((self.begun.elapsed(), piece));
                }
                Ok(None) => return Reply { whole: true, ..reply },
                Err(()) => return reply,
            }
        }
    }

    /// The whole answer; with status 0 if there is none.
    pub(crate) async fn reply(&mut self) -> Reply {
        match self.head().await {
            Some(head) => self.rest(head).await,
            None => Reply::default(),
        }
    }

    /// Whether the other side closes without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && !self.fill().await
    }

    fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = find(&self.unread, b"\r\n")?;
        let size = std::str::from_utf8(&self.unread[..line]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        let all = line + 2 + size + 2;
        if self.unread.len() < all {
            return None;
        }
        let rest = self.unread.split_off(all);
        let chunk = std::mem::replace(&mut self.unread, rest);
        Some(chunk[line + 2..all - 2].to_vec())
    }

    async fn fill(&mut self) -> bool {
        let read = timeout(self.patience, self.stream.read_buf(&mut self.unread)).await.expect("an answer in time");
        read.is_ok_and(|count| count > 0)
    }
}

/// Where a piece begins in a text of bytes.
pub(crate) fn find(bytes: &[u8], piece: &[u8]) -> Option<usize> {
    bytes.windows(piece.len()).position(|window| window == piece)
}
