//! One attempt: send, and hold until there is something the client should see.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use freeway_dialect::openai_chat::{Flaw, Form, Head, Opening, Rewrite};
use freeway_dialect::sse::Decoder;
use freeway_quota::ReservationId;
use freeway_router::{Candidate, Domain, Meaning, Refusal, Remedy, read_refusal};
use freeway_types::{DeploymentIndex, KeyIndex, Now};
use freeway_upstream::AnswerBody;
use freeway_upstream::{ConnectError, Exchange, SendError};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Body;
use tokio::time::Instant;

use crate::hearing::Heading;
use crate::job::Job;
use crate::relay::{Relay, Terms};
use crate::trace::{FlightId, Trace};

/// Largest whole answer that is taken.
const MOST_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Largest refusal that is read.
const MOST_REFUSAL_BYTES: usize = 256 * 1024;
/// Time for reading a refusal's body, once its head is here. It mostly comes with the head, and the head says most of it:
/// a target that could answer is not kept waiting for the rest.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
/// The code of what goes wrong until the operator changes a setting.
pub(crate) const SETTING: &str = "setting";
/// Pause before a broken connection is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// An answer that the client is going to get.
pub(crate) struct Committed {
    pub(crate) deployment: DeploymentIndex,
    pub(crate) dropped: Vec<String>,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    Whole(Bytes),
    Stream(Box<Relay>),
}

/// Why an attempt gave no answer.
pub(crate) struct Failure {
    pub(crate) meaning: Meaning,
    /// Upstream's status, if it sent one.
    pub(crate) status: Option<u16>,
    /// Whether a connection was there, so that the provider may have counted it.
    pub(crate) sent: bool,
    /// Whether the provider may have worked on it, so that what it used is not known.
    pub(crate) may_have_worked: bool,
    /// An answer without content, for a client that gets no better one.
    pub(crate) empty_answer: Option<Bytes>,
    /// Whether the counts hold further attempts back by themselves, so that nothing needs to be paused for it.
    pub(crate) counted: bool,
    /// Whether it says nothing of the target.
    pub(crate) is_unclear: bool,
}

/// What an attempt is sent with.
#[derive(Clone, Copy)]
pub(crate) struct Sending {
    pub(crate) key: Option<KeyIndex>,
    pub(crate) reservation: ReservationId,
    pub(crate) flight: FlightId,
    pub(crate) sent: Now,
}

/// Sends the request to one target and waits for its first content, or for its whole answer.
pub(crate) async fn attempt(
    trace: &Trace,
    job: &Job,
    candidate: &Candidate,
    sending: Sending,
) -> Result<Committed, Failure> {
    let Sending { key, reservation, flight, sent } = sending;
    let engine = &trace.engine;
    let deployment = engine.snapshot.deployment(candidate.deployment);
    let account = engine.snapshot.account_of(candidate.deployment);
    let asks_for_usage = account.stream_usage == freeway_catalog::StreamUsage::Option;
    let body = job.chat.rewrite(Rewrite {
        model: &deployment.model,
        include_usage: asks_for_usage,
        drop: &candidate.dropped_fields,
        rename: &account.renamed,
    });
    let writer = Arc::clone(engine);
    let exchange = Exchange {
        path: "/chat/completions",
        key,
        body,
        stream: job.chat.stream,
        on_written: Box::new(move || {
            let now = writer.now();
            writer.state().book.written(reservation, now);
        }),
    };
    let heading = Heading { deployment: candidate.deployment, reservation, sent, demand: &candidate.demand };
    let client = &engine.clients[deployment.account.get()];
    let response = client.send(exchange).await.map_err(|error| not_sent(&error))?;
    let status = response.status().as_u16();
    trace.head(flight, status);
    if !response.status().is_success() {
        return Err(refused(engine, heading, response).await);
    }
    engine.hear(heading, response.headers());
    let (parts, incoming) = response.into_parts();
    let bytes = |name| parts.headers.get(name).map_or(&[][..], HeaderValue::as_bytes);
    let (content_type, content_coding) = (bytes(CONTENT_TYPE), bytes(CONTENT_ENCODING));
    let head = Head { status, content_type, content_coding, streamed: job.chat.stream };
    let subject = Subject { engine, deployment: candidate.deployment, status, headers: &parts.headers };
    let content = match head.form().map_err(|flaw| flawed(subject, flaw, &[]))? {
        Form::Stream => {
            let dropped = candidate.dropped_fields.iter().any(|field| field == "n");
            let terms = Terms {
                flight,
                parted: false,
                strip_usage: !job.chat.include_usage,
                choices: if dropped { 1 } else { job.chat.choices },
                finished: 0,
                gap: crate::timing::gap(deployment),
                deadline: Instant::now() + job.deadline.monotonic.since(engine.now().monotonic),
                account: account.id.clone(),
            };
            Content::Stream(Box::new(open_stream(trace, subject, incoming, terms).await?))
        }
        Form::Whole => Content::Whole(whole(trace, flight, subject, incoming, &head).await?),
    };
    Ok(Committed { deployment: candidate.deployment, dropped: candidate.dropped_fields.clone(), content })
}

/// Whose answer is judged, and what came before its first byte.
#[derive(Clone, Copy)]
struct Subject<'a> {
    engine: &'a crate::Engine,
    deployment: DeploymentIndex,
    status: u16,
    headers: &'a HeaderMap,
}

/// Reads a whole answer.
async fn whole(
    trace: &Trace,
    flight: FlightId,
    subject: Subject<'_>,
    incoming: AnswerBody,
    head: &Head<'_>,
) -> Result<Bytes, Failure> {
    let mut body = Arrived::default();
    collect(incoming, MOST_ANSWER_BYTES, &mut body).await.map_err(|cause| broken(subject.status, &cause))?;
    let body = body.into_bytes();
    match head.judge(&body) {
        Ok(answer) => {
            trace.saw(flight, answer.usage, answer.text_bytes);
            Ok(body)
        }
        Err(flaw) => {
            let mut failure = flawed(subject, flaw, &body);
            if let Flaw::Empty { usage } | Flaw::NoRoom { usage } = flaw {
                trace.saw(flight, usage, 0);
                failure.empty_answer = Some(body);
            }
            Err(failure)
        }
    }
}

/// Reads a stream up to its first content.
async fn open_stream(
    trace: &Trace,
    subject: Subject<'_>,
    incoming: AnswerBody,
    mut terms: Terms,
) -> Result<Relay, Failure> {
    let mut incoming = Some(incoming);
    let mut decoder = Decoder::default();
    let mut opening = Opening::new(terms.strip_usage);
    loop {
        let event = match decoder.next() {
            Ok(Some(event)) => event,
            Ok(None) => match next_frame(&mut incoming).await {
                Ok(Some(bytes)) => {
                    decoder.push(&bytes);
                    continue;
                }
                Ok(None) => match decoder.rest().filter(|event| event.data.is_some()) {
                    Some(event) => event.ended(),
                    None => return Err(flawed(subject, opening.end(), &[])),
                },
                Err(cause) => return Err(broken(subject.status, &cause)),
            },
            Err(too_long) => return Err(flawed(subject, too_long.into(), &[])),
        };
        let heard =
            opening.take(&event).map_err(|flaw| flawed(subject, flaw, event.data.as_deref().unwrap_or_default()))?;
        trace.saw(terms.flight, heard.usage, heard.text_bytes);
        if heard.content {
            let (held, finished) = opening.finish();
            terms.finished = finished;
            return Ok(Relay::new(incoming, decoder, held, terms));
        }
    }
}

/// The next bytes of a body that is taken away at its proper end: it must not be asked again.
async fn next_frame(incoming: &mut Option<AnswerBody>) -> Result<Option<Bytes>, String> {
    let Some(body) = incoming else { return Ok(None) };
    let next = frame(body).await?;
    if next.is_none() {
        *incoming = None;
    }
    Ok(next)
}

/// The next bytes of a body; `None` at its proper end.
async fn frame(incoming: &mut AnswerBody) -> Result<Option<Bytes>, String> {
    loop {
        let next = std::future::poll_fn(|context| match Pin::new(&mut *incoming).poll_frame(context) {
            Poll::Ready(next) => Poll::Ready(next),
            Poll::Pending => Poll::Pending,
        });
        match next.await {
            None => return Ok(None),
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// What has arrived of a body. One that comes in a single piece is not copied.
#[derive(Default)]
struct Arrived {
    first: Bytes,
    all: BytesMut,
}

impl Arrived {
    fn push(&mut self, bytes: Bytes) {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = bytes;
            return;
        }
        self.all.extend_from_slice(&std::mem::take(&mut self.first));
        self.all.extend_from_slice(&bytes);
    }

    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn into_bytes(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

/// Reads a body to its end.
async fn collect(mut incoming: AnswerBody, most: usize, arrived: &mut Arrived) -> Result<(), String> {
    while let Some(bytes) = frame(&mut incoming).await? {
        if arrived.len() + bytes.len() > most {
            return Err(format!("the answer is longer than {most} bytes"));
        }
        arrived.push(bytes);
    }
    Ok(())
}

/// Reads a refusal and what it means.
async fn refused(engine: &crate::Engine, attempt: Heading<'_>, response: Response<AnswerBody>) -> Failure {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let mut body = Arrived::default();
    // What has arrived by then is read, whatever keeps the rest away.
    let _ = tokio::time::timeout(REFUSAL_LIMIT, collect(response.into_body(), MOST_REFUSAL_BYTES, &mut body)).await;
    let body = body.into_bytes();
    let (meaning, counted) = read(engine, attempt.deployment, status, &headers, &body, Some(attempt));
    let may_have_worked = matches!(status, 408 | 499 | 500..=502 | 504..=528 | 530..=599);
    Failure {
        meaning,
        status: Some(status),
        sent: true,
        may_have_worked,
        empty_answer: None,
        counted,
        is_unclear: false,
    }
}

/// What helps against an answer that a client should not get. `said` is what holds an error.
fn flawed(subject: Subject<'_>, flaw: Flaw, said: &[u8]) -> Failure {
    let (case, remedy) = match flaw {
        Flaw::Error => return error_inside(subject, said),
        Flaw::NoEnd => return broken(subject.status, &flaw.to_string()),
        // The same target would say nothing again.
        Flaw::Empty { .. } => ("empty_answer", Remedy::Another),
        Flaw::NoRoom { .. } => ("no_room_for_content", Remedy::Another),
        Flaw::Status
        | Flaw::Compressed
        | Flaw::EndedInError
        | Flaw::ContentType
        | Flaw::NotStream
        | Flaw::NoBytes
        | Flaw::Page
        | Flaw::NotJson
        | Flaw::Unreadable
        | Flaw::Event
        | Flaw::EventTooLong(_)
        | Flaw::TooMuch => ("invalid_answer", Remedy::SameAgain(AGAIN_AFTER)),
    };
    worked(fault(case, flaw.to_string(), remedy, Domain::Deployment), Some(subject.status))
}

/// An error inside an answer that began with 200. A status that the error itself names is believed.
fn error_inside(subject: Subject<'_>, said: &[u8]) -> Failure {
    let read = |status| read(subject.engine, subject.deployment, status, subject.headers, said, None).0;
    let rules = read(subject.status);
    let named = rules.code.as_ref().and_then(|code| code.parse::<u16>().ok()).filter(|code| (400..600).contains(code));
    let meaning = match named {
        Some(code) if rules.case == "error_in_answer" => read(code),
        _ => rules,
    };
    worked(meaning, named.or(Some(subject.status)))
}

/// Reads a refusal. What it says of limits is learned if it is told of which attempt it came; then also whether the
/// counts hold further attempts back.
fn read(
    engine: &crate::Engine,
    deployment: DeploymentIndex,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    attempt: Option<Heading<'_>>,
) -> (Meaning, bool) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (strikes, missing_before) = {
        let (state, name) = (engine.state(), &engine.snapshot.deployment(deployment).name);
        (state.strikes.get(name).copied().unwrap_or(0), state.missing.contains(name))
    };
    let now = engine.now().wall;
    let answered_at = header(DATE.as_str()).and_then(|date| freeway_quota::parse_http_date(&date)).unwrap_or(now);
    let refusal = Refusal { status, header: &header, body, answered_at, strikes, missing_before };
    let mut meaning = read_refusal(engine.snapshot.account_of(deployment), &refusal);
    let of_quota = meaning.is_quota(Some(status));
    let counted = attempt.is_some_and(|attempt| match of_quota {
        true => engine.hear_refusal(attempt, headers, &refusal, meaning.pause),
        false => {
            engine.hear(attempt, headers);
            false
        }
    });
    meaning.message = engine.scrubber.scrub(&meaning.message);
    for word in [&mut meaning.code, &mut meaning.param] {
        *word = word.take().map(|text| engine.scrubber.scrub_word(&text));
    }
    (meaning, counted)
}

fn fault(case: &str, message: String, remedy: Remedy, domain: Domain) -> Meaning {
    let case = case.to_owned();
    Meaning { case, action: None, remedy, domain, pause: None, shortage: None, message, code: None, param: None }
}

fn not_sent(error: &SendError) -> Failure {
    let (remedy, sent) = match error {
        SendError::Connect(
            ConnectError::Forbidden(_) | ConnectError::TimedOut(_) | ConnectError::ProxyCredentials(_),
        ) => (Remedy::Another, false),
        SendError::Connect(_) => (Remedy::SameAgain(AGAIN_AFTER), false),
        SendError::Broken(_) | SendError::Stuck => (Remedy::SameAgain(AGAIN_AFTER), true),
    };
    let lasts = matches!(error, SendError::Connect(ConnectError::Forbidden(_) | ConnectError::ProxyCredentials(_)));
    let (case, domain) = match error {
        SendError::Connect(_) => ("connection_failed", Domain::Provider),
        SendError::Broken(_) => ("connection_broken", Domain::Deployment),
        SendError::Stuck => ("connection_stuck", Domain::Deployment),
    };
    Failure {
        meaning: Meaning { code: lasts.then(|| SETTING.to_owned()), ..fault(case, error.to_string(), remedy, domain) },
        status: None,
        sent,
        may_have_worked: sent,
        empty_answer: None,
        counted: false,
        is_unclear: false,
    }
}

fn broken(status: u16, cause: &str) -> Failure {
    let message = format!("the answer broke off: {cause}");
    worked(fault("broken_answer", message, Remedy::SameAgain(AGAIN_AFTER), Domain::Deployment), Some(status))
}

pub(crate) fn silent(limit: Duration, is_unclear: bool) -> Failure {
    let message = format!("no content within {:.1} s", limit.as_secs_f64());
    Failure { is_unclear, ..worked(fault("silence", message, Remedy::Another, Domain::Deployment), None) }
}

/// The failure of an attempt that the provider may have worked on.
fn worked(meaning: Meaning, status: Option<u16>) -> Failure {
    Failure {
        meaning,
        status,
        sent: true,
        may_have_worked: true,
        empty_answer: None,
        counted: false,
        is_unclear: false,
    }
}
