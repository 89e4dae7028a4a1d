//! `POST /v1/chat/completions`

use crate::house::House;
use crate::script::{END, End, Say, says};
use mlx_serving_engine::FinishReason;
use serde_json::{Value, json};

#[tokio::test]
async fn a_whole_chat_has_openais_shape() {
    let house = House::new();
    house.model.plays([says(&["Hel", "lo"])]);
    let json = house.chat(json!({ "model": "m" })).await.json(200);
    assert!(json["id"].as_str().unwrap().starts_with("chatcmpl-") && json["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!((&json["object"], &json["model"]), (&json!("chat.completion"), &json!("m")));
    assert_eq!(
        json["choices"],
        json!([{
            "index": 0, "logprobs": null, "finish_reason": "stop", "stop_reason": null,
            "message": { "role": "assistant", "content": "Hello", "refusal": null },
        }])
    );
    let prompt = "user: hi\n".len();
    assert_eq!(
        json["usage"],
        json!({
            "prompt_tokens": prompt, "completion_tokens": 2, "total_tokens": prompt + 2,
            "prompt_tokens_details": { "cached_tokens": 1 }, "completion_tokens_details": { "reasoning_tokens": 0 },
        })
    );
}

#[tokio::test]
async fn a_chat_asks_the_engine_for_what_the_client_wrote() {
    let house = House::new();
    let body = json!({
        "max_tokens": 7, "temperature": 0.25, "top_p": 0.5, "top_k": -1, "min_p": 0.125, "repetition_penalty": 1.5,
        "presence_penalty": -1, "frequency_penalty": 2, "seed": 9, "logit_bias": { "5": -3 }, "stop": ["a", "b"],
        "ignore_eos": true, "logprobs": true, "top_logprobs": 2,
    });
    house.chat(body).await.json(200);
    let request = &house.model.asked()[0];
    assert_eq!(request.prompt, "user: hi\n".bytes().map(u32::from).collect::<Vec<_>>());
    assert_eq!((request.max_tokens, request.logprobs, request.prompt_logprobs), (Some(7), Some(2), None));
    assert_eq!((request.ignore_eos, request.begins_text, &request.stop), (true, true, &vec!["a".into(), "b".into()]));
    let s = &request.sampling;
    assert_eq!((s.temperature, s.top_p, s.top_k, s.min_p), (0.25, 0.5, 0, 0.125));
    assert_eq!((s.repetition_penalty, s.presence_penalty, s.frequency_penalty), (1.5, -1.0, 2.0));
    assert_eq!((s.seed, &s.logit_bias), (Some(9), &vec![(5, -3.0)]));
}

#[tokio::test]
async fn what_a_chat_leaves_out_is_the_models_own() {
    let house = House::new();
    house.chat(json!({ "top_k": null })).await.json(200);
    let request = &house.model.asked()[0];
    assert_eq!((request.sampling.temperature, request.sampling.top_k, request.max_tokens), (0.5, 0, None));
}

#[tokio::test]
async fn a_streamed_chat_begins_with_the_role_and_ends_with_the_reason() {
    let house = House::new();
    house.model.plays([vec![Say("Hel"), Say(""), Say("l"), End(FinishReason::Length, "o")]]);
    let reply = house.chat(json!({ "stream": true })).await;
    assert_eq!(reply.headers["x-accel-buffering"], "no");
    let chunks = reply.chunks();
    assert!(chunks.iter().all(|c| c["object"] == "chat.completion.chunk" && c["id"] == chunks[0]["id"]));
    assert!(chunks.iter().all(|c| c.get("usage").is_none()), "nobody asked");
    let choices: Vec<(Value, Value)> =
        reply.streamed().iter().map(|c| (c["delta"].clone(), c["finish_reason"].clone())).collect();
    let text = |text: &str| (json!({ "content": text }), Value::Null);
    assert_eq!(
        choices,
        [
            (json!({ "role": "assistant", "content": "" }), Value::Null),
            text("Hel"),
            text("l"),
            text("o"),
            (json!({}), json!("length")),
        ]
    );
}

#[tokio::test]
async fn several_choices_share_a_prompt_and_have_seeds_of_their_own() {
    let house = House::new();
    house.model.plays([says(&["a"]), says(&["b", "b"]), says(&["c"])]);
    let json = house.chat(json!({ "n": 3, "seed": 5 })).await.json(200);
    let texts: Vec<&Value> = json["choices"].as_array().unwrap().iter().map(|c| &c["message"]["content"]).collect();
    assert_eq!(texts, ["a", "bb", "c"]);
    assert_eq!((&json["usage"]["prompt_tokens"], &json["usage"]["completion_tokens"]), (&json!(9), &json!(4)));
    assert_eq!(house.model.asked().iter().map(|r| r.sampling.seed.unwrap()).collect::<Vec<_>>(), [5, 6, 7]);
}

#[tokio::test]
async fn streamed_choices_each_have_a_role_and_a_reason() {
    let house = House::new();
    house.model.plays([says(&["a", "A"]), says(&["b"])]);
    let choices = house.chat(json!({ "n": 2, "stream": true })).await.streamed();
    for (index, text) in [(0, "aA"), (1, "b")] {
        let own: Vec<&Value> = choices.iter().filter(|c| c["index"] == index).collect();
        assert_eq!(own[0]["delta"]["role"], "assistant");
        let joined: String = own.iter().filter_map(|c| c["delta"]["content"].as_str()).collect();
        assert_eq!((joined.as_str(), &own.last().unwrap()["finish_reason"]), (text, &json!("stop")));
    }
}

#[tokio::test]
async fn log_probabilities_of_a_chat_stand_beside_each_token() {
    let house = House::new();
    let entry = |name: &str, logprob: f64| json!({ "token": name, "logprob": logprob, "bytes": name.as_bytes() });
    let with = |entry: Value, top: Value| crate::house::with(entry, json!({ "top_logprobs": top }));
    let expected = with(entry("h", -0.5), json!([entry("h", -0.5), entry("i", -1.5)]));
    let extra = json!({ "logprobs": true, "top_logprobs": 2 });
    house.model.plays([says(&["h"]), says(&["h"])]);
    assert_eq!(house.chat(extra.clone()).await.choice()["logprobs"], json!({ "content": [expected], "refusal": null }));
    let streamed = house.chat(crate::house::with(extra, json!({ "stream": true }))).await.streamed();
    assert_eq!(streamed[1]["logprobs"]["content"][0], expected);
    // A special token has a name, though no text.
    house.model.plays([says(&[""])]);
    let choice = house.chat(json!({ "logprobs": true, "return_tokens_as_token_ids": true })).await.choice();
    assert_eq!(choice["logprobs"]["content"][0]["token"], format!("token_id:{END}"));
}

#[tokio::test]
async fn a_streams_last_chunk_has_the_usage_if_asked() {
    let house = House::new();
    house.model.plays([says(&["a", "b"])]);
    let chunks = house.chat(json!({ "stream": true, "stream_options": { "include_usage": true } })).await.chunks();
    let (last, others) = chunks.split_last().unwrap();
    assert!(others.iter().all(|c| c["usage"].is_null() && c.get("usage").is_some()));
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(2)));
    assert_eq!(last["usage"]["prompt_tokens_details"]["cached_tokens"], 1);
}

#[tokio::test]
async fn every_chunk_has_the_usage_so_far_if_asked() {
    let house = House::new();
    house.model.plays([says(&["a", "b", "c"])]);
    let options = json!({ "include_usage": true, "continuous_usage_stats": true });
    let chunks = house.chat(json!({ "stream": true, "stream_options": options })).await.chunks();
    let tokens: Vec<u64> = chunks.iter().map(|c| c["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert_eq!(tokens, [1, 1, 2, 3, 3, 3]);
    assert!(chunks.iter().all(|c| c["usage"]["prompt_tokens"] == 9));
}

#[tokio::test]
async fn values_that_ask_for_nothing_change_nothing() {
    let house = House::new();
    let extra = json!({
        "tools": [], "tool_choice": "none", "parallel_tool_calls": true, "response_format": { "type": "text" }, "n": 1,
        "modalities": ["text"], "store": false, "metadata": {}, "service_tier": "auto", "user": "u", "logprobs": false,
        "top_logprobs": 0, "stream": false, "stream_options": null, "max_completion_tokens": null, "anything": null,
    });
    assert_eq!(house.chat(extra).await.choice()["message"]["content"], "ok");
}

#[tokio::test]
async fn conversations_of_all_roles_and_parts_are_taken() {
    let house = House::new();
    let messages = json!([
        { "role": "developer", "content": "be brief" },
        { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }], "name": "x" },
        { "role": "assistant", "content": null, "refusal": null, "tool_calls": [], "annotations": [] },
    ]);
    house.post("/v1/chat/completions", &json!({ "messages": messages })).await.json(200);
    let prompt: Vec<u8> = house.model.asked()[0].prompt.iter().map(|&id| id as u8).collect();
    assert_eq!(String::from_utf8(prompt).unwrap(), "system: be brief\nuser: ab\nassistant: \n");
}
