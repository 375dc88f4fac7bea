//! One upstream's client: its origin, its keys, its pool of idle connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use freeway_types::{KeyIndex, Secret};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};

use crate::body::{AnswerBody, Outgoing};
use crate::connect::{ConnectError, Connection, Connector, Resolver};
use crate::egress::Reach;
use crate::leg::{self, Leg};
use crate::multiplex::Multiplex;
use crate::origin::{Auth, Origin};
use crate::pool::{Pool, Way};
use crate::proxy::Proxy;
use crate::stream;

const AGENT: &str = concat!("freeway/", env!("CARGO_PKG_VERSION"));

/// Sends requests to one origin.
pub struct Client {
    origin: Arc<Origin>,
    keys: Vec<Secret>,
    /// What goes with every request of each key, itself included; `None` for one that cannot stand in a header.
    signed: Vec<Option<HeaderMap>>,
    /// What goes with a request that no key is for.
    headers: HeaderMap,
    /// What the `host` header says, in the form of HTTP/2; `None` for what cannot stand in one.
    authority: Option<Authority>,
    /// The paths that were asked for so far, below the interface's own.
    paths: Mutex<BTreeMap<&'static str, Uri>>,
    connector: Connector,
    pool: Arc<Pool>,
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
    /// The other side took nothing more of the request for ten seconds.
    #[error("the request could not be written within 10 s")]
    Stuck,
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
        let connector = Connector { origin: Arc::clone(&origin), reach, resolver, proxy: None };
        // A host that cannot stand in a header has no address either: the request fails where that is found.
        let host = HeaderValue::try_from(origin.host_header()).unwrap_or_else(|_| HeaderValue::from_static(""));
        let fixed = [
            (HOST, host),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (ACCEPT, HeaderValue::from_static("application/json")),
            (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            (USER_AGENT, HeaderValue::from_static(AGENT)),
        ];
        let mut all = HeaderMap::with_capacity(12);
        for (name, value) in fixed.into_iter().chain(headers.iter().cloned()) {
            all.insert(name, value);
        }
        let sign = |key: &Secret| {
            let (name, value) = credential(auth, key)?;
            let mut signed = all.clone();
            signed.insert(name, value);
            Some(signed)
        };
        let signed = keys.iter().map(sign).collect();
        let pool = Arc::new(Pool::new(connector.may_share()));
        let authority = all.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
        Self { origin, keys, signed, headers: all, authority, paths: Mutex::default(), connector, pool }
    }

    /// The same client, sending everything through a proxy; nothing changes for an origin on this machine.
    #[must_use]
    pub fn through(mut self, proxy: Option<Proxy>) -> Self {
        self.connector.proxy = proxy.filter(|_| !self.origin.is_loopback());
        self
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
    pub async fn send(&self, exchange: Exchange) -> Result<Response<AnswerBody>, SendError> {
        let request = self.request(exchange)?;
        self.deliver(request).await
    }

    /// Asks for what is at a path of the origin, and waits for the head of the answer.
    pub(crate) async fn get(&self, path: &str, key: Option<KeyIndex>) -> Result<Response<AnswerBody>, SendError> {
        let mut request = Request::new(Outgoing::none());
        // In origin form, a path never names another host.
        *request.uri_mut() = path.parse().map_err(|error| SendError::Broken(format!("{path}: {error}")))?;
        let mut headers = self.headers(key)?.clone();
        headers.remove(CONTENT_TYPE);
        *request.headers_mut() = headers;
        self.deliver(request).await
    }

    async fn deliver(&self, mut request: Request<Outgoing>) -> Result<Response<AnswerBody>, SendError> {
        let mut is_again = false;
        loop {
            let (way, is_fresh) = match self.pool.take() {
                Some(way) => (way, false),
                // Boxed, because it is rare and its room would be every request's.
                None => Box::pin(self.make_way()).await?,
            };
            match way {
                Way::Leg(mut leg) => match leg.send(request).await {
                    Ok(answer) => {
                        return Ok(answer.map(|incoming| AnswerBody::new(incoming, leg, Arc::clone(&self.pool))));
                    }
                    // The other side closed an idle connection at this moment, and nothing was written: that is no
                    // attempt yet.
                    Err(leg::Unanswered::Broken(_, Some(unsent))) if !is_fresh => request = *unsent,
                    Err(leg::Unanswered::Broken(error, _)) => return Err(SendError::Broken(last_cause(&error))),
                    Err(leg::Unanswered::Stuck) => return Err(SendError::Stuck),
                },
                Way::Slot(slot) => {
                    let authority = self.authority.as_ref().ok_or_else(|| SendError::Broken("no host".to_owned()))?;
                    match slot.send(&mut request, authority).await {
                        Ok(answer) => return Ok(answer.map(AnswerBody::shared)),
                        // The provider is ending this connection or had no room on it. Once is bad luck.
                        Err(stream::Unanswered::Unread(_)) if !is_again => is_again = true,
                        Err(stream::Unanswered::Unread(why) | stream::Unanswered::Broken(why)) => {
                            return Err(SendError::Broken(why));
                        }
                        Err(stream::Unanswered::Stuck) => return Err(SendError::Stuck),
                    }
                }
            }
        }
    }

    /// A way over a new connection, or over one that somebody else makes at this moment; and whether it is new.
    async fn make_way(&self) -> Result<(Way, bool), SendError> {
        let mut turn = match self.pool.is_shared() {
            true => Some(self.pool.turn().await?),
            false => None,
        };
        // Whoever had the turn before may have made a connection for all who wait, or found that none can be shared.
        if turn.is_some()
            && let Some(way) = self.pool.take()
        {
            return Ok((way, false));
        }
        if !self.pool.is_shared() {
            turn = None;
        }
        let connection = self.connector.connect().await.inspect_err(|error| {
            if let Some(turn) = &mut turn {
                turn.failed(error);
            }
        })?;
        self.pool.found(matches!(connection, Connection::Multiple(_)));
        match connection {
            Connection::Single(socket) => {
                let leg = Leg::new(socket).await.map_err(|error| SendError::Broken(last_cause(&error)))?;
                Ok((Way::Leg(leg), true))
            }
            Connection::Multiple(stream) => {
                let fresh = Multiplex::new(stream).await.map_err(|error| SendError::Broken(error.to_string()))?;
                let slot = self.pool.share(fresh);
                slot.map(|slot| (Way::Slot(slot), true))
                    .ok_or_else(|| SendError::Broken("it was closed at once".to_owned()))
            }
        }
    }

    fn request(&self, exchange: Exchange) -> Result<Request<Outgoing>, SendError> {
        let mut request = Request::new(Outgoing::new(exchange.body, exchange.on_written));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path(exchange.path)?;
        let mut headers = self.headers(exchange.key)?.clone();
        if exchange.stream {
            headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        }
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// What goes with every request that a key is sent with.
    fn headers(&self, key: Option<KeyIndex>) -> Result<&HeaderMap, SendError> {
        let Some(signed) = key.and_then(|key| self.signed.get(key.get())) else { return Ok(&self.headers) };
        signed.as_ref().ok_or_else(|| SendError::Broken("the key cannot stand in a header".to_owned()))
    }

    /// A path on the origin. There are few, and none is made twice.
    fn path(&self, path: &'static str) -> Result<Uri, SendError> {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = paths.get(path) {
            return Ok(known.clone());
        }
        let whole = format!("{}{path}", self.origin.base_path);
        let uri: Uri = whole.parse().map_err(|error| SendError::Broken(format!("{whole}: {error}")))?;
        paths.insert(path, uri.clone());
        Ok(uri)
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

#[cfg(test)]
mod tests;
