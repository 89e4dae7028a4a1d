//! Forms that answers must have.

use crate::house::House;
use mlx_serving_runtime::Structure;
use serde_json::{Value, json};

fn schema() -> Value {
    json!({ "type": "object", "properties": { "b": {}, "a": {} } })
}

#[tokio::test]
async fn every_way_to_ask_for_a_form_leads_to_one() {
    let house = House::new();
    let format = |value: Value| json!({ "response_format": value });
    let outputs = |value: Value| json!({ "structured_outputs": value });
    let of_schema = || Some(Structure::Schema(schema()));
    for (extra, structure) in [
        (format(json!({ "type": "text" })), None),
        (format(json!({ "type": "json_object" })), Some(Structure::Object)),
        (
            format(
                json!({ "type": "json_schema", "json_schema": { "name": "n", "strict": true, "schema": schema() } }),
            ),
            of_schema(),
        ),
        (format(json!({ "type": "json_schema", "json_schema": { "name": "n" } })), Some(Structure::Object)),
        (json!({ "guided_json": schema() }), of_schema()),
        (json!({ "guided_json": schema().to_string() }), of_schema()),
        (json!({ "guided_regex": "a+" }), Some(Structure::Regex("a+".into()))),
        (json!({ "guided_choice": ["a", "b"] }), Some(Structure::Choice(vec!["a".into(), "b".into()]))),
        (json!({ "guided_grammar": "start: \"a\"" }), Some(Structure::Lark("start: \"a\"".into()))),
        (outputs(json!({ "json": schema() })), of_schema()),
        (outputs(json!({ "json": schema().to_string() })), of_schema()),
        (outputs(json!({ "regex": "a+" })), Some(Structure::Regex("a+".into()))),
        (outputs(json!({ "choice": ["a"] })), Some(Structure::Choice(vec!["a".into()]))),
        (outputs(json!({ "grammar": "start: \"a\"" })), Some(Structure::Lark("start: \"a\"".into()))),
        (outputs(json!({ "json_object": true })), Some(Structure::Object)),
        (outputs(json!({ "json_object": false, "disable_any_whitespace": false, "regex": null })), None),
        (json!({ "guided_regex": "", "guided_choice": [], "structured_outputs": {} }), None),
    ] {
        house.chat(extra.clone()).await.json(200);
        assert_eq!(house.model.inputs().pop().unwrap().1, structure, "{extra}");
        house.complete(extra.clone()).await.json(200);
        assert_eq!(house.model.inputs().pop().unwrap().1, structure, "{extra}");
    }
}

#[tokio::test]
async fn a_second_form_and_what_is_none_are_refused_by_name() {
    let house = House::new();
    let deep = format!("{{\"a\": {}{}}}", "[".repeat(200), "]".repeat(200));
    for (extra, param) in [
        (json!({ "response_format": { "type": "json_object" }, "guided_regex": "a" }), "guided_regex"),
        (json!({ "guided_json": schema(), "guided_regex": "a" }), "guided_regex"),
        (json!({ "structured_outputs": { "regex": "a", "choice": ["a"] } }), "structured_outputs.choice"),
        (json!({ "response_format": { "type": "xml" } }), "response_format.type"),
        (json!({ "response_format": { "type": "json_schema" } }), "response_format.json_schema"),
        (
            json!({ "response_format": { "type": "json_object", "json_schema": { "name": "n" } } }),
            "response_format.json_schema",
        ),
        (
            json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": [] } } }),
            "response_format.json_schema.schema",
        ),
        (json!({ "response_format": "json" }), "response_format"),
        (json!({ "guided_json": 5 }), "guided_json"),
        (json!({ "guided_json": "{" }), "guided_json"),
        (json!({ "guided_json": deep }), "guided_json"),
        (json!({ "guided_json": { "enum": vec![0; 70_000] } }), "guided_json"),
        (json!({ "guided_regex": "a".repeat(70_000) }), "guided_regex"),
        (json!({ "guided_choice": vec!["a"; 1025] }), "guided_choice"),
        (json!({ "guided_choice": [1] }), "guided_choice"),
        (json!({ "structured_outputs": { "structural_tag": "{}" } }), "structured_outputs.structural_tag"),
    ] {
        for reply in [house.chat(extra.clone()).await, house.complete(extra.clone()).await] {
            let (found, _, message) = reply.error(400);
            assert!(found == param && message.starts_with(param), "{param}: {found}: {message:.200}");
        }
    }
    assert!(house.model.asked().is_empty());
}

#[tokio::test]
async fn a_form_that_cannot_be_held_to_is_refused_under_the_clients_name() {
    let house = House::new();
    house.model.compiles_nothing("the keyword `not` is not supported");
    let json_schema = json!({ "type": "json_schema", "json_schema": { "name": "n", "schema": schema() } });
    for (extra, param) in [
        (json!({ "response_format": json_schema }), "response_format.json_schema.schema"),
        (json!({ "guided_json": schema() }), "guided_json"),
        (json!({ "structured_outputs": { "json": schema() } }), "structured_outputs.json"),
    ] {
        for reply in [house.chat(extra.clone()).await, house.complete(extra.clone()).await] {
            let (found, _, message) = reply.error(400);
            assert_eq!(
                (found.as_str(), message),
                (param, format!("{param} cannot be enforced: the keyword `not` is not supported"))
            );
        }
    }
    let tools = json!([{ "type": "function", "function": { "name": "f", "strict": true } }]);
    let (param, _, message) = house.chat(json!({ "tools": tools, "tool_choice": "required" })).await.error(400);
    assert!(param == "tools" && message.starts_with("tools cannot be enforced"), "{message}");
}
