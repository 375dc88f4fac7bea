//! One upstream's client: its origin, its keys, its pool of idle connections.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use freeway_types::{KeyIndex, Secret};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::body::Outgoing;
use crate::connect::{ConnectError, Connector, Resolver};
use crate::egress::Reach;
use crate::origin::{Auth, Origin};

/// Connections unused for this long are closed by us, before most servers do.
const IDLE_LIMIT: Duration = Duration::from_secs(4);
const AGENT: &str = concat!("freeway/", env!("CARGO_PKG_VERSION"));

/// Sends requests to one origin.
pub struct Client {
    origin: Arc<Origin>,
    auth: Auth,
    keys: Vec<Secret>,
    headers: HeaderMap,
    pool: Pool<Connector, Outgoing>,
}

/// One request to send.
pub struct Exchange {
    /// Path below the interface's own, such as `/chat/completions`.
    pub path: &'static str,
    /// The key to send, if the account has any.
    pub key: Option<KeyIndex>,
    /// The body, as JSON.
    pub body: Bytes,
    /// Whether an event stream is asked for.
    pub stream: bool,
    /// Runs when the body has been written.
    pub on_written: Box<dyn FnOnce() + Send>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There was no connection: nothing was sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke before an answer began.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl Client {
    /// A client for an origin. `headers` are sent with every request.
    #[must_use]
    pub fn new(
        origin: Origin,
        auth: Auth,
        keys: Vec<Secret>,
        headers: &[(HeaderName, HeaderValue)],
        reach: Reach,
        resolver: Resolver,
    ) -> Self {
        let origin = Arc::new(origin);
        let connector = Connector { origin: Arc::clone(&origin), reach, resolver };
        let pool = Pool::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_LIMIT)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .http1_max_buf_size(256 * 1024)
            .build(connector);
        Self { origin, auth, keys, headers: headers.iter().cloned().collect(), pool }
    }

    /// Where it sends to, for messages.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &[Secret] {
        &self.keys
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// When there is no connection, or it breaks before an answer begins.
    pub async fn send(&self, exchange: Exchange) -> Result<Response<Incoming>, SendError> {
        let request = self.request(exchange).map_err(|error| SendError::Broken(error.to_string()))?;
        self.pool.request(request).await.map_err(|error| {
            let mut source = error.source();
            while let Some(cause) = source {
                if let Some(connect) = cause.downcast_ref::<ConnectError>() {
                    return SendError::Connect(connect.clone());
                }
                source = cause.source();
            }
            SendError::Broken(last_cause(&error))
        })
    }

    fn request(&self, exchange: Exchange) -> Result<Request<Outgoing>, http::Error> {
        let uri = format!("{}{}{}", self.origin.authority(), self.origin.base_path, exchange.path);
        let mut request = Request::builder().method(Method::POST).uri(uri);
        if let Some(headers) = request.headers_mut() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(
                ACCEPT,
                HeaderValue::from_static(if exchange.stream { "text/event-stream" } else { "application/json" }),
            );
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
            for (name, value) in &self.headers {
                headers.insert(name.clone(), value.clone());
            }
            if let Some(key) = exchange.key.and_then(|key| self.keys.get(key.get())) {
                let (name, text) = match &self.auth {
                    Auth::Bearer => (AUTHORIZATION, format!("Bearer {}", key.expose())),
                    Auth::Header(name) => (name.clone(), key.expose().to_owned()),
                };
                let mut value = HeaderValue::try_from(text)?;
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        request.body(Outgoing::new(exchange.body, exchange.on_written))
    }
}

/// The innermost cause: what the system said, without addresses and wrappers.
fn last_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
