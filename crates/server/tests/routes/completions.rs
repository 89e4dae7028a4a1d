//! `POST /v1/completions`

use crate::house::House;
use crate::script::{CONTEXT, End, Say, says};
use mlx_serving_engine::FinishReason;
use serde_json::{Value, json};

#[tokio::test]
async fn a_whole_completion_has_openais_shape_and_length() {
    let house = House::new();
    house.model.plays([says(&["c", "d"])]);
    let json = house.complete(json!({})).await.json(200);
    assert!(json["id"].as_str().unwrap().starts_with("cmpl-") && json["object"] == "text_completion");
    assert_eq!(
        json["choices"],
        json!([{ "index": 0, "text": "cd", "logprobs": null, "finish_reason": "stop", "stop_reason": null }])
    );
    assert_eq!((&json["usage"]["prompt_tokens"], &json["usage"]["total_tokens"]), (&json!(2), &json!(4)));
    let request = &house.model.asked()[0];
    assert_eq!((request.max_tokens, request.begins_text), (Some(16), false));
}

#[tokio::test]
async fn the_usual_length_gives_way_to_a_long_prompt() {
    let house = House::new();
    house.complete(json!({ "prompt": "a".repeat(CONTEXT - 3) })).await.json(200);
    house.complete(json!({ "prompt": vec![7; CONTEXT - 3], "max_tokens": 30 })).await.json(200);
    let limits: Vec<_> = house.model.asked().iter().map(|r| r.max_tokens).collect();
    assert_eq!(limits, [Some(3), Some(30)], "what the client chose is the engine's to refuse");
}

#[tokio::test]
async fn a_streamed_completion_ends_with_its_reason() {
    let house = House::new();
    house.model.plays([vec![Say("c"), Say(""), End(FinishReason::Length, "d")]]);
    let choices = house.complete(json!({ "stream": true })).await.streamed();
    let seen: Vec<(&Value, &Value)> = choices.iter().map(|c| (&c["text"], &c["finish_reason"])).collect();
    assert_eq!(seen, [(&json!("c"), &Value::Null), (&json!("d"), &Value::Null), (&json!(""), &json!("length"))]);
}

#[tokio::test]
async fn several_prompts_are_answered_in_order_and_counted_once_each() {
    let house = House::new();
    house.model.plays([says(&["1"]), says(&["2"]), says(&["3"]), says(&["4"])]);
    let json = house.complete(json!({ "prompt": ["a", "bcd"], "n": 2 })).await.json(200);
    let choices = json["choices"].as_array().unwrap();
    assert_eq!(choices.iter().map(|c| &c["text"]).collect::<Vec<_>>(), ["1", "2", "3", "4"]);
    assert_eq!(choices.iter().map(|c| c["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!((&json["usage"]["prompt_tokens"], &json["usage"]["completion_tokens"]), (&json!(4), &json!(4)));
    assert_eq!(json["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
    let lengths: Vec<usize> = house.model.asked().iter().map(|r| r.prompt.len()).collect();
    assert_eq!(lengths, [1, 1, 3, 3]);
}

#[tokio::test]
async fn prompts_are_texts_or_ids_and_echo_says_them_again() {
    let house = House::new();
    for (prompt, texts) in [
        (json!("ab"), vec!["abok"]),
        (json!([97, 98]), vec!["abok"]),
        (json!(["a", "é"]), vec!["aok", "éok"]),
        (json!([[97], [195, 169]]), vec!["aok", "éok"]),
    ] {
        let json = house.complete(json!({ "prompt": prompt, "echo": true })).await.json(200);
        let found: Vec<&Value> = json["choices"].as_array().unwrap().iter().map(|c| &c["text"]).collect();
        assert_eq!(found, texts, "{prompt}");
    }
}

#[tokio::test]
async fn a_streamed_echo_comes_first_and_once() {
    let house = House::new();
    let choices = house.complete(json!({ "echo": true, "stream": true, "n": 2 })).await.streamed();
    for index in 0..2 {
        let texts: Vec<&Value> = choices.iter().filter(|c| c["index"] == index).map(|c| &c["text"]).collect();
        assert_eq!(texts, ["ab", "ok", ""]);
    }
}

#[tokio::test]
async fn log_probabilities_of_a_completion_stand_in_columns() {
    let house = House::new();
    house.model.plays([says(&["c", "é"])]);
    let choice = house.complete(json!({ "logprobs": 2 })).await.choice();
    assert_eq!(
        choice["logprobs"],
        json!({
            "tokens": ["c", "bytes:\\xc3"], "token_logprobs": [-0.5, -0.5], "text_offset": [0, 1],
            "top_logprobs": [{ "c": -0.5, "d": -1.5 }, { "bytes:\\xc3": -0.5, "bytes:\\xc4": -1.5 }],
        })
    );
}

#[tokio::test]
async fn an_echo_with_log_probabilities_scores_the_prompt() {
    let house = House::new();
    let columns = json!({
        "tokens": ["a", "b", "o"], "token_logprobs": [null, -0.5, -0.5], "text_offset": [0, 1, 2],
        "top_logprobs": [null, { "b": -0.5 }, { "o": -0.5 }],
    });
    let extra = json!({ "echo": true, "logprobs": 1 });
    assert_eq!(house.complete(extra.clone()).await.choice()["logprobs"], columns);
    let streamed = house.complete(crate::house::with(extra, json!({ "stream": true }))).await.streamed();
    assert_eq!((&streamed[0]["text"], &streamed[0]["logprobs"]["tokens"]), (&json!("ab"), &json!(["a", "b"])));
    assert_eq!(streamed[1]["logprobs"]["text_offset"], json!([2]));
}

#[tokio::test]
async fn a_prompt_can_be_scored_without_an_answer() {
    let house = House::new();
    // 195 begins a character that 98 does not finish.
    let body = json!({ "prompt": [195, 98, 99], "echo": true, "max_tokens": 0, "logprobs": 0 });
    let choice = house.complete(body).await.choice();
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("\u{FFFD}bc"), &json!("length")));
    assert_eq!(choice["logprobs"]["text_offset"], json!([0, 1, 2]));
    assert_eq!(house.model.asked()[0].prompt_logprobs, Some(0));
}

#[tokio::test]
async fn stop_strings_are_one_or_several() {
    let house = House::new();
    for (stop, expected) in [(json!("x"), vec!["x"]), (json!(["x", "y"]), vec!["x", "y"]), (Value::Null, vec![])] {
        house.complete(json!({ "stop": stop })).await.json(200);
        assert_eq!(house.model.asked().last().unwrap().stop, expected);
    }
}
