//! A value that satisfies a simple JSON Schema: objects, arrays, enums, strings,
//! numbers, booleans, and references inside the schema.

use serde_json::{Map, Number, Value, json};

/// Schemas may refer to themselves; below this depth nothing optional is made any more.
const DEPTH: usize = 12;

/// A value for `schema`. Free strings say `text`, so that answers can be told apart.
pub(crate) fn value_for(schema: &Value, text: &str) -> Value {
    value(schema, schema, text, 0)
}

fn value(schema: &Value, root: &Value, text: &str, depth: usize) -> Value {
    if depth > 4 * DEPTH {
        return Value::Null;
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let found = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return found.map_or(Value::Null, |found| value(found, root, text, depth + 1));
    }
    if let Some(only) = schema.get("const") {
        return only.clone();
    }
    if let Some(first) = list(schema, "enum").first() {
        return first.clone();
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = list(schema, choice).first() {
            return value(first, root, text, depth + 1);
        }
    }
    match kind(schema) {
        "object" => object(schema, root, text, depth),
        "array" => array(schema, root, text, depth),
        "string" => Value::String(string(schema, text)),
        "integer" => Value::Number(Number::from(integer(schema))),
        "number" => number(schema),
        "boolean" => Value::Bool(true),
        _ => Value::Null,
    }
}

fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or("null")
        }
        _ if schema.get("properties").is_some() => "object",
        _ if schema.get("items").is_some() => "array",
        _ => "string",
    }
}

fn object(schema: &Value, root: &Value, text: &str, depth: usize) -> Value {
    let required: Vec<&str> = list(schema, "required").iter().filter_map(Value::as_str).collect();
    let mut made = Map::new();
    if let Some(Value::Object(properties)) = schema.get("properties") {
        for (name, property) in properties {
            if depth < DEPTH || required.contains(&name.as_str()) {
                made.insert(name.clone(), value(property, root, text, depth + 1));
            }
        }
    }
    for name in required {
        made.entry(name).or_insert_with(|| Value::String(text.to_owned()));
    }
    Value::Object(made)
}

fn array(schema: &Value, root: &Value, text: &str, depth: usize) -> Value {
    let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(u64::from(depth < DEPTH));
    let most = schema.get("maxItems").and_then(Value::as_u64).unwrap_or(u64::MAX);
    let count = least.min(most).min(1_000);
    let item = schema.get("items").map_or_else(|| json!(text), |items| value(items, root, text, depth + 1));
    (0..count).map(|_| item.clone()).collect()
}

fn string(schema: &Value, text: &str) -> String {
    match schema.get("format").and_then(Value::as_str) {
        Some("date") => return "2026-01-31".to_owned(),
        Some("time") => return "12:30:00Z".to_owned(),
        Some("date-time") => return "2026-01-31T12:30:00Z".to_owned(),
        Some("email") => return "someone@example.com".to_owned(),
        Some("uri" | "url") => return "https://example.com/".to_owned(),
        Some("uuid") => return "00000000-0000-4000-8000-000000000000".to_owned(),
        _ => {}
    }
    let bound = |name| schema.get(name).and_then(Value::as_u64).and_then(|bound| usize::try_from(bound).ok());
    let mut made: String = text.chars().take(bound("maxLength").unwrap_or(usize::MAX)).collect();
    while made.chars().count() < bound("minLength").unwrap_or(0).min(10_000) {
        made.push('.');
    }
    made
}

fn integer(schema: &Value) -> i64 {
    let bound = |name| schema.get(name).and_then(Value::as_i64);
    let least = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|bound| bound.saturating_add(1)));
    let most = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|bound| bound.saturating_sub(1)));
    let step = bound("multipleOf").filter(|step| *step > 0).unwrap_or(1);
    let wanted = least.unwrap_or_else(|| most.map_or(1, |most| most.min(1)));
    // Up to the next multiple.
    wanted.saturating_add((-wanted).rem_euclid(step))
}

fn number(schema: &Value) -> Value {
    let bound = |name| schema.get(name).and_then(Value::as_f64);
    let least = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|bound| bound + 0.5));
    let most = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|bound| bound - 0.5));
    json!(least.unwrap_or_else(|| most.map_or(1.5, |most| most.min(1.5))))
}

fn list<'a>(schema: &'a Value, name: &str) -> &'a [Value] {
    schema.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_schema_gets_a_value_it_allows() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": { "type": "string", "maxLength": 3 },
                "when": { "type": "string", "format": "date" },
                "unit": { "enum": ["celsius", "kelvin"] },
                "count": { "type": "integer", "minimum": 4 },
                "share": { "type": ["null", "number"], "maximum": 1 },
                "sure": { "type": "boolean" },
                "tags": { "type": "array", "items": { "type": "string" }, "minItems": 2 },
                "next": { "$ref": "#/$defs/node" }
            },
            "required": ["name", "other"],
            "$defs": { "node": { "type": "object", "properties": { "id": { "type": "integer" } } } }
        });
        let expected = json!({
            "name": "abc", "when": "2026-01-31", "unit": "celsius", "count": 4, "share": 1.0, "sure": true,
            "tags": ["abcd", "abcd"], "next": { "id": 1 }, "other": "abcd"
        });
        assert_eq!(value_for(&schema, "abcd"), expected);
    }

    #[test]
    fn a_schema_that_holds_itself_comes_to_an_end() {
        let schema = json!({ "type": "object", "properties": { "again": { "$ref": "#" } } });
        assert!(value_for(&schema, "x").is_object());
    }
}
