//! Health, models, metrics, statistics, tokens.

use crate::house::House;
use crate::script::{CONTEXT, Script};
use mlx_serving_server::{AppState, Settings};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn models_are_listed_and_described() {
    let house = House::new();
    house.add(Script::new("org/other"));
    let list = house.get("/v1/models").await.json(200);
    let card = |id: &str| {
        json!({
            "id": id, "object": "model", "created": 1_700_000_000, "owned_by": "mlx-serving", "max_model_len": CONTEXT,
        })
    };
    assert_eq!(list, json!({ "object": "list", "data": [card("m"), card("org/other")] }));
    assert_eq!(house.get("/v1/models/org/other").await.json(200), card("org/other"));
    assert_eq!(house.get("/v1/models/org%2Fother").await.json(200), card("org/other"));
    assert_eq!(house.get("/v1/models/none").await.error(404).1, "model_not_found");
    let error = house.get("/v1/models/%ff").await.error(404);
    assert!(error.1 == "model_not_found" && error.2.contains("\"%ff\""), "{error:?}");
}

#[tokio::test]
async fn a_model_answers_to_its_further_names() {
    let house = House::new();
    house.state.registry().alias("m", "gpt-4o".into());
    let list = house.get("/v1/models").await.json(200);
    let ids: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|card| &card["id"]).collect();
    assert_eq!(ids, ["m", "gpt-4o"]);
    assert_eq!(house.get("/v1/models/gpt-4o").await.json(200)["id"], "gpt-4o");
    let answer = house.chat(json!({ "model": "gpt-4o" })).await.json(200);
    assert_eq!(answer["model"], "m", "its own name, as vLLM has it");
    assert!(house.chat(json!({ "model": "gpt-5" })).await.error(404).2.ends_with("m, gpt-4o"));
}

#[tokio::test]
async fn tokens_and_texts_are_told_from_each_other() {
    let house = House::new();
    let tokens = house.post("/v1/tokenize", &json!({ "prompt": "aé" })).await.json(200);
    assert_eq!(tokens, json!({ "tokens": [97, 195, 169], "count": 3, "max_model_len": CONTEXT }));
    let text = house.post("/v1/detokenize", &json!({ "model": "m", "tokens": tokens["tokens"] })).await.json(200);
    assert_eq!(text, json!({ "prompt": "aé" }));
    assert_eq!(house.post("/v1/detokenize", &json!({ "tokens": [97, 256] })).await.json(200)["prompt"], "a<|end|>");
}

#[tokio::test]
async fn what_cannot_be_told_is_refused_by_name() {
    let house = House::new();
    for (path, body, param) in [
        ("/v1/tokenize", json!({}), "prompt"),
        ("/v1/tokenize", json!({ "prompt": 5 }), "prompt"),
        ("/v1/tokenize", json!({ "prompt": "x".repeat(200) }), "prompt"),
        ("/v1/tokenize", json!({ "prompt": "x", "color": 1 }), "color"),
        ("/v1/detokenize", json!({ "tokens": "x" }), "tokens"),
        ("/v1/detokenize", json!({ "tokens": [-1] }), "tokens"),
        ("/v1/detokenize", json!({ "tokens": [257] }), "tokens"),
        ("/v1/detokenize", json!({ "tokens": vec![1; 200] }), "tokens"),
    ] {
        assert_eq!(house.post(path, &body).await.error(400).0, param, "{path} {body:.50}");
    }
    assert_eq!(house.post("/v1/tokenize", &json!({ "prompt": "x", "model": "none" })).await.error(404).0, "model");
}

#[tokio::test]
async fn health_and_readiness_follow_the_engines() {
    let house = House::new();
    let health = house.get("/health").await.json(200);
    let engine = json!({ "model": "m", "alive": true, "heartbeat": 3, "step_ms": null, "reason": null });
    assert_eq!(health, json!({ "status": "ok", "reason": null, "engines": [engine] }));
    assert_eq!(house.get("/ready").await.json(200), json!({ "status": "ready", "reason": null }));

    house.model.fares(|health| health.resident = false);
    let reason = "weights of m are still being transferred";
    let ready = house.get("/ready").await;
    assert_eq!(ready.json(503), json!({ "status": "loading", "reason": reason }));
    assert_eq!(ready.headers["retry-after"], "1");
    assert_eq!(house.get("/health").await.json(200)["status"], "ok");

    house.model.fares(|health| health.step = Some(Duration::from_secs(100)));
    for path in ["/health", "/ready"] {
        let json = house.get(path).await.json(503);
        assert_eq!((&json["status"], &json["reason"]), (&json!("wedged"), &json!("a step of m has lasted over 60s")));
    }
    house.model.dies("a fault");
    for path in ["/health", "/ready"] {
        let json = house.get(path).await.json(503);
        assert_eq!((&json["status"], &json["reason"]), (&json!("dead"), &json!("the engine of m stopped: a fault")));
    }
    house.state.drain();
    assert_eq!(house.get("/ready").await.json(503)["status"], "draining");
    assert_eq!(house.get("/health").await.json(200)["status"], "ok", "it ends as it should");
}

#[tokio::test]
async fn readiness_waits_for_what_is_loaded_or_loaded_again() {
    let state = AppState::new(Settings { names: vec!["m".into()], ..Settings::default() });
    let app = mlx_serving_server::router(state.clone());
    let get = |path: &'static str| {
        let request =
            axum::http::Request::get(path).header("host", "localhost").body(axum::body::Body::empty()).unwrap();
        let app = app.clone();
        async move { crate::house::Reply::of(tower::ServiceExt::oneshot(app, request).await.unwrap()).await }
    };
    assert_eq!(get("/ready").await.json(503), json!({ "status": "loading", "reason": null }));
    crate::house::lose(&state, "m");
    let reloading = json!({ "status": "reloading", "reason": "m is being loaded again: its weights could not be loaded: its file changed" });
    assert_eq!(get("/ready").await.json(503), reloading);
    assert_eq!(get("/health").await.json(200)["status"], "reloading");
    state.add(Arc::new(Script::new("m")));
    state.loaded();
    assert_eq!(get("/ready").await.json(200)["status"], "ready");
}

#[tokio::test]
async fn metrics_count_answers_and_models_in_the_format_that_is_wanted() {
    let house = House::new();
    house.chat(json!({})).await.json(200);
    house.get("/nowhere").await;
    let plain = house.get("/metrics").await;
    assert!(plain.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    for line in [
        "script_requests_total{model_name=\"m\"} 1",
        "http_requests_total{handler=\"/v1/chat/completions\",method=\"POST\",status=\"200\"} 1",
        "http_requests_total{handler=\"\",method=\"GET\",status=\"404\"} 1",
    ] {
        assert!(plain.text.contains(line), "{line}: {}", plain.text);
    }
    assert!(plain.text.contains("mlx_serving_build_info{version="));
    let open = house.call("GET", "/metrics", &[("accept", "application/openmetrics-text; version=1.0.0")], "").await;
    assert!(open.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert!(open.text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn statistics_are_of_the_model_named_or_the_first() {
    let house = House::new();
    house.add(Script::new("other"));
    let of = |json: &Value| json["device"]["name"].clone();
    let first = house.get("/v1/metal/stats").await.json(200);
    assert_eq!((of(&first), &first["memory_pool"]), (json!("m"), &json!({ "enabled": false })));
    assert_eq!(of(&house.get("/v1/metal/stats?model=other").await.json(200)), "other");
    assert_eq!(house.get("/v1/metal/stats?model=none").await.error(404).0, "model");
    assert_eq!(house.get("/v1/metal/stats?model=a&model=b").await.error(400).0, "model");
}
