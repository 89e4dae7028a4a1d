//! `GET /openapi.json`: the routes in OpenAPI 3.1.
//!
//! What a route takes and answers stands in the JSON files here, one for each kind of request: schemas, and for each operation `x-request`,
//! `x-answer` and `x-events`, which name the schemas of its body, of a whole answer and of the data of a stream's events, and `x-done`, where
//! `[DONE]` ends a stream. What routes have in common is added when the files are read: refusals, fields that requests share (`x-with`),
//! operations' names.

use crate::request::neutral::{DEFAULTS, Plain};
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

const PARTS: [&str; 7] = [
    include_str!("common.json"),
    include_str!("chat.json"),
    include_str!("completions.json"),
    include_str!("responses.json"),
    include_str!("messages.json"),
    include_str!("embeddings.json"),
    include_str!("admin.json"),
];

/// Refusals of a route that takes a body.
const REFUSALS: [u64; 9] = [400, 403, 404, 408, 413, 415, 429, 500, 503];

/// The document, but for the models.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let (mut schemas, mut paths) = (Map::new(), Map::new());
    for part in PARTS {
        // The files are part of the program, and tests read them.
        let mut part: Map<String, Value> = serde_json::from_str(part).unwrap_or_default();
        for (whole, name) in [(&mut schemas, "schemas"), (&mut paths, "paths")] {
            if let Some(Value::Object(entries)) = part.remove(name) {
                whole.extend(entries);
            }
        }
    }
    share(&mut schemas);
    for (path, operations) in &mut paths {
        for (method, operation) in operations.as_object_mut().into_iter().flatten() {
            // Beside the operations stand the parameters of all of them, a list.
            if let Some(operation) = operation.as_object_mut() {
                complete(method, path, operation);
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "mlx-serving",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas },
    })
});

/// Answers with the document; its schema `Model` has the names of the models that are served now.
pub(crate) async fn openapi(State(state): State<Arc<AppState>>) -> Json<Value> {
    let names: Vec<String> = state.registry().named().into_iter().map(|(name, _)| name).collect();
    Json(document(names, state.models().len()))
}

/// The document for so many models, which have these names.
fn document(names: Vec<String>, models: usize) -> Value {
    let mut document = DOCUMENT.clone();
    let schemas = &mut document["components"]["schemas"];
    let mut choice: Vec<Value> = names.into_iter().map(Value::String).collect();
    if models == 1 {
        choice.push(Value::Null);
    } else {
        // Without a name it is unclear which one is meant.
        for schema in schemas.as_object_mut().into_iter().flat_map(|schemas| schemas.values_mut()) {
            let takes_model = !schema["properties"]["model"]["$ref"].is_null();
            if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut).filter(|_| takes_model) {
                required.push("model".into());
            }
        }
    }
    schemas["Model"]["enum"] = choice.into();
    document
}

/// Gives bodies the properties of the groups and bodies that they name in `x-with`, and those that have a default of their own. Groups have no
/// type, and are no schemas.
fn share(schemas: &mut Map<String, Value>) {
    let groups = schemas.clone();
    for schema in schemas.values_mut().filter_map(Value::as_object_mut) {
        let Some(with) = schema.remove("x-with") else { continue };
        let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { continue };
        let names = with.as_array().into_iter().flatten().filter_map(Value::as_str);
        for (name, property) in names.filter_map(|name| groups[name]["properties"].as_object()).flatten() {
            properties.entry(name).or_insert_with(|| property.clone());
        }
        for (name, default) in DEFAULTS {
            properties.entry(*name).or_insert_with(|| plain(*default));
        }
    }
    schemas.retain(|_, schema| !(schema.get("type").is_none() && schema.get("properties").is_some()));
}

/// Schema of a parameter that is taken with its default alone.
fn plain(default: Plain) -> Value {
    let value = match default {
        // False asks for something.
        Plain::True => return json!({ "enum": [null, true, "", "auto", "none", [], {}] }),
        Plain::Either => json!({ "type": "boolean" }),
        Plain::Number(number) => json!({ "const": number }),
        Plain::AnyNumber => json!({ "type": "number" }),
        Plain::Word(word) => json!({ "const": word }),
        Plain::List(word) => json!({ "type": "array", "items": { "const": word } }),
    };
    json!({ "anyOf": [{ "$ref": "#/components/schemas/Nothing" }, value] })
}

/// One server-sent event whose data follow a schema; of a stream that `[DONE]` ends, that or an error. Versions of the standard before 3.2 do
/// not say what the schema of a stream describes; by convention it is each event.
fn event(schema: &Value, done: bool) -> Value {
    let json =
        |schema: &Value| json!({ "type": "string", "contentMediaType": "application/json", "contentSchema": schema });
    let error = json!({ "$ref": "#/components/schemas/Error" });
    let data = match done {
        true => json!({ "anyOf": [{ "const": "[DONE]" }, json(schema), json(&error)] }),
        false => json(schema),
    };
    let properties = json!({ "event": { "type": "string" }, "data": data });
    json!({ "type": "object", "description": "A server-sent event.", "properties": properties, "required": ["data"] })
}

/// Completes an operation: its name, its body, its answers and refusals.
fn complete(method: &str, path: &str, operation: &mut Map<String, Value>) {
    let name: String = path
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty())
        .flat_map(|part| ["_", part])
        .collect();
    operation.insert("operationId".into(), format!("{method}{name}").into());
    let mut take = |name: &str| operation.remove(name);
    let (request, answer, events) = (take("x-request"), take("x-answer"), take("x-events"));
    let (refusals, probe, done) = (take("x-refusals"), take("x-probe").is_some(), take("x-done").is_some());
    let schema =
        |name: &Value| json!({ "$ref": format!("#/components/schemas/{}", name.as_str().unwrap_or_default()) });
    let mut responses = operation.remove("responses").and_then(|found| found.as_object().cloned()).unwrap_or_default();
    if let Some(answer) = &answer {
        let mut content = json!({ "application/json": { "schema": schema(answer) } });
        if let Some(events) = &events {
            content["text/event-stream"] = json!({ "schema": event(&schema(events), done) });
        }
        responses.insert("200".into(), json!({ "description": "The answer.", "content": content }));
        if probe {
            let content = json!({ "application/json": { "schema": schema(answer) } });
            responses.insert("503".into(), json!({ "description": "It is not.", "content": content }));
        }
    }
    if let Some(request) = &request {
        let content = json!({ "application/json": { "schema": schema(request) } });
        operation.insert("requestBody".into(), json!({ "required": true, "content": content }));
    }
    let statuses = match (&request, refusals) {
        (Some(_), _) => REFUSALS.to_vec(),
        (None, more) => [403]
            .into_iter()
            .chain(more.iter().flat_map(|m| m.as_array()).flatten().filter_map(Value::as_u64))
            .collect(),
    };
    for status in statuses {
        let (status, refusal) = refusal(status, path);
        responses.insert(status, refusal);
    }
    operation.insert("responses".into(), responses.into());
}

/// A refusal of the route of that path: its status and the response.
fn refusal(status: u64, path: &str) -> (String, Value) {
    let description = match status {
        400 => "A parameter is missing, of the wrong type, out of its range or not supported.",
        403 => "The request's `Host` or `Origin` may not use this server.",
        404 => "There is nothing of that name.",
        408 => "The body, or the client's reading of the answer, took too long.",
        413 => "The body is too long.",
        415 => "The body's `Content-Encoding` is not taken.",
        429 => "Too many requests wait.",
        503 => "It cannot be served now.",
        _ => "The server or the device failed.",
    };
    // Anthropic's dialect has errors of its own shape, and a status of its own.
    let (schema, status) = match (path.starts_with("/v1/messages"), status) {
        (true, 503) => ("MessagesError", 529),
        (true, _) => ("MessagesError", status),
        (false, _) => ("Error", status),
    };
    let content = json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } });
    let mut response = json!({ "description": description, "content": content });
    if matches!(status, 429 | 503 | 529) {
        response["headers"] = json!({ "Retry-After": { "description": "Seconds.", "schema": { "type": "integer" } } });
    }
    (status.to_string(), response)
}

#[cfg(test)]
mod tests;
