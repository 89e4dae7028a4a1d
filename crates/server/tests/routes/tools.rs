//! Tools in chats: definitions, calls, results.

use crate::house::{House, with};
use crate::script::{End, Say, breaks, calls, garbles, says, thinks};
use mlx_serving_engine::FinishReason;
use mlx_serving_runtime::{Role, ToolChoice};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Two functions.
fn tools() -> Value {
    let weather = json!({
        "name": "weather", "description": "the weather", "strict": true,
        "parameters": { "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] },
    });
    json!([{ "type": "function", "function": weather }, { "type": "function", "function": { "name": "time" } }])
}

#[tokio::test]
async fn tools_reach_the_conversation_as_templates_read_them() {
    let house = House::new();
    house.chat(json!({ "tools": tools(), "parallel_tool_calls": false })).await.json(200);
    let conversation = house.model.conversation();
    let [weather, time] = &conversation.tools[..] else { panic!("{conversation:?}") };
    assert_eq!((weather.name.as_str(), weather.strict, time.strict), ("weather", true, false));
    assert_eq!(
        weather.definition.to_string(),
        "{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"description\":\"the weather\",\"parameters\":\
         {\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":[\"city\"]}}}"
    );
    assert_eq!(weather.parameters, weather.definition["function"]["parameters"]);
    assert_eq!(time.parameters, json!({ "type": "object", "properties": {} }));
    assert_eq!((conversation.tool_choice, conversation.parallel_calls), (ToolChoice::Auto, false));
}

#[tokio::test]
async fn a_choice_of_tools_is_a_word_or_names_some() {
    let house = House::new();
    let function = |name: &str| json!({ "type": "function", "function": { "name": name } });
    let allowed =
        |mode: &str| json!({ "type": "allowed_tools", "allowed_tools": { "mode": mode, "tools": [function("time")] } });
    for (choice, expected, told) in [
        (json!("auto"), ToolChoice::Auto, 2),
        (json!("none"), ToolChoice::None, 2),
        (json!({ "type": "none" }), ToolChoice::None, 2),
        (json!("required"), ToolChoice::Required, 2),
        (function("time"), ToolChoice::Named("time".into()), 2),
        (allowed("auto"), ToolChoice::Auto, 1),
        (allowed("required"), ToolChoice::Required, 1),
    ] {
        house.chat(json!({ "tools": tools(), "tool_choice": choice })).await.json(200);
        let conversation = house.model.conversation();
        assert_eq!((conversation.tool_choice, conversation.tools.len()), (expected, told), "{choice}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_tools_is_told_with_its_path() {
    let house = House::new();
    let named = |name: &str| json!([{ "type": "function", "function": { "name": name } }]);
    let function = |value: Value| json!([{ "type": "function", "function": value }]);
    let message = |message: Value| json!({ "messages": [{ "role": "user", "content": "hi" }, message] });
    let called = |function: Value| {
        message(json!({ "role": "assistant", "tool_calls": [{ "id": "c", "type": "function", "function": function }] }))
    };
    for (extra, path) in [
        (json!({ "tools": named("") }), "tools[0].function.name"),
        (json!({ "tools": named("a b") }), "tools[0].function.name"),
        (json!({ "tools": named(&"x".repeat(129)) }), "tools[0].function.name"),
        (json!({ "tools": [named("f")[0], named("f")[0]] }), "tools[1].function.name"),
        (json!({ "tools": function(json!({ "description": "x" })) }), "tools[0].function.name"),
        (json!({ "tools": function(json!({ "name": "f", "parameters": [] })) }), "tools[0].function.parameters"),
        (json!({ "tools": function(json!({ "name": "f", "strict": "yes" })) }), "tools[0].function.strict"),
        (json!({ "tools": function(json!({ "name": "f", "color": 1 })) }), "tools[0].function.color"),
        (json!({ "tools": [{ "type": "function" }] }), "tools[0].function"),
        (json!({ "tools": [{ "type": "web_search" }] }), "tools[0].type"),
        (json!({ "tools": {} }), "tools"),
        (json!({ "tool_choice": "required" }), "tool_choice"),
        (json!({ "tools": tools(), "tool_choice": "any" }), "tool_choice"),
        (json!({ "tools": tools(), "tool_choice": { "type": "function" } }), "tool_choice.function"),
        (json!({ "tools": tools(), "tool_choice": { "type": "custom" } }), "tool_choice.type"),
        (
            json!({ "tools": tools(), "tool_choice": { "type": "function", "function": { "name": "g" } } }),
            "tool_choice.function.name",
        ),
        (
            json!({ "tools": tools(), "tool_choice": { "type": "allowed_tools", "allowed_tools": {
                "mode": "auto", "tools": [{ "type": "function", "function": { "name": "g" } }] } } }),
            "tool_choice.allowed_tools.tools",
        ),
        (json!({ "functions": [{ "name": "f" }] }), "functions"),
        (json!({ "function_call": { "name": "f" } }), "function_call"),
        (message(json!({ "role": "function", "name": "f", "content": "4" })), "messages[1].role"),
        (message(json!({ "role": "tool", "content": "4" })), "messages[1].tool_call_id"),
        (message(json!({ "role": "tool", "tool_call_id": "c" })), "messages[1].content"),
        (message(json!({ "role": "user", "content": "x", "tool_call_id": "c" })), "messages[1].tool_call_id"),
        (
            message(json!({ "role": "user", "content": "x", "tool_calls": [
                { "id": "c", "type": "function", "function": { "name": "f", "arguments": "" } }] })),
            "messages[1].tool_calls",
        ),
        (message(json!({ "role": "user", "content": "x", "reasoning": "y" })), "messages[1].reasoning"),
        (message(json!({ "role": "assistant", "reasoning": "y", "reasoning_content": "z" })), "messages[1].reasoning"),
        (called(json!({ "name": "f" })), "messages[1].tool_calls[0].function.arguments"),
        (called(json!({ "name": "f", "arguments": {} })), "messages[1].tool_calls[0].function.arguments"),
        (called(json!({ "name": 5, "arguments": "{}" })), "messages[1].tool_calls[0].function.name"),
        (message(json!({ "role": "assistant", "function_call": { "name": "f" } })), "messages[1].function_call"),
    ] {
        let (found, code, message) = house.chat(extra.clone()).await.error(400);
        assert_eq!((found.as_str(), code.as_str()), (path, "invalid_value"), "{extra}: {message}");
        assert!(
            message.starts_with(path) || message.contains(path.rsplit_once('.').map_or(path, |(head, _)| head)),
            "{message}"
        );
    }
    assert!(house.model.asked().is_empty());
}

#[tokio::test]
async fn lists_of_tools_and_calls_are_bounded() {
    let house = House::new();
    let many = |n: usize| -> Vec<Value> {
        (0..n).map(|i| json!({ "type": "function", "function": { "name": format!("f{i}") } })).collect()
    };
    house.chat(json!({ "tools": many(512) })).await.json(200);
    assert_eq!(house.chat(json!({ "tools": many(513) })).await.error(400).0, "tools");
    let wide = |n: usize| json!({ "type": "object", "enum": vec![0; n] });
    let function =
        |name: &str, n: usize| json!({ "type": "function", "function": { "name": name, "parameters": wide(n) } });
    house.chat(json!({ "tools": [function("a", 60_000)] })).await.json(200);
    assert_eq!(
        house.chat(json!({ "tools": [function("a", 70_000)] })).await.error(400).0,
        "tools[0].function.parameters"
    );
    // Each may be, but not both.
    assert_eq!(
        house.chat(json!({ "tools": [function("a", 40_000), function("b", 40_000)] })).await.error(400).0,
        "tools"
    );
    let called = |n: usize| {
        let arguments = json!({ "a": vec![0; n] }).to_string();
        let call = json!({ "id": "c", "type": "function", "function": { "name": "f", "arguments": arguments } });
        json!({ "role": "assistant", "tool_calls": [call] })
    };
    let messages = |messages: Vec<Value>| json!({ "messages": messages });
    house.chat(messages(vec![called(60_000)])).await.json(200);
    let path = "messages[0].tool_calls[0].function.arguments";
    assert_eq!(house.chat(messages(vec![called(70_000)])).await.error(400).0, path);
    assert_eq!(house.chat(messages(vec![called(40_000), called(40_000)])).await.error(400).0, "messages");
}

#[tokio::test]
async fn a_whole_answer_has_its_calls_and_no_content() {
    let house = House::new();
    let two = [calls("weather", &["{\"city\": ", "\"Bern\"}"]), calls("time", &["{}"]), says(&[])].concat();
    house.model.plays([two]);
    let choice = house.chat(json!({ "tools": tools() })).await.choice();
    let message = &choice["message"];
    assert_eq!((&message["content"], &message["role"]), (&Value::Null, &json!("assistant")));
    assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!("tool_calls"), &Value::Null));
    let calls = message["tool_calls"].as_array().unwrap();
    let function = |call: &Value| (call["type"].clone(), call["function"].clone());
    assert_eq!(
        function(&calls[0]),
        (json!("function"), json!({ "name": "weather", "arguments": "{\"city\": \"Bern\"}" }))
    );
    assert_eq!(function(&calls[1]), (json!("function"), json!({ "name": "time", "arguments": "{}" })));
    let ids: Vec<&str> = calls.iter().map(|call| call["id"].as_str().unwrap()).collect();
    assert!(ids.iter().all(|id| id.starts_with("call_")) && ids[0] != ids[1], "{ids:?}");
}

#[tokio::test]
async fn calls_behind_the_first_are_left_out_where_the_client_wants_one() {
    let house = House::new();
    let two = || [calls("weather", &["{\"a\":", "1}"]), calls("time", &["{}"]), says(&["so"])].concat();
    house.model.plays([two(), two()]);
    let extra = json!({ "tools": tools(), "parallel_tool_calls": false });
    let whole = house.chat(extra.clone()).await.choice()["message"].clone();
    let streamed = joined(&house.chat(with(extra, json!({ "stream": true }))).await.streamed());
    for message in [whole, streamed] {
        let calls = message["tool_calls"].as_array().unwrap();
        assert_eq!((calls.len(), &calls[0]["function"]["arguments"]), (1, &json!("{\"a\":1}")));
        assert_eq!(message["content"], "so");
    }
}

#[tokio::test]
async fn text_before_a_call_is_content_and_a_cut_answer_ends_with_length() {
    let house = House::new();
    let broken = breaks("time", "{\"a", "<call>time(a");
    let cut = [vec![Say("wait")], broken, vec![End(FinishReason::Length, "")]].concat();
    house.model.plays([cut.clone(), cut]);
    let streamed = house.chat(json!({ "tools": tools(), "stream": true })).await.streamed();
    let text: String = streamed.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
    assert_eq!((text.as_str(), &streamed.last().unwrap()["finish_reason"]), ("wait", &json!("length")));
    let choice = house.chat(json!({ "tools": tools() })).await.choice();
    let expected = json!({ "role": "assistant", "content": "wait<call>time(a", "refusal": null });
    assert_eq!((&choice["message"], &choice["finish_reason"]), (&expected, &json!("length")));
}

#[tokio::test]
async fn a_whole_answer_has_a_call_that_breaks_off_as_it_was_written() {
    let house = House::new();
    let broken = breaks("time", "{\"a\": ", "<call>time(a=");
    let garbled = [vec![Say("wait")], calls("weather", &["{}"]), broken, vec![garbles("?)")], says(&[" so"])].concat();
    house.model.plays([garbled.clone(), garbled]);
    let choice = house.chat(json!({ "tools": tools() })).await.choice();
    let (message, calls) = (&choice["message"], choice["message"]["tool_calls"].as_array().unwrap());
    assert_eq!((message["content"].as_str(), calls.len()), (Some("wait<call>time(a=?) so"), 1));
    assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!("stop"), &json!("malformed_tool_call")));
    let message = joined(&house.chat(json!({ "tools": tools(), "stream": true })).await.streamed());
    assert_eq!(
        (&message["content"], &message["tool_calls"][1]["function"]["arguments"]),
        (&json!("wait?) so"), &json!("{\"a\": "))
    );
}

#[tokio::test]
async fn arguments_are_an_object_whatever_else_a_schema_says() {
    let house = House::new();
    let asked = |parameters: Value| json!({ "tools": [{ "type": "function", "function": { "name": "f", "parameters": parameters } }] });
    for kind in [json!("array"), json!(["string", "null"]), json!(5)] {
        let (param, _, message) = house.chat(asked(json!({ "type": kind }))).await.error(400);
        assert_eq!(param, "tools[0].function.parameters", "{kind}");
        assert!(message.contains(&kind.to_string()), "{message}");
    }
    for parameters in [json!({}), json!({ "type": ["object", "null"] }), json!({ "anyOf": [{ "type": "object" }] })] {
        house.chat(asked(parameters)).await.json(200);
    }
}

#[tokio::test]
async fn forced_calls_leave_nothing_for_a_form_that_is_asked_for_expressly() {
    let house = House::new();
    let asked = |extra| with(json!({ "tools": tools(), "tool_choice": "required" }), extra);
    house.chat(asked(json!({ "response_format": { "type": "json_object" } }))).await.json(200);
    for (field, value) in [("guided_choice", json!(["a"])), ("structured_outputs", json!({ "choice": ["a"] }))] {
        let (param, _, message) = house.chat(asked(json!({ field: value }))).await.error(400);
        assert!(param.starts_with(field) && message.contains("tool_choice"), "{param}: {message}");
    }
}

#[tokio::test]
async fn a_streamed_call_begins_with_its_name_and_goes_on_with_its_arguments() {
    let house = House::new();
    let two = [vec![Say("so")], calls("weather", &["{\"city\":", "1}"]), calls("time", &["{}"]), says(&[])].concat();
    house.model.plays([two]);
    let choices = house.chat(json!({ "tools": tools(), "stream": true })).await.streamed();
    let mut deltas: Vec<Value> = choices.iter().map(|choice| choice["delta"].clone()).collect();
    let ids: Vec<Value> = deltas
        .iter_mut()
        .filter_map(|delta| delta.get_mut("tool_calls")?.get_mut(0)?.as_object_mut()?.remove("id"))
        .collect();
    assert!(ids.len() == 2 && ids[0] != ids[1] && ids.iter().all(|id| id.as_str().unwrap().starts_with("call_")));
    let begins = |index: usize, name: &str| json!({ "tool_calls": [{ "index": index, "type": "function", "function": { "name": name, "arguments": "" } }] });
    let goes_on =
        |index: usize, text: &str| json!({ "tool_calls": [{ "index": index, "function": { "arguments": text } }] });
    assert_eq!(
        deltas,
        [
            json!({ "role": "assistant", "content": "" }),
            json!({ "content": "so" }),
            begins(0, "weather"),
            goes_on(0, "{\"city\":"),
            goes_on(0, "1}"),
            begins(1, "time"),
            goes_on(1, "{}"),
            json!({}),
        ]
    );
    assert_eq!(choices.last().unwrap()["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn a_garbled_call_comes_as_text_and_its_end_says_so() {
    let house = House::new();
    let garbled = || [vec![Say("a "), garbles("<tool_call>{\"na")], says(&[])].concat();
    house.model.plays([garbled(), garbled()]);
    let choice = house.chat(json!({ "tools": tools() })).await.choice();
    assert_eq!(choice["message"]["content"], "a <tool_call>{\"na");
    assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!("stop"), &json!("malformed_tool_call")));
    let streamed = house.chat(json!({ "tools": tools(), "stream": true })).await.streamed();
    let text: String = streamed.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
    let last = streamed.last().unwrap();
    assert_eq!((text.as_str(), &last["finish_reason"]), ("a <tool_call>{\"na", &json!("stop")));
    assert_eq!(last["stop_reason"], "malformed_tool_call");
}

#[tokio::test]
async fn calls_and_results_reach_the_conversation() {
    let house = House::new();
    let call = |id: &str, arguments: &str| json!({ "id": id, "type": "function", "index": 0, "function": { "name": "time", "arguments": arguments } });
    let messages = json!([
        { "role": "user", "content": "when?" },
        { "role": "assistant", "content": null, "reasoning_content": "hm",
          "tool_calls": [call("c1", "{\"b\": 1, \"a\": 2}"), call("c2", ""), call("c3", "{oops")] },
        { "role": "tool", "tool_call_id": "c1", "content": [{ "type": "text", "text": "noon" }] },
    ]);
    house.chat(json!({ "messages": messages, "tools": tools() })).await.json(200);
    let conversation = house.model.conversation();
    let [_, assistant, tool] = &conversation.messages[..] else { panic!("{conversation:?}") };
    assert_eq!((assistant.content.as_str(), assistant.reasoning.as_deref()), ("", Some("hm")));
    let arguments: Vec<String> = assistant.calls.iter().map(|call| call.arguments.to_string()).collect();
    assert_eq!(arguments, ["{\"b\":1,\"a\":2}", "{}", "\"{oops\""]);
    assert_eq!((tool.role, tool.call_id.as_deref(), tool.content.as_str()), (Role::Tool, Some("c1"), "noon"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever an answer holds, it is taken as the next turn's message, with all that it said.
    #[test]
    fn an_answer_is_taken_back_as_it_came(parts in prop::collection::vec((0..4u8, "[a-z \"{}<>é]{0,8}"), 0..6), streamed: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let house = House::new();
            let mut steps = Vec::new();
            for (kind, text) in &parts {
                let text: &'static str = Box::leak(text.clone().into_boxed_str());
                steps.extend(match kind {
                    0 => vec![Say(text)],
                    1 => vec![thinks(text)],
                    2 => calls("weather", &[text, "}"]),
                    _ => vec![garbles(text)],
                });
            }
            house.model.plays([[steps, says(&[])].concat()]);
            let message = if streamed {
                joined(&house.chat(json!({ "stream": true })).await.streamed())
            } else {
                // What clients' types add to a message when they write it out again.
                let message = house.chat(json!({})).await.choice()["message"].clone();
                let blank = json!({ "annotations": [], "audio": null, "function_call": null, "tool_calls": null, "reasoning": null });
                with(blank, message)
            };
            let messages = json!([{ "role": "user", "content": "hi" }, message, { "role": "user", "content": "and?" }]);
            let reply = house.post("/v1/chat/completions", &json!({ "messages": messages })).await;
            assert!(reply.status == 200 || reply.error(400).1 == "context_length_exceeded", "{message}: {}", reply.text);
            let said = &house.model.conversation().messages[1];
            let of = |kinds: &[u8]| -> String {
                parts.iter().filter(|(kind, _)| kinds.contains(kind)).map(|(_, text)| text.as_str()).collect()
            };
            assert_eq!(said.content, of(&[0, 3]));
            assert_eq!(said.reasoning.clone().unwrap_or_default(), of(&[1]));
            assert_eq!(said.calls.len(), parts.iter().filter(|(kind, _)| *kind == 2).count());
        });
    }
}

/// The message that a client joins of a stream's chunks.
fn joined(choices: &[Value]) -> Value {
    let mut message = json!({ "role": "assistant", "content": "" });
    let append = |to: &mut Value, text: &Value| {
        *to = format!("{}{}", to.as_str().unwrap_or(""), text.as_str().unwrap_or("")).into();
    };
    for delta in choices.iter().map(|choice| &choice["delta"]) {
        for field in ["content", "reasoning_content"] {
            if delta[field].is_string() {
                append(&mut message[field], &delta[field]);
            }
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            if call["id"].is_string() {
                if message["tool_calls"].is_null() {
                    message["tool_calls"] = json!([]);
                }
                message["tool_calls"].as_array_mut().unwrap().push(call.clone());
            } else {
                let index = call["index"].as_u64().unwrap() as usize;
                append(&mut message["tool_calls"][index]["function"]["arguments"], &call["function"]["arguments"]);
            }
        }
    }
    message
}
