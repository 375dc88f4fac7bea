//! A streamed answer, as the client's server polls it: held before its first content, relayed, rescued where it broke.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use freeway_dialect::ClientError;
use freeway_dialect::openai_chat::{Told, render_stream_error};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use crate::closing::{Closed, shutting_down};
use crate::engine::{Answer, Reply};
use crate::health::Sight;
use crate::relay::{Relay, STILL_THERE_COMMENT, Step};
use crate::rescue::Rescuer;
use crate::timing::KEEP_ALIVE;
use crate::trace::{Ending, Trace};

/// Sent while an answer is held.
const KEEP_ALIVE_COMMENT: &[u8] = b": waiting for the first content\n\n";

/// A streamed answer.
pub struct StreamBody(Stage);

enum Stage {
    /// Nothing to show yet: failover goes on behind comments.
    Held {
        answer: Pin<Box<dyn Future<Output = Answer> + Send>>,
        comment: Pin<Box<Sleep>>,
    },
    /// Content flows.
    Relaying {
        relay: Box<Relay>,
        trace: Box<Trace>,
        /// The gateway ends, and the stream with it.
        closed: Closed,
        /// What helps if it breaks off.
        rescuer: Option<Box<Rescuer>>,
    },
    /// It broke off, and another target is to go on.
    Rescuing {
        next: Pin<Box<dyn Future<Output = Rescued> + Send>>,
        comment: Pin<Box<Sleep>>,
    },
    /// One last piece.
    Last(Bytes),
    Over,
}

/// A stream that goes on, or the error in which it ends.
type Rescued = (Trace, Result<Box<Relay>, ClientError>);

impl StreamBody {
    pub(crate) fn relaying(mut relay: Box<Relay>, trace: Trace, rescuer: Option<Rescuer>) -> Self {
        if rescuer.is_some() {
            relay.listen();
        }
        Self(Stage::relaying(relay, trace, rescuer.map(Box::new)))
    }

    /// A stream that begins before anybody has answered.
    pub(crate) fn held(answer: Pin<Box<dyn Future<Output = Answer> + Send>>) -> Self {
        // The hold has passed: the first comment is due at once.
        Self(Stage::Held { answer, comment: Box::pin(tokio::time::sleep(Duration::ZERO)) })
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            match &mut self.0 {
                Stage::Held { answer, comment } => {
                    if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                        self.0 = stage_of(answer);
                        continue;
                    }
                    ready!(comment.as_mut().poll(context));
                    comment.as_mut().reset(Instant::now() + KEEP_ALIVE);
                    return data(Bytes::from_static(KEEP_ALIVE_COMMENT));
                }
                Stage::Rescuing { next, comment } => {
                    if let Poll::Ready((trace, rescued)) = next.as_mut().poll(context) {
                        self.0 = match rescued {
                            Ok(relay) => Stage::relaying(relay, trace, None),
                            Err(error) => Stage::Last(break_off(&trace, "broken_answer", &error, &[])),
                        };
                        continue;
                    }
                    ready!(comment.as_mut().poll(context));
                    comment.as_mut().reset(Instant::now() + KEEP_ALIVE);
                    return data(Bytes::from_static(STILL_THERE_COMMENT));
                }
                Stage::Relaying { relay, trace, closed, rescuer } => {
                    // Looked at before the upstream, too: one that always has more would keep the gateway from ending.
                    let step = match trace.engine.closing().is_closed() {
                        true => relay.cut_off(),
                        false => match relay.poll(context, trace) {
                            Poll::Ready(step) => step,
                            Poll::Pending => {
                                ready!(closed.as_mut().poll(context));
                                relay.cut_off()
                            }
                        },
                    };
                    match step {
                        Step::Bytes(bytes) => return data(bytes),
                        Step::Complete(bytes) => {
                            trace.see(relay.terms.flight, Sight::Worked);
                            trace.land(relay.terms.flight, &Ending::Answered);
                            trace.answered();
                            relay.drain();
                            self.0 = Stage::Last(bytes);
                        }
                        Step::Broken(bytes, cause, fault) => {
                            trace.see(relay.terms.flight, Sight::Failed(fault));
                            let error = broken(&trace.engine.scrubber.scrub(&cause));
                            let told = relay.told.take();
                            let rescue = rescuer.take().zip(told).filter(|(rescuer, told)| rescuer.suits(trace, told));
                            let Some((rescuer, told)) = rescue else {
                                self.0 = Stage::Last(break_off(trace, "broken_answer", &error, &bytes));
                                continue;
                            };
                            let message = Some(error.message.clone());
                            trace.land(relay.terms.flight, &Ending::Broken { outcome: "broken_answer", message });
                            if let Stage::Relaying { trace, .. } = std::mem::replace(&mut self.0, Stage::Over) {
                                self.0 = Stage::rescuing(*rescuer, *trace, *told, error);
                            }
                            if !bytes.is_empty() {
                                return data(bytes);
                            }
                        }
                        Step::CutOff => {
                            self.0 = Stage::Last(break_off(trace, "cancelled", &shutting_down(), &[]));
                        }
                    }
                }
                Stage::Last(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.0 = Stage::Over;
                    if !bytes.is_empty() {
                        return data(bytes);
                    }
                }
                Stage::Over => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Stage::Over)
    }
}

impl Stage {
    fn relaying(relay: Box<Relay>, trace: Trace, rescuer: Option<Box<Rescuer>>) -> Self {
        let closed = trace.engine.closing().closed();
        Self::Relaying { relay, trace: Box::new(trace), closed, rescuer }
    }

    fn rescuing(rescuer: Rescuer, trace: Trace, told: Told, cause: ClientError) -> Self {
        let next = Box::pin(async move {
            // Why nobody could go on is in the record; the client is told what happened to its answer.
            let rescued = rescuer.rescue(&trace, told).await.map_err(|_| cause);
            (trace, rescued)
        });
        Self::Rescuing { next, comment: Box::pin(tokio::time::sleep(KEEP_ALIVE)) }
    }
}

fn data(bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
    Poll::Ready(Some(Ok(Frame::data(bytes))))
}

/// Settles and records a stream that gets no further; gives its last bytes, of which the very last say so.
fn break_off(trace: &Trace, outcome: &str, error: &ClientError, rest: &[u8]) -> Bytes {
    trace.land_all(&Ending::Broken { outcome, message: Some(error.message.clone()) });
    trace.failed(error);
    let mut last = BytesMut::from(rest);
    last.extend_from_slice(&render_stream_error(error));
    last.freeze()
}

/// How a held stream goes on once its request has been driven to an end.
fn stage_of(answer: Answer) -> Stage {
    match answer.reply {
        Reply::Stream(body) => body.0,
        Reply::Failed(error) => Stage::Last(render_stream_error(&error)),
        // A whole answer cannot stand in a stream; the attempt does not give one for a request that streams.
        Reply::Whole(_) => Stage::Last(render_stream_error(&broken("the answer is not a stream"))),
    }
}

fn broken(cause: &str) -> ClientError {
    let mut error = ClientError::new(502, "upstream_stream_broken", format!("the answer broke off upstream: {cause}"));
    error.should_retry = true;
    error
}
