use super::*;

fn conversation() -> Conversation {
    let call = |id: &str, name: &str, arguments: Value| ToolCall { id: id.into(), name: name.into(), arguments };
    let answer = |text: &str, reasoning: &str, calls: Vec<ToolCall>| Message {
        reasoning: Some(reasoning.into()),
        calls,
        ..Message::new(Role::Assistant, text)
    };
    let result = |id: &str| Message { call_id: Some(id.into()), ..Message::new(Role::Tool, "7") };
    Conversation::new(vec![
        Message::new(Role::User, "one"),
        answer("first", "old", vec![]),
        Message::new(Role::User, "two"),
        answer("", "new", vec![call("a", "f", json!({ "k": 1 })), call("b", "g", json!("no JSON"))]),
        result("b"),
        result("a"),
        result("c"),
    ])
}

#[test]
fn calls_and_their_results_are_as_openai_has_them() {
    let values = conversation().values(Earlier::Dropped, Arguments::Values);
    let call = json!({ "id": "a", "type": "function", "function": { "name": "f", "arguments": { "k": 1 } } });
    assert_eq!(values[3]["tool_calls"][0], call);
    assert_eq!(values[3]["content"], "");
    assert_eq!(values[4], json!({ "role": "tool", "content": "7", "tool_call_id": "b", "name": "g" }));
    assert_eq!(values[5]["name"], "f");
    assert_eq!(values[6].get("name"), None, "no call has this id");
    assert_eq!(values[0], json!({ "role": "user", "content": "one" }));

    let texts = conversation().values(Earlier::Dropped, Arguments::Text);
    let arguments = |index: usize| texts[3]["tool_calls"][index]["function"]["arguments"].clone();
    assert_eq!([arguments(0), arguments(1)], [json!("{\"k\":1}"), json!("no JSON")]);
}

#[test]
fn earlier_reasoning_is_the_templates_or_stands_behind_the_users_last_message_alone() {
    let key = conversation().values(Earlier::Key("reasoning_content"), Arguments::Values);
    assert_eq!([&key[1]["reasoning_content"], &key[3]["reasoning_content"]], [&json!("old"), &json!("new")]);
    let inline = conversation().values(Earlier::Inline("<think>", "</think>"), Arguments::Values);
    assert_eq!([&inline[1]["content"], &inline[3]["content"]], [&json!("first"), &json!("<think>\nnew\n</think>\n\n")]);
    let dropped = conversation().values(Earlier::Dropped, Arguments::Values);
    assert!(!Value::Array(dropped).to_string().contains("new"));
}
