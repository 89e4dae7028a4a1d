//! What evaluation harnesses ask: scores of prompts, token ids, answers that go on.

use crate::house::{House, with};
use crate::script::{END, Stop, Tell, says};
use serde_json::{Value, json};

/// vLLM's entry of a token.
fn entry(logprob: f64, rank: impl Into<Value>, text: &str) -> Value {
    json!({ "logprob": logprob, "rank": rank.into(), "decoded_token": text })
}

#[tokio::test]
async fn a_prompts_log_probabilities_have_vllms_shape() {
    let house = House::new();
    let extra = json!({ "prompt": "ab", "prompt_logprobs": 2 });
    let two = json!([null, { "98": entry(-0.5, 1, "b"), "99": entry(-1.5, 2, "c") }]);
    let choice = house.complete(extra.clone()).await.choice();
    assert_eq!((&choice["prompt_logprobs"], &choice["text"], &choice["logprobs"]), (&two, &json!("ok"), &Value::Null));
    // Nobody knows a rank that was not asked for.
    let none = house.complete(json!({ "prompt": "ab", "prompt_logprobs": 0 })).await.choice();
    assert_eq!(none["prompt_logprobs"], json!([null, { "98": entry(-0.5, Value::Null, "b") }]));
    // An echo's alternatives are its own.
    let both = with(extra.clone(), json!({ "echo": true, "logprobs": 1, "max_tokens": 0 }));
    let choice = house.complete(both).await.choice();
    assert_eq!((&choice["prompt_logprobs"], &choice["text"]), (&two, &json!("ab")));
    assert_eq!(choice["logprobs"]["top_logprobs"], json!([null, { "b": -0.5 }]));
    for stream in [json!({}), json!({ "echo": true }), json!({ "echo": true, "logprobs": 1 })] {
        let extra = with(with(extra.clone(), stream), json!({ "stream": true }));
        let choices = house.complete(extra).await.streamed();
        assert_eq!(choices[0]["prompt_logprobs"], two);
        assert!(choices[1..].iter().all(|choice| choice.get("prompt_logprobs").is_none()), "{choices:?}");
    }
}

#[tokio::test]
async fn a_chat_tells_of_its_prompt_beside_the_choices() {
    let house = House::new();
    let extra = json!({ "prompt_logprobs": 1, "return_token_ids": true, "n": 2 });
    let json = house.chat(extra.clone()).await.json(200);
    let prompt: Vec<u8> = "user: hi\n".into();
    let scores = json["prompt_logprobs"].as_array().unwrap();
    assert_eq!(
        (scores.len(), &scores[0], &scores[1]),
        (prompt.len(), &Value::Null, &json!({ "115": entry(-0.5, 1, "s") }))
    );
    assert_eq!(json["prompt_token_ids"], json!(prompt));
    assert_eq!(json["choices"][1]["token_ids"], json!([111]));
    let chunks = house.chat(with(extra, json!({ "stream": true }))).await.chunks();
    let (told, rest): (Vec<_>, Vec<_>) = chunks.iter().partition(|chunk| chunk.get("prompt_token_ids").is_some());
    assert_eq!(
        (told.len(), &told[0]["prompt_logprobs"], &told[0]["prompt_token_ids"]),
        (1, &json["prompt_logprobs"], &json!(prompt))
    );
    assert!(rest.iter().all(|chunk| chunk.get("prompt_logprobs").is_none()));
}

#[tokio::test]
async fn token_ids_come_with_the_text_that_they_complete_or_alone() {
    let house = House::new();
    let script = || [vec![Tell(vec![])], says(&["a", "b"])].concat();
    house.model.plays([script(), script(), script(), script()]);
    let ids = json!({ "return_token_ids": true });
    let expected = json!([END, 97, 98]);
    assert_eq!(house.chat(ids.clone()).await.choice()["token_ids"], expected);
    let choice = house.complete(ids.clone()).await.choice();
    assert_eq!((&choice["token_ids"], &choice["prompt_token_ids"]), (&expected, &json!([97, 98])));
    let streamed = with(ids, json!({ "stream": true }));
    for choices in [house.chat(streamed.clone()).await.streamed(), house.complete(streamed).await.streamed()] {
        let told: Vec<&Value> = choices.iter().filter_map(|choice| choice.get("token_ids")).collect();
        assert_eq!(told, [&json!([END]), &json!([97]), &json!([98])]);
    }
}

#[tokio::test]
async fn a_stop_string_is_told_as_the_reason() {
    let house = House::new();
    let script = || vec![Tell(vec![]), Stop("###")];
    house.model.plays([script(), script(), script(), script()]);
    for stream in [json!({}), json!({ "stream": true })] {
        for reply in [house.chat(stream.clone()).await, house.complete(stream.clone()).await] {
            let choice = if stream["stream"] == true { reply.streamed().pop().unwrap() } else { reply.choice() };
            assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!("stop"), &json!("###")));
        }
    }
}

#[tokio::test]
async fn an_answer_begins_or_goes_on() {
    let house = House::new();
    for (extra, begins, goes_on, begins_text) in [
        (json!({}), true, false, true),
        (json!({ "add_generation_prompt": false }), false, false, true),
        (json!({ "continue_final_message": true }), false, true, false),
        (json!({ "continue_final_message": true, "add_generation_prompt": false }), false, true, false),
    ] {
        house.chat(extra.clone()).await.json(200);
        let conversation = house.model.conversation();
        assert_eq!(
            (conversation.add_generation_prompt, conversation.continue_final_message),
            (begins, goes_on),
            "{extra}"
        );
        assert_eq!(house.model.asked().pop().unwrap().begins_text, begins_text, "{extra}");
    }
    let both = json!({ "continue_final_message": true, "add_generation_prompt": true });
    assert_eq!(house.chat(both).await.error(400).0, "continue_final_message");
}

#[tokio::test]
async fn prompt_logprobs_out_of_range_are_refused() {
    let house = House::new();
    for value in [json!(21), json!(-1), json!(true), json!("1"), json!(1.5)] {
        for reply in [
            house.chat(json!({ "prompt_logprobs": value })).await,
            house.complete(json!({ "prompt_logprobs": value })).await,
        ] {
            assert_eq!(reply.error(400).0, "prompt_logprobs", "{value}");
        }
    }
    house.chat(json!({ "prompt_logprobs": false })).await.json(200);
    assert_eq!(house.model.asked()[0].prompt_logprobs, None);
}
