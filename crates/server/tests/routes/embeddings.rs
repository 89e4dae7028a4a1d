//! `POST /v1/embeddings`

use crate::house::{House, Reply, with};
use crate::script::{CONTEXT, Embed, End, Fail, Gate, Script, Vanish, WIDTH, Wait, pooled, until};
use mlx_serving_engine::{EngineError, FinishReason, Pooling};
use mlx_serving_runtime::Embedder;
use mlx_serving_server::{Limits, Settings};
use serde_json::{Value, json};
use std::sync::Arc;

async fn embed(house: &House, body: Value) -> Reply {
    house.post("/v1/embeddings", &body).await
}

/// The vector of a text's bytes.
fn vector(text: &str, embedder: Embedder, dimensions: usize) -> Vec<f32> {
    let ids: Vec<u32> = text.bytes().map(u32::from).collect();
    embedder.vector(pooled(&ids), dimensions)
}

/// A vector as OpenAI's client reads base64.
fn decoded(text: &Value) -> Vec<f32> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other}"),
    };
    let text = text.as_str().unwrap();
    assert_eq!(text.len() % 4, 0);
    let digits = text.trim_end_matches('=').bytes().map(digit);
    let bits: Vec<bool> = digits.flat_map(|d| (0..6).rev().map(move |bit| d >> bit & 1 == 1)).collect();
    let bytes: Vec<u8> =
        bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |all, &bit| all << 1 | u8::from(bit))).collect();
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

/// A list of numbers, each as exact as it was written.
fn numbers(list: &Value) -> Vec<f32> {
    list.as_array().unwrap().iter().map(|number| number.to_string().parse().unwrap()).collect()
}

#[tokio::test]
async fn an_embedding_has_openais_shape() {
    let house = House::new();
    let json = embed(&house, json!({ "model": "m", "input": "abc", "user": "u" })).await.json(200);
    assert_eq!(
        json,
        json!({
            "object": "list", "model": "m", "usage": { "prompt_tokens": 3, "total_tokens": 3 },
            "data": [{ "object": "embedding", "index": 0, "embedding": json["data"][0]["embedding"] }],
        })
    );
    assert_eq!(numbers(&json["data"][0]["embedding"]), vector("abc", Embedder::default(), WIDTH));
    let request = &house.model.asked()[0];
    assert_eq!((request.embed, &request.prompt[..]), (Some(Pooling::Last), &[97, 98, 99][..]));
}

#[tokio::test]
async fn inputs_are_texts_or_ids_one_or_several() {
    let house = House::new();
    for (input, texts) in [
        (json!("ab"), vec!["ab"]),
        (json!([97, 98]), vec!["ab"]),
        (json!(["ab", "c"]), vec!["ab", "c"]),
        (json!([[97, 98], [99]]), vec!["ab", "c"]),
        (json!([[97.0], "bc"]), vec!["a", "bc"]),
    ] {
        let json = embed(&house, json!({ "input": input })).await.json(200);
        let found: Vec<_> = json["data"].as_array().unwrap().iter().map(|entry| numbers(&entry["embedding"])).collect();
        let expected: Vec<_> = texts.iter().map(|text| vector(text, Embedder::default(), WIDTH)).collect();
        assert_eq!(found, expected, "{input}");
    }
}

#[tokio::test]
async fn base64_is_the_bytes_of_the_floats() {
    let house = House::new();
    for (format, read) in [("float", numbers as fn(&Value) -> Vec<f32>), ("base64", decoded)] {
        for dimensions in 1..=WIDTH {
            let body = json!({ "input": "abc", "encoding_format": format, "dimensions": dimensions });
            let json = embed(&house, body).await.json(200);
            assert_eq!(read(&json["data"][0]["embedding"]), vector("abc", Embedder::default(), dimensions), "{format}");
        }
    }
}

#[tokio::test]
async fn a_model_pools_and_scales_as_its_files_say() {
    let embedder = Embedder::new(Pooling::Mean, false);
    let house = House::of(Script::new("m").embeds(embedder));
    let json = embed(&house, json!({ "input": "abc", "dimensions": 3 })).await.json(200);
    assert_eq!(numbers(&json["data"][0]["embedding"]), [3.0, 97.0, -99.0]);
    assert_eq!(house.model.asked()[0].embed, Some(Pooling::Mean));
}

#[tokio::test]
async fn more_inputs_than_places_are_embedded_in_order() {
    let house = House::new();
    // The first one is the last to come.
    let gate = Gate::new();
    house.model.plays([vec![Wait(gate.clone()), Embed, End(FinishReason::Stop, "")]]);
    let texts: Vec<String> = (1..=30).map(|n| "x".repeat(n)).collect();
    let asked = embed(&house, json!({ "input": texts }));
    let opened = async {
        until("all others", || house.model.asked().len() == 30).await;
        gate.open();
    };
    let json = tokio::join!(asked, opened).0.json(200);
    for (i, entry) in json["data"].as_array().unwrap().iter().enumerate() {
        assert_eq!(entry["index"], i);
        assert_eq!(numbers(&entry["embedding"]), vector(&texts[i], Embedder::default(), WIDTH));
    }
    assert_eq!(json["usage"], json!({ "prompt_tokens": 465, "total_tokens": 465 }));
    assert_eq!(house.model.canceled(), 0);
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused_by_name() {
    let house = House::new();
    for (body, param, message) in [
        (json!({}), "input", "input is missing"),
        (json!({ "input": "" }), "input", "there is nothing to embed in it; send at least one token"),
        (json!({ "input": [] }), "input", "input is empty; send at least one"),
        (
            json!({ "input": ["a", ""] }),
            "input[1]",
            "input[1]: there is nothing to embed in it; send at least one token",
        ),
        (
            json!({ "input": [[97], []] }),
            "input[1]",
            "input[1]: there is nothing to embed in it; send at least one token",
        ),
        (json!({ "input": ["a", [999]] }), "input[1]", "input[1]: token 999 is outside the vocabulary of 257"),
        (
            json!({ "input": 5 }),
            "input",
            "input is 5; it has to be a string, a list of strings, a list of token ids, or a list of such lists",
        ),
        (
            json!({ "input": "a", "dimensions": 0 }),
            "dimensions",
            "dimensions is 0; this model's embeddings have 1 to 4",
        ),
        (
            json!({ "input": "a", "dimensions": 5 }),
            "dimensions",
            "dimensions is 5; this model's embeddings have 1 to 4",
        ),
        (
            json!({ "input": "a", "encoding_format": "hex" }),
            "encoding_format",
            "encoding_format is \"hex\", which is none of float and base64",
        ),
        (
            json!({ "input": "a", "temperature": 1 }),
            "temperature",
            "temperature is not supported by this server; leave it out",
        ),
        (json!({ "input": vec!["a"; 2049] }), "input", "input has more than 2048 entries, which is the limit"),
    ] {
        let (found, _, text) = embed(&house, body).await.error(400);
        assert_eq!((found.as_str(), text.as_str()), (param, message));
    }
    let long = "a".repeat(CONTEXT + 1);
    for (input, param) in
        [(json!(long), "input"), (json!(["a", long]), "input[1]"), (json!([vec![1; CONTEXT + 1]]), "input")]
    {
        let (found, code, message) = embed(&house, json!({ "input": input })).await.error(400);
        assert_eq!((found.as_str(), code.as_str()), (param, "context_length_exceeded"), "{message}");
        assert!(message.contains("101 tokens; this model's maximum context length is 100"), "{message}");
        assert!(!message.contains("prompt") && !message.contains("answer"), "{message}");
    }
    assert!(house.model.asked().is_empty(), "nothing is computed of a request that is refused");
    embed(&house, json!({ "input": "a".repeat(CONTEXT) })).await.json(200);
}

#[tokio::test]
async fn what_asks_for_nothing_is_taken() {
    let house = House::new();
    let nothing = json!({ "dimensions": null, "encoding_format": null, "user": null, "stream": false });
    embed(&house, with(json!({ "input": "a" }), nothing)).await.json(200);
}

#[tokio::test]
async fn an_answer_that_could_not_be_held_is_refused_before_it_is_computed() {
    let limits = Limits { answer: 1000, ..Limits::default() };
    let house = House::set(Settings { limits, ..Settings::default() }, Script::new("m"));
    let (param, _, message) = embed(&house, json!({ "input": vec!["a"; 8] })).await.error(400);
    assert_eq!(param, "input");
    assert!(message.contains("fewer inputs") && house.model.asked().is_empty(), "{message}");
    for body in [json!({ "input": vec!["a"; 7] }), json!({ "input": vec!["a"; 11], "encoding_format": "base64" })] {
        embed(&house, body).await.json(200);
    }
    embed(&house, json!({ "input": vec!["a"; 12], "dimensions": 1 })).await.json(200);
}

#[tokio::test]
async fn a_failure_of_one_input_fails_the_request_and_cancels_the_others() {
    for (step, status, code) in [
        (Fail(EngineError::Device("it broke".into())), 500, "device_error"),
        (Fail(EngineError::Stopped("it is gone".into())), 503, ""),
        (Vanish, 500, ""),
    ] {
        let house = House::new();
        let gate = Gate::new();
        let waits = || vec![Wait(gate.clone()), Embed, End(FinishReason::Stop, "")];
        house.model.plays([waits(), vec![step], waits()]);
        let reply = embed(&house, json!({ "input": ["a", "b", "c"] })).await;
        let found = reply.error(status).1;
        assert!(code.is_empty() || found == code, "{found}");
        until("the others are canceled", || house.model.canceled() >= 2).await;
    }
}

#[tokio::test]
async fn a_server_without_places_refuses_and_a_client_that_hangs_up_cancels() {
    let house = Arc::new(House::new());
    let gate = Gate::new();
    house.model.plays((0..8).map(|_| vec![Wait(gate.clone()), Embed, End(FinishReason::Stop, "")]));
    let asking = {
        let house = house.clone();
        tokio::spawn(async move { embed(&house, json!({ "input": vec!["a"; 20] })).await })
    };
    until("all places are taken", || house.model.asked().len() == 8).await;
    assert_eq!(embed(&house, json!({ "input": "b" })).await.error(429).1, "overloaded");
    asking.abort();
    until("the places are free", || house.model.canceled() == 8).await;
    embed(&house, json!({ "input": "b" })).await.json(200);
}

#[tokio::test]
async fn an_embedding_model_generates_nothing() {
    let house = House::of(Script::new("m").embeds_only());
    embed(&house, json!({ "input": "a" })).await.json(200);
    for reply in [house.chat(json!({})).await, house.complete(json!({})).await] {
        let (param, _, message) = reply.error(400);
        assert_eq!(param, "model");
        assert_eq!(message, "m is an embedding model, which generates nothing; use /v1/embeddings");
    }
    assert_eq!(house.model.asked().len(), 1);
}
