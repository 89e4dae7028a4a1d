//! Tools whose schemas cannot be enforced, told apart in a conversation with several.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use mlx_serving_model::synth::Synth;
use mlx_serving_runtime::{
    Config, Conversation, Generate, Input, Message, Model, OpenOptions, PromptError, Role, Runtime, Source, Structure,
    Tool, ToolChoice,
};
use serde_json::{Value, json};
use std::path::Path;

/// A random model with this chat template, written into `dir` and opened.
fn open(dir: &Path, template: &str) -> Model {
    let synth = Synth { shape: "tiny-qwen3".into(), bits: 4, group_size: 64, seed: 7 };
    synth.write(dir).unwrap();
    std::fs::write(dir.join("chat_template.jinja"), template).unwrap();
    let mut config = Config::default();
    (config.engine.device, config.engine.threads) = ("cpu".into(), 2);
    Runtime::new(config).open(&Source::from(dir.to_str()), OpenOptions::default()).unwrap()
}

fn tool(index: usize, strict: bool, argument: Value) -> Tool {
    let name = format!("f{index}");
    let parameters = json!({ "type": "object", "properties": { "a": argument } });
    let function = json!({ "name": name, "parameters": parameters });
    Tool { name, definition: json!({ "type": "function", "function": function }), parameters, strict, index }
}

fn prepare(model: &Model, tools: Vec<Tool>, choice: ToolChoice, asked: Option<&Structure>) -> Result<(), PromptError> {
    let messages = vec![Message::new(Role::User, "hi")];
    let conversation = Conversation { tools, tool_choice: choice, ..Conversation::new(messages) };
    model.prepare(Input::Conversation { conversation, special: false }, asked, &mut || true).map(drop)
}

#[test]
fn the_tool_whose_schema_cannot_be_enforced_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let model =
        open(dir.path(), "{% for tool in tools or [] %}<tool_call>{{ tool }}{% endfor %}{{ messages[0].content }}");
    let (fine, odd) = (|| json!({ "type": "integer" }), || json!({ "not": {} }));
    // Loose schemas are held to names and types alone.
    prepare(&model, vec![tool(0, true, fine()), tool(2, false, odd())], ToolChoice::Auto, None).unwrap();
    for choice in [ToolChoice::Auto, ToolChoice::Required, ToolChoice::Named("f4".into())] {
        let tools = vec![tool(0, true, fine()), tool(2, false, odd()), tool(4, true, odd())];
        let error = prepare(&model, tools, choice, None).unwrap_err();
        assert!(matches!(&error, PromptError::Tool { name, index: 4, .. } if name == "f4"), "{error}");
        assert!(error.to_string().contains("#/properties/a/not"), "{error}");
    }
    let form = Structure::Schema(odd());
    let error = prepare(&model, vec![tool(0, true, fine())], ToolChoice::Auto, Some(&form)).unwrap_err();
    assert!(matches!(error, PromptError::Structure(_)), "the content's form, not a tool's: {error}");
}

#[test]
fn a_strict_tool_of_a_model_that_calls_in_no_known_format_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = open(dir.path(), "{{ tools }}{{ messages[0].content }}");
    let tools = || vec![tool(0, false, json!({})), tool(3, true, json!({}))];
    let error = prepare(&model, tools(), ToolChoice::Auto, None).unwrap_err();
    assert!(matches!(error, PromptError::NoStrictCalls { index: 3, .. }), "{error}");
    let error = prepare(&model, tools(), ToolChoice::Required, None).unwrap_err();
    assert!(matches!(error, PromptError::NoCalls), "{error}");
}
