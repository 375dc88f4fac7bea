//! Reading a request without taking it apart.
//!
//! The body stays the bytes that the client sent. One pass over it checks that it
//! is JSON, finds the few fields that decide where it may go, and remembers where
//! in the bytes the model's name stands, so that the name can be exchanged and
//! nothing else touched: no unknown field is lost, no digit of a number changed.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use freeway_types::{Feature, FeatureSet};
use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::ClientError;
use crate::text::TextMeasure;

/// A request as the client sent it, and what decides where it may go.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    /// The client's bytes.
    pub body: Bytes,
    /// The model that was asked for.
    pub model: String,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the client asked for usage at the end of the stream.
    pub include_usage: bool,
    /// Most output tokens, if the client set a limit.
    pub max_output: Option<u64>,
    /// Its input tokens, where they are known and need no estimate: see [`ChatRequest::sized`].
    pub input_tokens: Option<u64>,
    /// Choices asked for; one unless the client says otherwise.
    pub choices: u64,
    /// Features it uses.
    pub features: FeatureSet,
    /// Names of the top-level fields that are set to something.
    pub fields: Vec<String>,
    /// Its text, tools and format included, without pictures and sound.
    pub text: TextMeasure,
    /// Bytes in which its tools are written.
    pub tools_bytes: u64,
    /// Bytes in which its pictures are written.
    pub picture_bytes: u64,
    /// Pictures, sounds and documents in it.
    pub attachments: u64,
    /// Whether sending it twice could do something twice, such as storing it.
    pub side_effects: bool,
    /// Where the model's name stands, with its quotation marks.
    model_at: Range<usize>,
    /// Where the value of `stream_options` stands.
    stream_options_at: Option<Range<usize>>,
    /// Just behind the brace that opens the body.
    first_field_at: usize,
}

/// What is changed on the way to a target of the same dialect.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<'a> {
    /// The model's name there.
    pub model: &'a str,
    /// Whether to ask for usage at the end of the stream.
    pub include_usage: bool,
    /// Fields to leave out, where the operator allows that.
    pub drop: &'a [String],
    /// Fields that go by another name there: the usual name and theirs.
    pub rename: &'a [(String, String)],
}

/// Fields by which a caller would redirect the operator's key; they are never honoured.
const FORBIDDEN: [&str; 6] = ["api_base", "api_key", "base_url", "extra_headers", "extra_body", "default_headers"];
const MOST_FIELDS: usize = 512;
/// Up to so many fields, each is held against all others; beyond that, a set is quicker.
const FEW_FIELDS: usize = 16;

/// A word that every message in parts holds …
static PARTS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"type\""));
/// … and those of parts that are attachments.
static ATTACHED: LazyLock<[Finder<'static>; 3]> =
    LazyLock::new(|| ["image_url", "input_audio", "\"file\""].map(Finder::new));
const LONGEST_MODEL: usize = 512;

impl ChatRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// What the client is told when the body is not JSON, names a field twice, or has no usable `model`,
    /// `stream`, `n` or output cap.
    pub fn read(body: &Bytes) -> Result<Self, ClientError> {
        let fields = top_level(body)?;
        let mut request = Self {
            fields: Vec::with_capacity(fields.len()),
            first_field_at: body.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1),
            ..Self::blank(body.clone())
        };
        for (name, value) in &fields {
            request.field(name, value.get(), offset(body, value.get()))?;
        }
        if request.model_at.is_empty() {
            return Err(ClientError::new(400, "missing_required_parameter", "the request names no `model`").at("model"));
        }
        if request.stream {
            request.features.insert(Feature::Stream);
        }
        Ok(request)
    }

    /// A request of which nothing is known but its size, in tokens, and what it uses: for planning without sending. It
    /// has no body.
    #[must_use]
    pub fn sized(model: &str, input_tokens: u64, max_output: u64, features: FeatureSet) -> Self {
        Self {
            model: model.to_owned(),
            stream: features.contains(Feature::Stream),
            max_output: Some(max_output),
            input_tokens: Some(input_tokens),
            features,
            ..Self::blank(Bytes::new())
        }
    }

    /// A request as it is before anything of its body is looked at.
    fn blank(body: Bytes) -> Self {
        Self {
            body,
            model: String::new(),
            stream: false,
            include_usage: false,
            max_output: None,
            input_tokens: None,
            choices: 1,
            features: FeatureSet::default(),
            fields: Vec::new(),
            text: TextMeasure::default(),
            tools_bytes: 0,
            picture_bytes: 0,
            attachments: 0,
            side_effects: false,
            model_at: 0..0,
            stream_options_at: None,
            first_field_at: 0,
        }
    }

    /// The body for a target.
    #[must_use]
    pub fn rewrite(&self, rewrite: Rewrite<'_>) -> Bytes {
        let mut body: Vec<u8> = Vec::with_capacity(self.body.len() + rewrite.model.len() + 48);
        let mut splices: Vec<(Range<usize>, Cow<'_, str>)> = Vec::with_capacity(2);
        if self.model != rewrite.model {
            let name = serde_json::to_string(rewrite.model).unwrap_or_default();
            splices.push((self.model_at.clone(), Cow::Owned(name)));
        }
        if rewrite.include_usage && self.stream && !self.include_usage {
            splices.push(self.asking_for_usage());
        }
        let renames = rewrite.rename.iter().any(|(usual, _)| self.fields.contains(usual));
        if splices.is_empty() && rewrite.drop.is_empty() && !renames {
            return self.body.clone();
        }
        splices.sort_by_key(|(place, _)| place.start);
        let mut done = 0;
        for (place, text) in splices {
            body.extend_from_slice(&self.body[done..place.start]);
            body.extend_from_slice(text.as_bytes());
            done = place.end;
        }
        body.extend_from_slice(&self.body[done..]);
        if rewrite.drop.is_empty() && !renames { Bytes::from(body) } else { reshaped(&body, rewrite) }
    }

    /// Where and how `include_usage` goes into the body.
    fn asking_for_usage(&self) -> (Range<usize>, Cow<'static, str>) {
        match &self.stream_options_at {
            None => (
                self.first_field_at..self.first_field_at,
                Cow::Borrowed("\"stream_options\":{\"include_usage\":true},"),
            ),
            Some(place) => {
                // The client's other options keep their own text.
                let fields =
                    serde_json::from_slice::<TopLevel<'_>>(&self.body[place.clone()]).map_or(Vec::new(), |own| own.0);
                let mut options = String::from("{");
                for (name, value) in fields.iter().filter(|(name, _)| name != "include_usage") {
                    let name = serde_json::to_string(name).unwrap_or_default();
                    options.push_str(&format!("{name}:{},", value.get()));
                }
                options.push_str("\"include_usage\":true}");
                (place.clone(), Cow::Owned(options))
            }
        }
    }

    fn field(&mut self, name: &str, value: &str, at: usize) -> Result<(), ClientError> {
        if FORBIDDEN.contains(&name) {
            let message = format!("`{name}` is for the operator of the gateway to set, not for a request");
            return Err(ClientError::new(400, "unknown_parameter", message).at(name));
        }
        if name == "stream_options" {
            self.stream_options_at = Some(at..at + value.len());
        }
        if value == "null" {
            return if name == "model" { Err(invalid("model", "the name of a model or alias")) } else { Ok(()) };
        }
        match name {
            "model" => {
                self.model = serde_json::from_str(value).map_err(|_| invalid("model", "a string"))?;
                if self.model.is_empty() || self.model.len() > LONGEST_MODEL || self.model.chars().any(char::is_control)
                {
                    return Err(invalid("model", "the name of a model or alias"));
                }
                self.model_at = at..at + value.len();
            }
            "stream" => self.stream = serde_json::from_str(value).map_err(|_| invalid("stream", "true or false"))?,
            "stream_options" => {
                if !value.starts_with('{') {
                    return Err(invalid("stream_options", "an object"));
                }
                self.include_usage = serde_json::from_str::<StreamOptions>(value)
                    .map_err(|_| invalid("stream_options", "an object with true or false in `include_usage`"))?
                    .include_usage
                    .unwrap_or(false);
            }
            "max_tokens" | "max_completion_tokens" => {
                let most = value.parse::<u64>().ok().filter(|most| (1..=u64::from(u32::MAX)).contains(most));
                let most = most.ok_or_else(|| invalid(name, "a whole number of tokens, 1 or more"))?;
                self.max_output = Some(self.max_output.map_or(most, |other| other.min(most)));
            }
            "n" => {
                let choices = value.parse::<u64>().ok().filter(|choices| (1..=128).contains(choices));
                self.choices = choices.ok_or_else(|| invalid("n", "a whole number from 1 to 128"))?;
            }
            "messages" => self.messages(value),
            "tools" | "functions" => {
                self.text.add(value);
                self.tools_bytes += length(value);
                if value.len() > 2 {
                    self.features.insert(Feature::Tools);
                }
            }
            "response_format" => {
                self.text.add(value);
                match serde_json::from_str::<Kind<'_>>(value).ok().and_then(|kind| kind.kind).as_deref() {
                    Some("json_object") => self.features.insert(Feature::JsonObject),
                    Some("json_schema") => self.features.insert(Feature::JsonSchema),
                    _ => {}
                }
            }
            "reasoning_effort" if value != "\"none\"" => self.features.insert(Feature::Reasoning),
            "store" => self.side_effects |= value == "true",
            _ => {}
        }
        self.fields.push(name.to_owned());
        Ok(())
    }

    /// Counts text and attachments. Messages of a shape we do not know count as text: the provider judges them.
    fn messages(&mut self, value: &str) {
        let bytes_of = value.as_bytes();
        let mut done = 0;
        let holds = |word: &Finder<'_>| word.find(bytes_of).is_some();
        let attached = holds(&PARTS) && ATTACHED.iter().any(holds);
        if attached && let Ok(messages) = serde_json::from_str::<Vec<Message<'_>>>(value) {
            let parts = messages
                .iter()
                .filter_map(|message| message.content)
                .filter_map(|content| serde_json::from_str::<Vec<Part<'_>>>(content.get()).ok())
                .flatten();
            for part in parts {
                let (feature, content) = match part.kind.as_deref() {
                    Some("image_url") => (Feature::Vision, part.image_url),
                    Some("input_audio") => (Feature::AudioIn, part.input_audio),
                    Some("file") => (Feature::Documents, part.file),
                    _ => continue,
                };
                self.features.insert(feature);
                self.attachments += 1;
                let Some(content) = content.map(RawValue::get) else { continue };
                if feature == Feature::Vision {
                    self.picture_bytes += length(content);
                }
                // Fields come in their order, and so do their values.
                let at = offset(bytes_of, content);
                self.text.add(value.get(done..at).unwrap_or_default());
                done = at + content.len();
            }
        }
        self.text.add(value.get(done..).unwrap_or_default());
    }
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    image_url: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input_audio: Option<&'a RawValue>,
    #[serde(borrow, default)]
    file: Option<&'a RawValue>,
}

/// The fields of the outermost object, in their order, with their values' own text.
struct TopLevel<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for TopLevel<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = TopLevel<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(12);
                while let Some(name) = map.next_key::<Name<'de>>()? {
                    if fields.len() == MOST_FIELDS {
                        return Err(serde::de::Error::custom("too many fields"));
                    }
                    fields.push((name.0, map.next_value()?));
                }
                Ok(TopLevel(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

fn top_level(body: &[u8]) -> Result<Vec<(Cow<'_, str>, &RawValue)>, ClientError> {
    // Text that is checked once is not checked piece by piece. What is not text is refused with the place of the fault.
    let read = std::str::from_utf8(body).map_or_else(|_| serde_json::from_slice(body), serde_json::from_str);
    let TopLevel(fields) = read.map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        let what = match error.classify() {
            serde_json::error::Category::Eof => "ends too early",
            serde_json::error::Category::Data => "is not an object with at most 512 fields",
            _ => "is not valid JSON",
        };
        ClientError::new(400, "invalid_json", format!("the request body {what} ({place})"))
    })?;
    let mut seen = BTreeSet::new();
    for (position, (name, _)) in fields.iter().enumerate() {
        let is_second = match fields.len() <= FEW_FIELDS {
            true => fields[..position].iter().any(|(other, _)| other == name),
            false => !seen.insert(name.as_ref()),
        };
        if is_second {
            let name: String = name.chars().take(64).collect();
            let message = format!("the request body names a field twice (duplicate_key): `{}`", name.escape_debug());
            return Err(ClientError::new(400, "invalid_json", message).at(&name));
        }
    }
    Ok(fields)
}

/// Where in `body` a piece of it begins.
fn offset(body: &[u8], piece: &str) -> usize {
    (piece.as_ptr() as usize).saturating_sub(body.as_ptr() as usize)
}

fn length(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

fn invalid(param: &str, expected: &str) -> ClientError {
    ClientError::new(400, "invalid_value", format!("`{param}` must be {expected}")).at(param)
}

/// The body without some top-level fields, and with others under another name; every value keeps its own text. A field
/// whose other name is there already is left out: the client has said itself what it wants.
fn reshaped(body: &[u8], rewrite: Rewrite<'_>) -> Bytes {
    let Ok(TopLevel(fields)) = serde_json::from_slice::<TopLevel<'_>>(body) else {
        return Bytes::copy_from_slice(body);
    };
    let has = |wanted: &str| fields.iter().any(|(name, _)| name == wanted);
    let mut rest = Vec::with_capacity(body.len());
    for (name, value) in fields.iter().filter(|(name, _)| !rewrite.drop.iter().any(|dropped| dropped == name)) {
        let other = rewrite.rename.iter().find(|(usual, _)| usual == name).map(|(_, other)| other.as_str());
        if other.is_some_and(has) {
            continue;
        }
        rest.push(if rest.is_empty() { b'{' } else { b',' });
        rest.extend_from_slice(serde_json::to_string(other.unwrap_or(name)).unwrap_or_default().as_bytes());
        rest.push(b':');
        rest.extend_from_slice(value.get().as_bytes());
    }
    if rest.is_empty() {
        rest.push(b'{');
    }
    rest.push(b'}');
    Bytes::from(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> ChatRequest {
        ChatRequest::read(&Bytes::copy_from_slice(body.as_bytes())).unwrap()
    }

    fn refused(body: &[u8]) -> (String, Option<String>) {
        let error = ChatRequest::read(&Bytes::copy_from_slice(body)).unwrap_err();
        assert_eq!(error.status, 400);
        (error.code, error.param)
    }

    fn rewritten(body: &str, model: &str, include_usage: bool) -> String {
        String::from_utf8(read(body).rewrite(Rewrite { model, include_usage, drop: &[], rename: &[] }).to_vec())
            .unwrap()
    }

    #[test]
    fn only_the_models_name_changes() {
        let body = "{ \"seed\" : 123456789012345678901234567890 ,\n\t\"model\":\"smart\", \"x\": [1.0e2, \"\\u00e9\\/\"],\"messages\":[] } ";
        assert_eq!(rewritten(body, "a/b\"c", false), body.replace("\"smart\"", "\"a/b\\\"c\""));
        assert_eq!(rewritten(body, "smart", false), body);
    }

    #[test]
    fn the_models_key_may_be_written_with_escapes() {
        assert_eq!(rewritten(r#"{"mod\u0065l":"sm\u0061rt"}"#, "b", false), r#"{"mod\u0065l":"b"}"#);
    }

    #[test]
    fn usage_is_asked_for_only_where_the_client_did_not() {
        let asked = |options: &str| rewritten(&format!(r#"{{"model":"m","stream":true{options}}}"#), "m", true);
        assert_eq!(asked(""), r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#);
        assert_eq!(
            asked(r#","stream_options":null"#),
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#
        );
        assert_eq!(
            asked(r#","stream_options":{"include_usage":false,"x":1e400}"#),
            r#"{"model":"m","stream":true,"stream_options":{"x":1e400,"include_usage":true}}"#
        );
        let already = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(rewritten(already, "m", true), already);
        assert_eq!(rewritten(r#"{"model":"m"}"#, "m", true), r#"{"model":"m"}"#, "not a stream");
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(refused(b"").0, "invalid_json");
        assert_eq!(refused(b"{\"model\":\"m\"").0, "invalid_json");
        assert_eq!(refused(b"{\"model\":\"m\"} x").0, "invalid_json");
        assert_eq!(refused(b"\xef\xbb\xbf{\"model\":\"m\"}").0, "invalid_json");
        assert_eq!(refused(b"{\"model\":\"m\",\"x\":NaN}").0, "invalid_json");
        assert_eq!(refused(b"{\"model\":\"m\",\"x\":\"\xff\"}").0, "invalid_json");
        assert_eq!(refused(b"[]").0, "invalid_json");
        assert_eq!(refused(b"{\"model\":\"m\",\"m\\u006fdel\":\"n\"}"), ("invalid_json".into(), Some("model".into())));
        assert_eq!(refused(b"{}"), ("missing_required_parameter".into(), Some("model".into())));
        for model in ["7", "null", "\"\"", "\"a\\u0000\""] {
            assert_eq!(refused(format!("{{\"model\":{model}}}").as_bytes()).1.as_deref(), Some("model"), "{model}");
        }
        for most in ["0", "-1", "1.5", "\"5\"", "9223372036854775808", "1e400"] {
            let body = format!("{{\"model\":\"m\",\"max_tokens\":{most}}}");
            assert_eq!(refused(body.as_bytes()), ("invalid_value".into(), Some("max_tokens".into())), "{most}");
        }
        assert_eq!(refused(b"{\"model\":\"m\",\"stream\":\"yes\"}").1.as_deref(), Some("stream"));
        for field in FORBIDDEN {
            let body = format!("{{\"model\":\"m\",\"{field}\":null}}");
            assert_eq!(refused(body.as_bytes()).0, "unknown_parameter", "{field}");
        }
    }

    #[test]
    fn depth_and_null_are_no_trouble() {
        let deep = format!("{{\"model\":\"m\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(&deep).body.len(), deep.len());
        assert_eq!(read(r#"{"model":"m","max_tokens":null,"n":null,"stream":null}"#).max_output, None);
    }

    #[test]
    fn features_are_seen() {
        let request = read(
            r#"{"model":"m","stream":true,"tools":[{"type":"function"}],"response_format":{"type":"json_schema"},
               "messages":[{"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]}"#,
        );
        let features: Vec<&str> = request.features.iter().map(Feature::as_str).collect();
        assert_eq!(features, ["stream", "tools", "json_schema", "vision"]);
        assert_eq!(request.attachments, 1);
        let without = [r#"{"url":"data:image/png;base64,AAAA"}"#.len(), r#"[{"type":"function"}]"#.len()];
        assert_eq!((request.picture_bytes, request.tools_bytes), (without[0] as u64, without[1] as u64));
        let spoken = read(r#"{"model":"m","tools":[],"messages":[{"role":"user","content":"what is an image_url?"}]}"#);
        assert!(spoken.features.is_empty());
    }

    #[test]
    fn dropped_fields_leave_the_rest_as_it_was() {
        let request = read(r#"{"model":"m","seed":1,"x":{"a":10000000000000000000000}}"#);
        let body =
            request.rewrite(Rewrite { model: "n", include_usage: false, drop: &["seed".to_owned()], rename: &[] });
        assert_eq!(body, r#"{"model":"n","x":{"a":10000000000000000000000}}"#);
    }

    #[test]
    fn renamed_fields_keep_their_value_and_never_come_twice() {
        let rename = [("seed".to_owned(), "random_seed".to_owned())];
        let check = |body: &str, expected: &str| {
            let request = read(body);
            let model = request.model.clone();
            let body = request.rewrite(Rewrite { model: &model, include_usage: false, drop: &[], rename: &rename });
            assert_eq!(body, expected);
        };
        check(r#"{ "model": "m", "seed": 1e2 }"#, r#"{"model":"m","random_seed":1e2}"#);
        check(r#"{"model":"m","seed":1,"random_seed":2}"#, r#"{"model":"m","random_seed":2}"#);
        check(r#"{ "model": "m", "x": 1 }"#, r#"{ "model": "m", "x": 1 }"#);
    }
}
