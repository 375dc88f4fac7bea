//! HTTP/1.1 over one connection, by hand: a server of a library would not let us send
//! half a header, and tells of a client that left only when we write.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;

/// The most bytes of a request's head.
const HEAD: usize = 128 << 10;
/// The most bytes of a request's body.
const BODY: usize = 256 << 20;

/// What connects a client with a provider: a socket, or something within a process that stands for one.
pub trait Line: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes the end of this connection a reset instead of an orderly close. It is dropped next.
    fn reset(&mut self);
}

impl Line for TcpStream {
    fn reset(&mut self) {
        // If the option cannot be set the connection is closed in the usual way; there is nothing else to try.
        let _ = self.set_zero_linger();
    }
}

/// Two ends within a process; whoever reads from the other one sees an orderly close.
impl Line for DuplexStream {
    fn reset(&mut self) {}
}

/// A connection and what was read from it ahead of need.
pub(crate) struct Wire {
    line: Box<dyn Line>,
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
    pub(crate) fn new(line: impl Line + 'static) -> Self {
        Self { line: Box::new(line), unread: BytesMut::new() }
    }

    /// Waits until the next request has begun, reading nothing else.
    pub(crate) async fn begun(&mut self) -> Result<(), Gone> {
        if self.unread.is_empty() { self.fill().await } else { Ok(()) }
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
            self.fill().await?;
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
    pub(crate) async fn send(&mut self, mut bytes: &[u8]) -> Result<(), Gone> {
        poll_fn(|context| {
            while !bytes.is_empty() {
                match Pin::new(&mut self.line).poll_write(context, bytes) {
                    Poll::Ready(Ok(written @ 1..)) => bytes = &bytes[written..],
                    Poll::Ready(_) => return Poll::Ready(Err(Gone)),
                    Poll::Pending => return self.poll_gone(context).map(Err),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Waits, unless the client leaves first.
    pub(crate) async fn pause(&mut self, length: Duration) -> Result<(), Gone> {
        if length.is_zero() {
            return Ok(());
        }
        let mut over = pin!(tokio::time::sleep(length));
        poll_fn(|context| match over.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => self.poll_gone(context).map(Err),
        })
        .await
    }

    /// Waits for the client to leave.
    pub(crate) async fn hang(&mut self) -> Gone {
        poll_fn(|context| self.poll_gone(context)).await
    }

    /// Breaks the connection with a reset.
    pub(crate) fn reset(mut self) {
        self.line.reset();
    }

    /// Reads at least one byte.
    async fn fill(&mut self) -> Result<(), Gone> {
        poll_fn(|context| self.poll_fill(context)).await
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.unread.reserve(16 << 10);
        // Nothing of this read is lost when it is not ready.
        pin!(self.line.read_buf(&mut self.unread)).poll(context).map(|read| match read {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(Gone),
        })
    }

    /// Ready when the client has left. What it sends in the meantime is kept, up to a bound.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Gone> {
        while self.unread.len() <= HEAD {
            match self.poll_fill(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(gone)) => return Poll::Ready(gone),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    async fn take(&mut self, length: usize) -> Result<Bytes, ReadProblem> {
        if length > BODY {
            return Err(ReadProblem::NotHttp);
        }
        while self.unread.len() < length {
            self.fill().await?;
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
            self.fill().await?;
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

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
