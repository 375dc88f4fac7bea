use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::fetch::FetchError;

/// A provider that is told what to write, byte by byte.
struct Provider {
    listener: TcpListener,
    client: Client,
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin::parse(&format!("http://{}/v1", listener.local_addr().unwrap())).unwrap();
        let resolver = Resolver::system().unwrap();
        let client = Client::new(origin, &Auth::Bearer, vec![Secret::new("sk-test")], &[], Reach::Local, resolver);
        Self { listener, client }
    }

    /// The next connection.
    async fn accept(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// Sends a request; what it brings.
    async fn ask(&self) -> Result<Response<AnswerBody>, SendError> {
        let body = Bytes::from_static(b"{}");
        let key = Some(KeyIndex::FIRST);
        self.client.send(Exchange { path: "/chat", key, body, stream: false, on_written: Box::new(|| {}) }).await
    }

    /// Sends a request, which is answered on a connection with these bytes.
    async fn exchange(&self, stream: &mut TcpStream, answer: &str) -> Response<AnswerBody> {
        let serve = async {
            let head = read_request(stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            head
        };
        let (answered, head) = tokio::join!(self.ask(), serve);
        assert!(head.starts_with("POST /v1/chat HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: 127.0.0.1:") && head.contains("authorization: Bearer sk-test"), "{head}");
        answered.unwrap()
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n{}") {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).await.unwrap();
        assert!(count > 0, "the connection was closed: {text}");
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    text
}

async fn read_whole(answer: Response<AnswerBody>) -> Bytes {
    answer.into_body().collect().await.unwrap().to_bytes()
}

/// Waits until the other side has closed.
async fn closed(mut stream: TcpStream) {
    let ended = stream.read(&mut [0; 16]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";

#[tokio::test]
async fn a_connection_is_used_again_once_its_answer_is_read() {
    let provider = Provider::start().await;
    let (first, mut stream) = tokio::join!(provider.ask(), async {
        let mut stream = provider.accept().await;
        read_request(&mut stream).await;
        stream.write_all(CHUNKED.as_bytes()).await.unwrap();
        stream
    });
    assert_eq!(read_whole(first.unwrap()).await, "ok");
    for answer in [WHOLE, CHUNKED, WHOLE] {
        let answer = provider.exchange(&mut stream, answer).await;
        assert_eq!(read_whole(answer).await, "ok");
    }
}

#[tokio::test]
async fn one_that_the_provider_has_closed_is_not_and_nobody_notices() {
    let provider = Provider::start().await;
    for _ in 0..20 {
        let (answer, ()) = tokio::join!(provider.ask(), async {
            let mut stream = provider.accept().await;
            read_request(&mut stream).await;
            stream.write_all(WHOLE.as_bytes()).await.unwrap();
            // Dropped: closed behind an answer that promised to keep it open.
        });
        assert_eq!(read_whole(answer.unwrap()).await, "ok");
    }
}

#[tokio::test]
async fn one_that_the_provider_will_close_is_given_up() {
    let provider = Provider::start().await;
    for _ in 0..2 {
        let (answer, stream) = tokio::join!(provider.ask(), async {
            let mut stream = provider.accept().await;
            read_request(&mut stream).await;
            let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream
        });
        assert_eq!(read_whole(answer.unwrap()).await, "ok");
        closed(stream).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_dropped_in_its_middle_closes_the_connection() {
    let provider = Provider::start().await;
    let (answer, stream) = tokio::join!(provider.ask(), async {
        let mut stream = provider.accept().await;
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\nbeginning").await.unwrap();
        stream
    });
    let mut body = answer.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "beginning");
    drop(body);
    closed(stream).await;
}

#[tokio::test]
async fn a_request_that_is_dropped_before_its_answer_closes_the_connection() {
    let provider = Provider::start().await;
    let stream = tokio::select! {
        answer = provider.ask() => panic!("{:?}", answer.map(|_| ())),
        stream = async {
            let mut stream = provider.accept().await;
            read_request(&mut stream).await;
            stream
        } => stream,
    };
    closed(stream).await;
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_told() {
    let provider = Provider::start().await;
    let (answer, ()) = tokio::join!(provider.ask(), async {
        let mut stream = provider.accept().await;
        read_request(&mut stream).await;
    });
    assert!(matches!(answer, Err(SendError::Broken(_))), "{:?}", answer.map(|_| ()));
}

#[tokio::test]
async fn idle_connections_are_closed_after_a_while() {
    let provider = Provider::start().await;
    let (answer, stream) = tokio::join!(provider.ask(), async {
        let mut stream = provider.accept().await;
        read_request(&mut stream).await;
        stream.write_all(WHOLE.as_bytes()).await.unwrap();
        stream
    });
    assert_eq!(read_whole(answer.unwrap()).await, "ok");
    // From here on time runs by itself, as fast as everybody waits.
    tokio::time::pause();
    closed(stream).await;
}

/// Fetches a document, which is answered on a new connection with these bytes. Gives what was asked, too.
async fn fetch(provider: &Provider, answer: &str) -> (Result<crate::Document, FetchError>, String) {
    tokio::join!(provider.client.fetch("/v1/key", Some(KeyIndex::FIRST)), async {
        let mut stream = provider.accept().await;
        let mut head = [0; 1024];
        let count = stream.read(&mut head).await.unwrap();
        // Whoever has read enough of a long answer leaves in its middle.
        let _ = stream.write_all(answer.as_bytes()).await;
        String::from_utf8_lossy(&head[..count]).into_owned()
    })
}

#[tokio::test]
async fn a_document_is_fetched_with_the_key_and_no_body() {
    let provider = Provider::start().await;
    let (document, head) = fetch(&provider, WHOLE).await;
    let document = document.unwrap();
    assert_eq!((document.status, document.body.as_ref()), (200, b"ok".as_slice()));
    assert!(head.starts_with("GET /v1/key HTTP/1.1\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer sk-test\r\n") && !head.contains("content-length"), "{head}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (provider, elsewhere) = (Provider::start().await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let place = elsewhere.local_addr().unwrap();
    let answer = format!("HTTP/1.1 302 Found\r\nlocation: http://{place}/key\r\ncontent-length: 0\r\n\r\n");
    let document = fetch(&provider, &answer).await.0.unwrap();
    assert_eq!((document.status, document.body.len()), (302, 0));
    let nobody =
        tokio::select! { biased; came = elsewhere.accept() => Some(came), () = std::future::ready(()) => None };
    assert!(nobody.is_none(), "the key went elsewhere");
}

#[tokio::test]
async fn what_is_too_long_or_too_late_is_no_document() {
    let provider = Provider::start().await;
    let long = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length));
    assert_eq!(fetch(&provider, &long(64 * 1024)).await.0.unwrap().body.len(), 64 * 1024);
    assert_eq!(fetch(&provider, &long(64 * 1024 + 1)).await.0.unwrap_err(), FetchError::TooLong);
    let broken = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbeginning";
    assert!(matches!(fetch(&provider, broken).await.0, Err(FetchError::Broken(_))));
    let late = tokio::join!(provider.client.fetch("/v1/key", None), async {
        let stream = provider.accept().await;
        // From here on time runs by itself, as fast as everybody waits.
        tokio::time::pause();
        closed_after_request(stream).await;
    });
    assert_eq!(late.0.unwrap_err(), FetchError::TimedOut);
}

/// Reads a request without answering, until the other side has closed.
async fn closed_after_request(mut stream: TcpStream) {
    while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {}
}
