//! `POST /v1/chat/completions/render` and `/v1/completions/render`

use crate::house::{House, with};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions/render";
const TEXT: &str = "/v1/completions/render";

#[tokio::test]
async fn a_chat_is_rendered_without_being_answered() {
    let house = House::new();
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let body = json!({ "messages": messages, "top_p": 0.7, "logit_bias": { "65": 0.1 }, "seed": -3, "stop": "x", "max_completion_tokens": 7, "n": 2 });
    let json = house.post(CHAT, &body).await.json(200);
    let prompt = "user: hi\n";
    assert_eq!((&json["model"], &json["prompt_text"]), (&json!("m"), &json!(prompt)));
    assert_eq!(json["token_ids"], json!(prompt.as_bytes()));
    assert_eq!(
        json["sampling_params"],
        json!({
            "n": 2, "temperature": 0.5, "top_p": 0.7, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
            "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": -3, "logit_bias": { "65": 0.1 }, "max_tokens": 7,
            "stop": ["x"], "ignore_eos": false, "logprobs": null, "prompt_logprobs": null, "thinking_token_budget": null,
        })
    );
    assert!(house.model.asked().is_empty());
}

#[tokio::test]
async fn text_prompts_are_rendered_in_order() {
    let house = House::new();
    let json = house.post(TEXT, &json!({ "prompt": ["a", "é"] })).await.json(200);
    let texts: Vec<&Value> = json.as_array().unwrap().iter().map(|prompt| &prompt["prompt_text"]).collect();
    assert_eq!(texts, ["a", "é"]);
    assert_eq!((&json[1]["token_ids"], &json[1]["sampling_params"]["max_tokens"]), (&json!([195, 169]), &json!(16)));
    assert!(house.model.asked().is_empty());
}

#[tokio::test]
async fn what_would_be_refused_is_refused_in_the_same_words() {
    let house = House::new();
    let chat = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    let text = json!({ "prompt": "ab" });
    for (route, body) in [(CHAT, &chat), (TEXT, &text)] {
        for extra in [
            json!({ "temperature": 9 }),
            json!({ "color": "red" }),
            json!({ "logit_bias": { "999": 1 } }),
            json!({ "guided_regex": "a", "guided_choice": ["a"] }),
            json!({ "model": "none" }),
        ] {
            let body = with(body.clone(), extra);
            let answered = house.post(route.trim_end_matches("/render"), &body).await;
            let rendered = house.post(route, &body).await;
            assert_eq!((rendered.status, rendered.text), (answered.status, answered.text), "{body}");
            assert!(rendered.status >= 400, "{body}");
        }
    }
    let long = json!({ "prompt": "x".repeat(200) });
    assert_eq!(house.post(TEXT, &long).await.error(400).1, "context_length_exceeded");
}

#[tokio::test]
async fn a_prompt_without_tokens_is_refused() {
    let reply = House::new().post("/v1/completions/render", &json!({ "prompt": [[]] })).await;
    let (param, _, message) = reply.error(400);
    assert_eq!((param.as_str(), message.as_str()), ("prompt", "the prompt has no tokens; send at least one"));
}
