//! Listening, and one connection's life: every request through the same few gates.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use freeway_dialect::ClientError;
use freeway_engine::Engine;
use freeway_policy::Caller;
use freeway_telemetry::Event;
use http::header::HeaderName;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::auth::Keys;
use crate::body::Reply;
use crate::face::openai;
use crate::head::{HeadNotes, HeadReader};
use crate::intake::{discard, read_json};
use crate::overload::{Doorkeeper, Load};
use crate::patient::Patient;
use crate::respond::{self, Answer};
use crate::route::{Access, Found, Route, Target, find};
use crate::{framing, openapi, operator, origin};

/// A client has so long to send its headers.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
const MOST_HEADERS: usize = 100;
const MOST_HEADER_BYTES: usize = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Bytes that the system holds for a client that does not read. By itself it would grow to megabytes, and a slow reader
/// would show no progress until a third of that is read.
const SEND_BUFFER: u32 = 128 * 1024;
/// Connections open at the same time.
const MOST_CONNECTIONS: usize = 10_000;
/// Once the drain is over, answers have so long to end in words of ours before their connections are cut.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The listening gateway.
pub struct Server {
    listener: TcpListener,
    gate: Arc<Gate>,
}

/// Tells a server to stop.
#[derive(Clone)]
pub struct Shutdown(Arc<Gate>);

/// Exchanges what requests are served by, while they are served.
#[derive(Clone)]
pub struct Editions(Arc<Gate>);

/// What a request is served by from its first gate to its end: never parts of two configurations.
struct Edition {
    engine: Arc<Engine>,
    keys: Keys,
    bounds: Bounds,
    doorkeeper: Doorkeeper,
}

/// What an edition bounds for all requests together.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long requests under way may go on once the gateway stops.
    pub drain: Duration,
    /// Requests that are served at the same time.
    pub max_requests: usize,
}

/// How far the gateway is on its way out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    /// Nothing new is taken; what is under way goes on.
    Draining,
    /// What is under way ends too.
    Ending,
}

/// What all connections share.
struct Gate {
    edition: ArcSwap<Edition>,
    loopback: bool,
    started: i64,
    stage: watch::Sender<Stage>,
    load: Arc<Load>,
}

impl Edition {
    fn new(engine: Arc<Engine>, keys: Keys, bounds: Bounds) -> Self {
        let doorkeeper = Doorkeeper::new(&engine.snapshot().rules, bounds.max_requests);
        Self { engine, keys, bounds, doorkeeper }
    }
}

impl Editions {
    /// From now on, requests that come are served by this engine and let in by these keys, within these bounds.
    pub fn replace(&self, engine: Arc<Engine>, keys: Keys, bounds: Bounds) {
        self.0.edition.store(Arc::new(Edition::new(engine, keys, bounds)));
    }

    /// The engine that requests which come now are served by.
    #[must_use]
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.0.edition.load().engine)
    }
}

impl Shutdown {
    /// Stops taking requests; those under way may go on for as long as the drain lasts.
    pub fn begin(&self) {
        self.advance(Stage::Draining);
    }

    /// Ends the drain: what is still under way ends now, in an error that says why.
    pub fn hurry(&self) {
        self.advance(Stage::Ending);
    }

    fn advance(&self, to: Stage) {
        self.0.stage.send_if_modified(|stage| {
            let ahead = to > *stage;
            *stage = to.max(*stage);
            ahead
        });
    }
}

impl Server {
    /// Listens on an address.
    ///
    /// # Errors
    /// When the address cannot be had, or is not this machine's own and no key is set.
    pub async fn bind(address: SocketAddr, engine: Arc<Engine>, keys: Keys, bounds: Bounds) -> io::Result<Self> {
        if !address.ip().is_loopback() && !keys.are_set() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "refusing to listen on an address that others can reach without a key: set [server] keys, or listen on 127.0.0.1",
            ));
        }
        let listener = listen(address)?;
        let started = engine.now().wall.as_secs();
        let gate = Gate {
            edition: ArcSwap::from_pointee(Edition::new(engine, keys, bounds)),
            loopback: address.ip().is_loopback(),
            started,
            stage: watch::Sender::new(Stage::Serving),
            load: Arc::default(),
        };
        Ok(Self { listener, gate: Arc::new(gate) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The way to stop it.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(Arc::clone(&self.gate))
    }

    /// The way to exchange what it serves by.
    #[must_use]
    pub fn editions(&self) -> Editions {
        Editions(Arc::clone(&self.gate))
    }

    /// Serves until it is told to stop and the requests under way are over. Those that outlast the drain end in an
    /// error of ours.
    pub async fn run(self) {
        let Self { listener, gate } = self;
        let mut connections = JoinSet::new();
        let mut stage = gate.stage.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stage.wait_for(|stage| *stage >= Stage::Draining) => break,
            };
            while connections.try_join_next().is_some() {}
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors, or the client has gone already.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            if connections.len() >= MOST_CONNECTIONS {
                let engine = &gate.edition.load().engine;
                let now = engine.now();
                engine.telemetry().tell(now.wall, &Event::TurnedAway { reason: "connections" });
                continue;
            }
            connections.spawn(serve_connection(Arc::clone(&gate), stream));
        }
        drop(listener);
        let edition = gate.edition.load_full();
        tokio::select! {
            () = all_end(&mut connections) => return,
            () = tokio::time::sleep(edition.bounds.drain) => {}
            _ = stage.wait_for(|stage| *stage == Stage::Ending) => {}
        }
        edition.engine.close();
        let _ = tokio::time::timeout(LAST_WORDS, all_end(&mut connections)).await;
        // Whoever does not read even that is cut off; what they used is settled and recorded as they are dropped.
        connections.shutdown().await;
    }
}

/// Sockets that are accepted take their options from the listening one.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait until the system has forgotten the old connections.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn all_end(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(gate: Arc<Gate>, stream: TcpStream) {
    // Without it, an answer's last piece waits for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut stage = gate.stage.subscribe();
    let notes = Arc::new(HeadNotes::default());
    let head = HeadReader::new(Arc::clone(&notes));
    let service = service_fn(move |request| {
        let (gate, notes) = (Arc::clone(&gate), Arc::clone(&notes));
        async move {
            let answer = serve(&gate, &notes, request).await;
            notes.answered();
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_HEADER_BYTES)
        .half_close(false);
    let connection = builder.serve_connection(TokioIo::new(Patient::new(stream, head)), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stage.wait_for(|stage| *stage >= Stage::Draining) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn serve(gate: &Gate, notes: &HeadNotes, request: Request<Incoming>) -> Response<Reply> {
    let edition = gate.edition.load_full();
    let received = edition.engine.now();
    let id = edition.engine.new_id(received);
    let mut answer = match pass_gates(gate, &edition, notes, &request) {
        Ok((route, rest, caller)) => {
            let rest = rest.to_owned();
            dispatch(gate, &edition, request, route, &rest, caller, id, received).await
        }
        Err(answer) => *answer,
    };
    respond::name(&mut answer, id);
    answer
}

/// Host, origin, route, key: in this order, and nothing of the body is read before.
fn pass_gates<'a>(
    gate: &Gate,
    edition: &Edition,
    notes: &HeadNotes,
    request: &'a Request<Incoming>,
) -> Result<(&'static Route, &'a str, Caller), Box<Answer>> {
    let refuse = |error: ClientError| {
        let reason = error.code.clone();
        edition.engine.telemetry().tell(edition.engine.now().wall, &Event::TurnedAway { reason: &reason });
        Box::new(respond::error(&error))
    };
    notes
        .check()
        .and_then(|()| framing::check(request.headers()))
        .map_err(|error| Box::new(closing(*refuse(error))))?;
    origin::check(request.uri(), request.headers(), gate.loopback).map_err(refuse)?;
    let found = find(request.method(), request.uri().path());
    if let Found::Route(route, rest) = found
        && route.access == Access::Open
    {
        return Ok((route, rest, Caller::Operator));
    }
    // Without a key nobody learns which paths there are.
    let Some(caller) = edition.keys.caller(request.headers()) else {
        return Err(refuse(ClientError::new(
            401,
            "invalid_api_key",
            "a valid key is needed, as `authorization: Bearer KEY`",
        )));
    };
    let (route, rest) = match found {
        Found::Route(route, rest) => (route, rest),
        Found::OtherMethod(methods) => return Err(Box::new(respond::other_method(&methods))),
        Found::Nothing => {
            let message = if request.uri().path().starts_with("/v1") {
                "this part of the API is not supported yet; there are /v1/chat/completions and /v1/models"
            } else {
                "there is nothing here; clients of OpenAI's API use the base URL ending in /v1"
            };
            return Err(refuse(ClientError::new(404, "not_found", message)));
        }
    };
    if route.access == Access::Operator && caller != Caller::Operator {
        return Err(refuse(ClientError::new(403, "permission_denied", "this needs the operator's key")));
    }
    Ok((route, rest, caller))
}

#[expect(clippy::too_many_arguments, reason = "all that is known of a request before its body is read")]
async fn dispatch(
    gate: &Gate,
    edition: &Edition,
    request: Request<Incoming>,
    route: &Route,
    rest: &str,
    caller: Caller,
    id: freeway_types::RequestId,
    received: freeway_types::Now,
) -> Answer {
    let engine = Arc::clone(&edition.engine);
    let name = edition.keys.name(caller).to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let document = match route.target {
        Target::ChatCompletions => {
            let (head, body) = request.into_parts();
            let rules = &edition.engine.snapshot().rules;
            let place = match edition.doorkeeper.let_in(&gate.load, rules, caller, &head.headers) {
                Ok(place) => place,
                Err((tier, error)) => {
                    engine.telemetry().tell(received.wall, &Event::TurnedAway { reason: &error.code });
                    return turn_away(&head.headers, body, tier, &error).await;
                }
            };
            let mut answer = match engine.unless_closed(pin!(read_json(&head.headers, body))).await {
                Ok(body) => openai::chat(engine, id, received, &head.headers, body, caller, name).await,
                Err(error) => closing(respond::error(&error)),
            };
            answer.body_mut().keep(place);
            return answer;
        }
        Target::Explain => {
            let (head, body) = request.into_parts();
            match engine.unless_closed(pin!(read_json(&head.headers, body))).await {
                Ok(body) => operator::explain(&engine, &head.headers, &body),
                Err(error) => return closing(respond::error(&error)),
            }
        }
        Target::Health => return respond::whole(200, "text/plain", "ok\n"),
        Target::Ready if *gate.stage.borrow() != Stage::Serving => {
            return respond::whole(503, "text/plain", "stopping\n");
        }
        Target::Ready if engine.is_ledger_failing() => {
            return respond::whole(503, "text/plain", "the ledger cannot be written\n");
        }
        Target::Ready => return respond::whole(200, "text/plain", "ready\n"),
        Target::Metrics => return respond::whole(200, "text/plain; version=0.0.4", operator::metrics(&engine)),
        Target::Models => Ok(openai::models(&engine, gate.started)),
        Target::Model => openai::model(&engine, gate.started, rest),
        Target::Quotas => Ok(crate::quotas::quotas(&engine)),
        Target::Deployments => Ok(operator::deployments(&engine)),
        Target::Requests => operator::requests(engine, &query, caller, name).await,
        Target::Request => operator::request(engine, rest, caller, name).await,
        Target::Usage => operator::usage(engine, &query).await,
        Target::OpenApi => Ok(openapi::describe()),
    };
    match document {
        Ok(document) => respond::json(&document),
        Err(error) => respond::error(&error),
    }
}

/// Refuses a request whose body nobody has looked at. Where that body is small, its connection stays usable.
async fn turn_away(headers: &HeaderMap, body: Incoming, tier: &str, error: &ClientError) -> Answer {
    let is_read = discard(headers, body).await;
    let mut answer = respond::error(error);
    respond::set(&mut answer, HeaderName::from_static("x-freeway-tier"), tier);
    if is_read { answer } else { closing(answer) }
}

/// An answer to a body that was not read to its end: what follows on the connection cannot be trusted.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    answer
}
