//! One upstream's client: its origin, its keys, its pool of idle connections.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use freeway_types::{KeyIndex, Secret};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
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
    keys: Vec<Secret>,
    /// The header that each key is sent in; `None` for one that cannot stand in a header.
    credentials: Vec<Option<(HeaderName, HeaderValue)>>,
    /// What goes with every request.
    headers: HeaderMap,
    /// The addresses that were asked for so far.
    addresses: Mutex<BTreeMap<&'static str, Uri>>,
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
        auth: &Auth,
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
        let credentials = keys.iter().map(|key| credential(auth, key)).collect();
        let fixed = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            (USER_AGENT, HeaderValue::from_static(AGENT)),
        ];
        let mut all = HeaderMap::with_capacity(8);
        for (name, value) in fixed.into_iter().chain(headers.iter().cloned()) {
            all.insert(name, value);
        }
        Self { origin, keys, credentials, headers: all, addresses: Mutex::default(), pool }
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
        let request = self.request(exchange)?;
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

    fn request(&self, exchange: Exchange) -> Result<Request<Outgoing>, SendError> {
        let mut request = Request::new(Outgoing::new(exchange.body, exchange.on_written));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.address(exchange.path)?;
        let mut headers = self.headers.clone();
        headers.insert(
            ACCEPT,
            HeaderValue::from_static(if exchange.stream { "text/event-stream" } else { "application/json" }),
        );
        if let Some(credential) = exchange.key.and_then(|key| self.credentials.get(key.get())) {
            let unsendable = || SendError::Broken("the key cannot stand in a header".to_owned());
            let (name, value) = credential.clone().ok_or_else(unsendable)?;
            headers.insert(name, value);
        }
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// The whole address of a path. There are few paths, and an address is not made twice.
    fn address(&self, path: &'static str) -> Result<Uri, SendError> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = addresses.get(path) {
            return Ok(known.clone());
        }
        let address = format!("{}{}{path}", self.origin.authority(), self.origin.base_path);
        let address: Uri = address.parse().map_err(|error| SendError::Broken(format!("{address}: {error}")))?;
        addresses.insert(path, address.clone());
        Ok(address)
    }
}

/// The header that a key is sent in, which shows in no log.
fn credential(auth: &Auth, key: &Secret) -> Option<(HeaderName, HeaderValue)> {
    let (name, text) = match auth {
        Auth::Bearer => (AUTHORIZATION, format!("Bearer {}", key.expose())),
        Auth::Header(name) => (name.clone(), key.expose().to_owned()),
    };
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// The innermost cause: what the system said, without addresses and wrappers.
fn last_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
