//! One connection: read a request, decide what becomes of it, send that.

use freeway_catalog::AuthScheme;
use serde_json::{Value, json};

use crate::answer::{self, Answer};
use crate::bodies::{self, Refusal};
use crate::control;
use crate::headers::{self, Told};
use crate::limits::{Demand, Spend, Ticket};
use crate::log::LogEntry;
use crate::request::{self, ChatRequest};
use crate::script::{self, Head, Manner, Step};
use crate::sim::{Inner, lock};
use crate::wire::{Gone, ReadProblem, Request, Wire};

/// Serves a connection until one side closes it.
pub(crate) async fn serve(inner: &Inner, mut wire: Wire) {
    loop {
        tokio::select! {
            biased;
            begun = wire.begun() => if begun.is_err() { return },
            () = inner.door.shutting() => return wire.reset(),
        }
        let request = match wire.request().await {
            Ok(request) => request,
            Err(ReadProblem::Gone) => return,
            Err(ReadProblem::NotHttp) => {
                // Whether this last word arrives makes no difference: the connection is given up.
                let _ = wire.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                return;
            }
        };
        if !inner.door.is_open() {
            return wire.reset();
        }
        let keep_alive = request.keep_alive;
        match exchange(inner, &mut wire, request).await {
            After::Next if keep_alive => {}
            After::Next | After::Close => return,
            After::Reset => return wire.reset(),
        }
    }
}

/// What becomes of the connection.
enum After {
    Next,
    Close,
    Reset,
}

/// A request that was decided upon.
struct Decision {
    steps: Vec<Step>,
    /// Where its use is booked, and what that is if the answer is completed.
    booked: Option<(Ticket, Spend)>,
    model: String,
    overrun: bool,
}

async fn exchange(inner: &Inner, wire: &mut Wire, request: Request) -> After {
    let path = request.path.split('?').next().unwrap_or_default();
    if path.starts_with("/sim/") {
        let steps = control::answer(inner, &request);
        let keep_alive = request.keep_alive && inner.door.is_open();
        let mut playing = Playing::new(inner, wire, None, String::new(), keep_alive);
        let after = playing.play(steps, None).await;
        return if inner.door.is_open() { after } else { After::Close };
    }
    let (model, streamed) = request::peek(&request.body);
    let entry = LogEntry {
        arrived_ms: inner.clock.elapsed_ms(),
        method: request.method.clone(),
        path: request.path.clone(),
        key: key(inner, &request).map(str::to_owned),
        model: model.clone(),
        streamed,
        headers: request.headers.clone(),
        body: request.body.clone(),
        ..LogEntry::default()
    };
    let ordinal = lock(&inner.log).add(entry);
    let decision = match request.method.as_str() {
        "POST" if path.ends_with("/chat/completions") => chat(inner, &request, model.as_deref(), ordinal),
        "GET" if path.ends_with("/models") => models(inner, &request),
        _ => refuse(inner, &Refusal::NoRoute, ""),
    };
    if decision.overrun {
        lock(&inner.log).change(ordinal, |entry| entry.overrun = true);
    }
    let mut playing = Playing::new(inner, wire, Some(ordinal), decision.model, request.keep_alive);
    let after = playing.play(decision.steps, decision.booked).await;
    lock(&inner.log).change(ordinal, |entry| entry.ended_ms = Some(inner.clock.elapsed_ms()));
    after
}

// === deciding ===

/// The key of a request: a bearer token, or the header of the provider or of one of its dialects.
fn key<'a>(inner: &Inner, request: &'a Request) -> Option<&'a str> {
    let own = inner.config.provider.auth.as_ref().filter(|auth| auth.scheme == AuthScheme::Header);
    let own = own.and_then(|auth| auth.header.as_deref()).map(str::to_ascii_lowercase);
    let bearer = request.header("authorization").and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| ["x-api-key", "x-goog-api-key"].iter().find_map(|name| request.header(name))).or_else(|| {
        let own = own?;
        request.header(&own)
    })
}

fn chat(inner: &Inner, request: &Request, model: Option<&str>, ordinal: u64) -> Decision {
    let now = inner.clock.now();
    let first = lock(&inner.faults).take(model, true);
    let mut decision = match admit(inner, request, ordinal, now) {
        Ok((request, ticket)) => {
            let manner = Manner {
                stream: request.stream,
                include_usage: request.include_usage,
                stream_usage: inner.config.provider.stream_usage.unwrap_or_default(),
                first_byte: inner.config.first_byte,
                pace: inner.config.pace,
            };
            let model = inner.canonical(&request.model).unwrap_or_default().to_owned();
            let fault = if first.is_none() { lock(&inner.faults).take(Some(&request.model), false) } else { None };
            let answer = script::altered(Answer::to(request, inner.config.seed, ordinal, now), fault.as_ref());
            let spend = answer.spend;
            let steps = script::play(&answer, manner, fault.as_ref());
            Decision { steps, booked: Some((ticket, spend)), model, overrun: false }
        }
        Err(refusal) => refuse(inner, &refusal, model.unwrap_or_default()),
    };
    if let Some(steps) = first.as_ref().and_then(script::instead) {
        decision.steps = steps;
    }
    decision
}

/// Checks a chat request in the order in which providers do, and enters it in the books.
fn admit(inner: &Inner, request: &Request, ordinal: u64, now: i64) -> Result<(ChatRequest, Ticket), Refusal> {
    if !inner.accepts(key(inner, request)) {
        return Err(Refusal::BadKey);
    }
    let chat =
        ChatRequest::parse(&request.body).map_err(|bad| Refusal::Invalid { param: bad.param, message: bad.message })?;
    let Some(id) = inner.canonical(&chat.model) else { return Err(Refusal::NoModel(chat.model)) };
    let input = answer::input_tokens(&chat, inner.config.seed, ordinal);
    let demand = Demand { input, max_output: chat.max_output };
    let arrived = lock(&inner.book).arrive(now, id, demand);
    let facts = inner.config.provider.models.iter().find(|facts| facts.id == id);
    let refusal = match arrived {
        Err(violation) => Refusal::Limited(violation),
        Ok(ticket) => {
            let unsupported = inner.config.provider.unsupported.iter().chain(facts.iter().flat_map(|f| &f.unsupported));
            let mut unsupported = unsupported.filter(|field| chat.fields.contains(field));
            let wanted = input.saturating_add(chat.max_output.unwrap_or(0));
            let refusal = match (unsupported.next(), facts.and_then(|facts| facts.context)) {
                (Some(field), _) => Refusal::Unsupported(field.clone()),
                (None, Some(context)) if wanted > context => Refusal::ContextTooLong { tokens: wanted, context },
                _ => return Ok((chat, ticket)),
            };
            lock(&inner.book).settle(now, &ticket, Spend::default(), false);
            refusal
        }
    };
    Err(refusal)
}

fn refuse(inner: &Inner, refusal: &Refusal, model: &str) -> Decision {
    let config = &inner.config;
    let shaped = bodies::shape(&config.id, refusal, model);
    let mut more = Vec::new();
    let mut overrun = false;
    if let Refusal::Limited(violation) = refusal {
        inner.count_overrun();
        overrun = true;
        let now = inner.clock.now();
        let figures = lock(&inner.book).figures(now, inner.canonical(model).unwrap_or_default());
        let told = Told { figures: &figures, violation: Some(violation), cost: None, now };
        more = headers::rate_headers(&config.id, &config.provider, &told);
        more.extend(headers::retry_after(&config.id, &config.provider, violation));
    }
    let steps = script::whole_json(shaped.status, more, &shaped.body);
    Decision { steps, booked: None, model: String::new(), overrun }
}

fn models(inner: &Inner, request: &Request) -> Decision {
    if !inner.accepts(key(inner, request)) {
        return refuse(inner, &Refusal::BadKey, "");
    }
    let entries: Vec<Value> = inner
        .config
        .provider
        .models
        .iter()
        .map(|model| {
            json!({
                "id": model.id, "object": "model", "created": 0, "owned_by": inner.config.id,
                "context_window": model.context, "max_completion_tokens": model.max_output
            })
        })
        .collect();
    let steps = script::whole_json(200, Vec::new(), &json!({ "object": "list", "data": entries }));
    Decision { steps, booked: None, model: String::new(), overrun: false }
}

// === sending ===

/// The steps of one answer on their way out.
struct Playing<'a> {
    inner: &'a Inner,
    wire: &'a mut Wire,
    ordinal: Option<u64>,
    model: String,
    keep_alive: bool,
    /// Bytes that go out with the next ones or before the next pause.
    waiting: Vec<u8>,
    status: Option<u16>,
    /// Output tokens sent so far.
    sent: u64,
}

impl<'a> Playing<'a> {
    fn new(inner: &'a Inner, wire: &'a mut Wire, ordinal: Option<u64>, model: String, keep_alive: bool) -> Self {
        Self { inner, wire, ordinal, model, keep_alive, waiting: Vec::new(), status: None, sent: 0 }
    }

    /// Sends the answer and books what it used, however it ends.
    async fn play(&mut self, steps: Vec<Step>, mut booked: Option<(Ticket, Spend)>) -> After {
        let ended = self.perform(steps, &mut booked).await;
        if let Some((ticket, spend)) = booked {
            let success = self.status.is_some_and(|status| status < 300);
            let input = if success { spend.input } else { 0 };
            self.settle(&ticket, Spend { input, output: self.sent }, success);
        }
        ended.unwrap_or_else(|Gone| {
            let now = self.inner.clock.elapsed_ms();
            self.note(|entry| entry.cancelled_ms = Some(now));
            After::Close
        })
    }

    async fn perform(&mut self, steps: Vec<Step>, booked: &mut Option<(Ticket, Spend)>) -> Result<After, Gone> {
        let mut cost = None;
        for step in steps {
            match step {
                Step::Pause(length) if length.is_zero() => {}
                Step::Pause(length) => {
                    self.flush().await?;
                    self.wire.pause(length).await?;
                }
                Step::Settle => {
                    if let Some((ticket, spend)) = booked.take() {
                        cost = Some(spend.input + spend.output);
                        self.settle(&ticket, spend, true);
                    }
                }
                Step::Head(head) => self.head(&head, cost),
                Step::Bytes(bytes, tokens) => {
                    self.waiting.extend_from_slice(&bytes);
                    self.sent += tokens;
                }
                Step::Hang => {
                    self.flush().await?;
                    return Err(self.wire.hang().await);
                }
                Step::Reset => {
                    self.flush().await?;
                    return Ok(After::Reset);
                }
                Step::Close => {
                    self.flush().await?;
                    return Ok(After::Close);
                }
            }
        }
        self.flush().await?;
        Ok(After::Next)
    }

    fn head(&mut self, head: &Head, cost: Option<u64>) {
        let config = &self.inner.config;
        let mut lines = vec![("content-type".to_owned(), head.content_type.clone().unwrap_or_default())];
        lines.extend(head.headers.iter().cloned());
        if head.figures && !config.provider.headers.is_empty() {
            let now = self.inner.clock.now();
            let figures = lock(&self.inner.book).figures(now, &self.model);
            let cost = cost.and_then(|tokens| headers::cost(&config.provider, tokens));
            let told = Told { figures: &figures, violation: None, cost, now };
            lines.extend(headers::rate_headers(&config.id, &config.provider, &told));
        }
        if let Some(ordinal) = self.ordinal {
            lines.push(("x-request-id".to_owned(), format!("sim-{ordinal}")));
        }
        lines.push(match head.length {
            Some(length) => ("content-length".to_owned(), length.to_string()),
            None => ("transfer-encoding".to_owned(), "chunked".to_owned()),
        });
        if !self.keep_alive {
            lines.push(("connection".to_owned(), "close".to_owned()));
        }
        let reason = http::StatusCode::from_u16(head.status).ok().and_then(|status| status.canonical_reason());
        let mut text = format!("HTTP/1.1 {} {}\r\n", head.status, reason.unwrap_or("Unknown"));
        for (name, value) in lines {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        self.waiting.extend_from_slice(text.as_bytes());
        self.status = Some(head.status);
        self.note(|entry| entry.status = Some(head.status));
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        let bytes = std::mem::take(&mut self.waiting);
        if bytes.is_empty() { Ok(()) } else { self.wire.send(&bytes).await }
    }

    fn settle(&self, ticket: &Ticket, spend: Spend, success: bool) {
        lock(&self.inner.book).settle(self.inner.clock.now(), ticket, spend, success);
    }

    fn note(&self, change: impl FnOnce(&mut LogEntry)) {
        if let Some(ordinal) = self.ordinal {
            lock(&self.inner.log).change(ordinal, change);
        }
    }
}
