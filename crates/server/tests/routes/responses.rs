//! `POST /v1/responses`, and the responses that are kept.

use crate::house::{House, Reply, with};
use crate::script::{CONTEXT, End, Fail, Say, Script, breaks, calls, garbles, says, thinks};
use mlx_serving_engine::{EngineError, FinishReason};
use mlx_serving_runtime::{Message, Role, Structure, ToolChoice};
use mlx_serving_server::{Limits, Settings};
use serde_json::{Value, json};

const RESPONSES: &str = "/v1/responses";

async fn respond(house: &House, extra: Value) -> Reply {
    house.post(RESPONSES, &with(json!({ "input": "hi" }), extra)).await
}

/// The objects of a stream's events, numbered and each under the name that it has itself.
#[track_caller]
fn events(reply: &Reply) -> Vec<Value> {
    assert_eq!((reply.status, &reply.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    let events = reply.text.split("\n\n").filter(|event| !event.is_empty()).enumerate();
    let object = |(number, event): (usize, &str)| {
        let (name, data) = event.split_once('\n').unwrap();
        let object: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name, format!("event: {}", object["type"].as_str().unwrap()));
        assert_eq!(object["sequence_number"], number);
        object
    };
    events.map(object).collect()
}

/// Removes what differs between any two answers.
fn forget(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|name, _| {
                !matches!(
                    name.as_str(),
                    "id" | "item_id" | "call_id" | "created_at" | "completed_at" | "sequence_number"
                )
            });
            object.values_mut().for_each(forget);
        }
        Value::Array(list) => list.iter_mut().for_each(forget),
        _ => {}
    }
}

fn forgotten(mut value: Value) -> Value {
    forget(&mut value);
    value
}

/// An item of text.
fn said(text: &str, status: &str) -> Value {
    json!({ "type": "message", "role": "assistant", "status": status, "content": [part(text)] })
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn call(name: &str, arguments: &str, status: &str) -> Value {
    json!({ "type": "function_call", "status": status, "name": name, "arguments": arguments })
}

fn reasoned(text: &str, status: &str) -> Value {
    let content = [json!({ "type": "reasoning_text", "text": text })];
    json!({ "type": "reasoning", "status": status, "summary": [], "content": content })
}

/// Tokens of the prompt of [`respond`].
const PROMPT: usize = "user: hi\n".len();

#[tokio::test]
async fn a_whole_response_has_openais_shape() {
    let house = House::new();
    house.model.plays([[vec![thinks("hm"), Say("Hel"), Say("lo")], calls("f", &["{\"a\": 1}"]), says(&[])].concat()]);
    let tools = json!([{ "type": "function", "name": "f", "description": "d", "parameters": { "type": "object" }, "strict": true }]);
    let extra = json!({
        "model": "m", "instructions": "Be brief.", "tools": tools, "metadata": { "k": "v" }, "temperature": 0.7, "user": "u",
        "max_output_tokens": 9, "reasoning": { "effort": "low" }, "parallel_tool_calls": false,
    });
    let json = respond(&house, extra).await.json(200);
    let secret = json["id"].as_str().unwrap().strip_prefix("resp_").unwrap();
    for (item, id) in
        [("rs", "/output/0/id"), ("msg", "/output/1/id"), ("fc", "/output/2/id"), ("call", "/output/2/call_id")]
    {
        let number = id.split('/').nth(2).unwrap();
        assert_eq!(json.pointer(id).unwrap(), &json!(format!("{item}_{secret}_{number}")));
    }
    assert!(
        json["created_at"].as_u64().unwrap() > 1_700_000_000
            && json["completed_at"].as_u64() >= json["created_at"].as_u64()
    );
    let prompt = PROMPT + "system: Be brief.\n".len();
    assert_eq!(
        forgotten(json.clone()),
        json!({
            "object": "response", "status": "completed", "error": null, "incomplete_details": null, "model": "m",
            "output": [reasoned("hm", "completed"), said("Hello", "completed"), call("f", "{\"a\": 1}", "completed")],
            "usage": {
                "input_tokens": prompt, "input_tokens_details": { "cached_tokens": 1, "cache_write_tokens": 0 },
                "output_tokens": 5, "output_tokens_details": { "reasoning_tokens": 1 }, "total_tokens": prompt + 5,
            },
            "background": false, "instructions": "Be brief.", "max_output_tokens": 9, "max_tool_calls": null,
            "metadata": { "k": "v" }, "parallel_tool_calls": false, "previous_response_id": null,
            "prompt_cache_key": null, "reasoning": { "effort": "low", "summary": null }, "safety_identifier": null,
            "service_tier": "default", "store": true, "temperature": 0.7,
            "text": { "format": { "type": "text" }, "verbosity": "medium" }, "tool_choice": "auto",
            "tools": tools, "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "user": "u",
        })
    );
}

#[tokio::test]
async fn a_streams_events_tell_what_the_whole_response_says() {
    let house = House::new();
    let steps =
        [vec![thinks("h"), thinks("m"), Say("Hel"), Say("lo")], calls("f", &["{\"a\"", ": 1}"]), says(&[])].concat();
    house.model.plays([steps.clone(), steps]);
    let whole = respond(&house, json!({})).await.json(200);
    let events = events(&respond(&house, json!({ "stream": true })).await);
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let last = &events[21]["response"];
    assert_eq!(forgotten(last.clone()), forgotten(whole), "the same in the end");
    assert!(
        events[..2]
            .iter()
            .all(|event| event["response"]["status"] == "in_progress" && event["response"]["output"] == json!([]))
    );
    for (event, index) in events[2..21].iter().zip([0; 7].into_iter().chain([1; 7]).chain([2; 5])) {
        assert_eq!(event["output_index"], index, "{event}");
        let id = if event["item"].is_object() { &event["item"]["id"] } else { &event["item_id"] };
        assert_eq!(id, &last["output"][index]["id"], "{event}");
    }
    for done in [8, 15, 20] {
        assert_eq!(events[done]["item"], last["output"][events[done]["output_index"].as_u64().unwrap() as usize]);
    }
    let of = |index: usize| forgotten(events[index].clone());
    let added = |index: usize, item: Value| json!({ "type": "response.output_item.added", "output_index": index, "item": item });
    assert_eq!(of(2), added(0, json!({ "type": "reasoning", "status": "in_progress", "summary": [], "content": [] })));
    assert_eq!(
        of(9),
        added(1, json!({ "type": "message", "role": "assistant", "status": "in_progress", "content": [] }))
    );
    assert_eq!(of(16), added(2, call("f", "", "in_progress")));
    let about = |kind: &str, index: usize, fields: Value| {
        with(json!({ "type": kind, "output_index": index }), with(fields, json!({})))
    };
    let reasoning = |text: &str| json!({ "type": "reasoning_text", "text": text });
    for (index, expected) in [
        (3, about("response.content_part.added", 0, json!({ "content_index": 0, "part": reasoning("") }))),
        (4, about("response.reasoning_text.delta", 0, json!({ "content_index": 0, "delta": "h" }))),
        (6, about("response.reasoning_text.done", 0, json!({ "content_index": 0, "text": "hm" }))),
        (7, about("response.content_part.done", 0, json!({ "content_index": 0, "part": reasoning("hm") }))),
        (10, about("response.content_part.added", 1, json!({ "content_index": 0, "part": part("") }))),
        (11, about("response.output_text.delta", 1, json!({ "content_index": 0, "delta": "Hel", "logprobs": [] }))),
        (13, about("response.output_text.done", 1, json!({ "content_index": 0, "text": "Hello", "logprobs": [] }))),
        (14, about("response.content_part.done", 1, json!({ "content_index": 0, "part": part("Hello") }))),
        (17, about("response.function_call_arguments.delta", 2, json!({ "delta": "{\"a\"" }))),
        (19, about("response.function_call_arguments.done", 2, json!({ "name": "f", "arguments": "{\"a\": 1}" }))),
    ] {
        assert_eq!(of(index), expected);
    }
}

#[tokio::test]
async fn where_a_summary_is_asked_for_the_reasoning_stands_in_its_place() {
    let house = House::new();
    let extra = json!({ "reasoning": { "summary": "auto" }, "include": ["reasoning.encrypted_content"] });
    let steps = [vec![thinks("hm")], says(&["a"])].concat();
    house.model.plays([steps.clone(), steps]);
    let whole = respond(&house, extra.clone()).await.json(200);
    let item = json!({
        "type": "reasoning", "status": "completed", "summary": [{ "type": "summary_text", "text": "hm" }],
        "encrypted_content": "mlx-serving:hm",
    });
    assert_eq!(forgotten(whole["output"][0].clone()), item);
    assert_eq!(whole["reasoning"], json!({ "effort": null, "summary": "auto" }));
    let events = events(&respond(&house, with(extra, json!({ "stream": true }))).await);
    let told: Vec<(&str, &Value)> =
        events[3..7].iter().map(|event| (event["type"].as_str().unwrap(), &event["summary_index"])).collect();
    assert_eq!(
        told.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        [
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
        ]
    );
    assert!(told.iter().all(|(_, index)| **index == 0));
    assert_eq!(forgotten(events[7]["item"].clone()), item);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_incomplete() {
    let house = House::new();
    let cut = |steps: Vec<_>| [steps, vec![End(FinishReason::Length, "")]].concat();
    for (steps, output) in [
        (cut(vec![Say("a")]), json!([said("a", "incomplete")])),
        (cut(vec![thinks("a")]), json!([reasoned("a", "incomplete")])),
        (cut(vec![thinks("a"), Say("b")]), json!([reasoned("a", "completed"), said("b", "incomplete")])),
        (
            cut([vec![Say("a")], calls("f", &["{}"])].concat()),
            json!([said("a", "completed"), call("f", "{}", "completed")]),
        ),
        (cut(vec![]), json!([said("", "incomplete")])),
    ] {
        house.model.plays([steps.clone(), steps]);
        let whole = respond(&house, json!({})).await.json(200);
        assert_eq!((&whole["status"], &whole["completed_at"]), (&json!("incomplete"), &Value::Null));
        assert_eq!(whole["incomplete_details"], json!({ "reason": "max_output_tokens" }));
        assert_eq!(forgotten(whole["output"].clone()), output);
        let mut events = events(&respond(&house, json!({ "stream": true })).await);
        let last = events.pop().unwrap();
        assert_eq!(last["type"], "response.incomplete");
        assert_eq!(forgotten(last["response"].clone()), forgotten(whole));
    }
}

#[tokio::test]
async fn a_call_that_cannot_be_read_is_text_and_nothing_is_an_empty_text() {
    let house = House::new();
    let garbled = [breaks("f", "{\"a\"", "<call>f(a"), vec![garbles("oops")], says(&[])].concat();
    house.model.plays([garbled.clone(), garbled, says(&[]), says(&[])]);
    let whole = respond(&house, json!({})).await.json(200);
    assert_eq!(whole["status"], "completed");
    assert_eq!(forgotten(whole["output"].clone()), json!([said("<call>f(aoops", "completed")]));
    let stream = events(&respond(&house, json!({ "stream": true })).await);
    let output = &stream.last().unwrap()["response"]["output"];
    assert_eq!(forgotten(output.clone()), json!([call("f", "{\"a\"", "incomplete"), said("oops", "completed")]));
    let empty = json!([said("", "completed")]);
    assert_eq!(forgotten(respond(&house, json!({})).await.json(200)["output"].clone()), empty);
    let stream = events(&respond(&house, json!({ "stream": true })).await);
    assert_eq!(forgotten(stream.last().unwrap()["response"]["output"].clone()), empty);
}

#[tokio::test]
async fn a_call_that_is_cut_off_is_text_and_in_a_stream_an_item_that_is_not_whole() {
    let house = House::new();
    let cut = [breaks("f", "{\"a\"", "<call>f(a"), vec![End(FinishReason::Length, "")]].concat();
    house.model.plays([cut.clone(), cut]);
    let whole = respond(&house, json!({})).await.json(200);
    assert_eq!(whole["status"], "incomplete");
    assert_eq!(forgotten(whole["output"].clone()), json!([said("<call>f(a", "incomplete")]));
    let stream = events(&respond(&house, json!({ "stream": true })).await);
    let output = &stream.last().unwrap()["response"]["output"];
    assert_eq!(forgotten(output.clone()), json!([call("f", "{\"a\"", "incomplete")]));
}

#[tokio::test]
async fn a_stream_that_fails_ends_with_a_response_that_says_so() {
    let house = House::new();
    house.model.plays([vec![thinks("a"), Say("b"), Fail(EngineError::Device("a fault".into()))]]);
    let events = events(&respond(&house, json!({ "stream": true })).await);
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.failed"), &json!("failed")));
    let error = json!({ "code": "server_error", "message": "computing the answer failed: a fault" });
    assert_eq!(last["response"]["error"], error);
    assert_eq!(forgotten(last["response"]["output"].clone()), json!([reasoned("a", "completed")]));
    let id = last["response"]["id"].as_str().unwrap();
    assert_eq!(house.get(&format!("/v1/responses/{id}")).await.error(404).1, "response_not_found", "it is not kept");
}

#[tokio::test]
async fn an_agents_probe_is_answered() {
    let house = House::new();
    for (input, messages) in [
        (json!({ "input": "" }), vec![Message::new(Role::User, "")]),
        (json!({ "input": [] }), vec![Message::new(Role::User, "")]),
        (
            json!({ "input": null, "instructions": "x" }),
            vec![Message::new(Role::System, "x"), Message::new(Role::User, "")],
        ),
    ] {
        let extra = json!({
            "max_output_tokens": 1, "store": false, "include": ["reasoning.encrypted_content"], "tool_choice": "auto",
            "parallel_tool_calls": false, "prompt_cache_key": "k", "client_metadata": { "a": "b" }, "reasoning": null,
            "text": { "verbosity": "medium" }, "stream": false, "service_tier": "auto",
            "tools": [{ "type": "namespace", "name": "n", "description": "d", "tools": [] }, { "type": "web_search" },
                      { "type": "image_generation" }, { "type": "custom", "name": "c", "format": { "type": "text" } }],
        });
        let reply = respond(&house, with(extra, input)).await;
        assert_eq!((&reply.json(200)["tools"], &reply.json(200)["store"]), (&json!([]), &json!(false)));
        assert_eq!(reply.headers["x-ignored-tools"], "namespace, web_search, image_generation, custom");
        assert_eq!(house.model.conversation().messages, messages);
    }
}

#[tokio::test]
async fn tools_choices_and_forms_are_passed_on() {
    let house = House::new();
    let function =
        |name: &str| json!({ "type": "function", "name": name, "parameters": { "type": "object" }, "strict": null });
    let tools = json!([function("f"), function("g")]);
    let allowed =
        |mode: &str| json!({ "type": "allowed_tools", "mode": mode, "tools": [{ "type": "function", "name": "g" }] });
    let named = json!({ "type": "function", "name": "g" });
    for (choice, expected, count, repeated) in [
        (json!("auto"), ToolChoice::Auto, 2, json!("auto")),
        (json!("none"), ToolChoice::None, 2, json!("none")),
        (json!("required"), ToolChoice::Required, 2, json!("required")),
        (named.clone(), ToolChoice::Named("g".into()), 2, named),
        (allowed("auto"), ToolChoice::Auto, 1, allowed("auto")),
        (allowed("required"), ToolChoice::Required, 1, allowed("required")),
    ] {
        let json = respond(&house, json!({ "tools": tools, "tool_choice": choice })).await.json(200);
        let conversation = house.model.conversation();
        assert_eq!((conversation.tool_choice, conversation.tools.len()), (expected, count), "{choice}");
        assert_eq!((&json["tool_choice"], json["tools"].as_array().unwrap().len()), (&repeated, count));
    }
    let schema = json!({ "type": "object" });
    let named = json!({ "type": "json_schema", "name": "n", "schema": schema, "strict": true, "description": null });
    for (format, structure) in [
        (json!({ "type": "text" }), None),
        (json!({ "type": "json_object" }), Some(Structure::Object)),
        (named, Some(Structure::Schema(schema))),
    ] {
        let json = respond(&house, json!({ "text": { "format": format } })).await.json(200);
        assert_eq!(house.model.inputs().pop().unwrap().1, structure);
        assert_eq!(json["text"]["format"], format);
    }
}

#[tokio::test]
async fn a_conversation_goes_on_where_a_kept_response_ended() {
    let house = House::new();
    let first = [vec![thinks("hm"), Say("a")], calls("f", &["{\"b\": 1, \"a\": 2}"]), says(&[])].concat();
    house.model.plays([first]);
    let first = respond(&house, json!({ "instructions": "Be brief." })).await.json(200);
    let output = first["output"].clone();
    let result = json!({ "type": "function_call_output", "call_id": output[2]["call_id"], "output": "7" });
    let second = json!({ "previous_response_id": first["id"], "input": [result], "instructions": "Go on." });
    let second = respond(&house, second).await.json(200);
    assert_eq!(second["previous_response_id"], first["id"]);
    let kept = house.model.conversation();
    let whole = |items: Value| {
        let items =
            [vec![json!({ "role": "user", "content": "hi" })], items.as_array().unwrap().clone(), vec![result.clone()]];
        json!({ "input": items.concat(), "instructions": "Go on.", "store": false })
    };
    respond(&house, whole(output.clone())).await.json(200);
    assert_eq!(house.model.conversation(), kept, "whoever keeps it");
    let references: Vec<Value> =
        output.as_array().unwrap().iter().map(|item| json!({ "type": "item_reference", "id": item["id"] })).collect();
    respond(&house, whole(references.into())).await.json(200);
    assert_eq!(house.model.conversation(), kept, "by reference");
    let third = respond(&house, json!({ "previous_response_id": second["id"], "input": "bye" })).await;
    third.json(200);
    let messages = house.model.conversation().messages;
    assert_eq!((messages.len(), messages[3].content.as_str(), messages[4].content.as_str()), (5, "ok", "bye"));
    assert!(messages.iter().all(|message| message.role != Role::System), "instructions are each request's own");
}

#[tokio::test]
async fn kept_responses_are_told_and_forgotten() {
    let house = House::new();
    let first = respond(&house, json!({})).await.json(200);
    house.model.plays([says(&["streamed"])]);
    let stream = events(&respond(&house, json!({ "stream": true })).await);
    let last = stream.last().unwrap()["response"].clone();
    for response in [&first, &last] {
        let path = format!("/v1/responses/{}", response["id"].as_str().unwrap());
        let reply = house.get(&path).await;
        assert_eq!(
            (&reply.json(200), &reply.headers["content-type"]),
            (response, &"application/json".parse().unwrap())
        );
        assert_eq!(house.get(&format!("{path}?stream=true")).await.error(400).0, "stream");
        let deleted = house.call("DELETE", &path, &[], "").await.json(200);
        assert_eq!(deleted, json!({ "id": response["id"], "object": "response", "deleted": true }));
        assert_eq!(house.call("DELETE", &path, &[], "").await.error(404).1, "response_not_found");
        assert_eq!(house.get(&path).await.error(404).1, "response_not_found");
        let (param, code, _) = respond(&house, json!({ "previous_response_id": response["id"] })).await.error(400);
        assert_eq!((param.as_str(), code.as_str()), ("previous_response_id", "previous_response_not_found"));
    }
    let unkept = respond(&house, json!({ "store": false })).await.json(200);
    assert_eq!(house.get(&format!("/v1/responses/{}", unkept["id"].as_str().unwrap())).await.status, 404);
    assert_eq!(house.get("/v1/responses/%ff").await.error(404).1, "response_not_found");
}

#[tokio::test]
async fn a_server_that_keeps_nothing_says_so() {
    let limits = Limits { stored_responses: 0, ..Limits::default() };
    let house = House::set(Settings { limits, ..Settings::default() }, Script::new("m"));
    let response = respond(&house, json!({})).await.json(200);
    assert_eq!(response["store"], false);
    let (param, _, message) = respond(&house, json!({ "store": true })).await.error(400);
    assert!(param == "store" && message.contains("server.limits.stored_responses is 0"), "{message}");
    let (param, code, message) = respond(&house, json!({ "previous_response_id": response["id"] })).await.error(400);
    assert_eq!((param.as_str(), code.as_str()), ("previous_response_id", "previous_response_not_found"));
    assert!(message.contains("this server keeps none"), "{message}");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let house = House::new();
    for (extra, param, message) in [
        (json!({ "background": true }), "background", "background is not supported by this server; leave it out"),
        (
            json!({ "conversation": "c" }),
            "conversation",
            "conversation is not supported by this server; send `previous_response_id`, or the whole conversation",
        ),
        (json!({ "max_output_tokens": 0 }), "max_output_tokens", "max_output_tokens is 0; it must be at least 1"),
        (
            json!({ "truncation": "auto" }),
            "truncation",
            "truncation is \"auto\", but this server leaves nothing out of a conversation; leave it out",
        ),
        (
            json!({ "input": [{ "role": "user", "content": [{ "type": "input_image", "image_url": "x" }] }] }),
            "input[0].content[0].type",
            "input[0].content[0].type is \"input_image\": this server takes text only, no images, files or sound",
        ),
        (
            json!({ "input": [{ "type": "item_reference", "id": "msg_1_0" }] }),
            "input[0].id",
            "input[0].id is \"msg_1_0\", an item of no response that is kept here",
        ),
        (json!({ "tools": [{ "type": "function" }] }), "tools", "tools[0] has no name"),
        (
            json!({ "tool_choice": { "type": "function", "name": "f" } }),
            "tool_choice",
            "tool_choice asks for calls, but the request has no tools",
        ),
        (
            json!({ "tool_choice": "any" }),
            "tool_choice",
            "tool_choice is \"any\", which is none of auto, none, required and an object",
        ),
        (
            json!({ "text": { "format": { "type": "json_schema", "name": "n" } } }),
            "text.format.schema",
            "text.format has the type json_schema but no schema",
        ),
        (
            json!({ "include": ["message.output_text.logprobs"] }),
            "include",
            "include has \"message.output_text.logprobs\", which this server tells in chat and text completions only",
        ),
        (
            json!({ "include": ["file_search_call.results", "zz"] }),
            "include",
            "include has \"zz\", which this API does not have; leave it out, or send reasoning.encrypted_content",
        ),
        (json!({ "metadata": { "a": 1 } }), "metadata", "metadata has a value for \"a\" that is not a string"),
        (
            json!({ "reasoning": { "effort": "huge" } }),
            "reasoning.effort",
            "reasoning.effort is \"huge\", which is none of none, minimal, low, medium, high, xhigh, max",
        ),
    ] {
        let (found, _, text) = respond(&house, extra).await.error(400);
        assert_eq!((found.as_str(), text.as_str()), (param, message));
    }
    assert!(house.model.asked().is_empty());
    let (param, code, _) = respond(&house, json!({ "input": "x".repeat(200) })).await.error(400);
    assert_eq!((param.as_str(), code.as_str()), ("input", "context_length_exceeded"));
    house.model.compiles_nothing("x is not supported");
    let format = json!({ "text": { "format": { "type": "json_schema", "name": "n", "schema": {} } } });
    assert_eq!(respond(&house, format).await.error(400).0, "text.format");
    const { assert!(CONTEXT < 200) };
}
