//! HTTP/1.1 over one socket, by hand: a server of a library would not let us send
//! half a header, and tells of a client that left only when we write.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::TcpStream;

/// The most bytes of a request's head.
const HEAD: usize = 128 << 10;
/// The most bytes of a request's body.
const BODY: usize = 256 << 20;

/// A connection and what was read from it ahead of need.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    unread: BytesMut,
}

/// A request as it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(crate) keep_alive: bool,
}

/// The client closed its end, or the connection broke.
#[derive(Debug)]
pub(crate) struct Gone;

/// Why no request could be read.
#[derive(Debug)]
pub(crate) enum ReadProblem {
    /// The connection is over.
    Gone,
    /// It is not HTTP/1.1 that this server reads.
    NotHttp,
}

impl Request {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl From<Gone> for ReadProblem {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: BytesMut::new() })
    }

    /// Waits until the next request has begun, reading nothing else.
    pub(crate) async fn begun(&mut self) -> Result<(), Gone> {
        if self.unread.is_empty() { fill(&self.stream, &mut self.unread).await } else { Ok(()) }
    }

    /// Reads the next request.
    pub(crate) async fn request(&mut self) -> Result<Request, ReadProblem> {
        let end = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break end;
            }
            if self.unread.len() > HEAD {
                return Err(ReadProblem::NotHttp);
            }
            fill(&self.stream, &mut self.unread).await?;
        };
        let head = self.unread.split_to(end + 4);
        let mut request = parse_head(&head[..end]).ok_or(ReadProblem::NotHttp)?;
        if request.header("expect").is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue")) {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let chunked =
            request.header("transfer-encoding").is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked"));
        if chunked {
            request.body = self.chunks().await?;
        } else if let Some(length) = request.header("content-length") {
            let length: usize = length.parse().map_err(|_| ReadProblem::NotHttp)?;
            request.body = self.take(length).await?;
        }
        Ok(request)
    }

    /// Sends bytes, unless the client leaves first.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let Self { stream, unread } = self;
        unless_gone(stream, unread, write(stream, bytes)).await?
    }

    /// Waits, unless the client leaves first.
    pub(crate) async fn pause(&mut self, length: Duration) -> Result<(), Gone> {
        if length.is_zero() {
            return Ok(());
        }
        unless_gone(&self.stream, &mut self.unread, tokio::time::sleep(length)).await
    }

    /// Waits for the client to leave.
    pub(crate) async fn hang(&mut self) -> Gone {
        gone(&self.stream, &mut self.unread).await
    }

    /// Breaks the connection with a reset.
    pub(crate) fn reset(self) {
        // If the option cannot be set the connection is closed in the usual way; there is nothing else to try.
        let _ = self.stream.set_zero_linger();
    }

    async fn take(&mut self, length: usize) -> Result<Bytes, ReadProblem> {
        if length > BODY {
            return Err(ReadProblem::NotHttp);
        }
        while self.unread.len() < length {
            fill(&self.stream, &mut self.unread).await?;
        }
        Ok(self.unread.split_to(length).freeze())
    }

    async fn chunks(&mut self) -> Result<Bytes, ReadProblem> {
        let mut body = BytesMut::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| ReadProblem::NotHttp)?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(body.freeze());
            }
            if body.len() + size > BODY {
                return Err(ReadProblem::NotHttp);
            }
            body.extend_from_slice(&self.take(size).await?);
            self.line().await?;
        }
    }

    async fn line(&mut self) -> Result<String, ReadProblem> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.advance(end + 2);
                return Ok(line);
            }
            if self.unread.len() > HEAD {
                return Err(ReadProblem::NotHttp);
            }
            fill(&self.stream, &mut self.unread).await?;
        }
    }
}

fn parse_head(head: &[u8]) -> Option<Request> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path, version) = (first.next()?, first.next()?, first.next()?);
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    let mut request = Request { method: method.to_owned(), path: path.to_owned(), ..Request::default() };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let connection = request.header("connection").unwrap_or_default().to_ascii_lowercase();
    request.keep_alive = version != "HTTP/1.0" && !connection.contains("close");
    Some(request)
}

/// Reads at least one byte.
async fn fill(stream: &TcpStream, into: &mut BytesMut) -> Result<(), Gone> {
    loop {
        stream.readable().await.map_err(|_| Gone)?;
        into.reserve(16 << 10);
        match stream.try_read_buf(into) {
            Ok(0) => return Err(Gone),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Gone),
        }
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> Result<(), Gone> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await.map_err(|_| Gone)?,
            Err(_) => return Err(Gone),
        }
    }
    Ok(())
}

/// Ends when the client has left. What it sends in the meantime is kept, up to a bound.
async fn gone(stream: &TcpStream, unread: &mut BytesMut) -> Gone {
    while unread.len() <= HEAD {
        if fill(stream, unread).await.is_err() {
            return Gone;
        }
    }
    std::future::pending().await
}

async fn unless_gone<T>(stream: &TcpStream, unread: &mut BytesMut, work: impl Future<Output = T>) -> Result<T, Gone> {
    let work = pin!(work);
    tokio::select! {
        biased;
        done = work => Ok(done),
        gone = gone(stream, unread) => Err(gone),
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
