//! A small HTTP/1.1 client that costs little: bytes are sent as they are, and bodies are handed out in pieces.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::upstream::{content_length, header};

/// A connection that requests follow each other on.
pub(crate) struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
    /// What stands before this place in `unread` has been read.
    at: usize,
    framing: Framing,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Whether the other side closes the connection after this answer.
    pub(crate) closes: bool,
    /// `retry-after`, in seconds.
    pub(crate) retry_after: Option<u32>,
}

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    /// The line with the next chunk's size.
    ChunkSize,
    Chunk(usize),
    /// The line end behind a chunk.
    ChunkEnd,
    /// The lines behind the last chunk.
    Trailers,
    /// Everything until the connection closes.
    Close,
}

/// What is done next to read a body.
enum Step {
    Piece(Range<usize>),
    End,
    More,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::with_capacity(16 * 1024), at: 0, framing: Framing::Length(0) })
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The head of the answer.
    ///
    /// # Errors
    /// Also when the connection ends before it.
    pub(crate) async fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(length) = memmem::find(&self.unread[self.at..], b"\r\n\r\n") {
                let bytes = &self.unread[self.at..self.at + length];
                let malformed = || io::Error::new(io::ErrorKind::InvalidData, "an answer without a status");
                let status = bytes.get(9..12).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
                let status = status.ok_or_else(malformed)?;
                self.framing = match content_length(bytes) {
                    Some(length) => Framing::Length(length),
                    None if header(bytes, "transfer-encoding").is_some() => Framing::ChunkSize,
                    None => Framing::Close,
                };
                let asked_to_close = header(bytes, "connection").is_some_and(|value| value == "close");
                let retry_after = header(bytes, "retry-after").and_then(|seconds| seconds.parse().ok());
                self.at += length + 4;
                return Ok(Head { status, closes: asked_to_close || self.framing == Framing::Close, retry_after });
            }
            self.fill().await?;
        }
    }

    /// The next piece of the body as it came; `None` at its end.
    ///
    /// # Errors
    /// Also when the body breaks off.
    pub(crate) async fn piece(&mut self) -> io::Result<Option<&[u8]>> {
        let range = loop {
            match self.step()? {
                Step::Piece(range) => break range,
                Step::End => return Ok(None),
                Step::More => match self.fill().await {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.framing == Framing::Close => {
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                },
            }
        };
        Ok(Some(&self.unread[range]))
    }

    fn step(&mut self) -> io::Result<Step> {
        loop {
            let there = self.unread.len() - self.at;
            match self.framing {
                Framing::Length(0) => return Ok(Step::End),
                Framing::Chunk(0) => self.framing = Framing::ChunkEnd,
                _ if there == 0 => return Ok(Step::More),
                Framing::Length(left) => {
                    let size = left.min(there);
                    self.framing = Framing::Length(left - size);
                    return Ok(self.take(size));
                }
                Framing::Chunk(left) => {
                    let size = left.min(there);
                    self.framing = Framing::Chunk(left - size);
                    return Ok(self.take(size));
                }
                Framing::Close => return Ok(self.take(there)),
                Framing::ChunkSize | Framing::ChunkEnd | Framing::Trailers => {
                    let Some(line) = self.line() else { return Ok(Step::More) };
                    self.framing = after_line(self.framing, &self.unread[line])?;
                }
            }
        }
    }

    fn take(&mut self, size: usize) -> Step {
        let range = self.at..self.at + size;
        self.at += size;
        Step::Piece(range)
    }

    fn line(&mut self) -> Option<Range<usize>> {
        let length = memmem::find(&self.unread[self.at..], b"\r\n")?;
        let range = self.at..self.at + length;
        self.at += length + 2;
        Some(range)
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.unread.drain(..self.at);
        self.at = 0;
        match self.stream.read_buf(&mut self.unread).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// What follows a line of a chunked body.
fn after_line(framing: Framing, line: &[u8]) -> io::Result<Framing> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a chunk without a size");
    match framing {
        Framing::ChunkSize => {
            let size = line.split(|byte| *byte == b';').next().and_then(|size| std::str::from_utf8(size).ok());
            let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok()).ok_or_else(malformed)?;
            Ok(if size == 0 { Framing::Trailers } else { Framing::Chunk(size) })
        }
        Framing::ChunkEnd => Ok(Framing::ChunkSize),
        _ if line.is_empty() => Ok(Framing::Length(0)),
        _ => Ok(framing),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What the client reads from bytes that come in pieces of each size: status, body, and whether it was whole.
    async fn check(answer: &[u8], expected: (u16, &str, bool)) {
        for size in [1, 2, 3, 7, answer.len()] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let bytes = answer.to_vec();
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                for piece in bytes.chunks(size) {
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
            let mut connection = Connection::open(address).await.unwrap();
            let head = connection.head().await.unwrap();
            let mut body = Vec::new();
            let whole = loop {
                match connection.piece().await {
                    Ok(Some(piece)) => body.extend_from_slice(piece),
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            server.await.unwrap();
            assert_eq!((head.status, String::from_utf8(body).unwrap().as_str(), whole), expected, "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn bodies_are_read_however_they_come() {
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", (200, "hello", true)).await;
        check(b"HTTP/1.1 429 No\r\ncontent-length: 5\r\n\r\nhel", (429, "hel", false)).await;
        check(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n",
            (200, "hello", true),
        )
        .await;
        check(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n", (200, "hel", false)).await;
        check(b"HTTP/1.1 200 OK\r\n\r\nhello", (200, "hello", true)).await;
    }
}
