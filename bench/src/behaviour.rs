//! How the mock upstream answers: the model's name says it, so that the sender of a request knows what must come of it,
//! whatever stands between.

use std::time::Duration;

use memchr::memmem;

/// Chunks of a stream whose model names no number.
const CHUNKS: u32 = 20;
/// The model and the switch for streaming stand within this many bytes of the body's beginning.
const LOOK_AT: usize = 256;

/// What is done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// An answer, or a stream of so many chunks, each so long after the one before. `fast`, or `paced50x20` for 50
    /// chunks at 20 ms.
    Answer { chunks: u32, every: Duration },
    /// The same as `fast`, after a wait. `slow300` waits 300 ms.
    Slow(Duration),
    /// The same as `fast` after 50 to 150 ms; so many in a hundred come that much later, in milliseconds.
    /// `stalls3x5000`.
    Stalls { percent: u64, wait: Duration },
    /// A refusal with this status. `status500`.
    Refuse(u16),
    /// The connection is reset without an answer. `reset`.
    Reset,
    /// A stream ends without its end after so many chunks. `breaks5`.
    BreakOff(u32),
}

/// What the upstream reads of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) behaviour: Behaviour,
    pub(crate) stream: bool,
    /// Whether the last event of a stream tells what was used.
    pub(crate) usage: bool,
}

impl Wish {
    /// Reads a body; `None` if it names no model that is known here. Only its first and last bytes are looked at, so
    /// that the size of a prompt costs the mock upstream nothing but its reading.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let start = &body[..body.len().min(LOOK_AT)];
        let end = &body[body.len().saturating_sub(LOOK_AT)..];
        let model = value(start, b"\"model\"")?.strip_prefix(b"\"")?;
        let model = &model[..memchr::memchr(b'"', model)?];
        let says = |part: &[u8], name: &[u8]| value(part, name).is_some_and(|value| value.starts_with(b"true"));
        Some(Self {
            behaviour: Behaviour::named(std::str::from_utf8(model).ok()?)?,
            stream: says(start, b"\"stream\""),
            usage: says(start, b"\"include_usage\"") || says(end, b"\"include_usage\""),
        })
    }
}

impl Behaviour {
    /// The behaviour that a model's name asks for. What follows a `-` only tells models apart.
    fn named(model: &str) -> Option<Self> {
        let word = model.split('-').next()?;
        let kind = word.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == 'x');
        let numbers = &word[kind.len()..];
        let number = || numbers.parse::<u32>().ok();
        match kind {
            "fast" => Some(Self::Answer { chunks: CHUNKS, every: Duration::ZERO }),
            "paced" => {
                let (chunks, every) = numbers.split_once('x')?;
                Some(Self::Answer { chunks: chunks.parse().ok()?, every: Duration::from_millis(every.parse().ok()?) })
            }
            "slow" => Some(Self::Slow(Duration::from_millis(number()?.into()))),
            "stalls" => {
                let (percent, wait) = numbers.split_once('x')?;
                Some(Self::Stalls { percent: percent.parse().ok()?, wait: Duration::from_millis(wait.parse().ok()?) })
            }
            "status" => Some(Self::Refuse(numbers.parse().ok()?)),
            "reset" => Some(Self::Reset),
            "breaks" => Some(Self::BreakOff(number()?)),
            _ => None,
        }
    }

    /// A whole answer, or the usual stream at full speed.
    pub(crate) const fn fast() -> Self {
        Self::Answer { chunks: CHUNKS, every: Duration::ZERO }
    }
}

/// What stands behind the first mention of a name, with its quotation marks.
fn value<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = text[memmem::find(text, name)? + name.len()..].trim_ascii_start();
    Some(rest.strip_prefix(b":")?.trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::{Prompt, body};

    #[test]
    fn a_model_names_its_behaviour() {
        let check = |model: &str, expected: Option<Behaviour>| assert_eq!(Behaviour::named(model), expected, "{model}");
        check("fast-3", Some(Behaviour::fast()));
        check("paced50x20-1", Some(Behaviour::Answer { chunks: 50, every: Duration::from_millis(20) }));
        check("slow300", Some(Behaviour::Slow(Duration::from_millis(300))));
        check("status429-1", Some(Behaviour::Refuse(429)));
        check("stalls3x5000-a", Some(Behaviour::Stalls { percent: 3, wait: Duration::from_secs(5) }));
        check("reset-0", Some(Behaviour::Reset));
        check("breaks5", Some(Behaviour::BreakOff(5)));
        check("paced50", None);
        check("status", None);
        check("other", None);
    }

    #[test]
    fn a_body_is_read_at_both_ends() {
        let plain = body("fast-0", false, Prompt::Long);
        let wish = Wish { behaviour: Behaviour::fast(), stream: false, usage: false };
        assert_eq!(Wish::read(plain.as_bytes()), Some(wish));
        let streamed = body("fast-0", true, Prompt::Long);
        let with_usage = format!("{},\"stream_options\":{{\"include_usage\":true}}}}", &streamed[..streamed.len() - 1]);
        assert_eq!(Wish::read(with_usage.as_bytes()), Some(Wish { stream: true, usage: true, ..wish }));
        let spaced = br#"{"model" : "fast-0", "stream": true, "stream_options": {"include_usage": false}}"#;
        assert_eq!(Wish::read(spaced), Some(Wish { stream: true, ..wish }));
        assert_eq!(Wish::read(b"{}"), None);
    }
}
