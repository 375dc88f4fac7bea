//! Going on with a stream that broke off: what the client has been told so far, what another target is asked, and how
//! its answer is joined to what stands there already.
//!
//! Only plain text can be joined: of a tool call, a format or two choices nobody could say whether the two parts
//! belong together.

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::request::ChatRequest;

/// Most text that another target is asked to go on from: 32,000 tokens of four bytes.
const MOST_TEXT: usize = 128 * 1024;
/// An answer that goes on may repeat so many characters of what it goes on from …
const LONGEST_OVERLAP: usize = 64;
/// … but fewer than this may as well be meant.
const SHORTEST_OVERLAP: usize = 16;
/// Bytes to a token, where nothing better is known.
const BYTES_PER_TOKEN: u64 = 4;

/// What a client was told of one stream so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// The text.
    text: String,
    /// The stream's id and when it was made, as they stand in its chunks.
    id: Value,
    created: Value,
    /// Whether there was something that cannot be joined.
    is_mixed: bool,
    /// Whether a choice has ended.
    is_ended: bool,
}

/// Joins the answer of another target to what was told.
#[derive(Clone, Debug)]
pub struct Splice {
    told: Told,
    by: String,
    seam: Seam,
}

#[derive(Clone, Debug)]
enum Seam {
    /// The answer goes on. Its first characters are held until it is clear whether they repeat the last ones told, or all
    /// of them.
    Onward { held: String, repeats: bool },
    /// The answer is a new one: so many bytes of it were told already.
    Anew { repeated: usize },
    /// Whatever comes is new.
    Closed,
}

/// The answer is not the one that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer could not be continued: another one came")]
pub struct Parted;

impl Told {
    /// Takes note of a chunk that the client gets.
    pub fn note(&mut self, data: &[u8]) {
        let Ok(chunk) = serde_json::from_slice::<Map<String, Value>>(data) else { return };
        if self.id.is_null() {
            self.id = chunk.get("id").cloned().unwrap_or_default();
            self.created = chunk.get("created").cloned().unwrap_or_default();
        }
        for choice in chunk.get("choices").and_then(Value::as_array).into_iter().flatten() {
            let is_first = choice.get("index").is_none_or(|index| index == 0);
            let says = |field: &str| choice.get(field).is_some_and(|value| !value.is_null());
            self.is_ended |= says("finish_reason");
            self.is_mixed |= !is_first || says("logprobs") || says("text");
            let Some(delta) = choice.get("delta").and_then(Value::as_object) else { continue };
            for (field, value) in delta {
                match (field.as_str(), value) {
                    ("content", Value::String(text)) => self.text.push_str(text),
                    ("role", _) | (_, Value::Null) => {}
                    (_, Value::String(text)) if text.is_empty() => {}
                    (_, Value::Array(list)) if list.is_empty() => {}
                    _ => self.is_mixed = true,
                }
            }
        }
        if self.text.len() > MOST_TEXT {
            self.is_mixed = true;
            self.text = String::new();
        }
    }

    /// Whether another answer can be joined to it.
    #[must_use]
    pub const fn can_be_continued(&self) -> bool {
        !self.is_mixed && !self.is_ended && !self.text.is_empty()
    }

    /// The request for a target that goes on from what was told, where it takes an answer that has begun. `mark` is a
    /// field that the begun answer has to carry there. What may still be written is less by what is written already.
    #[must_use]
    pub fn continuation(&self, request: &ChatRequest, mark: Option<&str>) -> Option<Bytes> {
        let raw: std::collections::BTreeMap<&str, &RawValue> = serde_json::from_slice(&request.body).ok()?;
        let mut begun = json!({"role": "assistant", "content": self.text});
        if let Some(mark) = mark {
            begun[mark] = Value::Bool(true);
        }
        let messages = raw.get("messages")?.get().trim_end().strip_suffix(']')?;
        let comma = if messages.trim_end().ends_with('[') { "" } else { "," };
        let messages = format!("{messages}{comma}{begun}]");
        let mut body = String::with_capacity(request.body.len() + messages.len());
        let written = self.text.len() as u64 / BYTES_PER_TOKEN;
        for (name, value) in raw {
            body.push(if body.is_empty() { '{' } else { ',' });
            body.push_str(&serde_json::to_string(name).ok()?);
            body.push(':');
            match name {
                "messages" => body.push_str(&messages),
                "max_tokens" | "max_completion_tokens" => match value.get().parse::<u64>() {
                    Ok(most) => body.push_str(&most.saturating_sub(written).max(1).to_string()),
                    Err(_) => body.push_str(value.get()),
                },
                _ => body.push_str(value.get()),
            }
        }
        body.push('}');
        Some(Bytes::from(body))
    }

    /// A chunk that says that everything so far is void and the answer begins anew, by another target.
    #[must_use]
    pub fn restart(&self, by: &str) -> Vec<u8> {
        let mut chunk = json!({"object": "chat.completion.chunk", "choices": []});
        chunk["id"] = self.id.clone();
        chunk["created"] = self.created.clone();
        chunk["model"] = json!(by);
        chunk["freeway"] = json!({"rescued": "restart", "by": by});
        chunk.to_string().into_bytes()
    }
}

impl Splice {
    /// Joins an answer that goes on from what was told. `by` is the target's name. `repeats`: whether its provider is known
    /// to say what was told once more, so that there is no doubt about it where it does, however short that is.
    #[must_use]
    pub fn onward(told: Told, by: String, repeats: bool) -> Self {
        Self { told, by, seam: Seam::Onward { held: String::new(), repeats } }
    }

    /// Joins an answer to the whole question, of which what is identical was told already.
    #[must_use]
    pub fn anew(told: Told, by: String) -> Self {
        Self { told, by, seam: Seam::Anew { repeated: 0 } }
    }

    /// A chunk of the other answer, as the client gets it; `None` where nothing of it is new.
    ///
    /// # Errors
    /// When the answer is not the one that was begun, or is no plain text.
    pub fn pass(&mut self, data: &[u8]) -> Result<Option<Vec<u8>>, Parted> {
        let Ok(mut chunk) = serde_json::from_slice::<Map<String, Value>>(data) else { return Ok(None) };
        chunk.insert("id".to_owned(), self.told.id.clone());
        if !self.told.created.is_null() {
            chunk.insert("created".to_owned(), self.told.created.clone());
        }
        let mut is_news = chunk.get("usage").is_some_and(|usage| !usage.is_null());
        let mut is_end = false;
        if let Some(choice) = chunk.get_mut("choices").and_then(|choices| choices.get_mut(0)) {
            is_end = choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
            let delta = choice.get_mut("delta").and_then(Value::as_object_mut);
            let said =
                delta.as_ref().and_then(|delta| delta.get("content")).and_then(Value::as_str).unwrap_or_default();
            let new = self.seam.pass(&self.told.text, said, is_end)?;
            is_news |= is_end || !new.is_empty();
            if let Some(delta) = delta {
                delta.remove("role");
                if delta.iter().any(|(field, value)| field != "content" && says_something(value)) {
                    return Err(Parted);
                }
                if !new.is_empty() || delta.contains_key("content") {
                    delta.insert("content".to_owned(), Value::String(new));
                }
            }
        }
        if is_end {
            chunk.insert("freeway".to_owned(), json!({"rescued": "continue", "by": self.by}));
        }
        Ok(is_news.then(|| Value::Object(chunk).to_string().into_bytes()))
    }
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

impl Seam {
    /// What is new in what the other answer says next.
    fn pass(&mut self, told: &str, said: &str, is_end: bool) -> Result<String, Parted> {
        match self {
            Self::Closed => Ok(said.to_owned()),
            Self::Anew { repeated } => {
                let rest = &told[*repeated..];
                let common = rest.len().min(said.len());
                if rest.as_bytes()[..common] != said.as_bytes()[..common] {
                    return Err(Parted);
                }
                *repeated += common;
                let is_through = *repeated == told.len();
                if is_end && !is_through {
                    // It says less than what was told.
                    return Err(Parted);
                }
                let new = said[common..].to_owned();
                if is_through {
                    *self = Self::Closed;
                }
                Ok(new)
            }
            Self::Onward { held, repeats } => {
                held.push_str(said);
                let head = held.char_indices().nth(LONGEST_OVERLAP).map(|(place, _)| place);
                if !is_end && head.is_none() {
                    return Ok(String::new());
                }
                let (said, repeats) = (std::mem::take(held), *repeats);
                if repeats && let Some(new) = said.strip_prefix(told) {
                    *self = Self::Closed;
                    return Ok(new.to_owned());
                }
                // The first characters alone decide, however many more have come with them.
                let (head, rest) = said.split_at(head.unwrap_or(said.len()));
                if !rest.is_empty() && told.starts_with(head) && (repeats || !repeats_itself(head)) {
                    // It took the begun answer for nothing, and says it all again.
                    *self = Self::Anew { repeated: head.len() };
                    return self.pass(told, rest, is_end);
                }
                *self = Self::Closed;
                Ok(said[overlap(told, head)..].to_owned())
            }
        }
    }
}

/// Bytes at the start of what is said that repeat the end of what was told. Text that repeats itself anyway, as lists and
/// refrains do, says nothing about who repeats whom: there, everything is taken as meant.
fn overlap(told: &str, said: &str) -> usize {
    let ends = said.char_indices().map(|(place, letter)| place + letter.len_utf8()).take(LONGEST_OVERLAP);
    ends.enumerate()
        .filter(|(place, end)| place + 1 >= SHORTEST_OVERLAP && told.ends_with(&said[..*end]))
        .map(|(_, end)| end)
        .last()
        .filter(|end| {
            let (before, again) = (&told[..told.len() - end], &said[..*end]);
            !repeats_itself(again) && !before.ends_with(again) && !said[*end..].starts_with(again)
        })
        .unwrap_or(0)
}

/// Whether a text is something shorter at least twice, the last time perhaps in part.
fn repeats_itself(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=bytes.len() / 2).any(|period| bytes[period..] == bytes[..bytes.len() - period])
}

#[cfg(test)]
mod tests;
