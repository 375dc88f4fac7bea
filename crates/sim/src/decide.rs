//! What becomes of a request: an answer, a refusal in the provider's shape, or
//! what a fault puts in its place.

use freeway_catalog::AuthScheme;
use freeway_types::Feature;
use serde_json::{Value, json};

use crate::answer::{self, Answer};
use crate::bodies::{self, Refusal};
use crate::examples;
use crate::headers::{self, Told};
use crate::limits::Ticket;
use crate::quota;
use crate::request::ChatRequest;
use crate::rules::{Demand, Spend};
use crate::script::{self, Manner, Step};
use crate::sim::{Inner, lock};
use crate::wire::Request;

/// A request that was decided upon.
pub(crate) struct Decision {
    pub(crate) steps: Vec<Step>,
    /// Where its use is booked, and what that is if the answer is completed.
    pub(crate) booked: Option<(Ticket, Spend)>,
    pub(crate) model: String,
    pub(crate) overrun: bool,
}

/// Decides by method and path. `model` is what the body names, `ordinal` counts requests.
pub(crate) fn decide(inner: &Inner, request: &Request, path: &str, model: Option<&str>, ordinal: u64) -> Decision {
    match request.method.as_str() {
        "POST" if path.ends_with("/chat/completions") => chat(inner, request, model, ordinal),
        "GET" if quota::is_asked(&inner.config.provider, path) => quota(inner, request),
        "GET" if path.ends_with("/models") => models(inner, request),
        _ => refuse(inner, &Refusal::NoRoute, ""),
    }
}

/// The key of a request: a bearer token, or the header of the provider or of one of its dialects.
pub(crate) fn key<'a>(inner: &Inner, request: &'a Request) -> Option<&'a str> {
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
    let mut decision = match admit(inner, request, ordinal) {
        Ok((mut request, ticket)) => {
            // Who does not say that it goes on from a begun answer takes it for one that is over.
            let facts = inner
                .config
                .provider
                .models
                .iter()
                .find(|facts| Some(facts.id.as_str()) == inner.canonical(&request.model));
            let goes_on =
                facts.and_then(|facts| facts.features.as_ref()).is_some_and(|own| own.contains(&Feature::Prefill));
            let repeats = inner.config.provider.prefill.as_ref().is_some_and(|prefill| prefill.repeats);
            request.begun = request.begun.filter(|_| goes_on && !repeats);
            let manner = Manner {
                stream: request.stream,
                include_usage: request.include_usage,
                stream_usage: inner.config.provider.stream_usage.unwrap_or_default(),
                first_byte: inner.config.first_byte + answer::delay(inner.config.spread, inner.config.seed, ordinal),
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
fn admit(inner: &Inner, request: &Request, ordinal: u64) -> Result<(ChatRequest, Ticket), Refusal> {
    if !inner.accepts(key(inner, request)) {
        return Err(Refusal::BadKey);
    }
    let chat =
        ChatRequest::parse(&request.body).map_err(|bad| Refusal::Invalid { param: bad.param, message: bad.message })?;
    let Some(id) = inner.canonical(&chat.model) else { return Err(Refusal::NoModel(chat.model)) };
    let input = answer::input_tokens(&chat, inner.config.seed, ordinal);
    let demand = Demand { input, max_output: chat.max_output };
    // The clock is read inside the lock, so that the books see time pass in one direction.
    let arrived = lock(&inner.book).arrive(inner.clock.now(), id, demand);
    let facts = inner.config.provider.models.iter().find(|facts| facts.id == id);
    let prefill = inner.config.provider.prefill.as_ref();
    let is_marked_well = match (prefill.and_then(|prefill| prefill.mark.as_ref()), chat.marks.as_slice()) {
        // Who wants a begun answer marked takes none without a mark.
        (Some(mark), marks) => marks == std::slice::from_ref(mark) || (marks.is_empty() && chat.begun.is_none()),
        (None, marks) => marks.is_empty(),
    };
    let refusal = match arrived {
        Err(violation) => Refusal::Limited(violation),
        Ok(ticket) => {
            let unsupported = inner.config.provider.unsupported.iter().chain(facts.iter().flat_map(|f| &f.unsupported));
            let mut unsupported = unsupported.filter(|field| chat.fields.contains(field));
            let wanted = input.saturating_add(chat.max_output.unwrap_or(0));
            let refusal = match (unsupported.next(), facts.and_then(|facts| facts.context)) {
                _ if !is_marked_well => Refusal::Invalid {
                    param: Some("messages".to_owned()),
                    message: "Invalid request: the last message must be the user's, or marked in the right way."
                        .to_owned(),
                },
                (Some(field), _) => Refusal::Unsupported(field.clone()),
                (None, Some(context)) if wanted > context => Refusal::ContextTooLong { tokens: wanted, context },
                _ => return Ok((chat, ticket)),
            };
            lock(&inner.book).settle(inner.clock.now(), &ticket, Spend::default(), false);
            refusal
        }
    };
    Err(refusal)
}

fn refuse(inner: &Inner, refusal: &Refusal, model: &str) -> Decision {
    let config = &inner.config;
    let mut more = Vec::new();
    let mut overrun = false;
    if let Refusal::Limited(violation) = refusal {
        inner.count_overrun();
        overrun = true;
        let mut book = lock(&inner.book);
        let now = inner.clock.now();
        let figures = book.figures(now, inner.canonical(model).unwrap_or_default());
        let told = Told { figures: &figures, violation: Some(violation), cost: None, now };
        more = headers::rate_headers(&config.id, &config.provider, &told);
        more.extend(headers::retry_after(&config.id, &config.provider, violation));
    }
    let example = examples::find(&config.provider, refusal).filter(|_| !bodies::is_shaped_by_hand(&config.id));
    let steps = match example {
        Some(example) => {
            // What is counted goes before what was written down: the example's waits are those of another day.
            let counted: Vec<String> = more.iter().map(|(name, _)| name.clone()).collect();
            let written = example.headers.iter().filter(|(name, _)| !counted.contains(name));
            more.extend(written.map(|(name, value)| (name.clone(), value.clone())));
            script::whole_text(example.status, more, example.body.replace("{model}", model))
        }
        None => {
            let shaped = bodies::shape(&config.id, refusal, model);
            script::whole_json(shaped.status, more, &shaped.body)
        }
    };
    Decision { steps, booked: None, model: String::new(), overrun }
}

/// How much is left, by the books. Who has no figure to tell has no such route.
fn quota(inner: &Inner, request: &Request) -> Decision {
    let fault = lock(&inner.faults).take_of_quota();
    if let Some(steps) = fault.as_ref().and_then(script::instead) {
        return Decision { steps, booked: None, model: String::new(), overrun: false };
    }
    if !inner.accepts(key(inner, request)) {
        return refuse(inner, &Refusal::BadKey, "");
    }
    let provider = &inner.config.provider;
    let figures = lock(&inner.book).all_figures(inner.clock.now());
    let Some(body) = quota::answer(provider, &figures) else { return refuse(inner, &Refusal::NoRoute, "") };
    Decision { steps: script::whole_json(200, Vec::new(), &body), booked: None, model: String::new(), overrun: false }
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
