//! One request in every dialect that can express it: the same prompt, the same work for the engine.

use crate::house::House;
use crate::script::{Say, calls, says, thinks};
use mlx_serving_runtime::{GrammarError, Input, PromptError, Structure};
use serde_json::{Value, json};

/// What a body asks of the model: its input with the form of the answer, and the engine's request.
async fn asked(route: &str, body: &Value) -> ((Input, Option<Structure>), String) {
    let house = House::new();
    house.post(route, body).await.json(200);
    (house.model.inputs().pop().unwrap(), format!("{:?}", house.model.asked()[0]))
}

async fn same(bodies: &[(&str, Value)]) {
    let (first, rest) = bodies.split_first().unwrap();
    let expected = asked(first.0, &first.1).await;
    for (route, body) in rest {
        assert_eq!(asked(route, body).await, expected, "{route} and {}", first.0);
    }
}

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

#[tokio::test]
async fn a_tool_at_fault_is_named_as_its_dialect_names_it() {
    let house = House::new();
    let hi = json!([{ "role": "user", "content": "hi" }]);
    let message = async |route: &str| {
        let body = match route {
            RESPONSES => json!({ "input": hi }),
            _ => json!({ "messages": hi, "max_tokens": 5 }),
        };
        let error = house.post(route, &body).await.json(400)["error"].clone();
        (error["param"].clone(), error["message"].as_str().unwrap().to_owned())
    };
    house.model.prepares_nothing(|| PromptError::NoStrictCalls { name: "f".into(), index: 3 });
    for (route, param) in [(CHAT, json!("tools[3].function.strict")), (RESPONSES, json!("tools[3].strict"))] {
        assert_eq!(message(route).await.0, param);
    }
    house.model.prepares_nothing(|| PromptError::Tool {
        name: "f".into(),
        index: 3,
        fault: GrammarError::Structure { message: "x is not supported".into() },
    });
    for (route, path) in [
        (CHAT, "tools[3].function.parameters"),
        (RESPONSES, "tools[3].parameters"),
        (MESSAGES, "tools[3].input_schema"),
    ] {
        let text = format!("{path}, the schema of \"f\", cannot be enforced: x is not supported");
        assert_eq!(message(route).await.1, text);
    }
}

#[tokio::test]
async fn a_conversation_is_the_same_in_every_dialect() {
    let sampling = json!({ "temperature": 0.25, "top_p": 0.5, "top_k": 3, "seed": 9 });
    let body = |fields: Value| crate::house::with(fields, sampling.clone());
    let said = [("user", "hi"), ("assistant", "hello"), ("user", "bye")];
    let message = |(role, content): &(&str, &str)| json!({ "role": role, "content": content });
    let turns: Vec<Value> = said.iter().map(message).collect();
    let system = message(&("system", "Be brief."));
    let whole = [vec![system], turns.clone()].concat();
    same(&[
        (CHAT, body(json!({ "messages": whole, "max_tokens": 7 }))),
        (RESPONSES, body(json!({ "instructions": "Be brief.", "input": turns, "max_output_tokens": 7 }))),
        (RESPONSES, body(json!({ "input": whole, "max_output_tokens": 7 }))),
        (MESSAGES, body(json!({ "system": "Be brief.", "messages": turns, "max_tokens": 7 }))),
    ])
    .await;
}

#[tokio::test]
async fn tools_calls_and_reasoning_are_the_same_in_every_dialect() {
    let schema = json!({ "type": "object", "properties": { "b": { "type": "integer" }, "a": {} }, "required": ["b"] });
    let arguments = json!({ "b": 1, "a": [2] });
    let text = arguments.to_string();
    same(&[
        (
            RESPONSES,
            json!({
                "input": [
                    { "role": "user", "content": "hi" },
                    { "type": "reasoning", "id": "rs", "summary": [], "content": [{ "type": "reasoning_text", "text": "hm" }] },
                    { "type": "message", "id": "msg", "status": "completed", "role": "assistant",
                      "content": [{ "type": "output_text", "text": "wait", "annotations": [] }] },
                    { "type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": text },
                    { "type": "function_call_output", "call_id": "c1", "output": "7" },
                ],
                "tools": [{ "type": "function", "name": "f", "description": "does f", "parameters": schema, "strict": true }],
                "tool_choice": { "type": "function", "name": "f" }, "parallel_tool_calls": false,
                "reasoning": { "effort": "low" }, "max_output_tokens": 7,
                "text": { "format": { "type": "json_schema", "name": "n", "schema": schema } },
            }),
        ),
        (
            MESSAGES,
            json!({
                "messages": [
                    { "role": "user", "content": "hi" },
                    { "role": "assistant", "content": [
                        { "type": "thinking", "thinking": "hm", "signature": "" },
                        { "type": "text", "text": "wait" },
                        { "type": "tool_use", "id": "c1", "name": "f", "input": arguments },
                    ] },
                    { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "c1", "content": "7" }] },
                ],
                "tools": [{ "name": "f", "description": "does f", "input_schema": schema, "strict": true }],
                "tool_choice": { "type": "tool", "name": "f", "disable_parallel_tool_use": true },
                "thinking": { "type": "adaptive" }, "output_config": {
                    "effort": "low", "format": { "type": "json_schema", "schema": schema },
                },
                "max_tokens": 7,
            }),
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_answer_sent_back_unchanged_is_the_same_in_every_dialect() {
    let house = House::new();
    let answer = || [vec![thinks("hm"), Say("a")], calls("f", &["{\"b\": 1, \"a\": 2}"]), says(&[])].concat();
    house.model.plays([answer()]);
    let output = house.post(RESPONSES, &json!({ "input": "hi" })).await.json(200)["output"].clone();
    let again = json!({ "role": "user", "content": "bye" });
    let items =
        [vec![json!({ "role": "user", "content": "hi" })], output.as_array().unwrap().clone(), vec![again.clone()]];
    house.post(RESPONSES, &json!({ "input": items.concat() })).await.json(200);
    let mut responses = house.model.conversation();

    house.model.plays([answer()]);
    let first = json!({ "role": "user", "content": "hi" });
    let message = house.post(MESSAGES, &json!({ "max_tokens": 7, "messages": [first] })).await.json(200);
    let said = json!({ "role": "assistant", "content": message["content"] });
    house.post(MESSAGES, &json!({ "max_tokens": 7, "messages": [first, said, again] })).await.json(200);
    let messages = house.model.conversation();
    // The ids are each dialect's own.
    responses.messages[1].calls[0].id = messages.messages[1].calls[0].id.clone();
    assert_eq!(responses, messages);
    assert_eq!(messages.messages[1].reasoning.as_deref(), Some("hm"));
}
