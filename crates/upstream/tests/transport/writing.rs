//! Requests that cannot be written.

use bytes::Bytes;
use freeway_upstream::SendError;
use tokio::net::TcpListener;

use crate::server::{H1, H2, Upstream, ask_with, begin_by_hand, client, keep_moving, next, refusal, write_frame};

/// More than all buffers on the way take.
fn large() -> Bytes {
    Bytes::from(vec![b'q'; 48 * 1024 * 1024])
}

/// Sends a large request to a provider that connects, and then lets it wait as long as it waits.
async fn stuck(client: &freeway_upstream::Client, connect: impl Future) {
    let serve = async {
        let connection = connect.await;
        // From here on time runs by itself, as fast as everybody waits.
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        (connection, began)
    };
    let (answered, (_connection, began)) = tokio::join!(ask_with(client, large()), serve);
    assert_eq!(refusal(answered), SendError::Stuck);
    let seconds = began.elapsed().as_secs();
    assert!((9..=12).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_provider_that_reads_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = client(&format!("http://{}/v1", listener.local_addr().unwrap()), false);
    stuck(&plain, listener.accept()).await;
}

#[tokio::test]
async fn also_behind_encryption() {
    let upstream = Upstream::start(H1).await;
    stuck(&upstream.client(), upstream.accept()).await;
}

#[tokio::test]
async fn also_on_a_shared_connection_that_nobody_reads() {
    let upstream = Upstream::start(H2).await;
    let connect = async {
        let mut stream = upstream.accept().await;
        // SETTINGS_INITIAL_WINDOW_SIZE, and the connection's own window: as large as they can be.
        begin_by_hand(&mut stream, &[0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
        write_frame(&mut stream, 8, &[0x7f, 0xff, 0, 0]).await;
        stream
    };
    stuck(&upstream.client(), Box::pin(connect)).await;
}

#[tokio::test]
async fn also_a_stream_for_which_there_is_no_room() {
    let upstream = Upstream::start(H2).await;
    let connect = async {
        let mut connection = upstream.h2().await;
        let request = next(&mut connection).await;
        (keep_moving(connection), request)
    };
    stuck(&upstream.client(), Box::pin(connect)).await;
}
