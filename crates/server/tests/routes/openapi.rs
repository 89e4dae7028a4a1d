//! The OpenAPI document and the version.

use crate::house::House;
use crate::script::Script;
use serde_json::Value;
use std::collections::BTreeSet;

#[tokio::test]
async fn the_document_has_every_route_and_no_other() {
    let house = House::new();
    let document = house.get("/openapi.json").await;
    assert_eq!((document.status, &document.headers["content-type"]), (200, &"application/json".parse().unwrap()));
    let document: Value = serde_json::from_str(&document.text).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            described.insert(format!("{} {path}", method.to_uppercase()));
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("200") && operation["summary"].is_string(), "{method} {path}");
        }
    }
    let (_, _, message) = house.get("/no-route").await.error(404);
    let (_, routes) = message.split_once("which has ").unwrap();
    assert_eq!(described, routes.split(", ").map(String::from).collect::<BTreeSet<_>>());
}

#[tokio::test]
async fn the_document_names_the_models_that_are_served() {
    let house = House::new();
    let models = async || {
        let document: Value = serde_json::from_str(&house.get("/openapi.json").await.text).unwrap();
        document["components"]["schemas"]["Model"]["enum"].clone()
    };
    assert_eq!(models().await, serde_json::json!(["m", null]));
    house.add(Script::new("other"));
    assert_eq!(models().await, serde_json::json!(["m", "other"]));
}

#[tokio::test]
async fn the_version_is_the_programs() {
    let reply = House::new().get("/version").await;
    assert_eq!(reply.text, format!(r#"{{"version":"{}"}}"#, env!("CARGO_PKG_VERSION")));
}
