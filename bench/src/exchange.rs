//! One request and its answer, watched: how it ended, and when its chunks came.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use memchr::memchr;
use tokio::time::{Instant, timeout};

use crate::client::Connection;
use crate::upstream::{stamp, wall_nanoseconds};

/// No answer here takes longer, not even under callgrind.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of an answer that are kept, for the message when it was not the one that was expected.
const KEPT: usize = 600;

/// What came of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// After how many seconds to come back, if it says so.
    pub(crate) retry_after: Option<u32>,
    /// Whether the body came to the end that its framing announces.
    pub(crate) whole: bool,
    /// Whether a stream came to its end marker.
    pub(crate) done: bool,
    /// Whether a stream ended in an error event.
    pub(crate) error_event: bool,
    /// When the first event of a stream came.
    pub(crate) first: Option<Instant>,
    /// How long each chunk took from the upstream's write to here, in milliseconds.
    pub(crate) delays: Vec<f64>,
    /// The beginning of the body of an answer that is not 200.
    pub(crate) text: String,
}

impl Reply {
    /// Whether this is a good answer, and if it was to be streamed, all of it.
    pub(crate) const fn is_good(&self, stream: bool) -> bool {
        self.status == 200 && self.whole && (self.done || !stream)
    }
}

/// Connections to one address that wait for the next request.
pub(crate) struct Pool {
    address: SocketAddr,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    pub(crate) const fn new(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::new(Vec::new()) }
    }

    /// Sends a request on an idle connection, or a new one.
    ///
    /// # Errors
    /// When no connection can be had, or there is no answer within two minutes.
    pub(crate) async fn ask(&self, ask: &[u8]) -> io::Result<Reply> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut connection) = idle {
            // It can have been closed while it was idle; then the request was never looked at.
            match exchange(&mut connection, ask).await {
                Ok((reply, keeps)) => return Ok(self.give_back(connection, reply, keeps)),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                Err(_) => {}
            }
        }
        let mut connection = Connection::open(self.address).await?;
        let (reply, keeps) = exchange(&mut connection, ask).await?;
        Ok(self.give_back(connection, reply, keeps))
    }

    fn give_back(&self, connection: Connection, reply: Reply, keeps: bool) -> Reply {
        if keeps {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        reply
    }
}

/// Sends a request and reads its answer. Gives it with whether the connection can take another.
///
/// # Errors
/// When the connection ends before the head of an answer, or there is no answer in time.
pub(crate) async fn exchange(connection: &mut Connection, ask: &[u8]) -> io::Result<(Reply, bool)> {
    let exchange = async {
        connection.send(ask).await?;
        let head = connection.head().await?;
        let mut reply = Reply { status: head.status, retry_after: head.retry_after, ..Reply::default() };
        let mut lines = Lines::default();
        loop {
            match connection.piece().await {
                Ok(Some(piece)) => {
                    if reply.status != 200 && reply.text.len() < KEPT {
                        let kept = &piece[..piece.len().min(KEPT)];
                        reply.text.push_str(&String::from_utf8_lossy(kept));
                    }
                    lines.feed(piece, |line| reply.look_at(line));
                }
                Ok(None) => {
                    reply.whole = true;
                    return Ok((reply, !head.closes));
                }
                Err(_) => return Ok((reply, false)),
            }
        }
    };
    timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Reply {
    fn look_at(&mut self, line: &[u8]) {
        let Some(data) = line.strip_prefix(b"data: ") else { return };
        if self.first.is_none() {
            self.first = Some(Instant::now());
        }
        if let Some(stamp) = stamp(data) {
            let delay = wall_nanoseconds().saturating_sub(stamp);
            self.delays.push(delay as f64 / 1e6);
        }
        self.done |= data == b"[DONE]";
        self.error_event |= data.starts_with(b"{\"error\"");
    }
}

/// Finds lines in pieces that are cut anywhere.
#[derive(Default)]
pub(crate) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Takes the next piece, and gives every line that it ends, without its line feed.
    pub(crate) fn feed(&mut self, mut piece: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = memchr(b'\n', piece) {
            if self.begun.is_empty() {
                line(&piece[..end]);
            } else {
                self.begun.extend_from_slice(&piece[..end]);
                line(&self.begun);
                self.begun.clear();
            }
            piece = &piece[end + 1..];
        }
        self.begun.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let text = b"data: one\n\ndata: two\ndata: [DONE]\nrest";
        for size in 1..text.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for piece in text.chunks(size) {
                lines.feed(piece, |line| found.push(String::from_utf8(line.to_vec()).unwrap()));
            }
            assert_eq!(found, ["data: one", "", "data: two", "data: [DONE]"], "pieces of {size}");
        }
    }

    #[test]
    fn the_end_of_a_stream_is_told_from_an_error() {
        let mut reply = Reply { status: 200, whole: true, ..Reply::default() };
        assert!(reply.is_good(false) && !reply.is_good(true));
        reply.look_at(br#"data: {"error":{"message":"no"}}"#);
        assert!(reply.error_event && !reply.done && reply.first.is_some() && reply.delays.is_empty());
        reply.look_at(b"data: [DONE]");
        assert!(reply.is_good(true));
    }
}
