//! Reasoning of chats.

use crate::house::House;
use crate::script::{Say, Tell, says, thinks};
use mlx_serving_text::Segment;
use serde_json::{Value, json};

#[tokio::test]
async fn reasoning_stands_beside_the_content_and_is_counted() {
    let house = House::new();
    // The first token is markup, which no text shows.
    let markup = || Tell(vec![]);
    house.model.plays([[vec![markup(), thinks("let me "), thinks("see"), markup()], says(&["4"])].concat()]);
    let json = house.chat(json!({})).await.json(200);
    let message = &json["choices"][0]["message"];
    assert_eq!(
        message,
        &json!({
            "role": "assistant", "content": "4", "refusal": null, "reasoning_content": "let me see", "reasoning": "let me see",
        })
    );
    assert_eq!(json["usage"]["completion_tokens"], 5);
    assert_eq!(json["usage"]["completion_tokens_details"]["reasoning_tokens"], 3);
}

#[tokio::test]
async fn reasoning_without_an_answer_has_no_content() {
    let house = House::new();
    house.model.plays([[vec![thinks("hm")], says(&[])].concat()]);
    assert_eq!(house.chat(json!({})).await.choice()["message"]["content"], Value::Null);
    house.model.plays([says(&[])]);
    assert_eq!(house.chat(json!({})).await.choice()["message"]["content"], "");
}

#[tokio::test]
async fn reasoning_is_streamed_apart() {
    let house = House::new();
    let both = Tell(vec![Segment::Reasoning("b".into()), Segment::Content("c".into())]);
    house.model.plays([[vec![thinks("a"), both, Say("d")], says(&[])].concat()]);
    let deltas: Vec<Value> =
        house.chat(json!({ "stream": true })).await.streamed().iter().map(|choice| choice["delta"].clone()).collect();
    let thought = |text: &str| json!({ "reasoning_content": text, "reasoning": text });
    assert_eq!(
        deltas,
        [
            json!({ "role": "assistant", "content": "" }),
            thought("a"),
            thought("b"),
            json!({ "content": "c" }),
            json!({ "content": "d" }),
            json!({}),
        ]
    );
}

#[tokio::test]
async fn reasoning_is_left_out_where_the_client_wants_none_of_it() {
    let house = House::new();
    let script = || [vec![thinks("hm")], says(&["4"])].concat();
    house.model.plays([script(), script()]);
    let json = house.chat(json!({ "include_reasoning": false })).await.json(200);
    assert_eq!(json["choices"][0]["message"], json!({ "role": "assistant", "content": "4", "refusal": null }));
    assert_eq!(json["usage"]["completion_tokens_details"]["reasoning_tokens"], 1, "it was computed");
    let streamed = house.chat(json!({ "include_reasoning": false, "stream": true })).await.streamed();
    assert!(streamed.iter().all(|choice| choice["delta"].get("reasoning").is_none()), "{streamed:?}");
}

#[tokio::test]
async fn effort_and_budget_reach_the_template_and_the_engine() {
    let house = House::new();
    house.chat(json!({ "reasoning_effort": "low", "thinking_token_budget": 5 })).await.json(200);
    let variables = house.model.conversation().variables.unwrap();
    assert_eq!(Value::Object(variables), json!({ "reasoning_effort": "low", "enable_thinking": true }));
    assert_eq!(house.model.asked()[0].reasoning_budget, Some(5));
    house.chat(json!({ "enable_thinking": false, "thinking_token_budget": -1 })).await.json(200);
    let variables = house.model.conversation().variables.unwrap();
    assert_eq!(Value::Object(variables), json!({ "enable_thinking": false }));
    assert_eq!(house.model.asked()[1].reasoning_budget, None);
    for (extra, param) in [
        (json!({ "reasoning_effort": "huge" }), "reasoning_effort"),
        (json!({ "thinking_token_budget": -2 }), "thinking_token_budget"),
        (json!({ "thinking_token_budget": "5" }), "thinking_token_budget"),
        (json!({ "reasoning_effort": "none", "enable_thinking": true }), "reasoning_effort"),
        (json!({ "enable_thinking": true, "chat_template_kwargs": { "enable_thinking": false } }), "enable_thinking"),
    ] {
        assert_eq!(house.chat(extra.clone()).await.error(400).0, param, "{extra}");
    }
}
