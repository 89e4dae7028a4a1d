//! `POST /v1/messages` and `POST /v1/messages/count_tokens`

use crate::house::{House, Reply, with};
use crate::script::{CONTEXT, End, Fail, Gate, Say, Script, Stop, Wait, breaks, calls, garbles, says, thinks};
use http_body_util::BodyExt;
use mlx_serving_engine::{EngineError, FinishReason};
use mlx_serving_runtime::{Message, Role, Structure, Tool, ToolCall, ToolChoice};
use mlx_serving_server::{Limits, Settings};
use serde_json::{Value, json};

const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

/// A message that answers one question, and what else the body has.
fn body(extra: Value) -> Value {
    with(json!({ "max_tokens": 50, "messages": [{ "role": "user", "content": "hi" }] }), extra)
}

async fn message(house: &House, extra: Value) -> Reply {
    house.post(MESSAGES, &body(extra)).await
}

/// The objects of a stream's events, each under the name that it has itself.
#[track_caller]
fn events(reply: &Reply) -> Vec<Value> {
    assert_eq!((reply.status, &reply.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
    let events = reply.text.split("\n\n").filter(|event| !event.is_empty());
    let object = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let object: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name, format!("event: {}", object["type"].as_str().unwrap()));
        object
    };
    events.map(object).collect()
}

/// An error's type and message, after a look at its shape.
#[track_caller]
fn error(reply: &Reply, status: u16) -> (String, String) {
    let json = reply.json(status);
    assert_eq!((&json["type"], json.as_object().unwrap().len()), (&json!("error"), 2), "{json}");
    let field = |name: &str| json["error"][name].as_str().unwrap().to_owned();
    (field("type"), field("message"))
}

fn usage(input: usize, cached: usize, output: usize, thinking: usize) -> Value {
    json!({
        "input_tokens": input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached,
        "output_tokens": output, "output_tokens_details": { "thinking_tokens": thinking },
    })
}

/// Tokens of the prompt of [`body`].
const PROMPT: usize = "user: hi\n".len();

#[tokio::test]
async fn a_whole_message_has_anthropics_shape() {
    let house = House::new();
    house.model.plays([[vec![thinks("hm"), Say("Hel"), Say("lo")], says(&[])].concat()]);
    let mut json = message(&house, json!({ "model": "m" })).await.json(200);
    let id = json["id"].take();
    assert!(id.as_str().unwrap().starts_with("msg_"), "{id}");
    assert_eq!(
        json,
        json!({
            "id": null, "type": "message", "role": "assistant", "model": "m",
            "content": [
                { "type": "thinking", "thinking": "hm", "signature": "mlx-serving" },
                { "type": "text", "text": "Hello" },
            ],
            "stop_reason": "end_turn", "stop_sequence": null,
            "usage": with(usage(PROMPT - 1, 1, 3, 1), json!({ "service_tier": "standard" })),
        })
    );
}

#[tokio::test]
async fn a_stream_has_a_block_for_each_kind_of_text() {
    let house = House::new();
    let steps =
        [vec![thinks("h"), thinks("m"), Say("Hel"), Say("lo")], calls("f", &["{\"a\"", ": 1}"]), calls("g", &[])];
    house.model.plays([[steps.concat(), vec![End(FinishReason::Stop, "")]].concat()]);
    let mut events = events(&message(&house, json!({ "stream": true })).await);
    for id in ["/0/message/id", "/10/content_block/id", "/14/content_block/id"] {
        let (index, path) = id[1..].split_once('/').unwrap();
        let id = events[index.parse::<usize>().unwrap()].pointer_mut(&format!("/{path}")).unwrap();
        assert!(["msg_", "toolu_"].iter().any(|beginning| id.as_str().unwrap().starts_with(beginning)), "{id}");
        *id = Value::Null;
    }
    let start =
        |index: usize, block: Value| json!({ "type": "content_block_start", "index": index, "content_block": block });
    let delta = |index: usize, delta: Value| json!({ "type": "content_block_delta", "index": index, "delta": delta });
    let stop = |index: usize| json!({ "type": "content_block_stop", "index": index });
    let thinking = |text: &str| json!({ "type": "thinking_delta", "thinking": text });
    let text = |text: &str| json!({ "type": "text_delta", "text": text });
    let part = |text: &str| json!({ "type": "input_json_delta", "partial_json": text });
    let call = |name: &str| json!({ "type": "tool_use", "id": null, "name": name, "input": {} });
    let expected = json!([
        { "type": "message_start", "message": {
            "id": null, "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": null,
            "stop_sequence": null, "usage": with(usage(PROMPT, 0, 0, 0), json!({ "service_tier": "standard" })),
        } },
        start(0, json!({ "type": "thinking", "thinking": "", "signature": "" })),
        delta(0, thinking("h")),
        delta(0, thinking("m")),
        delta(0, json!({ "type": "signature_delta", "signature": "mlx-serving" })),
        stop(0),
        start(1, json!({ "type": "text", "text": "" })),
        delta(1, text("Hel")),
        delta(1, text("lo")),
    ]);
    let expected = [
        expected.as_array().unwrap().clone(),
        vec![stop(1), start(2, call("f")), delta(2, part("{\"a\"")), delta(2, part(": 1}")), stop(2)],
        vec![
            start(3, call("g")),
            stop(3),
            json!({
                "type": "message_delta", "delta": { "stop_reason": "tool_use", "stop_sequence": null },
                "usage": usage(PROMPT - 1, 1, 8, 2),
            }),
            json!({ "type": "message_stop" }),
        ],
    ]
    .concat();
    assert_eq!(events.len(), expected.len());
    for (found, expected) in events.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn the_reason_for_the_end_is_told() {
    let house = House::new();
    let cut = |reason| vec![Say("a"), End(reason, "")];
    let garbled = [vec![Say("a")], calls("f", &["{"]), vec![garbles("}}")], says(&[])].concat();
    let called = [calls("f", &["{}"]), says(&[])].concat();
    let stopped = [calls("f", &["{}"]), vec![Stop("b")]].concat();
    for (steps, extra, reason, stop) in [
        (cut(FinishReason::Stop), json!({}), "end_turn", Value::Null),
        (cut(FinishReason::Length), json!({ "max_tokens": 1 }), "max_tokens", Value::Null),
        (cut(FinishReason::Length), json!({ "max_tokens": 9000 }), "model_context_window_exceeded", Value::Null),
        (vec![Say("a"), Stop("b")], json!({ "stop_sequences": ["b", "c"] }), "stop_sequence", json!("b")),
        (called, json!({}), "tool_use", Value::Null),
        (stopped, json!({ "stop_sequences": ["b"] }), "tool_use", Value::Null),
        (garbled, json!({}), "end_turn", Value::Null),
    ] {
        house.model.plays([steps.clone(), steps]);
        let whole = message(&house, extra.clone()).await.json(200);
        assert_eq!((&whole["stop_reason"], &whole["stop_sequence"]), (&json!(reason), &stop), "{whole}");
        let events = events(&message(&house, with(extra, json!({ "stream": true }))).await);
        let delta = &events[events.len() - 2]["delta"];
        assert_eq!((&delta["stop_reason"], &delta["stop_sequence"]), (&json!(reason), &stop), "{delta}");
    }
    assert_eq!(house.model.asked()[0].max_tokens, Some(50));
    assert_eq!(house.model.asked()[4].max_tokens, Some(CONTEXT - PROMPT), "the context bounds an answer too");
    assert_eq!(house.model.asked()[6].stop, ["b", "c"]);
}

#[tokio::test]
async fn calls_are_blocks_and_what_is_no_call_stays_text() {
    let house = House::new();
    let content = async |steps| {
        house.model.plays([steps]);
        let mut content = message(&house, json!({})).await.json(200)["content"].clone();
        for block in content.as_array_mut().unwrap() {
            block.as_object_mut().unwrap().shift_remove("id");
        }
        content
    };
    let call = |input: Value| json!({ "type": "tool_use", "name": "f", "input": input });
    let text = |text: &str| json!({ "type": "text", "text": text });
    let both = [vec![Say("a")], calls("f", &["{\"b\": 1, ", "\"a\": [2]}"]), calls("f", &[]), says(&[])].concat();
    assert_eq!(content(both).await, json!([text("a"), call(json!({ "b": 1, "a": [2] })), call(json!({}))]));
    let broken = breaks("f", "{\"a\": ", "<call>f(a=");
    let cut = [calls("g", &["{}"]), broken.clone(), vec![End(FinishReason::Length, "")]].concat();
    assert_eq!(content(cut).await, json!([text("<call>f(a="), { "type": "tool_use", "name": "g", "input": {} }]));
    let garbled_on = [vec![Say("a")], broken, vec![garbles("\\)")], says(&[])].concat();
    assert_eq!(content(garbled_on).await, json!([text("a<call>f(a=\\)")]), "in the order in which it was written");
    let garbled = [vec![Say("a")], vec![garbles("<call>f(")], says(&[])].concat();
    assert_eq!(content(garbled).await, json!([text("a<call>f(")]));
    assert_eq!(content(says(&[])).await, json!([]));
}

#[tokio::test]
async fn a_streamed_call_that_is_cut_off_ends_with_its_block() {
    let house = House::new();
    house.model.plays([[breaks("f", "{\"a\": ", "<call>f(a="), vec![End(FinishReason::Length, "")]].concat()]);
    let events = events(&message(&house, json!({ "stream": true })).await);
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let block = ["content_block_start", "content_block_delta", "content_block_stop"];
    assert_eq!(kinds, [&["message_start"], &block[..], &["message_delta", "message_stop"]].concat());
    assert_eq!(events[2]["delta"], json!({ "type": "input_json_delta", "partial_json": "{\"a\": " }));
}

#[tokio::test]
async fn reasoning_is_left_out_where_the_client_wants_none_of_it() {
    let house = House::new();
    let extra = json!({ "thinking": { "type": "adaptive", "display": "omitted" } });
    house.model.plays([[vec![thinks("hm")], says(&["a"])].concat(), [vec![thinks("hm")], says(&["a"])].concat()]);
    let whole = message(&house, extra.clone()).await.json(200);
    assert_eq!(whole["content"][0], json!({ "type": "thinking", "thinking": "", "signature": "mlx-serving" }));
    let reply = message(&house, with(extra, json!({ "stream": true }))).await;
    let kinds: Vec<Value> = events(&reply)[1..5].iter().map(|event| event["type"].clone()).collect();
    assert_eq!(kinds, ["content_block_start", "content_block_delta", "content_block_stop", "content_block_start"]);
    assert!(!reply.text.contains("hm"), "{}", reply.text);
}

#[tokio::test]
async fn a_conversation_becomes_messages_as_templates_know_them() {
    let house = House::new();
    let cached = json!({ "type": "ephemeral", "ttl": "1h" });
    let extra = json!({
        "system": [{ "type": "text", "text": "Be ", "cache_control": cached }, { "type": "text", "text": "brief." }],
        "messages": [
            { "role": "user", "content": [{ "type": "text", "text": "a", "citations": null }, { "type": "text", "text": "b" }] },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "hm", "signature": "xyz" },
                { "type": "redacted_thinking", "data": "xyz" },
                { "type": "text", "text": "c" },
                { "type": "tool_use", "id": "t1", "name": "f", "input": { "b": 1, "a": 2 }, "cache_control": cached },
                { "type": "tool_use", "id": "t2", "name": "g", "input": {}, "caller": { "type": "direct" } },
            ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "t1", "content": "7", "cache_control": cached },
                { "type": "tool_result", "tool_use_id": "t2", "is_error": true, "content": [
                    { "type": "text", "text": "no " }, { "type": "text", "text": "g" },
                ] },
                { "type": "text", "text": "go on" },
            ] },
            { "role": "system", "content": "Hurry." },
            { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t3" }] },
        ],
        "tools": [{ "name": "f", "input_schema": { "type": "object" } }],
    });
    message(&house, extra).await.json(200);
    let call = |id: &str, name: &str, arguments: Value| ToolCall { id: id.into(), name: name.into(), arguments };
    let result = |id: &str, text: &str| Message { call_id: Some(id.into()), ..Message::new(Role::Tool, text) };
    assert_eq!(
        house.model.conversation().messages,
        [
            Message::new(Role::System, "Be brief."),
            Message::new(Role::User, "ab"),
            Message {
                reasoning: Some("hm".into()),
                calls: vec![call("t1", "f", json!({ "b": 1, "a": 2 })), call("t2", "g", json!({}))],
                ..Message::new(Role::Assistant, "c")
            },
            result("t1", "7"),
            result("t2", "Error: no g"),
            Message::new(Role::User, "go on"),
            Message::new(Role::System, "Hurry."),
            result("t3", ""),
        ]
    );
}

#[tokio::test]
async fn an_answer_goes_on_where_the_last_message_began_it() {
    let house = House::new();
    let asked = json!({ "role": "user", "content": "hi" });
    for (last, prefilled) in [
        (json!({ "role": "assistant", "content": "Once" }), true),
        (
            json!({ "role": "assistant", "content": [{ "type": "tool_use", "id": "t", "name": "f", "input": {} }] }),
            false,
        ),
        (json!({ "role": "user", "content": "hi" }), false),
    ] {
        message(&house, json!({ "messages": [asked, last] })).await.json(200);
        let conversation = house.model.conversation();
        assert_eq!((conversation.continue_final_message, conversation.add_generation_prompt), (prefilled, !prefilled));
        assert_eq!(house.model.asked().last().unwrap().begins_text, !prefilled);
    }
}

#[tokio::test]
async fn tools_and_choices_are_passed_on() {
    let house = House::new();
    let schema = json!({ "type": "object", "properties": { "b": {}, "a": {} } });
    let tools = json!([
        { "name": "f", "description": "does f", "input_schema": schema, "strict": true, "cache_control": null,
          "eager_input_streaming": true, "defer_loading": true, "allowed_callers": ["direct"] },
        { "type": "custom", "name": "g", "input_schema": { "type": "object" } },
    ]);
    for (choice, expected, parallel) in [
        (json!(null), ToolChoice::Auto, true),
        (json!({ "type": "auto", "disable_parallel_tool_use": true }), ToolChoice::Auto, false),
        (json!({ "type": "any", "disable_parallel_tool_use": false }), ToolChoice::Required, true),
        (json!({ "type": "tool", "name": "g" }), ToolChoice::Named("g".into()), true),
        (json!({ "type": "none" }), ToolChoice::None, true),
    ] {
        message(&house, json!({ "tools": tools, "tool_choice": choice })).await.json(200);
        let conversation = house.model.conversation();
        assert_eq!((&conversation.tool_choice, conversation.parallel_calls), (&expected, parallel), "{choice}");
        let Tool { name, definition, parameters, strict, .. } = &conversation.tools[0];
        assert_eq!((name.as_str(), parameters, *strict, conversation.tools.len()), ("f", &schema, true, 2));
        let function = json!({ "name": "f", "description": "does f", "parameters": schema });
        assert_eq!(definition.to_string(), json!({ "type": "function", "function": function }).to_string());
    }
}

#[tokio::test]
async fn tools_that_nobody_here_can_run_are_named_in_the_answers_head() {
    let house = House::new();
    let tools = json!([
        { "type": "web_search_20250305", "name": "web_search", "max_uses": 5, "allowed_domains": ["a.test"] },
        { "name": "f", "input_schema": { "type": "object" } },
        { "type": "bash_20250124", "name": "bash" },
    ]);
    for stream in [false, true] {
        let reply = message(&house, json!({ "tools": tools, "stream": stream })).await;
        assert_eq!(
            (reply.status, &reply.headers["x-ignored-tools"]),
            (200, &"web_search_20250305, bash_20250124".parse().unwrap())
        );
        assert_eq!(house.model.conversation().tools.len(), 1);
    }
    let wanted = json!({ "tools": tools, "tool_choice": { "type": "tool", "name": "web_search" } });
    let (_, text) = error(&message(&house, wanted).await, 400);
    assert_eq!(text, "tool_choice.name names \"web_search\", which is none of the request's tools");
}

#[tokio::test]
async fn reasoning_is_asked_of_the_template_and_bounded_by_the_engine() {
    let house = House::new();
    for (extra, variables, budget) in [
        (json!({}), None, None),
        (json!({ "thinking": { "type": "disabled" } }), Some(json!({ "enable_thinking": false })), None),
        (
            json!({ "thinking": { "type": "enabled", "budget_tokens": 1024 } }),
            Some(json!({ "enable_thinking": true })),
            Some(1024),
        ),
        (
            json!({ "thinking": { "type": "adaptive" }, "output_config": { "effort": "low" } }),
            Some(json!({ "reasoning_effort": "low", "enable_thinking": true })),
            None,
        ),
    ] {
        message(&house, extra).await.json(200);
        assert_eq!(house.model.conversation().variables.map(Value::Object), variables);
        assert_eq!(house.model.asked().last().unwrap().reasoning_budget, budget);
    }
}

#[tokio::test]
async fn an_answer_is_held_to_a_schema_under_either_name() {
    let house = House::new();
    let schema = json!({ "type": "object", "properties": { "a": { "type": "integer" } } });
    let format = json!({ "type": "json_schema", "schema": schema });
    for extra in [json!({ "output_config": { "format": format } }), json!({ "output_format": format })] {
        message(&house, extra).await.json(200);
        assert_eq!(house.model.inputs().pop().unwrap().1, Some(Structure::Schema(schema.clone())));
    }
    let (kind, text) =
        error(&message(&house, json!({ "output_format": format, "output_config": { "format": format } })).await, 400);
    assert_eq!(
        (kind.as_str(), text.as_str()),
        ("invalid_request_error", "output_format and output_config.format are both given; send the latter alone")
    );
    house.model.compiles_nothing("/properties/a/x is not supported");
    let (_, text) = error(&message(&house, json!({ "output_config": { "format": format } })).await, 400);
    assert_eq!(text, "output_config.format cannot be enforced: /properties/a/x is not supported");
}

#[tokio::test]
async fn sampling_parameters_are_passed_on_and_what_is_left_out_is_the_models_own() {
    let house = House::new();
    message(&house, json!({ "temperature": 0.25, "top_p": 0.5, "top_k": 7, "seed": 9 })).await.json(200);
    message(&house, json!({})).await.json(200);
    let asked: Vec<_> = house.model.asked().into_iter().map(|request| request.sampling).collect();
    assert_eq!((asked[0].temperature, asked[0].top_p, asked[0].top_k, asked[0].seed), (0.25, 0.5, 7, Some(9)));
    assert_eq!((asked[1].temperature, asked[1].top_k), (0.5, 0));
}

#[tokio::test]
async fn what_agents_send_beside_changes_nothing() {
    let house = House::new();
    let extra = json!({
        "metadata": { "user_id": "u" }, "service_tier": "auto", "cache_control": { "type": "ephemeral" }, "tools": [],
        "context_management": { "edits": [{ "type": "clear_thinking_20251015", "keep": "all" }] }, "container": null,
        "mcp_servers": [], "stop_sequences": [], "output_config": {}, "diagnostics": null, "speed": null,
    });
    let headers = [
        ("x-api-key", "sk-ant-x"),
        ("authorization", "Bearer x"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "interleaved-thinking-2025-05-14,context-management-2025-06-27"),
    ];
    let reply = house.call("POST", "/v1/messages?beta=true", &headers, body(extra).to_string()).await;
    assert_eq!(reply.json(200)["context_management"], json!({ "applied_edits": [] }));
    message(&house, json!({})).await.json(200);
    let asked = house.model.asked();
    assert_eq!(format!("{:?}", asked[0]), format!("{:?}", asked[1]));
}

#[tokio::test]
async fn the_line_that_changes_in_every_request_is_no_part_of_the_prompt() {
    let system = |count: u32| {
        let line = format!("x-anthropic-billing-header: cc_version=2.1; cch={count};");
        json!({ "system": [{ "type": "text", "text": line }, { "type": "text", "text": "Be brief." }] })
    };
    let house = House::new();
    for count in 0..2 {
        message(&house, system(count)).await.json(200);
        assert_eq!(house.model.conversation().messages[0], Message::new(Role::System, "Be brief."));
    }
    let house = House::set(Settings { strip_billing_header: false, ..Settings::default() }, Script::new("m"));
    message(&house, system(7)).await.json(200);
    assert!(
        house.model.conversation().messages[0]
            .content
            .starts_with("x-anthropic-billing-header: cc_version=2.1; cch=7;")
    );
}

#[tokio::test]
async fn tokens_are_counted_beside_a_queue_that_is_full() {
    let house = House::new();
    let count = async |extra: Value| {
        let body = with(json!({ "messages": [{ "role": "user", "content": "hi" }] }), extra);
        house.post(COUNT, &body).await
    };
    assert_eq!(count(json!({})).await.json(200), json!({ "input_tokens": PROMPT }));
    let system = json!({ "system": "x-anthropic-billing-header: a\nBe.", "thinking": { "type": "disabled" } });
    assert_eq!(count(system).await.json(200)["input_tokens"], PROMPT + "system: Be.\n".len());
    house.model.fills(8);
    assert_eq!(error(&message(&house, json!({})).await, 429).0, "rate_limit_error");
    let tools = json!({
        "tools": [{ "name": "f", "input_schema": { "type": "object" }, "strict": true }], "tool_choice": { "type": "any" },
    });
    assert_eq!(count(tools).await.json(200)["input_tokens"], PROMPT);
    let conversation = house.model.conversation();
    assert_eq!(
        (conversation.tool_choice, conversation.tools[0].strict),
        (ToolChoice::Auto, false),
        "nothing is compiled"
    );
    assert!(house.model.asked().is_empty());
    house.state.drain();
    assert_eq!(error(&count(json!({})).await, 529).0, "overloaded_error");
}

#[tokio::test]
async fn every_refusal_has_anthropics_shape() {
    let house = House::new();
    for (extra, text) in [
        (json!({ "max_tokens": null }), "max_tokens is missing"),
        (json!({ "max_tokens": 0 }), "max_tokens is 0; it must be at least 1"),
        (json!({ "messages": [] }), "messages is empty; send at least one"),
        (json!({ "color": "red" }), "color is not supported by this server; leave it out"),
        (json!({ "temperature": 9 }), "temperature is 9; it must be at least 0 and at most 2"),
        (json!({ "stop_sequences": [""] }), "stop_sequences has an empty string, at which every answer would end"),
        (json!({ "thinking": { "type": "enabled" } }), "thinking has the type enabled but no budget_tokens"),
        (
            json!({ "messages": [{ "role": "robot", "content": "x" }] }),
            "messages[0].role is \"robot\", which is none of user, assistant and system",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": [
                { "type": "text", "text": "a" }, { "type": "image", "source": { "type": "base64", "data": "" } },
            ] }] }),
            "messages[0].content[1].type is \"image\": this server takes text only, no images or documents",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t", "content": [
                { "type": "image", "source": {} },
            ] }] }] }),
            "messages[0].content[0].content[0].type is \"image\"; only blocks of type text are taken here",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "text" }] }] }),
            "messages[0].content[0] has the type text but no text",
        ),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "tool_use", "id": "t", "name": "f", "input": {} }] }] }),
            "messages[0] has the role user and a block of type tool_use, which only the role assistant has",
        ),
        (json!({ "tools": [{ "name": "f" }] }), "tools[0] has no input_schema"),
        (
            json!({ "tools": [{ "name": "f", "input_schema": { "type": "object" }, "strict": 1 }] }),
            "tools[0] has a field strict that is 1; it has to be true or false",
        ),
        (
            json!({ "tools": [
                { "type": "web_search_20250305", "name": "f" }, { "name": "f", "input_schema": {} },
                { "name": "f", "input_schema": {} },
            ] }),
            "tools[2].name is \"f\", as an earlier tool's name is",
        ),
        (json!({ "tool_choice": { "type": "any" } }), "tool_choice asks for calls, but the request has no tools"),
    ] {
        let reply = message(&house, extra.clone()).await;
        assert_eq!(error(&reply, 400), ("invalid_request_error".into(), text.into()), "{extra}");
        assert_eq!(reply.headers["content-type"], "application/json");
    }
    for body in ["", "{", "[]", "{\"messages\": 5"] {
        let reply = house.call("POST", MESSAGES, &[], body).await;
        assert_eq!(error(&reply, 400).0, "invalid_request_error", "{body}");
    }
    assert!(house.model.asked().is_empty());
    let long = message(&house, json!({ "messages": [{ "role": "user", "content": "x".repeat(200) }] })).await;
    let (kind, text) = error(&long, 400);
    assert!(
        kind == "invalid_request_error" && text.starts_with("prompt is too long: the prompt has at least"),
        "{text}"
    );
    let (kind, text) = error(&message(&house, json!({ "model": "claude" })).await, 404);
    assert!(kind == "not_found_error" && text.starts_with("model \"claude\" is not served here"), "{text}");
    assert_eq!(error(&house.get(MESSAGES).await, 405).0, "invalid_request_error");
    assert_eq!(error(&house.get("/v1/messages/batches").await, 404).0, "not_found_error");
    let foreign = house.call("POST", MESSAGES, &[("host", "evil.test")], body(json!({})).to_string()).await;
    assert_eq!(error(&foreign, 403).0, "permission_error");
    let encoded = house.call("POST", MESSAGES, &[("content-encoding", "br")], "x").await;
    assert_eq!(error(&encoded, 415).0, "invalid_request_error");
    let small = House::set(Settings { body_limit: 20, ..Settings::default() }, Script::new("m"));
    assert_eq!(error(&message(&small, json!({})).await, 413).0, "request_too_large");
    let limits = Limits { bodies: 20_000, ..Limits::default() };
    let small = House::set(Settings { limits, ..Settings::default() }, Script::new("m"));
    let reply = message(&small, json!({ "system": "x".repeat(50_000) })).await;
    assert_eq!(
        (error(&reply, 429).0.as_str(), &reply.headers["retry-after"]),
        ("rate_limit_error", &"1".parse().unwrap())
    );
}

#[tokio::test]
async fn a_server_that_cannot_answer_now_says_so_in_anthropics_words() {
    let house = House::new();
    house.model.refuses(EngineError::Overloaded { live: 8, limit: 8, asked: 1 });
    let reply = message(&house, json!({})).await;
    assert_eq!(
        (error(&reply, 429).0.as_str(), &reply.headers["retry-after"]),
        ("rate_limit_error", &"1".parse().unwrap())
    );
    house.model.refuses(EngineError::Device("a fault".into()));
    assert_eq!(
        error(&message(&house, json!({})).await, 500),
        ("api_error".into(), "computing the answer failed: a fault".into())
    );
    house.model.dies("a fault");
    let reply = message(&house, json!({})).await;
    assert_eq!(
        (error(&reply, 529).0.as_str(), &reply.headers["retry-after"]),
        ("overloaded_error", &"1".parse().unwrap())
    );
    house.state.drain();
    assert_eq!(error(&message(&house, json!({})).await, 529).0, "overloaded_error");
    let metrics = house.get("/metrics").await.text;
    assert!(metrics.contains("handler=\"/v1/messages\",method=\"POST\",status=\"529\"} 2"), "{metrics}");
}

#[tokio::test]
async fn a_stream_that_fails_ends_with_an_event_that_says_so() {
    let house = House::new();
    house.model.plays([vec![Say("a"), Fail(EngineError::Device("a fault".into()))]]);
    let events = events(&message(&house, json!({ "stream": true })).await);
    let last = events.last().unwrap();
    let expected = json!({ "type": "api_error", "message": "computing the answer failed: a fault" });
    assert_eq!((&last["type"], &last["error"]), (&json!("error"), &expected));
}

#[tokio::test]
async fn a_stream_begins_at_once_and_pings_while_nothing_comes() {
    let house = House::new();
    let gate = Gate::new();
    house.model.plays([[vec![Wait(gate.clone())], says(&["a"])].concat()]);
    let mut stream = house.send("POST", MESSAGES, &[], body(json!({ "stream": true })).to_string()).await.into_body();
    let mut seen = String::new();
    while !seen.ends_with("event: ping\ndata: {\"type\":\"ping\"}\n\n") {
        let frame = stream.frame().await.unwrap().unwrap();
        seen += std::str::from_utf8(&frame.into_data().unwrap()).unwrap();
    }
    assert!(seen.starts_with("event: message_start\n"), "{seen}");
    gate.open();
    let rest = String::from_utf8(stream.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(
        rest.starts_with("event: content_block_start\n")
            && rest.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
        "{rest}"
    );
}

#[tokio::test]
async fn models_are_described_in_the_dialect_of_the_client() {
    let house = House::new();
    house.add(Script::new("org/other"));
    let version = [("anthropic-version", "2023-06-01")];
    let card = |id: &str| {
        json!({
            "type": "model", "id": id, "display_name": id, "created_at": "2023-11-14T22:13:20Z", "lifecycle": "active",
            "max_input_tokens": CONTEXT, "max_tokens": CONTEXT,
        })
    };
    let list = house.call("GET", "/v1/models?limit=20", &version, "").await.json(200);
    let cards = [card("m"), card("org/other")];
    assert_eq!(list, json!({ "data": cards, "has_more": false, "first_id": "m", "last_id": "org/other" }));
    assert_eq!(house.call("GET", "/v1/models/org/other", &version, "").await.json(200), card("org/other"));
    assert_eq!(error(&house.call("GET", "/v1/models/none", &version, "").await, 404).0, "not_found_error");
    let catalog = house.get("/v1/models?client_version=0.150.0").await.json(200);
    assert_eq!((&catalog["models"], catalog["data"].as_array().unwrap().len()), (&json!([]), 2));
    assert!(house.get("/v1/models").await.json(200).get("models").is_none());
}
