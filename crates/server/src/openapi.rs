//! The description of the API, from the table of routes.

use serde_json::{Map, Value, json};

use crate::route::{Access, ROUTES};

/// OpenAPI 3.1.
pub(crate) fn describe() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let security = match route.access {
            Access::Open => json!([]),
            Access::AnyKey | Access::Operator => json!([{"key": []}]),
        };
        let mut operation = json!({
            "summary": route.summary,
            "security": security,
            "responses": {"200": {"description": "as described"}, "default": {"description": "an error in OpenAI's shape"}},
        });
        if route.path.contains("{id}") {
            operation["parameters"] =
                json!([{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}]);
        }
        if route.method == "POST" {
            operation["requestBody"] =
                json!({"required": true, "content": {"application/json": {"schema": {"type": "object"}}}});
        }
        let entry = paths.entry(route.path.to_owned()).or_insert_with(|| json!({}));
        entry[route.method.to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Freeway", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    })
}
