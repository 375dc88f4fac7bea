//! Fetching a small document from the same origin, such as how much is left of a quota.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use freeway_types::KeyIndex;
use http::HeaderMap;
use http_body::Body;

use crate::body::AnswerBody;
use crate::client::{Client, SendError};

/// Largest document that is taken, in bytes.
const MOST_BYTES: usize = 64 * 1024;
/// All the time that a document gets, from the first look for a connection to its last byte.
const TIME: Duration = Duration::from_secs(10);

/// A document as it came, whatever its status.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its status; that of a redirect is one of these, as none is followed.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, in full.
    pub body: Bytes,
}

/// Why there is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// There was no connection, or it broke before an answer began.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The answer broke off.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// It is longer than what is taken.
    #[error("the answer is longer than {MOST_BYTES} bytes")]
    TooLong,
    /// It was not there in time.
    #[error("no answer within {} s", TIME.as_secs())]
    TimedOut,
}

impl Client {
    /// Gets the document at a path of this origin, which begins with a slash and is taken as it is, with one of the
    /// account's keys. At most 64 KiB are read, within ten seconds in all.
    ///
    /// # Errors
    /// When there is no whole answer of that size in that time. A status is no error here.
    pub async fn fetch(&self, path: &str, key: Option<KeyIndex>) -> Result<Document, FetchError> {
        let fetched = tokio::time::timeout(TIME, async {
            let (head, body) = self.get(path, key).await?.into_parts();
            let body = whole(body).await?;
            Ok(Document { status: head.status.as_u16(), headers: head.headers, body })
        });
        fetched.await.unwrap_or(Err(FetchError::TimedOut))
    }
}

async fn whole(mut body: AnswerBody) -> Result<Bytes, FetchError> {
    let mut all = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(bytes) = frame.map_err(|error| FetchError::Broken(error.to_string()))?.into_data() else { continue };
        if all.len() + bytes.len() > MOST_BYTES {
            return Err(FetchError::TooLong);
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all.freeze())
}
