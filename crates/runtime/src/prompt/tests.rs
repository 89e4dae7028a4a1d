use super::*;
use crate::conversation::{Message, Tool, ToolCall, ToolChoice};
use mlx_serving_text::{CallFormat, ReasoningFormat};
use serde_json::json;

/// Templates in the style of each family, shortened to what matters here.
const QWEN: &str = r#"{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}Answer with {"name": <name>, "arguments": <object>} within <tool_call></tool_call> tags.<|im_end|>
{% endif %}{% set ns = namespace(last=-1) %}{% for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content is string and loop.index0 > ns.last %}<think>
{{ message.reasoning_content.strip('\n') }}
</think>

{% endif %}{{ message.content }}{% for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"#;
/// Writes arguments as they are, and opens reasoning.
const DEEPSEEK: &str = "{% for tool in tools or [] %}{{ tool['function']['name'] }};{% endfor %}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\
    {% for call in m.tool_calls %}{{ call['function']['name'] + '\n' + call['function']['arguments'] }}{% endfor %}{% endfor %}\
    {% if add_generation_prompt %}<|assistant|><think>\n{% endif %}";
const PLAIN: &str = "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }} [end]\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";

fn info() -> Info {
    Info { vocab: 4096, max_context: 4096, model_context: 4096, kv_bytes: 0, max_live: 1, generates: true, width: 1 }
}

fn tool() -> Tool {
    let parameters = json!({ "type": "object", "properties": { "k": { "type": "integer", "maximum": 9 } } });
    let definition = json!({ "type": "function", "function": { "name": "f", "parameters": parameters } });
    Tool { name: "f".into(), definition, parameters, strict: false, index: 0 }
}

fn asked() -> Conversation {
    Conversation { tools: vec![tool()], ..Conversation::new(vec![Message::new(Role::User, "hi")]) }
}

fn render(
    template: &str,
    formats: Formats,
    conversation: &Conversation,
) -> Result<(String, OutputFormat), PromptError> {
    let template = ChatTemplate::new(template, &[]).unwrap();
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/rustbook-5m-4bit");
    let tokenizer = Tokenizer::from_dir(std::path::Path::new(dir)).unwrap();
    let info = info();
    Prompter { model: "m", tokenizer: &tokenizer, template: Some(&template), formats, info: &info }.render(conversation)
}

const THINK: Formats = Formats { reasoning: Some(ReasoningFormat::Think), calls: Some(CallFormat::Hermes) };

fn reasons(format: &OutputFormat) -> bool {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/rustbook-5m-4bit");
    let tokenizer = Tokenizer::from_dir(std::path::Path::new(dir)).unwrap();
    let stops = mlx_serving_text::StopMatcher::new::<&str>(&[]).unwrap();
    mlx_serving_text::AnswerText::new(&tokenizer, None, stops, format).reasons()
}

#[test]
fn tools_are_rendered_unless_none_may_be_called() {
    let (text, format) = render(QWEN, THINK, &asked()).unwrap();
    assert!(text.starts_with("<|im_start|>system\n{\"type\": \"function\", \"function\": {\"name\": \"f\""), "{text}");
    assert_eq!((format.calls(), format.tools()[0].name.as_str()), (Some(CallFormat::Hermes), "f"));
    let (text, format) = render(QWEN, THINK, &Conversation { tool_choice: ToolChoice::None, ..asked() }).unwrap();
    assert_eq!((text.as_str(), format.calls()), ("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", None));
}

#[test]
fn a_template_that_knows_no_tools_refuses_them() {
    let error = render(PLAIN, THINK, &asked()).unwrap_err();
    assert!(error.to_string().starts_with("this model's chat template knows no tools"), "{error}");
    assert!(render(PLAIN, THINK, &Conversation { tool_choice: ToolChoice::None, ..asked() }).is_ok());
}

#[test]
fn calls_go_into_the_prompt_in_the_shape_that_the_template_takes() {
    let mut conversation = asked();
    let call = ToolCall { id: "a".into(), name: "f".into(), arguments: json!({ "k": 1, "é": "x" }) };
    conversation.messages.push(Message {
        calls: vec![call],
        reasoning: Some("Hm".into()),
        ..Message::new(Role::Assistant, "")
    });
    conversation.messages.push(Message { call_id: Some("a".into()), ..Message::new(Role::Tool, "7") });
    let (text, _) = render(QWEN, THINK, &conversation).unwrap();
    let answer = "<think>\nHm\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"k\": 1, \"é\": \"x\"}}\n</tool_call><|im_end|>\n";
    assert!(
        text.ends_with(&format!(
            "<|im_start|>assistant\n{answer}<|im_start|>tool\n7<|im_end|>\n<|im_start|>assistant\n"
        )),
        "{text}"
    );
    let (text, _) = render(DEEPSEEK, THINK, &conversation).unwrap();
    let answer = "<think>\nHm\n</think>\n\nf\n{\"k\":1,\"é\":\"x\"}";
    assert_eq!(text, format!("f;<|user|>hi<|assistant|>{answer}<|tool|>7<|assistant|><think>\n"));
    // The user's next message ends this.
    conversation.messages.push(Message::new(Role::User, "so?"));
    assert!(!render(QWEN, THINK, &conversation).unwrap().0.contains("Hm"));
    assert!(!render(DEEPSEEK, THINK, &conversation).unwrap().0.contains("Hm"));
}

#[test]
fn forced_and_strict_calls_have_a_structure_and_content_beside_calls_another() {
    let structures = |conversation: &Conversation, formats: Formats, asked: Option<Structure>| {
        let template = ChatTemplate::new(QWEN, &[]).unwrap();
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/rustbook-5m-4bit");
        let tokenizer = Tokenizer::from_dir(std::path::Path::new(dir)).unwrap();
        let info = Info { max_context: 4000, ..info() };
        let input = Input::Conversation { conversation: conversation.clone(), special: false };
        Prompter { model: "m", tokenizer: &tokenizer, template: Some(&template), formats, info: &info }
            .prepare(input, asked.as_ref(), &mut || true)
            .map(|(_, structures)| structures.list)
    };
    let larks = |conversation: &Conversation, asked: Option<Structure>| -> Vec<String> {
        let structures = structures(conversation, THINK, asked).unwrap();
        let lark = |structure| match structure {
            Structure::Lark(text) => text,
            other => panic!("{other:?}"),
        };
        structures.into_iter().map(lark).collect()
    };
    let choosing = |tool_choice: ToolChoice| Conversation { tool_choice, ..asked() };
    assert!(larks(&asked(), None).is_empty());
    assert!(larks(&choosing(ToolChoice::None), None).is_empty());
    let required = larks(&choosing(ToolChoice::Required), Some(Structure::Object));
    assert!(required[0].contains(r#""\"f\"""#) && required[0].contains("maximum"), "{required:?}");
    assert!(required[1].contains("integer") && !required[1].contains("maximum"), "{required:?}");
    let mut two = choosing(ToolChoice::Named("f".into()));
    two.tools.push(Tool { name: "g".into(), ..tool() });
    assert!(!larks(&two, None)[0].contains(r#"\"g\""#));
    let strict =
        Conversation { tools: vec![Tool { strict: true, ..tool() }, Tool { name: "g".into(), ..tool() }], ..asked() };
    assert_eq!(larks(&strict, None).iter().map(|lark| lark.matches("maximum").count()).collect::<Vec<_>>(), [2, 1]);
    let either = larks(&asked(), Some(Structure::Schema(json!({ "minLength": 7 }))));
    assert!(either[0].contains("calls | text") && either[0].contains("minLength"), "{either:?}");
    let both = structures(&asked(), THINK, Some(Structure::Regex("a".into()))).unwrap_err();
    assert!(both.to_string().contains("tool_choice"), "{both}");
    let pythonic = Formats { calls: Some(CallFormat::Pythonic), ..THINK };
    let spaced = json!({ "properties": { "user name": {} } });
    let spaced = Tool { name: "g".into(), parameters: spaced, index: 4, ..tool() };
    let spaced = Conversation { tools: vec![tool(), spaced], ..asked() };
    assert!(structures(&spaced, pythonic, Some(Structure::Object)).is_ok(), "nothing holds a call to it");
    let forced = Conversation { tool_choice: ToolChoice::Required, ..spaced.clone() };
    assert!(structures(&forced, THINK, None).is_ok(), "JSON has any name");
    let error = structures(&forced, pythonic, None).unwrap_err();
    assert!(
        matches!(&error, PromptError::Tool { index: 4, .. }) && error.to_string().contains("\"user name\""),
        "{error}"
    );
    let named = Conversation { tool_choice: ToolChoice::Named("f".into()), ..spaced };
    assert!(structures(&named, pythonic, None).is_ok());
    let unknown = Formats { calls: None, ..THINK };
    let error = structures(&choosing(ToolChoice::Required), unknown, None).unwrap_err();
    assert!(error.to_string().contains("models.tool_call_format"), "{error}");
}

#[test]
fn the_prompts_end_says_whether_the_answer_begins_within_reasoning() {
    let of = |template: &str, conversation: &Conversation| reasons(&render(template, THINK, conversation).unwrap().1);
    assert!(of(DEEPSEEK, &asked()));
    assert!(!of(QWEN, &asked()));
    let variables = json!({ "enable_thinking": false }).as_object().cloned();
    let (text, format) = render(QWEN, THINK, &Conversation { variables, ..asked() }).unwrap();
    assert!(text.ends_with("<think>\n\n</think>\n\n") && !reasons(&format));
    let spoken = Conversation::new(vec![Message::new(Role::User, "what is <think>")]);
    assert!(!of(PLAIN, &spoken));
}

#[test]
fn the_final_message_is_continued_where_its_text_ends() {
    let continued = |text: &str, template: &str| {
        let messages = vec![Message::new(Role::User, "So"), Message::new(Role::Assistant, text)];
        render(template, THINK, &Conversation { continue_final_message: true, ..Conversation::new(messages) })
    };
    assert_eq!(continued("So it", QWEN).unwrap().0, "<|im_start|>user\nSo<|im_end|>\n<|im_start|>assistant\nSo it");
    // The template trims; what it keeps of the space stays.
    assert_eq!(continued(" So it ", PLAIN).unwrap().0, "[user] So [end]\n[assistant] So it ");
    assert_eq!(continued("So it\n\n", PLAIN).unwrap().0, "[user] So [end]\n[assistant] So it");
    assert!(reasons(&continued("<think>\nHm", QWEN).unwrap().1));
    assert!(!reasons(&continued("<think>\nHm</think>So", QWEN).unwrap().1));
    assert!(continued(" ", QWEN).unwrap_err().to_string().contains("it has no text"));
    assert!(
        continued("x y", "{% for m in messages %}{{ m.content | replace('x', '') }}{% endfor %}")
            .unwrap_err()
            .to_string()
            .contains("as it is")
    );
    let user = Conversation { continue_final_message: true, ..asked() };
    assert!(render(QWEN, THINK, &user).unwrap_err().to_string().contains("the assistant's"));
    let none = Conversation { add_generation_prompt: false, ..Conversation::new(vec![Message::new(Role::User, "hi")]) };
    assert_eq!(render(PLAIN, THINK, &none).unwrap().0, "[user] hi [end]\n");
}
