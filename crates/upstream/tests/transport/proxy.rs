//! What goes through a proxy, and what does not.

use freeway_types::Secret;
use freeway_upstream::{Auth, Client, ConnectError, Origin, Proxy, Reach, Resolver, SendError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::server::{H2, Upstream, answer, answer_h1, ask, client, keep_moving, next, read, refusal};

/// A proxy that is told where to lead.
struct Between(TcpListener);

impl Between {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// The way through it, as somebody with a password.
    fn way(&self) -> Option<Proxy> {
        let port = self.0.local_addr().unwrap().port();
        Some(Proxy::parse(&format!("http://user:canary@127.0.0.1:{port}")).unwrap())
    }

    /// What the next client asks for.
    async fn asked(&self) -> (TcpStream, String) {
        let mut stream = self.0.accept().await.unwrap().0;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (stream, String::from_utf8(head).unwrap())
    }

    /// Leads the next client to a port of this machine; gives what it asked for once it is gone.
    async fn lead(&self, port: u16) -> String {
        let (mut stream, head) = self.asked().await;
        let mut target = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n").await.unwrap();
        let _ = copy_bidirectional(&mut stream, &mut target).await;
        head
    }

    /// What a client makes of such an answer to its wish.
    async fn refuse(&self, status: &str) -> SendError {
        let client = client("https://upstream.test/v1", true).through(self.way());
        let (answered, ()) = tokio::join!(ask(&client), async {
            let mut stream = self.asked().await.0;
            stream.write_all(format!("{status}\r\nserver: canary\r\n\r\n").as_bytes()).await.unwrap();
        });
        refusal(answered)
    }

    fn place(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }
}

/// base64 of `user:canary`.
const AUTHORIZATION: &str = "proxy-authorization: Basic dXNlcjpjYW5hcnk=\r\n";

#[tokio::test]
async fn an_encrypted_upstream_is_reached_through_a_tunnel() {
    let (upstream, between) = (Upstream::start(H2).await, Between::start().await);
    let client = client("https://upstream.test/v1", true).through(between.way());
    let asked = async {
        assert_eq!(read(ask(&client).await).await, "ok");
        // Its connection is gone, so that the tunnel ends.
        drop(client);
    };
    let serve = async {
        let mut connection = upstream.h2().await;
        let (request, respond) = next(&mut connection).await;
        // What is for the proxy is for nobody else.
        assert!(!request.headers().contains_key("proxy-authorization"));
        assert_eq!(request.uri().authority().unwrap(), "upstream.test");
        answer(respond, "ok");
        keep_moving(connection).await.unwrap();
    };
    let ((), (), head) = tokio::join!(asked, serve, between.lead(upstream.port()));
    assert_eq!(head, format!("CONNECT upstream.test:443 HTTP/1.1\r\nhost: upstream.test:443\r\n{AUTHORIZATION}\r\n"));
}

#[tokio::test]
async fn an_unencrypted_one_too() {
    let (upstream, between) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Between::start().await);
    let client = client("http://upstream.test/v1", false).through(between.way());
    let asked = async {
        assert_eq!(read(ask(&client).await).await, "ok");
        drop(client);
    };
    let serve = async {
        let head = answer_h1(&mut upstream.accept().await.unwrap().0).await;
        assert!(head.starts_with("POST /v1/chat HTTP/1.1\r\nhost: upstream.test\r\n"), "{head}");
        assert!(!head.contains("proxy-authorization"), "{head}");
    };
    let port = upstream.local_addr().unwrap().port();
    let ((), (), head) = tokio::join!(asked, serve, between.lead(port));
    assert!(head.starts_with("CONNECT upstream.test:80 HTTP/1.1\r\n"), "{head}");
}

#[tokio::test]
async fn what_is_on_this_machine_is_reached_without_it() {
    let (upstream, between) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Between::start().await);
    let port = upstream.local_addr().unwrap().port();
    for host in ["localhost", "127.0.0.1"] {
        let client = client(&format!("http://{host}:{port}/v1"), false).through(between.way());
        let serve = async { answer_h1(&mut upstream.accept().await.unwrap().0).await };
        let direct = async { tokio::join!(async { read(ask(&client).await).await }, serve).0 };
        tokio::select! {
            answered = direct => assert_eq!(answered, "ok"),
            (_, head) = between.asked() => panic!("the proxy was asked: {head}"),
        }
    }
}

#[tokio::test]
async fn a_refusal_is_told_with_the_proxy_and_without_the_password() {
    let between = Between::start().await;
    let failed = |what: &str| ConnectError::Proxy { proxy: between.place(), error: what.to_owned() };
    for (status, expected) in [
        ("HTTP/1.1 407 canary", ConnectError::ProxyCredentials(between.place())),
        ("HTTP/1.0 502 Bad Gateway", failed("it refused (status 502)")),
        ("SSH-2.0-canary", failed("its answer is not HTTP")),
    ] {
        let refused = between.refuse(status).await;
        assert_eq!(refused, SendError::Connect(expected));
        let shown = format!("{refused} {refused:?}");
        assert!(!shown.contains("canary") && !shown.contains("dXNlcjpjYW5hcnk"), "{shown}");
    }
}

#[tokio::test]
async fn so_is_one_that_is_silent_or_not_there() {
    let between = Between::start().await;
    let client = client("https://upstream.test/v1", true).through(between.way());
    let (answered, _stream) = tokio::join!(ask(&client), async {
        let stream = between.asked().await.0;
        // From here on time runs by itself, as fast as everybody waits.
        tokio::time::pause();
        stream
    });
    let message = refusal(answered).to_string();
    assert_eq!(message, format!("no connection through the proxy {}: no answer within 10 s", between.place()));
    let place = between.place();
    drop(between);
    let message = refusal(ask(&client).await).to_string();
    assert!(message.starts_with(&format!("no connection through the proxy {place}: ")), "{message}");
}

#[tokio::test]
async fn an_address_inside_stays_out_of_reach() {
    let between = Between::start().await;
    let origin = Origin::parse("https://10.0.0.1/v1").unwrap();
    let resolver = Resolver::system().unwrap();
    let client = Client::new(origin, &Auth::Bearer, vec![Secret::new("sk-test")], &[], Reach::Public, resolver);
    let client = client.through(between.way());
    tokio::select! {
        answered = ask(&client) => assert!(matches!(refusal(answered), SendError::Connect(ConnectError::Forbidden(_)))),
        (_, head) = between.asked() => panic!("the proxy was asked: {head}"),
    }
}
