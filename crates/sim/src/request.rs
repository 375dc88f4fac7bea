//! Reading and checking a chat request the way a provider does.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Fields that shape the answer.
const SHAPING: &[&str] = &[
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "logprobs",
    "top_logprobs",
    "response_format",
    "tools",
    "tool_choice",
];
/// Fields that are known and make no difference here.
const IGNORED: &[&str] = &[
    "temperature",
    "top_p",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "user",
    "seed",
    "parallel_tool_calls",
    "reasoning_effort",
];
/// Numbers of more digits than this do not survive a double, so they are echoed even in known fields.
const SAFE_DIGITS: usize = 15;

/// A request that passed the checks.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// Bytes of text in all messages.
    pub(crate) text_bytes: u64,
    pub(crate) last_user: String,
    /// An assistant's turn at the end: an answer that has begun.
    pub(crate) begun: Option<String>,
    /// The fields of that turn that are `true`: marks of an answer to go on from.
    pub(crate) marks: Vec<String>,
    pub(crate) images: usize,
    pub(crate) max_output: Option<u64>,
    pub(crate) choices: usize,
    pub(crate) logprobs: bool,
    pub(crate) format: Format,
    /// The function to call, if this turn ends in a call.
    pub(crate) call: Option<Function>,
    /// Unknown fields and long numbers, letter for letter.
    pub(crate) echo: BTreeMap<String, Box<RawValue>>,
    /// The names of all fields at the top.
    pub(crate) fields: Vec<String>,
}

/// What the answer's text must be.
#[derive(Debug)]
pub(crate) enum Format {
    Text,
    Object,
    Schema(Value),
}

/// A function that the model may call.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) parameters: Value,
}

/// Why a request is refused as it stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadRequest {
    pub(crate) param: Option<String>,
    pub(crate) message: String,
}

/// What can be said of any body, good or bad: its model and whether it wants a stream.
pub(crate) fn peek(body: &[u8]) -> (Option<String>, bool) {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(default)]
        model: Value,
        #[serde(default)]
        stream: Value,
    }
    match serde_json::from_slice::<Head>(body) {
        Ok(head) => (head.model.as_str().map(str::to_owned), head.stream == Value::Bool(true)),
        Err(_) => (None, false),
    }
}

impl ChatRequest {
    /// Reads and checks a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let raw: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body).map_err(|error| BadRequest {
            param: None,
            message: format!("The body could not be read as a JSON object: {error}."),
        })?;
        let mut fields = Fields { values: Map::new() };
        for name in SHAPING.iter().chain(IGNORED) {
            if let Some(text) = raw.get(*name) {
                // Digits beyond a double are kept in the raw text; here any reading will do.
                fields.values.insert((*name).to_owned(), serde_json::from_str(text.get()).unwrap_or(Value::Null));
            }
        }
        fields.check_ignored()?;
        let mut talk = Talk::default();
        talk.read(fields.required("messages")?)?;
        let stream = fields.boolean("stream")?;
        let options = fields.get("stream_options");
        if options.is_some() && !stream {
            return Err(bad("stream_options", "is only allowed when 'stream' is true"));
        }
        let max_output = match fields.count("max_completion_tokens", u64::MAX)? {
            Some(most) => Some(most),
            None => fields.count("max_tokens", u64::MAX)?,
        };
        let choices = fields.count("n", 128)?.unwrap_or(1);
        Ok(Self {
            model: match fields.required("model")? {
                Value::String(name) if !name.is_empty() => name.clone(),
                _ => return Err(bad("model", "must be a string that is not empty")),
            },
            stream,
            include_usage: options.and_then(|options| options.get("include_usage")) == Some(&Value::Bool(true)),
            text_bytes: talk.text_bytes,
            begun: (talk.last_role == "assistant").then_some(talk.last_text),
            marks: talk.last_marks,
            last_user: talk.last_user,
            images: talk.images,
            max_output,
            choices: usize::try_from(choices).unwrap_or(1),
            logprobs: fields.boolean("logprobs")?,
            format: fields.format()?,
            call: fields.call(talk.last_role == "tool")?,
            echo: raw.iter().filter(|(name, text)| echoed(name, text)).map(|(n, t)| (n.clone(), t.clone())).collect(),
            fields: raw.into_keys().collect(),
        })
    }
}

fn echoed(name: &str, text: &RawValue) -> bool {
    if SHAPING.contains(&name) {
        return false;
    }
    let number = text.get().starts_with(|start: char| start.is_ascii_digit() || start == '-');
    let digits = text.get().chars().filter(char::is_ascii_digit).count();
    !IGNORED.contains(&name) || (number && digits > SAFE_DIGITS)
}

fn bad(param: &str, what: &str) -> BadRequest {
    BadRequest { param: Some(param.to_owned()), message: format!("Invalid request: '{param}' {what}.") }
}

/// The known fields, parsed.
struct Fields {
    values: Map<String, Value>,
}

impl Fields {
    /// A field that is there and not null.
    fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    fn required(&self, name: &str) -> Result<&Value, BadRequest> {
        self.get(name).ok_or_else(|| BadRequest {
            param: Some(name.to_owned()),
            message: format!("Missing required parameter: '{name}'."),
        })
    }

    fn boolean(&self, name: &str) -> Result<bool, BadRequest> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(bad(name, "must be a boolean")),
        }
    }

    fn count(&self, name: &str, most: u64) -> Result<Option<u64>, BadRequest> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_u64().filter(|count| (1..=most).contains(count)) {
                Some(count) => Ok(Some(count)),
                None => Err(bad(name, "must be a whole number, 1 or more, within its bound")),
            },
        }
    }

    fn check_ignored(&self) -> Result<(), BadRequest> {
        for (name, range) in [
            ("temperature", 0.0..=2.0),
            ("top_p", 0.0..=1.0),
            ("presence_penalty", -2.0..=2.0),
            ("frequency_penalty", -2.0..=2.0),
        ] {
            match self.get(name).map(Value::as_f64) {
                Some(Some(value)) if range.contains(&value) => {}
                None => {}
                Some(_) => {
                    let range = format!("must be a number from {} to {}", range.start(), range.end());
                    return Err(bad(name, &range));
                }
            }
        }
        Ok(())
    }

    fn format(&self) -> Result<Format, BadRequest> {
        let Some(format) = self.get("response_format") else { return Ok(Format::Text) };
        match format.get("type").and_then(Value::as_str) {
            Some("text") => Ok(Format::Text),
            Some("json_object") => Ok(Format::Object),
            Some("json_schema") => match format.pointer("/json_schema/schema") {
                Some(schema) => Ok(Format::Schema(schema.clone())),
                None => Err(bad("response_format.json_schema", "needs a 'schema'")),
            },
            _ => Err(bad("response_format.type", "must be 'text', 'json_object' or 'json_schema'")),
        }
    }

    /// The function this turn calls: the one named, else the first. None after a tool's result.
    fn call(&self, after_result: bool) -> Result<Option<Function>, BadRequest> {
        let tools = match self.get("tools") {
            None => return Ok(None),
            Some(Value::Array(tools)) => tools,
            Some(_) => return Err(bad("tools", "must be a list")),
        };
        let mut functions = Vec::new();
        for tool in tools {
            let Some(name) = tool.pointer("/function/name").and_then(Value::as_str) else {
                return Err(bad("tools", "must be functions with a name"));
            };
            let parameters = tool.pointer("/function/parameters").cloned();
            let parameters = parameters.unwrap_or_else(|| serde_json::json!({ "type": "object" }));
            functions.push(Function { name: name.to_owned(), parameters });
        }
        let choice = self.get("tool_choice");
        if after_result || choice.and_then(Value::as_str) == Some("none") {
            return Ok(None);
        }
        match choice.and_then(|choice| choice.pointer("/function/name")).and_then(Value::as_str) {
            None => Ok(functions.into_iter().next()),
            Some(wanted) => match functions.into_iter().find(|function| function.name == wanted) {
                Some(function) => Ok(Some(function)),
                None => Err(bad("tool_choice", "names a function that is not among the tools")),
            },
        }
    }
}

/// What is gathered from the messages.
#[derive(Default)]
struct Talk {
    text_bytes: u64,
    last_user: String,
    last_role: String,
    last_text: String,
    last_marks: Vec<String>,
    images: usize,
}

impl Talk {
    fn read(&mut self, messages: &Value) -> Result<(), BadRequest> {
        let Value::Array(messages) = messages else { return Err(bad("messages", "must be a list")) };
        if messages.is_empty() {
            return Err(bad("messages", "must hold at least one message"));
        }
        for (position, message) in messages.iter().enumerate() {
            self.message(message).map_err(|(field, what)| bad(&format!("messages[{position}]{field}"), what))?;
        }
        Ok(())
    }

    fn message(&mut self, message: &Value) -> Result<(), (&'static str, &'static str)> {
        if !message.is_object() {
            return Err(("", "must be an object"));
        }
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
        if !matches!(role, "system" | "developer" | "user" | "assistant" | "tool" | "function") {
            return Err((".role", "must be system, developer, user, assistant or tool"));
        }
        if role == "tool" && !message.get("tool_call_id").is_some_and(Value::is_string) {
            return Err((".tool_call_id", "must be a string in a message of role 'tool'"));
        }
        let mut text = String::new();
        match message.get("content") {
            Some(Value::String(content)) => text.push_str(content),
            Some(Value::Array(parts)) => {
                for part in parts {
                    match part.get("type").and_then(Value::as_str) {
                        Some("text" | "refusal") => {
                            text.push_str(part.get("text").and_then(Value::as_str).unwrap_or_default());
                        }
                        Some("image_url") => self.images += 1,
                        Some("input_audio" | "file") => {}
                        _ => return Err((".content", "must hold parts of a known type")),
                    }
                }
            }
            None | Some(Value::Null) if role == "assistant" => {}
            _ => return Err((".content", "must be a string or a list of parts")),
        }
        self.text_bytes += text.len() as u64;
        role.clone_into(&mut self.last_role);
        if role == "user" {
            self.last_user.clone_from(&text);
        }
        self.last_text = text;
        let fields = message.as_object().filter(|_| role == "assistant").into_iter().flatten();
        let marks = fields.filter(|(_, value)| **value == Value::Bool(true));
        self.last_marks = marks.map(|(name, _)| name.clone()).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(body: &str) -> Option<String> {
        ChatRequest::parse(body.as_bytes()).unwrap_err().param
    }

    #[test]
    fn what_is_wrong_is_named() {
        let user = r#""messages":[{"role":"user","content":"x"}]"#;
        assert_eq!(param("nonsense"), None);
        assert_eq!(param(r#"{"model":"m"}"#).as_deref(), Some("messages"));
        assert_eq!(param(&format!("{{{user}}}")).as_deref(), Some("model"));
        assert_eq!(param(r#"{"model":"m","messages":[]}"#).as_deref(), Some("messages"));
        assert_eq!(
            param(r#"{"model":"m","messages":[{"role":"cat","content":""}]}"#).as_deref(),
            Some("messages[0].role")
        );
        assert_eq!(
            param(r#"{"model":"m","messages":[{"role":"user","content":7}]}"#).as_deref(),
            Some("messages[0].content")
        );
        assert_eq!(param(&format!(r#"{{"model":"m",{user},"max_tokens":0}}"#)).as_deref(), Some("max_tokens"));
        assert_eq!(param(&format!(r#"{{"model":"m",{user},"temperature":3}}"#)).as_deref(), Some("temperature"));
        assert_eq!(param(&format!(r#"{{"model":"m",{user},"stream":1}}"#)).as_deref(), Some("stream"));
        assert_eq!(
            param(&format!(r#"{{"model":"m",{user},"stream_options":{{}}}}"#)).as_deref(),
            Some("stream_options")
        );
    }

    #[test]
    fn unknown_fields_and_long_numbers_are_kept_letter_for_letter() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}],"seed":12345678901234567890123,
            "user":"u","x":1.50e3,"temperature":1,"n":1}"#;
        let request = ChatRequest::parse(body.as_bytes()).unwrap();
        let echo: Vec<String> = request.echo.iter().map(|(name, text)| format!("{name}={text}")).collect();
        assert_eq!(echo, ["seed=12345678901234567890123", "x=1.50e3"]);
        assert_eq!(request.text_bytes, 5);
    }

    #[test]
    fn a_call_is_made_until_a_tool_has_answered() {
        let tools =
            r#""tools":[{"type":"function","function":{"name":"a"}},{"type":"function","function":{"name":"b"}}]"#;
        let user = r#"{"role":"user","content":"x"}"#;
        let call = |messages: &str, choice: &str| {
            let body = format!(r#"{{"model":"m","messages":[{messages}],{tools}{choice}}}"#);
            ChatRequest::parse(body.as_bytes()).unwrap().call.map(|function| function.name)
        };
        assert_eq!(call(user, "").as_deref(), Some("a"));
        assert_eq!(call(user, r#","tool_choice":{"type":"function","function":{"name":"b"}}"#).as_deref(), Some("b"));
        assert_eq!(call(user, r#","tool_choice":"none""#), None);
        assert_eq!(call(&format!(r#"{user},{{"role":"tool","tool_call_id":"1","content":"r"}}"#), ""), None);
    }
}
