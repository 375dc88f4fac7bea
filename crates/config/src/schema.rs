//! The JSON Schema of a configuration, and the reference page, both from the types.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::raw::Raw;

/// The JSON Schema of a configuration file. Unknown keys are errors everywhere.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Raw).to_value();
    close(&mut schema);
    schema
}

/// The JSON Schema of a provider file.
pub(crate) fn provider_schema() -> Value {
    let mut schema = schemars::schema_for!(freeway_catalog::Provider).to_value();
    close(&mut schema);
    schema
}

/// Marks every object that lists its keys as holding no others.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("properties") {
                object.entry("additionalProperties").or_insert(Value::Bool(false));
            }
            object.values_mut().for_each(close);
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        _ => {}
    }
}

/// Follows a reference into the schema's definitions.
pub(crate) fn follow<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    while let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        match reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema
}

/// The reference page in Markdown.
#[must_use]
pub fn reference_page() -> String {
    let root = schema();
    let mut page = String::from(
        "# Configuration reference\n\nMade from the program's own types; `freeway check` holds a file against the same schema\n\
         (`docs/freeway.schema.json`, which editors can use). Unknown keys are errors. For a guided tour see the README.\n",
    );
    section(&mut page, &root, &root, "", 2);
    page
}

fn section(page: &mut String, root: &Value, schema: &Value, path: &str, depth: usize) {
    let schema = follow(root, schema);
    let empty = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let mut inner = Vec::new();
    let mut rows = String::new();
    for (name, property) in properties {
        let (kind, table) = describe(root, property);
        let text = text_of(root, property);
        let full = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        // Writing to a string does not fail.
        let _ = writeln!(rows, "| `{name}` | {kind} | {} |", text.replace('|', "\\|").replace('\n', " "));
        if let Some((table, suffix)) = table {
            inner.push((format!("{full}{suffix}"), table));
        }
    }
    if !rows.is_empty() {
        if !path.is_empty() {
            let _ = writeln!(page, "\n{} `{path}`\n", "#".repeat(depth.min(4)));
        } else {
            page.push('\n');
        }
        let _ = writeln!(page, "| key | kind | meaning |\n|---|---|---|\n{rows}");
        while page.ends_with("\n\n") {
            page.pop();
        }
    }
    for (path, table) in inner {
        section(page, root, table, &path, depth + usize::from(depth < 3));
    }
}

fn text_of(root: &Value, property: &Value) -> String {
    let own = property.get("description").and_then(Value::as_str);
    own.or_else(|| follow(root, property).get("description").and_then(Value::as_str)).unwrap_or_default().to_owned()
}

/// A short word for what a key holds, and the table behind it with what follows its name in a path.
fn describe<'a>(root: &'a Value, property: &'a Value) -> (String, Option<(&'a Value, &'static str)>) {
    let property = follow(root, unoptional(root, property));
    if let Some(values) = words(property) {
        return (values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", "), None);
    }
    if property.get("properties").is_some() {
        return ("table".to_owned(), Some((property, "")));
    }
    if let Some(entries) = property.get("additionalProperties").filter(|entries| entries.is_object()) {
        let (kind, table) = describe(root, entries);
        return (format!("tables by name, each {kind}"), table.map(|(table, _)| (table, ".NAME")));
    }
    if let Some(items) = property.get("items") {
        let (kind, table) = describe(root, items);
        return (format!("list of {kind}"), table.map(|(table, _)| (table, "[]")));
    }
    let kind = match property.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect::<Vec<_>>().join(" or ")
        }
        _ => "value".to_owned(),
    };
    let kind = if property.get("format").and_then(Value::as_str) == Some("date") { "date".to_owned() } else { kind };
    (kind, None)
}

/// Without the alternative of being null, which a TOML file cannot say anyway.
pub(crate) fn unoptional<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let schema = follow(root, schema);
    let Some(alternatives) = schema.get("anyOf").and_then(Value::as_array) else { return schema };
    let mut real =
        alternatives.iter().filter(|alternative| alternative.get("type").and_then(Value::as_str) != Some("null"));
    match (real.next(), real.next()) {
        (Some(only), None) => follow(root, only),
        _ => schema,
    }
}

/// The words of an enumeration.
pub(crate) fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(values.iter().filter_map(Value::as_str).collect());
    }
    let values: Option<Vec<&str>> =
        schema.get("oneOf")?.as_array()?.iter().map(|value| value.get("const").and_then(Value::as_str)).collect();
    values
}
