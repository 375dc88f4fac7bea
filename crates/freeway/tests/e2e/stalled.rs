//! Clients that ask for streams and do not read them: they hold up their own upstream, and nobody else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::gateway::Gateway;
use crate::http::{Ask, Connection};
use crate::patience::until;
use crate::upstream::Upstream;

const READERS: usize = 50;
/// More than the buffers of all sockets between hold, and than the gateway may.
const STREAM_BYTES: u64 = 64 << 20;
/// What the gateway may hold for one reader that takes nothing, its sockets' buffers in the system apart.
const MOST_KIB: u64 = 256;

/// An upstream whose streams have no end in sight.
struct Flood {
    address: SocketAddr,
    /// Streams that are open.
    open: AtomicUsize,
    written: AtomicU64,
}

impl Flood {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let flood = Arc::new(Self { address, open: AtomicUsize::new(0), written: AtomicU64::new(0) });
        let shared = Arc::clone(&flood);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let flood = Arc::clone(&shared);
                tokio::spawn(async move {
                    flood.open.fetch_add(1, Ordering::Relaxed);
                    let _ = flood.serve(stream).await;
                    flood.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        flood
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        // The requests of this test come in one piece.
        let asked = stream.read(&mut vec![0; 64 * 1024]).await?;
        assert!(asked > 0, "a request");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await?;
        let text = "the tide is out ".repeat(256);
        let event = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        let mut written = 0;
        while written < STREAM_BYTES {
            stream.write_all(event.as_bytes()).await?;
            written += event.len() as u64;
            self.written.fetch_add(event.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    fn table(&self) -> String {
        let address = self.address;
        format!(
            "[providers.flood]\nbase_url = \"http://{address}/v1\"\ncost = \"free\"\nkeys = [\"sk-test-flood\"]\n\
             models = [{{ id = \"endless\" }}]\n"
        )
    }
}

fn resident_kib(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_readers_that_stall_hold_up_nobody_else() {
    let flood = Flood::start().await;
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&format!("{}{}", flood.table(), a.table())).await;
    assert_eq!(gateway.ask(&Ask::chat("a/a-model", true)).await.head.status, 200);
    let before = resident_kib(&gateway);

    let mut readers: Vec<Connection> = Vec::new();
    for _ in 0..READERS {
        let mut reader = gateway.send(&Ask::chat("flood/endless", true)).await;
        assert_eq!(reader.head().await.unwrap().status, 200);
        readers.push(reader);
    }
    // Nothing moves any more, look after look: every stream is held up by its reader.
    let (mut last, mut looks) = (0, 0);
    until("the streams stand still", async || {
        let written = flood.written.load(Ordering::Relaxed);
        looks = if written == last { looks + 1 } else { 0 };
        last = written;
        (looks > 40).then_some(())
    })
    .await;
    assert_eq!(flood.open.load(Ordering::Relaxed), READERS, "an upstream got rid of all it had");

    for turn in 0..20 {
        let reply = gateway.ask(&Ask::chat("a/a-model", turn % 2 == 0)).await;
        assert_eq!(reply.head.status, 200, "{}", reply.everything());
        assert!(reply.whole && reply.content().contains("the tide is out"), "{}", reply.everything());
    }
    let grown = resident_kib(&gateway).saturating_sub(before);
    assert!(grown <= MOST_KIB * READERS as u64, "{grown} KiB for {READERS} readers");

    drop(readers);
    until("their upstreams are let go", async || (flood.open.load(Ordering::Relaxed) == 0).then_some(())).await;
    until("the ledger has them all", async || {
        let rows = gateway.document("/freeway/v1/requests?limit=500").await;
        let rows = rows["requests"].as_array()?;
        let cut = rows.iter().filter(|row| row["model"] == "flood/endless" && row["outcome"] == "cancelled");
        (cut.count() == READERS).then_some(())
    })
    .await;
}
