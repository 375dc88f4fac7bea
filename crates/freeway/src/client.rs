//! Talking to the running gateway's API.

use std::path::Path;

use bytes::Bytes;
use freeway_config::Loaded;
use freeway_types::Timestamp;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Why the gateway's API gave no answer.
pub(crate) enum Unanswered {
    /// Nobody listens there.
    NotRunning(String),
    /// It said no.
    Refused(String),
}

impl Unanswered {
    /// The message for a terminal.
    pub(crate) fn message(self) -> String {
        match self {
            Self::NotRunning(address) => {
                format!(
                    "no gateway answers at {address}: start it with `freeway serve`, or name its configuration with --config"
                )
            }
            Self::Refused(message) => message,
        }
    }
}

/// Asks the gateway of a configuration.
pub(crate) fn ask(
    loaded: &Loaded,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<Bytes>,
) -> Result<Value, Unanswered> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Unanswered::Refused(error.to_string()))?;
    runtime.block_on(exchange(loaded, method, path, headers, body))
}

async fn exchange(
    loaded: &Loaded,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<Bytes>,
) -> Result<Value, Unanswered> {
    let mut address = loaded.settings.listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    let away = || Unanswered::NotRunning(address.to_string());
    let broken = |error: &dyn ToString| {
        Unanswered::Refused(format!("the gateway at {address} broke off: {}", error.to_string()))
    };
    let stream = TcpStream::connect(address).await.map_err(|_| away())?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(HOST, address.to_string());
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    if let Some(key) = loaded.settings.keys.first()
        && let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", key.expose()))
    {
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.unwrap_or_default())).map_err(|error| broken(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|error| broken(&error))?.to_bytes();
    connection.abort();
    let value: Value = serde_json::from_slice(&body).map_err(|error| broken(&error))?;
    if status.is_success() {
        Ok(value)
    } else {
        let message = value["error"]["message"].as_str().unwrap_or("no reason was given").to_owned();
        Err(Unanswered::Refused(message))
    }
}

/// The configuration that says where the gateway is.
pub(crate) fn configuration(file: Option<&Path>) -> Result<Loaded, String> {
    crate::environment::configuration(file, now())
}

/// The time of a command that runs once.
pub(crate) fn now() -> Timestamp {
    freeway_engine::Clock::start().now().wall
}
