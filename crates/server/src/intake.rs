//! Taking a request's body in: of the right type, not too large, not too slow.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use freeway_dialect::ClientError;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

/// Largest body of a chat request.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// A body may be as slow as it likes for this long …
const GRACE: Duration = Duration::from_secs(5);
/// … and then must have kept up this rate, in bytes a second.
const LEAST_RATE: u64 = 1024;
/// Longest silence within a body.
const SILENCE: Duration = Duration::from_secs(5);

/// Bytes of a body that are taken in only to be thrown away …
const MOST_DISCARDED: u64 = 64 * 1024;
/// … and the time that they may take.
const DISCARD_LIMIT: Duration = Duration::from_millis(200);

/// Reads a JSON body.
///
/// # Errors
/// What the client is told when the type, the size or the pace is not right.
pub(crate) async fn read_json(headers: &HeaderMap, body: Incoming) -> Result<Bytes, ClientError> {
    check_type(headers)?;
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MOST_BYTES) {
        return Err(too_large());
    }
    read(body, announced.unwrap_or(0)).await
}

/// Takes in a body that nobody will read, if that costs next to nothing, so that its connection can take another
/// request. Says whether it is all in.
pub(crate) async fn discard(headers: &HeaderMap, body: Incoming) -> bool {
    // Who asks first would only send the body because of us.
    if headers.contains_key(EXPECT) || body.size_hint().lower() > MOST_DISCARDED {
        return false;
    }
    timeout(DISCARD_LIMIT, discard_all(body)).await.unwrap_or(false)
}

async fn discard_all(mut body: Incoming) -> bool {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        length += frame.data_ref().map_or(0, Bytes::len) as u64;
        if length > MOST_DISCARDED {
            return false;
        }
    }
    true
}

fn check_type(headers: &HeaderMap) -> Result<(), ClientError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let message = "the body must be JSON: send `content-type: application/json`";
        return Err(ClientError::new(415, "unsupported_media_type", message));
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let message = "compressed bodies are not taken: send it as it is";
        return Err(ClientError::new(415, "unsupported_media_type", message));
    }
    Ok(())
}

async fn read(mut body: Incoming, announced: usize) -> Result<Bytes, ClientError> {
    let begun = Instant::now();
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    let mut length = 0;
    loop {
        let frame = match timeout(SILENCE, body.frame()).await {
            Err(_) => return Err(too_slow()),
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(ClientError::new(400, "invalid_request", "the body broke off")),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(bytes) = frame.into_data() else { continue };
        length += bytes.len();
        if length > MOST_BYTES {
            return Err(too_large());
        }
        let late = begun.elapsed().saturating_sub(GRACE).as_secs();
        if u64::try_from(length).unwrap_or(u64::MAX) < late * LEAST_RATE {
            return Err(too_slow());
        }
        // Most bodies arrive in one piece, which is then used as it is.
        match first.take() {
            None if all.is_empty() => first = Some(bytes),
            earlier => {
                if all.capacity() == 0 {
                    all.reserve(announced.max(length));
                }
                all.extend_from_slice(&earlier.unwrap_or_default());
                all.extend_from_slice(&bytes);
            }
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

fn too_large() -> ClientError {
    ClientError::new(413, "request_too_large", format!("a request holds {} MiB at most", MOST_BYTES / 1024 / 1024))
}

fn too_slow() -> ClientError {
    let mut error = ClientError::new(408, "request_timeout", "the body came too slowly");
    error.should_retry = true;
    error
}
