//! The end that a stopping gateway sets to whatever is still under way.
//!
//! A request learns of it wherever it waits: before its first content it fails with an error in its client's dialect,
//! and a stream that has begun ends in an error event without an end marker. Both are settled and recorded as what
//! they are; a connection that is merely cut would look like a client that left.

use std::future::Future;
use std::pin::Pin;

use freeway_dialect::ClientError;
use tokio::sync::watch;

use crate::engine::Engine;

/// Whether everything under way is to end. Shared by the engines of all editions.
pub(crate) struct Closing(watch::Sender<bool>);

/// Comes to an end when everything else has to.
pub(crate) type Closed = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Default for Closing {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Closing {
    /// Whether the end has come.
    pub(crate) fn is_closed(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the end. The future holds nothing of the engine's.
    pub(crate) fn closed(&self) -> Closed {
        let mut closing = self.0.subscribe();
        Box::pin(async move {
            // Without a sender there is no engine either, and so nobody who waits.
            let _ = closing.wait_for(|closed| *closed).await;
        })
    }
}

impl Engine {
    /// Ends every request, those of earlier editions too, and each that still comes. What had not been answered gets
    /// the error `server_shutting_down`; a stream ends in an event that says the same. There is no way back.
    pub fn close(&self) {
        self.closing().0.send_replace(true);
    }

    /// Does a part of a request that may take long. The work is pinned by the caller, so that it is not moved about.
    ///
    /// # Errors
    /// Those of the work itself, and `server_shutting_down` where [`Self::close`] comes before its end: the work is
    /// then dropped.
    pub async fn unless_closed<T, W>(&self, work: Pin<&mut W>) -> Result<T, ClientError>
    where
        W: Future<Output = Result<T, ClientError>>,
    {
        let mut closing = self.closing().0.subscribe();
        if *closing.borrow() {
            return Err(shutting_down());
        }
        tokio::select! {
            biased;
            result = work => result,
            _ = closing.wait_for(|closed| *closed) => Err(shutting_down()),
        }
    }
}

/// What a client is told whose request outlasts the gateway. Another instance, or the next start, may serve it.
pub(crate) fn shutting_down() -> ClientError {
    let message = "the gateway is shutting down and could not wait for the rest of this answer; ask again";
    let mut error = ClientError::new(503, "server_shutting_down", message);
    error.retry_after = Some(1);
    error.should_retry = true;
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_before_and_who_comes_after_both_learn_of_it() {
        let closing = Closing::default();
        let early = closing.closed();
        closing.0.send_replace(true);
        early.await;
        closing.closed().await;
    }
}
