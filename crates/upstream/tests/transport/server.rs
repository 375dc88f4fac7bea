//! An upstream with TLS, whose every move a test decides.

use std::sync::Arc;

use bytes::Bytes;
use freeway_types::{KeyIndex, Secret};
use freeway_upstream::{AnswerBody, Auth, Client, Exchange, Origin, Reach, Resolver, Roots, SendError};
use http::Response;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

const AUTHORITY: &[u8] = include_bytes!("../certificates/authority.pem");
const SERVER: &[u8] = include_bytes!("../certificates/server.pem");

pub(crate) const H2: &[&str] = &["h2", "http/1.1"];
pub(crate) const H1: &[&str] = &["http/1.1"];

pub(crate) type Tls = TlsStream<TcpStream>;
pub(crate) type Connection = h2::server::Connection<Tls, Bytes>;
pub(crate) type Respond = h2::server::SendResponse<Bytes>;
pub(crate) type Incoming = (http::Request<h2::RecvStream>, Respond);

pub(crate) struct Upstream {
    pub(crate) listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Upstream {
    pub(crate) async fn start(protocols: &[&str]) -> Self {
        let certificates = CertificateDer::pem_slice_iter(SERVER).collect::<Result<_, _>>().unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, PrivateKeyDer::from_pem_slice(SERVER).unwrap())
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// A client that trusts it.
    pub(crate) fn client(&self) -> Client {
        client(&format!("https://localhost:{}/v1", self.port()), true)
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> Tls {
        self.acceptor.accept(self.listener.accept().await.unwrap().0).await.unwrap()
    }

    /// The next connection, which the client gives up.
    pub(crate) async fn accept_nothing(&self) {
        let refused = self.acceptor.accept(self.listener.accept().await.unwrap().0).await;
        assert!(refused.is_err(), "the client believed the certificate");
    }

    /// The next connection, speaking HTTP/2.
    pub(crate) async fn h2(&self) -> Connection {
        h2::server::handshake(self.accept().await).await.unwrap()
    }
}

/// A client for a base URL, which trusts the test's authority or not.
pub(crate) fn client(base_url: &str, trusts: bool) -> Client {
    let roots = if trusts { Roots::parse(AUTHORITY).unwrap() } else { Roots::default() };
    let resolver = Resolver::system().unwrap().trusting(&roots).unwrap();
    let origin = Origin::parse(base_url).unwrap();
    Client::new(origin, &Auth::Bearer, vec![Secret::new("sk-test")], &[], Reach::Local, resolver)
}

/// Sends a request; what it brings.
pub(crate) async fn ask(client: &Client) -> Result<Response<AnswerBody>, SendError> {
    ask_with(client, Bytes::from_static(b"{}")).await
}

pub(crate) async fn ask_with(client: &Client, body: Bytes) -> Result<Response<AnswerBody>, SendError> {
    let key = Some(KeyIndex::FIRST);
    client.send(Exchange { path: "/chat", key, body, stream: false, on_written: Box::new(|| {}) }).await
}

/// The whole answer, which must be good.
pub(crate) async fn read(answer: Result<Response<AnswerBody>, SendError>) -> Bytes {
    answer.unwrap().into_body().collect().await.unwrap().to_bytes()
}

/// Why there was no answer.
pub(crate) fn refusal(answer: Result<Response<AnswerBody>, SendError>) -> SendError {
    answer.map(|_| ()).unwrap_err()
}

/// The next request on a connection.
pub(crate) async fn next(connection: &mut Connection) -> Incoming {
    connection.accept().await.expect("the connection was closed").unwrap()
}

/// Answers in full.
pub(crate) fn answer(mut respond: Respond, text: &'static str) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(Bytes::from_static(text.as_bytes()), true).unwrap();
}

/// Begins an answer.
pub(crate) fn begin(respond: &mut Respond, text: &'static str) -> h2::SendStream<Bytes> {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(Bytes::from_static(text.as_bytes()), false).unwrap();
    stream
}

/// Moves a connection until it is closed, or drops it with the test.
pub(crate) fn keep_moving(mut connection: Connection) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move { while let Some(Ok(_)) = connection.accept().await {} })
}

/// Reads one request with the body `{}` of HTTP/1.1, and answers.
pub(crate) async fn answer_h1(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n{}") {
        text.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    String::from_utf8(text).unwrap()
}

/// Reads frames of HTTP/2 by hand, up to the first with this type.
pub(crate) async fn read_frame(stream: &mut Tls, kind: u8) {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        if head[3] == kind {
            return;
        }
    }
}

/// Begins HTTP/2 by hand: reads the preface, and writes settings.
pub(crate) async fn begin_by_hand(stream: &mut Tls, settings: &[u8]) {
    stream.read_exact(&mut [0; 24]).await.unwrap();
    write_frame(stream, 4, settings).await;
}

/// Writes a frame of the whole connection.
pub(crate) async fn write_frame(stream: &mut Tls, kind: u8, content: &[u8]) {
    let mut frame = vec![0, 0, u8::try_from(content.len()).unwrap(), kind, 0, 0, 0, 0, 0];
    frame.extend_from_slice(content);
    stream.write_all(&frame).await.unwrap();
    stream.flush().await.unwrap();
}
