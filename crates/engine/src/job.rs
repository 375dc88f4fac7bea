//! A request that has been read, admitted and planned: everything before the first attempt.

use std::sync::Arc;

use freeway_dialect::ClientError;
use freeway_dialect::openai_chat::ChatRequest;
use freeway_policy::{Admission, Denial, Wish, admit};
use freeway_router::{NameError, Plan, Request, Rescue, Sample, plan};
use freeway_types::{Asked, Now};

use crate::engine::Ask;
use crate::health::is_featured;
use crate::state::LiveState;
use crate::timing::DEADLINE;
use crate::trace::{BYTES_PER_TOKEN, Trace};

/// A request that has been read and admitted.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) chat: ChatRequest,
    pub(crate) admission: Admission,
    pub(crate) deadline: Now,
    /// What becomes of its stream if that breaks off.
    pub(crate) rescue: Rescue,
}

/// Reads a request and has it admitted.
pub(crate) fn prepare(trace: &mut Trace, ask: &Ask) -> Result<Job, ClientError> {
    let engine = Arc::clone(&trace.engine);
    let chat = ChatRequest::read(&ask.body)?;
    trace.note(|record| {
        record.model.clone_from(&chat.model);
        record.stream = chat.stream;
    });
    trace.sample = Some(Sample::of(&chat));
    trace.featured = is_featured(chat.features);
    let wish = Wish { tier: ask.tier.as_deref(), data: ask.data.as_deref(), min_quality: ask.min_quality.as_deref() };
    let rules = &engine.snapshot.rules;
    let admission = admit(rules, ask.caller, wish).map_err(|denial| match denial {
        Denial::Unknown { header, .. } => ClientError::new(400, "invalid_value", denial.to_string()).at(header),
        Denial::Ceiling { header, .. } => ClientError::new(403, "permission_denied", denial.to_string()).at(header),
    })?;
    trace.note(|record| {
        record.tier.clone_from(&rules.tiers[admission.tier].name);
        record.data = admission.data.to_string();
        record.asked = Some(Asked {
            // Until there is a target whose tokens are known better.
            input: chat.text.bytes.div_ceil(BYTES_PER_TOKEN),
            max_output: chat.max_output,
            min_quality: admission.min_quality,
            features: chat.features,
            named_tier: ask.tier.is_some(),
            named_data: ask.data.is_some(),
        });
    });
    let deadline = ask.received.after(ask.deadline.unwrap_or(DEADLINE));
    let rescue = match ask.rescue.as_deref() {
        None => engine.snapshot.aliases.get(&chat.model).map_or(Rescue::default(), |alias| alias.rescue),
        Some("fail") => Rescue::Fail,
        Some("continue") => Rescue::Continue,
        Some("restart") => Rescue::Restart,
        Some(other) => {
            let message = format!("x-freeway-rescue: `{}` is none of fail, continue, restart", other.escape_debug());
            return Err(ClientError::new(400, "invalid_value", message).at("x-freeway-rescue"));
        }
    };
    Ok(Job { chat, admission, deadline, rescue })
}

/// Makes the plan for a request as things stand now, or for going on with one that is under way.
pub(crate) fn make_plan(
    engine: &crate::Engine,
    chat: &ChatRequest,
    admission: &Admission,
    under_way: bool,
) -> Result<Plan, ClientError> {
    let named = engine.snapshot.named(&chat.model).map_err(|error| {
        let status = match error {
            NameError::Unknown { .. } => 404,
            NameError::Ambiguous { .. } => 400,
        };
        ClientError::new(status, "model_not_found", error.to_string()).at("model")
    })?;
    let now = engine.now();
    let mut state = engine.state();
    let mut live = LiveState { engine, state: &mut state, now };
    Ok(plan(&engine.snapshot, Request { chat, admission, named, under_way }, &mut live))
}
