//! The tables of fields: each field is sent, and what its table says is seen.

use crate::house::{House, with};
use crate::script::{Say, Script, calls, says, thinks};
use mlx_serving_server::fields::{Fate, Field, Table, page, tables};
use serde_json::{Map, Value, json};
use std::path::Path;

/// All that a body makes a server do and say: the status, the answer without what differs between any two, the prompts, the requests.
async fn effect(route: &str, body: &Value) -> (u16, Value, String) {
    let house = House::new();
    // It is seen that this one is meant.
    house.add(Script::new("other")).dies("it is another");
    let answer = || [vec![thinks("hm"), Say("ok")], calls("f", &["{}"]), says(&[])].concat();
    if !route.contains("embeddings") {
        house.model.plays((0..4).map(|_| answer()));
    }
    let mut body = body.clone();
    // Ids of stored responses are random.
    if body["previous_response_id"] == "STORED" {
        let earlier = house.post("/v1/responses", &json!({ "model": "m", "input": "earlier" })).await;
        body["previous_response_id"] = earlier.json(200)["id"].clone();
    }
    let (inputs, requests) = (house.model.inputs().len(), house.model.asked().len());
    let reply = house.post(route, &body).await;
    let mut asked = format!("{:?} {:?}", &house.model.inputs()[inputs..], &house.model.asked()[requests..]);
    if route.ends_with("/count_tokens") {
        // `parallel_calls` bounds the calls of an answer, and changes no prompt.
        asked = asked.replace("parallel_calls: false", "parallel_calls: true");
    }
    let lines = reply.text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    let mut said: Value = lines.map(|line| serde_json::from_str(line).unwrap_or(Value::Null)).collect();
    forget(&mut said);
    (reply.status, said, asked)
}

/// Removes ids and times.
fn forget(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|name, _| {
                let ids = ["id", "item_id", "call_id", "previous_response_id"];
                let times = ["created", "created_at", "completed_at"];
                ![&ids[..], &times].concat().contains(&name.as_str())
            });
            object.values_mut().for_each(forget);
        }
        Value::Array(list) => list.iter_mut().for_each(forget),
        _ => {}
    }
}

/// Puts a value at a path such as `messages[0].role`.
fn put(body: &mut Value, path: &str, value: Value) {
    let mut at = body;
    for part in path.split('.') {
        let (name, indexes) = part.split_once('[').map_or((part, ""), |(name, rest)| (name, rest));
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[name];
        for index in indexes.split(['[', ']']).filter(|index| !index.is_empty()) {
            at = &mut at[index.parse::<usize>().unwrap()];
        }
    }
    *at = value;
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"))
}

/// The body in which a field can stand.
fn base(table: &Table, field: &Field) -> Value {
    // A body that names no model is the first one's while there is one: here are two.
    with(with(parsed(table.body), json!({ "model": "m" })), parsed(field.beside))
}

#[tokio::test]
async fn every_field_does_what_its_table_says() {
    let mut sent = 0;
    for table in tables() {
        let route = table.routes[0];
        for field in table.fields() {
            let (name, base) = (field.name, base(&table, field));
            let of = async |value: Value| {
                let mut body = base.clone();
                put(&mut body, &field.place(), value);
                effect(route, &body).await
            };
            let without = effect(route, &base).await;
            assert_eq!(without.0, 200, "{route} without {name}: {}", without.1);
            let found = of(parsed(field.example)).await;
            match field.fate {
                Fate::Honored => {
                    // The other model is dead, which Anthropic's dialect tells by 529. Its tokens can be counted still.
                    let status = if name == "model" { [200, 503, 529] } else { [200; 3] };
                    assert!(
                        status.contains(&found.0) && found != without,
                        "{route}: {name} changes nothing: {}",
                        found.1
                    );
                }
                Fate::Harmless => assert_eq!(found, without, "{route}: {name}"),
                Fate::Refused => {
                    assert_eq!(found.0, 400, "{route}: {name}");
                    let (error, place) = (&found.1[0]["error"], field.place());
                    // Where errors name no parameter, their text begins with it.
                    let message = error["message"].as_str().unwrap();
                    let within = place.rsplit_once('.').map(|(object, name)| format!("{object} has a field {name} "));
                    let named = error["param"] == *place
                        || message.starts_with(&place)
                        || within.is_some_and(|within| message.starts_with(&within));
                    assert!(named, "{route}: {place} is not named: {error}");
                }
            }
            for value in field.taken {
                assert_eq!(of(parsed(value)).await, without, "{route}: {name} with {value}");
            }
            sent += 1;
        }
    }
    assert!(sent > 150, "{sent}");
}

#[tokio::test]
async fn null_is_as_good_as_nothing_and_an_unknown_field_is_refused() {
    for table in tables() {
        for (route, field) in table.routes.iter().flat_map(|route| table.fields().map(move |field| (route, field))) {
            // Fields of a body only: what an entry of a list lacks may be what it is.
            if field.name.contains(['.', '[']) || parsed(table.body).get(field.name).is_some() {
                continue;
            }
            let base = base(&table, field);
            let body = with(base.clone(), json!({ field.name: null }));
            if field.name != "model" {
                assert_eq!(effect(route, &body).await, effect(route, &base).await, "{route}: {}", field.name);
            }
        }
        for route in table.routes {
            let body = with(parsed(table.body), json!({ "model": "m", "color": "red" }));
            let (status, said, _) = effect(route, &body).await;
            let text = said[0]["error"]["message"].as_str().unwrap().to_owned();
            assert!(status == 400 && text.starts_with("color is not supported"), "{route}: {text}");
        }
    }
}

#[test]
fn the_page_of_fields_is_made_of_the_tables() {
    const MARK: &str = "<!-- The tables below are made by a test of the server: MLX_SERVING_WRITE=1 cargo test -p mlx-serving-server fields -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/API_FIELDS.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, _) = text.split_once(MARK).expect("the mark before the tables");
    let made = format!("{head}{MARK}\n{}\n", page().trim_end());
    if std::env::var_os("MLX_SERVING_WRITE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert!(
        text == made || std::env::var_os("MLX_SERVING_WRITE").is_some(),
        "the tables have changed: write the page again"
    );
}
