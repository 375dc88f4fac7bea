//! The load: as fast as it goes, at a fixed rate, and many paced streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ask::Bytes;
use crate::client::Connection;
use crate::exchange::{Pool, Reply, exchange};

/// What a load brought.
#[derive(Default)]
pub(crate) struct Brought {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// From when a request was due to its last byte, in milliseconds. At a fixed rate only.
    pub(crate) latencies: Vec<f64>,
    /// From when a request was due to the first event of its stream, in milliseconds. At a fixed rate only.
    pub(crate) firsts: Vec<f64>,
    /// From the upstream's write of a chunk to its arrival, in milliseconds. Paced streams only.
    pub(crate) delays: Vec<f64>,
}

/// A load that sends one kind of request to one address.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) ask: Bytes,
    pub(crate) stream: bool,
}

impl Load {
    /// Sends the next request as soon as the last was answered, on so many connections, for a time.
    ///
    /// # Errors
    /// When an answer is not a good one: a comparison of refusals would mean nothing.
    pub(crate) async fn closed(&self, connections: usize, length: Duration) -> Result<Brought, String> {
        let until = Instant::now() + length;
        self.workers(connections, move |_| Instant::now() < until).await
    }

    /// Sends exactly so many requests, on so many connections.
    ///
    /// # Errors
    /// When an answer is not a good one.
    pub(crate) async fn exactly(&self, requests: u64, connections: usize) -> Result<Brought, String> {
        let (each, more) = (requests / connections as u64, requests % connections as u64);
        let mut brought = self.workers(connections, move |sent| sent < each).await?;
        brought.requests += self.workers(1, move |sent| sent < more).await?.requests;
        Ok(brought)
    }

    /// Opens so many streams, the first and the last within `spread`, and reads each to its end.
    ///
    /// # Errors
    /// When a stream is not a whole one.
    pub(crate) async fn streams(&self, streams: u32, spread: Duration) -> Result<Brought, String> {
        let begun = Instant::now();
        let mut running = JoinSet::new();
        for number in 0..streams {
            let load = self.clone();
            running.spawn(async move {
                tokio::time::sleep_until(begun + spread * number / streams).await;
                let mut connection = Connection::open(load.address).await.map_err(|error| error.to_string())?;
                load.send(&mut connection).await
            });
        }
        let mut brought = Brought::default();
        while let Some(ended) = running.join_next().await {
            let (reply, _) = ended.map_err(|error| error.to_string())??;
            brought.requests += 1;
            brought.delays.extend(reply.delays);
        }
        brought.elapsed = begun.elapsed();
        Ok(brought)
    }

    /// Sends so many requests a second, whether the ones before were answered or not, and counts each latency from
    /// the instant at which its request was due. So a stall shows in every request that it delays.
    ///
    /// # Errors
    /// When an answer is not a good one.
    pub(crate) async fn at_rate(&self, per_second: u32, length: Duration) -> Result<Brought, String> {
        let begun = Instant::now();
        let pool = Arc::new(Pool::new(self.address));
        let mut due = pace(per_second, length);
        let mut running = JoinSet::new();
        while let Some(due) = due.recv().await {
            let (load, pool) = (self.clone(), Arc::clone(&pool));
            running.spawn(async move {
                let reply = pool.ask(&load.ask).await.map_err(|error| error.to_string())?;
                let (ended, reply) = (Instant::now(), load.good(reply)?);
                let since = |instant: Instant| instant.duration_since(due).as_secs_f64() * 1e3;
                Ok::<_, String>((since(ended), reply.first.map(since)))
            });
        }
        let mut brought = Brought::default();
        while let Some(ended) = running.join_next().await {
            let (latency, first) = ended.map_err(|error| error.to_string())??;
            brought.requests += 1;
            brought.latencies.push(latency);
            brought.firsts.extend(first);
        }
        brought.elapsed = begun.elapsed();
        Ok(brought)
    }

    /// Workers with a connection each, which go on while `more` says so of the number they have sent.
    async fn workers(
        &self,
        workers: usize,
        more: impl Fn(u64) -> bool + Copy + Send + 'static,
    ) -> Result<Brought, String> {
        let begun = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..workers {
            let load = self.clone();
            running.spawn(async move {
                let open = || async { Connection::open(load.address).await.map_err(|error| error.to_string()) };
                let mut connection = open().await?;
                let mut sent = 0;
                while more(sent) {
                    let (_, keeps) = load.send(&mut connection).await?;
                    sent += 1;
                    if !keeps {
                        connection = open().await?;
                    }
                }
                Ok::<u64, String>(sent)
            });
        }
        let mut brought = Brought::default();
        while let Some(ended) = running.join_next().await {
            brought.requests += ended.map_err(|error| error.to_string())??;
        }
        brought.elapsed = begun.elapsed();
        Ok(brought)
    }

    async fn send(&self, connection: &mut Connection) -> Result<(Reply, bool), String> {
        let (reply, keeps) = exchange(connection, &self.ask).await.map_err(|error| error.to_string())?;
        Ok((self.good(reply)?, keeps))
    }

    fn good(&self, reply: Reply) -> Result<Reply, String> {
        if reply.is_good(self.stream) {
            return Ok(reply);
        }
        let Reply { status, whole, done, text, .. } = reply;
        Err(format!("an answer that cannot be compared: status {status}, whole {whole}, end of stream {done}; {text}"))
    }
}

/// The instants at which requests are due, each given when it has come. A thread of its own waits for them, because
/// the runtime's timers are only true to a millisecond.
pub(crate) fn pace(per_second: u32, length: Duration) -> UnboundedReceiver<Instant> {
    let (give, due) = unbounded_channel();
    let begun = Instant::now() + Duration::from_millis(5);
    let step = Duration::from_secs(1) / per_second;
    std::thread::spawn(move || {
        for number in 0_u32.. {
            let next = begun + step * number;
            if step * number >= length {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "this thread serves nobody; it only waits")]
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            if give.send(next).is_err() {
                return;
            }
        }
    });
    due
}
