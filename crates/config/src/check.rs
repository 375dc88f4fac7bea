//! Holding a file against the schema: every unknown key, missing key and wrong type, with its place.

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::Diagnostic;
use crate::schema::{follow, unoptional, words};

/// A parsed file, for finding places in it.
pub(crate) struct Document<'a> {
    root: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Parses TOML.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Vec<Diagnostic>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Self { root });
        }
        let diagnostic =
            |error: toml::de::Error| Diagnostic::new(error.span().unwrap_or(0..0), error.message().trim().to_owned());
        Err(errors.into_iter().map(diagnostic).collect())
    }

    /// Everything in which the file is not of a schema. `what` it is, messages say.
    pub(crate) fn check(&self, what: &str, schema: &Value) -> Vec<Diagnostic> {
        let mut check = Check { what, schema, diagnostics: Vec::new() };
        check.table(self.root.get_ref(), schema, &self.root.span(), "");
        check.diagnostics
    }

    /// Where the value at a path stands; as much of the path as is there.
    pub(crate) fn span(&self, path: &[String]) -> Range<usize> {
        let Some((first, rest)) = path.split_first() else { return 0..0 };
        let Some((key, value)) = self.root.get_ref().get_key_value(first.as_str()) else { return 0..0 };
        descend(value, rest).unwrap_or_else(|| key.span())
    }

    /// Where a key stands.
    pub(crate) fn key_span(&self, path: &[String]) -> Range<usize> {
        let mut table = self.root.get_ref();
        let mut span = 0..0;
        for step in path {
            let Some((key, value)) = table.get_key_value(step.as_str()) else { break };
            span = key.span();
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        span
    }
}

fn descend(value: &Spanned<DeValue<'_>>, path: &[String]) -> Option<Range<usize>> {
    let Some((step, rest)) = path.split_first() else { return Some(value.span()) };
    let inner = match value.get_ref() {
        DeValue::Table(table) => table.get(step.as_str()),
        DeValue::Array(list) => list.get(step.parse::<usize>().ok()?),
        _ => None,
    };
    match inner {
        Some(inner) => descend(inner, rest),
        None => Some(value.span()),
    }
}

struct Check<'a> {
    what: &'a str,
    schema: &'a Value,
    diagnostics: Vec<Diagnostic>,
}

impl Check<'_> {
    fn table(&mut self, table: &DeTable<'_>, schema: &Value, span: &Range<usize>, place: &str) {
        let known = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        for (key, value) in table.iter() {
            let name: &str = key.get_ref();
            let inner = if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
            match known.and_then(|known| known.get(name)).or(others) {
                Some(schema) => self.value(value, schema, &inner),
                None => {
                    let names: Vec<&str> =
                        known.into_iter().flat_map(|known| known.keys().map(String::as_str)).collect();
                    let place = if place.is_empty() { self.what.to_owned() } else { format!("`{place}`") };
                    let diagnostic = Diagnostic::new(key.span(), format!("{place} has no key `{name}`"));
                    self.diagnostics.push(diagnostic.help(suggestion(name, &names)));
                }
            }
        }
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if table.get(name).is_none() {
                let message = format!("`{place}` lacks the key `{name}`");
                self.diagnostics.push(Diagnostic::new(span.clone(), message));
            }
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, schema: &Value, place: &str) {
        let schema = unoptional(self.schema, follow(self.schema, schema));
        let span = value.span();
        if let Some(words) = words(schema) {
            if let DeValue::String(text) = value.get_ref() {
                if !words.contains(&text.as_ref()) {
                    let diagnostic = Diagnostic::new(span, format!("`{place}` cannot be `{text}`"));
                    self.diagnostics.push(diagnostic.help(suggestion(text, &words)));
                }
            } else {
                self.wrong(span, place, "one of these words", value, Some(words.join(", ")));
            }
            return;
        }
        match value.get_ref() {
            DeValue::Table(table) if allows(schema, "object") => self.table(table, schema, &span, place),
            DeValue::Array(list) if allows(schema, "array") => {
                if let Some(items) = schema.get("items") {
                    for (position, item) in list.iter().enumerate() {
                        self.value(item, items, &format!("{place}[{position}]"));
                    }
                }
            }
            DeValue::String(_) if allows(schema, "string") && !is_date(schema) => {}
            DeValue::Datetime(_) if is_date(schema) => {}
            DeValue::Boolean(_) if allows(schema, "boolean") => {}
            DeValue::Integer(number) if allows(schema, "integer") || allows(schema, "number") => {
                let value = i64::from_str_radix(number.as_str(), number.radix()).ok();
                self.range(value, schema, span, place);
            }
            DeValue::Float(_) if allows(schema, "number") => {}
            _ => self.wrong(span, place, expected(schema), value, None),
        }
    }

    fn range(&mut self, value: Option<i64>, schema: &Value, span: Range<usize>, place: &str) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
        let outside = match value {
            None => true,
            Some(value) => {
                bound("minimum").is_some_and(|least| (value as f64) < least)
                    || bound("maximum").is_some_and(|most| (value as f64) > most)
            }
        };
        if outside {
            let range = match (bound("minimum"), bound("maximum")) {
                (Some(least), Some(most)) => format!("a number from {least} to {most}"),
                (Some(least), None) => format!("a number of {least} or more"),
                _ => "a smaller number".to_owned(),
            };
            self.diagnostics.push(Diagnostic::new(span, format!("`{place}` must be {range}")));
        }
    }

    fn wrong(
        &mut self,
        span: Range<usize>,
        place: &str,
        expected: &str,
        found: &Spanned<DeValue<'_>>,
        help: Option<String>,
    ) {
        let found = match found.get_ref() {
            DeValue::String(_) => "text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let diagnostic = Diagnostic::new(span, format!("`{place}` must be {expected}, not {found}"));
        self.diagnostics.push(match help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        });
    }
}

fn allows(schema: &Value, kind: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(own)) => own == kind,
        Some(Value::Array(own)) => own.iter().any(|own| own == kind),
        _ => true,
    }
}

fn is_date(schema: &Value) -> bool {
    schema.get("format").and_then(Value::as_str) == Some("date")
}

fn expected(schema: &Value) -> &'static str {
    if is_date(schema) {
        return "a date such as 2026-11-22, without quotation marks";
    }
    [
        ("object", "a table"),
        ("array", "a list"),
        ("string", "text in quotation marks"),
        ("boolean", "true or false"),
        ("integer", "a whole number"),
        ("number", "a number"),
    ]
    .into_iter()
    .find(|(kind, _)| schema.get("type").is_some() && allows(schema, kind))
    .map_or("something else", |(_, words)| words)
}

/// The nearest right name, or all of them if none is near.
pub(crate) fn suggestion(wrong: &str, right: &[&str]) -> String {
    let distance = |name: &&str| strsim::damerau_levenshtein(&wrong.to_lowercase(), name);
    match right.iter().copied().min_by_key(distance) {
        Some(nearest) if distance(&nearest) <= 2.max(nearest.len() / 3) => format!("did you mean `{nearest}`?"),
        _ if right.is_empty() => "leave it out".to_owned(),
        _ => format!("there are {}", right.join(", ")),
    }
}
