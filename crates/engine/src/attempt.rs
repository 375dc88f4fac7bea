//! One attempt: send, and hold until there is something the client should see.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use freeway_dialect::openai_chat::{END_MARKER, Finish, Rewrite, read_answer, read_chunk};
use freeway_dialect::sse::Decoder;
use freeway_quota::ReservationId;
use freeway_router::{Candidate, Domain, Meaning, Refusal, Remedy, read_refusal};
use freeway_types::{DeploymentIndex, KeyIndex, Now};
use freeway_upstream::AnswerBody;
use freeway_upstream::{ConnectError, Exchange, SendError};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE};
use http::{HeaderMap, Response};
use http_body::Body;
use tokio::time::Instant;

use crate::hearing::Heading;
use crate::job::Job;
use crate::relay::{Relay, is_comment};
use crate::trace::{FlightId, Trace};

/// Largest whole answer that is taken.
const MOST_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Most bytes of events that are held before the first content.
const MOST_HELD_BYTES: usize = 256 * 1024;
/// Beyond so many held bytes, comments are left out.
const MOST_HELD_COMMENTS: usize = 16 * 1024;
/// Largest refusal that is read.
const MOST_REFUSAL_BYTES: usize = 256 * 1024;
/// Time for reading a refusal's body.
const REFUSAL_LIMIT: Duration = Duration::from_secs(5);
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
    if status != 200 && response.status().is_success() {
        return Err(invalid(status, "a status that no answer comes with"));
    }
    if status != 200 {
        return Err(refused(engine, heading, response).await);
    }
    engine.hear(heading, response.headers());
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    if response.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(invalid(status, "the answer is compressed, which was not asked for"));
    }
    let content = if job.chat.stream && kind.starts_with("text/event-stream") {
        let strip_usage = !job.chat.include_usage;
        let dropped = candidate.dropped_fields.iter().any(|field| field == "n");
        let choices = if dropped { 1 } else { job.chat.choices };
        let deadline = Instant::now() + job.deadline.monotonic.since(engine.now().monotonic);
        let stream = open_stream(trace, flight, candidate, response, strip_usage, choices, deadline).await?;
        Content::Stream(Box::new(stream))
    } else {
        Content::Whole(whole(trace, flight, candidate, response, &kind, job.chat.stream).await?)
    };
    Ok(Committed { deployment: candidate.deployment, dropped: candidate.dropped_fields.clone(), content })
}

/// Reads a whole answer and looks whether it is one.
async fn whole(
    trace: &Trace,
    flight: FlightId,
    candidate: &Candidate,
    response: Response<AnswerBody>,
    kind: &str,
    streamed: bool,
) -> Result<Bytes, Failure> {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = collect(response.into_body(), MOST_ANSWER_BYTES).await.map_err(|cause| broken(Some(status), &cause))?;
    match read_answer(&body) {
        Ok(_) if !kind.is_empty() && !kind.contains("json") => Err(invalid(status, "the answer is not JSON")),
        Ok(_) if streamed => Err(invalid(status, "a stream was asked for, and the answer is not one")),
        Ok(answer) if answer.finish == Some(Finish::Error) => {
            Err(invalid(status, "the provider ended the answer with an error"))
        }
        Ok(answer) => {
            trace.saw(flight, answer.usage, answer.text_bytes);
            if !answer.content && answer.finish != Some(Finish::ContentFilter) {
                return Err(empty(status, answer.finish, Some(body)));
            }
            Ok(body)
        }
        Err(Some(_)) => Err(error_inside(&trace.engine, candidate.deployment, status, &headers, &body)),
        Err(None) if body.is_empty() => Err(invalid(status, "the answer is empty")),
        Err(None) if !kind.contains("json") => Err(invalid(status, "the answer is not JSON")),
        Err(None) => Err(invalid(status, "the answer is cut short or not a completion")),
    }
}

/// Reads a stream up to its first content.
async fn open_stream(
    trace: &Trace,
    flight: FlightId,
    candidate: &Candidate,
    response: Response<AnswerBody>,
    strip_usage: bool,
    choices: u64,
    deadline: Instant,
) -> Result<Relay, Failure> {
    let status = response.status().as_u16();
    let engine = &trace.engine;
    let mut incoming = Some(response.into_body());
    let mut decoder = Decoder::default();
    let mut held = BytesMut::new();
    let (mut finish, mut finished) = (None, 0_u128);
    loop {
        let event = match decoder.next() {
            Ok(Some(event)) => event,
            Ok(None) => match next_frame(&mut incoming).await {
                Ok(Some(bytes)) => {
                    decoder.push(&bytes);
                    continue;
                }
                Ok(None) => match decoder.rest().filter(|event| event.data.is_some()) {
                    Some(event) => crate::relay::ended(event),
                    None if finish.is_some() => return Err(empty(status, finish, None)),
                    None => return Err(broken(Some(status), "the stream ended before its first content")),
                },
                Err(cause) => return Err(broken(Some(status), &cause)),
            },
            Err(too_long) => return Err(invalid(status, &too_long.to_string())),
        };
        let Some(data) = &event.data else {
            // Comments are the upstream's bytes too, but not worth any memory.
            if held.len() < MOST_HELD_COMMENTS && is_comment(&event.raw) {
                held.extend_from_slice(&event.raw);
            }
            continue;
        };
        if data.starts_with(END_MARKER) {
            return Err(empty(status, finish, None));
        }
        let Some(chunk) = read_chunk(data) else {
            // Nobody has seen anything yet: better another target than an answer with a piece missing.
            return Err(invalid(status, "an event of the stream cannot be read"));
        };
        if chunk.error.is_some() || event.name.as_deref() == Some(b"error") {
            return Err(error_inside(engine, candidate.deployment, status, &HeaderMap::new(), data));
        }
        if chunk.finish == Some(Finish::Error) {
            return Err(invalid(status, "the provider ended the answer with an error"));
        }
        if held.len() > MOST_HELD_BYTES {
            return Err(invalid(status, "too much came before the first content"));
        }
        trace.saw(flight, chunk.usage, chunk.text_bytes);
        if !(strip_usage && chunk.usage_only) {
            held.extend_from_slice(&event.raw);
        }
        finish = chunk.finish.or(finish);
        finished |= chunk.finished;
        if chunk.content || chunk.finish == Some(Finish::ContentFilter) {
            let deployment = engine.snapshot.deployment(candidate.deployment);
            return Ok(Relay::new(
                incoming,
                decoder,
                held.freeze(),
                crate::relay::Terms {
                    flight,
                    parted: false,
                    strip_usage,
                    choices,
                    finished,
                    gap: crate::timing::gap(deployment),
                    deadline,
                    account: engine.snapshot.account_of(candidate.deployment).id.clone(),
                },
            ));
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

async fn collect(mut incoming: AnswerBody, most: usize) -> Result<Bytes, String> {
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    while let Some(bytes) = frame(&mut incoming).await? {
        if all.len() + bytes.len() + first.as_ref().map_or(0, Bytes::len) > most {
            return Err(format!("the answer is longer than {most} bytes"));
        }
        match first.take() {
            None if all.is_empty() => first = Some(bytes),
            earlier => {
                all.extend_from_slice(&earlier.unwrap_or_default());
                all.extend_from_slice(&bytes);
            }
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

/// Reads a refusal and what it means.
async fn refused(engine: &crate::Engine, attempt: Heading<'_>, response: Response<AnswerBody>) -> Failure {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = tokio::time::timeout(REFUSAL_LIMIT, collect(response.into_body(), MOST_REFUSAL_BYTES)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    let (meaning, counted) = read(engine, attempt.deployment, status, &headers, &body, Some(attempt));
    let may_have_worked = matches!(status, 408 | 499 | 500..=502 | 504..=528 | 530..=599);
    Failure { meaning, status: Some(status), sent: true, may_have_worked, empty_answer: None, counted }
}

/// An error inside an answer that began with 200. A status that the error itself names is believed.
fn error_inside(
    engine: &crate::Engine,
    deployment: DeploymentIndex,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
) -> Failure {
    let (rules, _) = read(engine, deployment, status, headers, body, None);
    let named = rules.code.as_ref().and_then(|code| code.parse::<u16>().ok()).filter(|code| (400..600).contains(code));
    let meaning = match named {
        Some(code) if rules.case == "error_in_answer" => read(engine, deployment, code, headers, body, None).0,
        _ => rules,
    };
    Failure {
        meaning,
        status: named.or(Some(status)),
        sent: true,
        may_have_worked: true,
        empty_answer: None,
        counted: false,
    }
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
        SendError::Connect(ConnectError::Forbidden(_)) => (Remedy::Another, false),
        SendError::Connect(ConnectError::TimedOut(_)) => (Remedy::Another, false),
        SendError::Connect(_) => (Remedy::SameAgain(AGAIN_AFTER), false),
        SendError::Broken(_) | SendError::Stuck => (Remedy::SameAgain(AGAIN_AFTER), true),
    };
    let (case, domain) = match error {
        SendError::Connect(_) => ("connection_failed", Domain::Provider),
        SendError::Broken(_) => ("connection_broken", Domain::Deployment),
        SendError::Stuck => ("connection_stuck", Domain::Deployment),
    };
    Failure {
        meaning: fault(case, error.to_string(), remedy, domain),
        status: None,
        sent,
        may_have_worked: sent,
        empty_answer: None,
        counted: false,
    }
}

fn broken(status: Option<u16>, cause: &str) -> Failure {
    let message = format!("the answer broke off: {cause}");
    let meaning = fault("broken_answer", message, Remedy::SameAgain(AGAIN_AFTER), Domain::Deployment);
    Failure { meaning, status, sent: true, may_have_worked: true, empty_answer: None, counted: false }
}

fn invalid(status: u16, what: &str) -> Failure {
    let meaning = fault("invalid_answer", what.to_owned(), Remedy::SameAgain(AGAIN_AFTER), Domain::Deployment);
    Failure { meaning, status: Some(status), sent: true, may_have_worked: true, empty_answer: None, counted: false }
}

fn empty(status: u16, finish: Option<Finish>, answer: Option<Bytes>) -> Failure {
    let (case, message) = match finish {
        Some(Finish::Length) => ("no_room_for_content", "all the output allowed went by without content"),
        _ => ("empty_answer", "the answer has no content"),
    };
    let meaning = fault(case, message.to_owned(), Remedy::Another, Domain::Deployment);
    Failure { meaning, status: Some(status), sent: true, may_have_worked: true, empty_answer: answer, counted: false }
}

pub(crate) fn silent(limit: Duration) -> Failure {
    let message = format!("no content within {:.1} s", limit.as_secs_f64());
    let meaning = fault("silence", message, Remedy::Another, Domain::Deployment);
    Failure { meaning, status: None, sent: true, may_have_worked: true, empty_answer: None, counted: false }
}
